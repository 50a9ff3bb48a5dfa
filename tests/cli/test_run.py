"""What a newcomer types: run, show, export."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from console import TINY, imported_by, key_of

from kfbench.networks import weights
from kfbench.running import export, records


def test_run_show_and_run_again(type_in: Any) -> None:
    command = ["run", "--method", "kf", "--task", "digits", "--teachers", "digits/low/cnn-4@smoke:epochs=1", *TINY]
    first = type_in(*command)
    assert first.code == 0, first
    assert "about" in first.lines[0] and "on this machine" in first.lines[0]
    assert "teachers to train first: digits/low/cnn-4" in first.lines[1]
    for word in (
        "test error",
        "student alone",
        "share       mean of layers: ",
        "kept ",
        "parameters",
        "time ",
        "record ",
        "before cut",
    ):
        assert word in first.out, first.out
    [record] = records.records(Path("results"))
    again = type_in(*command)
    assert again.code == 0 and again.lines[-1].startswith("recorded already") and record.key in again.lines[-1]
    assert again.out == first.out and "on this machine" not in again.err
    shown = type_in("show", record.key[:6])
    assert shown.code == 0 and first.out.strip().splitlines()[0] in shown.out
    assert "settings" in shown.out and "versions" in shown.out and "recipe" in shown.out
    told = json.loads(type_in("show", record.key, "--json").out)
    assert told["key"] == record.key and told["curve"] == record.curve
    assert json.loads(type_in(*command, "--json").out) == told
    done, imported = imported_by(*command)
    assert done.code == 0 and imported == {"torch", "numpy"}  # the others are of no use to find a record


def test_too_few_steps_are_told_of(type_in: Any) -> None:
    words = ["run", "--method", "scratch", "--task", "digits", "--network", "cnn-4", "--threads", "1"]
    for more, note in (
        (["--epochs", "2", "--train-size", "96"], "makes 2 optimiser steps in all, too few to learn much"),
        (["--epochs", "4.5", "--train-size", "1290"], "makes 90 optimiser steps in all"),
        (["--epochs", "5", "--train-size", "1290"], ""),  # 100
        (["--epochs", "1", "--train-size", "96", "--budget", "smoke"], ""),
    ):
        done = type_in(*words, *more)
        assert done.code == 0 and note in done.err and ("too few" in done.err) == bool(note), done
    [line] = [line for line in type_in(*words, *more[:4], "--seed", "1").lines if "too few" in line]
    assert line == (
        "note: scratch on digits, cnn-4, makes 1 optimiser step in all, too few to learn much; "
        "--set-recipe epochs=1000 makes 1,000"
    )


def test_numbers_that_json_has_not_are_null(type_in: Any, recorded: Path, tmp_path: Path) -> None:
    """A loss that ran out of numbers is kept as it was, but `--json` is for programs that know no NaN."""
    results = shutil.copytree(recorded, tmp_path / "results")
    [record] = records.records(results)
    record.curve[0]["loss"], record.scores["last"]["loss"] = float("nan"), float("inf")
    records.write(results, record)
    told = json.loads(type_in("show", record.key, "--results", results, "--json").out, parse_constant=pytest.fail)
    assert told["curve"][0]["loss"] is None and told["scores"]["last"]["loss"] is None
    assert told["scores"]["last"]["error"] == record.scores["last"]["error"]


@pytest.mark.parametrize(
    "teachers",
    [
        "digits/low/cnn-4@smoke:epochs=1,digits/high/mlp-30@smoke:epochs=1,random:digits",
        "torchvision:mobilenet_v3_small",
        "timm:test_resnet",
        "run:KEY,file:FILE",
    ],
)
def test_teachers_of_every_origin(teachers: str, type_in: Any, recorded: Path) -> None:
    if "timm" in teachers:
        pytest.importorskip("timm")
    shutil.copytree(recorded, "results")
    [file] = Path("results").glob("digits/scratch/*.safetensors")
    teachers = teachers.replace("KEY", key_of(recorded)).replace("FILE", str(file))
    command = ["run", "--method", "kf", "--task", "digits", "--teachers", teachers, *TINY, "--train-size", "60"]
    done = type_in(*command, "--batch-size", "20", "--json")
    assert done.code == 0, done
    record = json.loads(done.out)
    assert len(record["spec"]["teachers"]) == len(record["provenance"]["teachers"]) == len(teachers.split(","))
    for teacher in record["provenance"]["teachers"]:
        assert len(teacher["digest"]) == 64
        shares = [name for name in record["curve"][-1] if name.endswith(teacher["name"])]
        assert shares, record["curve"][-1]


LOADS = """
import sys
assert not any("kfbench" in name for name in sys.modules)
import torch
from safetensors.torch import load_file
program, cases = torch.export.load(sys.argv[1]).module(), load_file(sys.argv[2])
for size in (1, 2, 3, 7):
    images = cases["images"][:size]
    with torch.no_grad():
        assert torch.equal(program(images), cases[f"logits.{size}"]), size
