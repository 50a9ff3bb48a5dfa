"""Students on the Hugging Face hub: a run's network with a card made from its record, and back as a teacher.

A repository holds model.safetensors (the very file that the run kept, which describes itself), config.json and
README.md. Whom the hub lets write is the library's matter (`hf auth login`, or $HF_TOKEN); $HF_ENDPOINT names another
hub.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from kfbench.data.hub import library, told
from kfbench.errors import KfbenchError
from kfbench.networks import weights
from kfbench.networks.network import Network
from kfbench.running import export, model_card, records
from kfbench.running.files import write_text

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"


def push(key: str, repository: str, *, results: Path, private: bool = False, licence: str = "") -> str:
    """Put the student that a run kept on the hub as ORG/NAME; return the address of the commit.

    Raises KfbenchError if the run or its weights are not here, or the hub does not take them.
    """
    api = library().HfApi(library_name="kfbench")
    with tempfile.TemporaryDirectory(prefix="kfbench-push-") as temporary:
        folder = Path(temporary)
        write(folder, key, repository, results=results, licence=licence)
        with told(f"put '{repository}' on the hub"):
            api.create_repo(repository, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repository, folder_path=folder, commit_message=f"Run {key} of kfbench", repo_type="model"
            )
    return str(commit.commit_url)


def write(folder: Path, key: str, repository: str, *, results: Path, licence: str = "") -> None:
    """Write what a repository of a run's student holds into a folder. Raises KfbenchError if the weights are gone."""
    record, network, about = export.load(key, results=results)
    place, _ = records.locate(results, key)
    shutil.copy(records.path_of(place, record.key, record.spec).with_suffix(".safetensors"), folder / WEIGHTS)
    config = {
        "library_name": "kfbench",
        "network": network.name,
        "shape": list(network.shape),
        "outputs": network.outputs,
        "mean": network.mean.flatten().tolist(),
        "std": network.std.flatten().tolist(),
        **about,
        "digest": record.provenance["weights"],
        "scores": record.scores,
        "spec": record.spec,
    }
    write_text(folder / CONFIG, json.dumps(config, indent=1, sort_keys=True) + "\n")
    write_text(folder / CARD, model_card.text(record, network, repository, licence=licence))


def fetch(name: str) -> tuple[Network, dict[str, Any], str]:
    """Return the network of ORG/NAME or ORG/NAME@REVISION, its description and the digest of its weights.

    What was fetched before comes from the library's cache where the hub cannot be reached. Raises KfbenchError if there
    is no such repository, or it is not one of ours.
    """
    repository, _, revision = name.partition("@")
    hub = library()
    with told(f"fetch 'hf:{name}'"):
        path, config = (
            Path(hub.hf_hub_download(repository, file, revision=revision or None, library_name="kfbench"))
            for file in (WEIGHTS, CONFIG)
        )
    try:
        said = json.loads(config.read_bytes())
        known = {key: said[key] for key in ("network", "shape", "outputs")}
    except (ValueError, KeyError, TypeError) as error:
        raise KfbenchError(
            f"'hf:{name}' is no network that kfbench push put there: its {CONFIG} has no network, shape and outputs"
        ) from error
    network, about, digest = weights.load(path)
    if about["network"] != known["network"] or ("digest" in said and said["digest"] != digest):
        raise KfbenchError(f"'hf:{name}' holds other weights than its {CONFIG} says; give another @REVISION")
    return network, about, digest
