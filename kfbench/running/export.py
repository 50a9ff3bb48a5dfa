"""A recorded student for the world outside: safetensors, or a .pt2 that needs no kfbench; a JSON beside it."""

import io
import json
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from kfbench.errors import KfbenchError
from kfbench.networks import weights
from kfbench.networks.network import Network
from kfbench.networks.saved import Damaged
from kfbench.running import identity, records
from kfbench.running.files import EXPORTS, require_ending, write_bytes, write_text
from kfbench.running.records import RunRecord

_TAKES = (
    "images [B, *shape], 3 channels as RGB, floats in 0..1; it applies mean and std itself. Of another size: Pillow's "
    "Image.resize((W, H), BICUBIC) for stretched, ImageOps.fit(image, (W, H), BICUBIC) for cropped"
)
_GIVES = "logits [B, outputs], a class its place in classes; of a game (logits, values [B])"


class Plain(nn.Module):
    """Takes images [B, C, H, W], float in 0..1; returns logits [B, K], or (logits, value [B]) in games."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return tensors only, so that the file needs no class of ours."""
        logits, value = self.network(images)
        return logits if value is None else (logits, value)


def export(key: str, path: Path, *, results: Path) -> list[Path]:
    """Write the student that a run kept; return the files written.

    `.safetensors` gives the weights, `.pt2` a program with a dynamic batch; `<path>.json` says what it takes and gives:
    the images' shape, mean and std (a program applies them itself), the classes in the outputs' order. Raises
    KfbenchError if the run or its weights are not there, or the path ends otherwise.
    """
    require_ending(path, EXPORTS)
    record, network, about = load(key, results=results)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() == ".safetensors":
            weights.save(network, path, about)
        else:
            whole = io.BytesIO()
            torch.export.save(program(network), whole)
            write_bytes(path, whole.getvalue())
            about |= {"takes": _TAKES, "gives": _GIVES}
        beside = path.with_name(path.name + ".json")
        described = {"network": network.name, "shape": list(network.shape), "outputs": network.outputs, **about}
        described |= {"mean": network.mean.flatten().tolist(), "std": network.std.flatten().tolist()}
        described |= {"scores": record.scores, "spec": record.spec}
        write_text(beside, json.dumps(described, indent=1, sort_keys=True) + "\n")
        return [path, beside]
    except OSError as error:
        raise KfbenchError(f"cannot write '{path}' ({error.strerror})") from error


def kept(key: str, *, results: Path) -> tuple[RunRecord, Path]:
    """Return a run's record and the file of what it kept.

    Raises KfbenchError if the weights are gone, or none were kept, or the user's own file of the network was edited.
    """
    folder, record = records.locate(results, key)
    if record.status != "done":
        raise KfbenchError(f"run '{record.key}' failed ({record.error}): it kept no network")
    if "weights" not in record.provenance:  # what is scored then is the student among its teachers
        raise KfbenchError(
            f"run '{record.key}' kept no network: a student of '{record.spec['method']}' cannot stand without what it "
            "was trained with; use a run of another method"
        )
    path = records.path_of(folder, record.key, record.spec).with_suffix(".safetensors")
    if not path.is_file():
        raise KfbenchError(
            f"the weights of run '{record.key}' are not here; kfbench verify {record.key} puts them back, where the "
            "run comes out bit-equal; else run it again with --force"
        )
    before, network = record.identity.get("network_file"), record.spec["recipe"]["network"]
    if (now := identity.own_network(network)) is not None and before not in (None, now):
        raise KfbenchError(
            f"the file of network '{network}' has changed since run '{record.key}': its weights would be those of "
            "another network; put the file back as it was, or make the run again"
        )
    return record, path


def load(key: str, *, results: Path) -> tuple[RunRecord, Network, dict[str, Any]]:
    """Return a run's record, the network it kept and its description. Raises KfbenchError if the weights are gone."""
    record, path = kept(key, results=results)
    remedy = f"delete it, then: kfbench verify {record.key}"
    try:
        network, about, digest = weights.load(path)
    except Damaged as error:
        raise KfbenchError(f"{error.what}; {remedy}") from error
    if digest != record.provenance["weights"]:
        raise KfbenchError(f"'{path}' is not what run '{record.key}' kept; {remedy}")
    return record, network, about


def program(network: Network) -> torch.export.ExportedProgram:
    """Return the network as a graph with a dynamic batch."""
    two = torch.zeros(2, *network.shape)
    batch = torch.export.Dim("batch")
    return torch.export.export(cast(nn.Module, Plain(network).eval()), (two,), dynamic_shapes=({0: batch},))