try:
    import kfbench
except ImportError:
    print("equal, without kfbench")
"""


def test_export_for_a_program_that_has_no_kfbench(type_in: Any, recorded: Path, tmp_path: Path) -> None:
    key = key_of(recorded)
    done = type_in("export", key, "out/student.pt2", "--results", recorded)
    assert (done.code, done.out) == (0, "out/student.pt2\nout/student.pt2.json\n"), done
    _, network, _ = export.load(key, results=recorded)
    images = torch.rand(7, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    cases = {"images": images}
    torch.set_num_threads(1)
    with torch.no_grad():
        for size in (1, 2, 3, 7):
            cases[f"logits.{size}"] = network.eval()(images[:size]).logits
    from safetensors.torch import save_file

    save_file(cases, "cases.safetensors")
    # -S and a path of links: the process has torch's site-packages, and not kfbench's
    site = tmp_path / "site"
    site.mkdir()
    for folder in {Path(torch.__file__).parents[1]}:
        for entry in folder.iterdir():
            if "kfbench" not in entry.name and entry.suffix != ".pth":
                (site / entry.name).symlink_to(entry)
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-S", "-c", LOADS, "out/student.pt2", "cases.safetensors"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "equal, without kfbench\n", done.stderr


def test_export_of_weights_describes_itself_and_serves_as_a_teacher(type_in: Any, recorded: Path) -> None:
    done = type_in("export", key_of(recorded), "student.safetensors", "--results", recorded)
    assert done.code == 0 and done.out.split() == ["student.safetensors", "student.safetensors.json"]
    again = type_in("export", key_of(recorded), "student.safetensors", "--results", recorded, "--json")
    assert json.loads(again.out) == {"files": done.out.split()}
    told = json.loads(Path("student.safetensors.json").read_text())
    record = next(records.records(recorded))
    assert (told["network"], told["shape"], told["outputs"]) == ("cnn-4", [1, 8, 8], 10)
    assert told["scores"] == record.scores and told["spec"] == record.spec
    _, network, _ = export.load(record.key, results=recorded)
    loaded, about, digest = weights.load(Path("student.safetensors"))
    assert digest == record.provenance["weights"] and len(about["classes"]) == 10
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in network.state_dict().items())


def test_a_teacher_that_is_trained_is_told_as_its_record(type_in: Any) -> None:
    name = "digits/cnn-4@smoke:epochs=1+evaluations=1"
    done = json.loads(type_in("teacher", "train", name, "--json").out)
    [path] = Path("results/teachers").rglob(f"{done['key']}.json")
    assert done == {"teacher": name, **json.loads(path.read_text())}


def test_export_without_the_weights_says_how_to_get_them(type_in: Any, recorded: Path) -> None:
    shutil.copytree(recorded, "results")
    [file] = Path("results").glob("digits/scratch/*.safetensors")
    file.unlink()
    done = type_in("export", key_of(recorded), "student.safetensors")
    assert done.code == 2 and f"kfbench verify {key_of(recorded)} puts them back" in done.err and len(done.lines) == 1


def test_a_student_that_needs_its_teachers_left_no_weights_to_look_for(type_in: Any, recorded: Path) -> None:
    """`verify` would train it again, and bring no file back."""
    shutil.copytree(recorded, "results")
    [path] = Path("results").glob("digits/scratch/*.json")
    path.with_suffix(".safetensors").unlink()
    told = json.loads(path.read_text())
    del told["provenance"]["weights"]  # as in a record of progressive or pathnet
    path.write_text(json.dumps(told))
    done = type_in("export", key_of(recorded), "student.safetensors")
    assert done.code == 2 and "kept no network" in done.err and "verify" not in done.err and len(done.lines) == 1
    assert "(student with all it keeps, after the last step)" in type_in("show", key_of(recorded)).out
