"""Files that are named on the command line and are none that it can use: teachers, archives, one's own method."""

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from console import RUN

from kfbench import networks
from kfbench.networks import weights


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("executed", "w"))


def test_teacher_files_that_are_not_whole_safetensors_are_refused(type_in: Any, recorded: Path, tmp_path: Path) -> None:
    [good] = recorded.glob("digits/scratch/*.safetensors")
    Path("cut.safetensors").write_bytes(good.read_bytes()[:-100])
    Path("pickle.safetensors").write_bytes(pickle.dumps(Evil()))
    torch.save({"weight": torch.zeros(2)}, "torch.pt")
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, "foreign.safetensors")
    save_file({"weight": torch.zeros(2)}, "other.safetensors")
    Path("other.safetensors.json").write_text('{"network": "cnn-4", "shape": [1, 8, 8], "outputs": 10}')
    for name, said in {
        "cut.safetensors": "not a whole safetensors file",
        "pickle.safetensors": "are refused: save",
        "torch.pt": "does not say what it is",
        "foreign.safetensors": "does not say what it is",
        "other.safetensors": "are not those of 'cnn-4'",
    }.items():
        done = type_in(*RUN.split(), "--method", "kf", "--teachers", f"file:{name}")
        assert done.code == 2 and len(done.lines) == 1 and said in done.err and name in done.err, done
    assert not Path("executed").exists()


def test_a_teacher_file_of_other_outputs_or_network_is_refused(type_in: Any) -> None:
    network = networks.make("cnn-4", shape=(1, 8, 8), outputs=5)
    weights.save(network, Path("five.safetensors"), {"classes": list("abcde")})
    done = type_in(*RUN.split(), "--method", "kd", "--teachers", "file:five.safetensors")
    assert done.code == 2 and "has 5 others" in done.err and len(done.lines) == 1
    done = type_in(*RUN.split(), "--method", "finetune", "--teachers", "file:five.safetensors", "--network", "cnn-8")
    assert done.code == 2 and "is a 'cnn-4'" in done.err and len(done.lines) == 1


def test_bad_archives_are_one_line(type_in: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KFBENCH_DATA", str(tmp_path / "data"))
    Path("bad.zip").write_bytes(b"PK\x03\x04 and no more")
    with zipfile.ZipFile("image.zip", "w") as archive:
        for split in ("train", "test"):
            archive.writestr(f"{split}/ant/0.png", b"no image")
            archive.writestr(f"{split}/bee/0.png", b"no image")
    with zipfile.ZipFile("classes.zip", "w") as archive:
        archive.writestr("train/ant/0.png", b"")
        archive.writestr("test/bee/0.png", b"")
    Path("empty").mkdir()
    for name, said in {
        "bad.zip": "is no sound zip archive",
        "image.zip": "ant/0.png",
        "classes.zip": "class 'ant' is in train/ and not in test/",
        "empty": "holds no images",
    }.items():
        done = type_in("data", "import", "bugs", name)
        assert done.code == 2 and len(done.lines) == 1 and said in done.err and name in done.err, done
    assert not list((tmp_path / "data").glob("*"))


RAISES = """
from dataclasses import dataclass

from kfbench.methods import Method


@dataclass(frozen=True)
class Mine(Method):
    def losses(self, student, teachers, batch, task, progress):
        return super().losses(student, teachers, batch, task, 1 / 0)
"""


def test_a_fault_of_ones_own_method_is_shown_from_its_file_on(type_in: Any) -> None:
    Path("mine.py").write_text(RAISES)
    done = type_in("run", "--method", "mine.py", *RUN.split()[1:])
    assert done.code == 1 and done.err.endswith("ZeroDivisionError: division by zero\n")
    files = re.findall(r'^  File "(.*)", line', done.err, re.MULTILINE)
    assert [Path(file).name for file in files] == ["mine.py"]
