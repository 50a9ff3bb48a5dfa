"""Students on the hub: pushed to and fetched from a server of this machine that speaks the hub's protocol."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import hub_server
import numpy as np
import pytest
import torch
from hub_server import Hub
from PIL import Image

from kfbench import networks
from kfbench.errors import KfbenchError
from kfbench.folders import PACKAGE
from kfbench.networks import weights
from kfbench.running import execute, hub, records, resolve

pytest.importorskip("huggingface_hub")
RUN = ("run", "--method", "kd", "--task", "digits", "--budget", "smoke", "--network", "cnn-4", "--epochs", "1")
TYPES = """
import contextlib, io, json, os, sys
from kfbench.cli import main
for words, environment in json.load(sys.stdin):
    os.environ.update(environment)
    sys.argv, out, err, code = ["kfbench", *words], io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main.main()
        except SystemExit as stopped:
            code = stopped.code or 0
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""


class Done(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def recorded(packed_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with one short run of scratch."""
    results = tmp_path_factory.mktemp("recorded") / "results"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KFBENCH_DATA", str(packed_digits))
        recipe = {"network": "cnn-8", "epochs": 1, "batch_size": 256}
        execute.run(resolve.resolve("scratch", "digits", budget="smoke", recipe=recipe), results=results)
    torch.set_num_threads(threads)
    return results


@pytest.fixture
def served() -> Iterator[Hub]:
    with hub_server.running() as there:
        yield there


def typed(served: Hub, folder: Path, *commands: tuple[tuple[str, ...], dict[str, str]]) -> list[Done]:
    """Type commands in one process of their own, for the library reads the hub's address when it is imported."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    env |= {"PYTHONPATH": str(PACKAGE.parent), "OMP_NUM_THREADS": "1", "HF_HOME": str(folder / "hf")}
    env |= {"HF_ENDPOINT": served.address, "HF_HUB_DISABLE_XET": "1"}
    code, text = [sys.executable, "-c", TYPES], json.dumps(commands)
    done = subprocess.run(code, env=env, cwd=folder, input=text, capture_output=True, text=True, check=True)
    return [Done(*json.loads(line)) for line in done.stdout.splitlines()]


def test_from_a_run_to_the_hub_and_back_as_a_teacher(
    served: Hub, recorded: Path, packed_digits: Path, tmp_path: Path
) -> None:
    [record] = records.records(recorded)
    push = ("push", record.key, "lab/digits-cnn", "--license", "mit", "--results", str(recorded))
    # to read, nobody has to be known
    read = {"HF_TOKEN": "", "KFBENCH_DATA": str(packed_digits)}
    first, pushed, ran = typed(
        served,
        tmp_path,
        ((*push[:2], "lab/again", *push[3:], "--json"), {"HF_TOKEN": hub_server.TOKEN}),
        (push, {"HF_TOKEN": hub_server.TOKEN}),
        ((*RUN, "--teachers", "hf:lab/digits-cnn", "--results", "results"), read),
    )
    found = json.loads(first.out)
    assert found["teacher"] == "hf:lab/again" and f"{served.address}/lab/again/commit/" in found["commit"]
    assert (pushed.code, ran.code) == (0, 0), (pushed.err, ran.err)
    sha = served.sha("lab/digits-cnn")
    assert f"{served.address}/lab/digits-cnn/commit/{sha}" in pushed.out
    assert "--teachers hf:lab/digits-cnn" in pushed.out
    held = served.files["lab/digits-cnn"]
    assert sorted(held) == ["README.md", "config.json", "model.safetensors"] and not served.private["lab/digits-cnn"]
    [file] = recorded.glob("digits/scratch/*.safetensors")
    assert held["model.safetensors"] == file.read_bytes() and "PUT lfs" in served.asked
    config = json.loads(held["config.json"])
    assert config["network"] == "cnn-8" and config["scores"] == record.scores and config["spec"] == record.spec
    card = held["README.md"].decode()
    assert "license: mit" in card and "library_name: kfbench" in card and f"run `{record.key}`" in card
    assert f"value: {round(100 - record.scores['last']['error'], 4)}" in card
    assert f"| error, % | test, after the last step | {record.scores['last']['error']:.2f} |" in card
    assert "| network | cnn-8 |" in card and f"{record.cost['parameters']:,.0f} parameters" in card

    [made] = records.records(tmp_path / "results")
    assert made.spec["teachers"] == ["hf:lab/digits-cnn"]
    assert made.identity["teachers"] == [record.provenance["weights"]]
    assert made.provenance["teachers"][0]["task"] == "digits"
    asked = len(served.asked)
    code = (
        f"from kfbench import library; made = library.load('hf:lab/digits-cnn@{sha}'); print(made.name, made.training)"
    )
    env = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": str(PACKAGE.parent), "HF_HUB_OFFLINE": "1"}
    offline = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert offline.stdout == "cnn-8 False\n" and len(served.asked) == asked


def test_a_data_set_of_the_hub_is_imported_by_its_name(served: Hub, tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")

    def file(count: int, seed: int) -> bytes:
        images = np.random.default_rng(seed).integers(0, 256, (count, 4, 5, 3), np.uint8)
        buffers = [io.BytesIO() for _ in images]
        for image, buffer in zip(images, buffers, strict=True):
            Image.fromarray(image).save(buffer, "png")
        pictures = [{"bytes": buffer.getvalue(), "path": "a.png"} for buffer in buffers]
        made = io.BytesIO()
        parquet.write_table(pa.table({"image": pictures, "label": ["cat", "dog"] * (count // 2)}), made)
        return made.getvalue()

    pets = {"data/train-00000-of-00001.parquet": file(8, 0), "data/test-00000-of-00001.parquet": file(4, 1)}
    served.files["datasets/lab/pets"] = {"README.md": b"---", **pets, "data/large.bin": b"not asked for"}
    served.files["datasets/lab/zipped"] = {"README.md": b"---", "pets.zip": b"x"}
    served.files["datasets/lab/zipped@refs/convert/parquet"] = {
        f"default/{split}/0000.parquet": content
        for split, content in zip(("train", "test"), pets.values(), strict=True)
    }
    served.files["datasets/lab/large"] = {"README.md": b"---"}
    served.files["datasets/lab/large@refs/convert/parquet"] = {
        "default/partial-train/0000.parquet": pets["data/train-00000-of-00001.parquet"]
    }
    served.files["datasets/lab/text"] = {"README.md": b"---"}
    served.files["datasets/lab/two"] = {f"{folder}/{name}": pets[name] for folder in ("one", "other") for name in pets}
    data = {"KFBENCH_DATA": str(tmp_path / "data"), "HF_TOKEN": ""}
    cases: list[tuple[tuple[str, ...], int, str]] = [
        (("pets", "hf:lab/pets"), 0, "pets: 8 training and 4 test images, 3×4×5, 2 classes"),
        (("again", "hf:lab/pets@main"), 0, "again: 8 training"),
        (("zipped", "hf:lab/zipped"), 0, "zipped: 8 training"),
        (("one", "hf:lab/two/one"), 0, "one: 8 training"),
        (("two", "hf:lab/two"), 2, "as if they were two data sets; give one of them"),
        (("large", "hf:lab/large"), 2, "the hub has converted only a part of 'hf:lab/large'; fetch its images"),
        (("text", "hf:lab/text"), 2, "'hf:lab/text' holds no Parquet files; fetch its images"),
        (("none", "hf:lab/none"), 2, "could not fetch 'hf:lab/none': "),
        (("none", "hf:lab/pets@old"), 2, "could not fetch 'hf:lab/pets@old': "),
        (("none", "hf:pets"), 2, "'hf:pets' is no data set of the hub; write hf:ORG/NAME"),
    ]
    answers = typed(served, tmp_path, *((("data", "import", *words), data) for words, _, _ in cases))
    for done, (words, code, said) in zip(answers, cases, strict=True):
        assert done.code == code and said in (done.err if code else done.out), (words, done.out, done.err)
        assert not code or len(done.err.strip().splitlines()) == 1, done.err
    assert not any("large.bin" in asked for asked in served.asked)
    told = [json.loads((tmp_path / "data" / name / "pack.json").read_text()) for name in ("pets", "zipped", "one")]
    assert told[0]["source"] == "import of hf:lab/pets"
    assert told[0]["checksums"] == told[1]["checksums"] == told[2]["checksums"]


def test_what_the_hub_says_no_to_is_one_line(served: Hub, recorded: Path, packed_digits: Path, tmp_path: Path) -> None:
    [record] = records.records(recorded)
    push = ("push", record.key, "--results", str(recorded))
    data = {"KFBENCH_DATA": str(packed_digits), "HF_TOKEN": hub_server.TOKEN}
    cases = [
        ((*push, "lab/x"), {**data, "HF_TOKEN": "hf_wrong"}, "log in with: hf auth login"),
        ((*push, "others/x"), data, "this login may not write there"),
        ((*push, "no such name"), data, "could not put 'no such name' on the hub: "),
        ((*RUN, "--teachers", "hf:lab/nothing"), data, "could not fetch 'hf:lab/nothing': "),
    ]
    answers = typed(served, tmp_path, *((words, environment) for words, environment, _ in cases))
    for done, (words, _, said) in zip(answers, cases, strict=True):
        assert done.code == 2 and said in done.err and len(done.err.strip().splitlines()) == 1, (words, done.err)
    assert not served.files


def test_a_repository_that_is_not_ours_or_was_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = networks.make("cnn-4", shape=(1, 8, 8), outputs=10)
    digest = weights.save(network, tmp_path / hub.WEIGHTS, {"task": "digits"})
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda _, file, **__: str(tmp_path / file))
    about = {"network": "cnn-4", "shape": [1, 8, 8], "outputs": 10, "digest": digest}
    for told, said in (
        ({"architectures": ["Bert"]}, "'hf:a/b' is no network that kfbench push put there"),
        ({**about, "digest": "0"}, "'hf:a/b' holds other weights than its config.json says"),
        ({**about, "network": "cnn-8"}, "'hf:a/b' holds other weights than its config.json says"),
    ):
        (tmp_path / hub.CONFIG).write_text(json.dumps(told))
        with pytest.raises(KfbenchError, match=said):
            hub.fetch("a/b")
    (tmp_path / hub.CONFIG).write_text(json.dumps(about))
    assert hub.fetch("a/b@1")[2] == digest


def test_without_the_library_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(KfbenchError, match=r"needs the library huggingface_hub; pip install 'kfbench\[hub\]'"):
        hub.fetch("a/b")
