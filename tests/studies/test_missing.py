"""What counts as recorded: a run whose data, teachers, method file and code are those of today."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from console import Console
from PIL import Image

from kfbench import registry
from kfbench.reporting import grid
from kfbench.running import records
from kfbench.running.files import record_files
from kfbench.studies import definition

STUDY = """
title = "Pets"
budget = "smoke"
seeds = 1
methods = ["scratch", "kf"]
tasks = [{ task = "imagefolder/pets", label = "Pets", teachers = ["imported:mine"] }]
recipe = { network = "cnn-4", epochs = 1, batch_size = 16, evaluations = 1 }
"""


@pytest.fixture
def console(type_in: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Console:
    monkeypatch.setenv("KFBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reports" / "pets").mkdir(parents=True)
    (tmp_path / "reports" / "pets" / "study.toml").write_text(STUDY)
    return type_in


def typed(console: Console, *words: object) -> str:
    found = console(*words)
    assert found.code == 0, found.err
    return found.out + found.err


def photographs(console: Console, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for split, label, number in [(s, c, n) for s in ("train", "test") for c in ("cat", "dog") for n in range(12)]:
        path = Path("photographs", split, label, f"{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    typed(console, "data", "import", "pets", "photographs")


def teacher(console: Console, seed: int) -> None:
    words = ("--task", "imagefolder/pets", "--budget", "smoke", "--network", "cnn-4", "--epochs", "1", "--threads", "1")
    record = json.loads(console("run", "--method", "scratch", "--seed", seed, *words, "--json").out)
    typed(console, "export", record["key"], "mine.safetensors")
    words = ("--name", "mine", "--network", "cnn-4", "--task", "imagefolder/pets", "--force")
    typed(console, "teacher", "import", "mine.safetensors", *words)


def mixed() -> list[str]:
    folder = Path("reports/pets")
    return grid.load(folder, definition.load(folder), Path("results")).mixed()


def test_a_study_makes_runs_anew_for_other_data_and_other_teachers(console: Console) -> None:
    photographs(console, 0)
    teacher(console, 7)
    assert "2 of 2 runs" in typed(console, "study", "reports/pets")
    assert "2 recorded already, 0 to make" in typed(console, "study", "reports/pets") and not mixed()

    teacher(console, 8)
    assert "kf · Pets: seed 0:" in typed(console, "study", "reports/pets", "--dry-run", "--row", "kf")
    before = {record.key for record in records.records(Path("results"))}
    typed(console, "study", "reports/pets")
    made = [record for record in records.records(Path("results")) if record.key not in before]
    assert [record.spec["method"] for record in made] == ["kf"] and not mixed()

    photographs(console, 1)
    typed(console, "study", "reports/pets", "--row", "scratch")
    [sentence] = mixed()
    assert sentence.startswith("The runs of Pets were made with 2 different versions of its data.")
    assert sentence in Path("reports/pets/README.md").read_text()
    typed(console, "study", "reports/pets")
    folder = Path("reports/pets")
    cells = grid.load(folder, definition.load(folder), Path("results")).cells
    newest = registry.load_task("imagefolder/pets").checksum()
    assert {record.identity["data"] for cell in cells.values() for record in cell.done} == {newest} and not mixed()


def test_a_study_tells_of_recorded_runs_of_other_code(console: Console) -> None:
    photographs(console, 0)
    teacher(console, 7)
    typed(console, "study", "reports/pets", "--row", "scratch")
    assert "changed since" not in typed(console, "study", "reports/pets", "--dry-run", "--row", "scratch")
    path = next(path for path in record_files(Path("results")) if records.read(path).spec["seed"] == 0)
    record = json.loads(path.read_text())
    record["provenance"]["code"]["methods/scratch.py"] = "0" * 12  # as of a file that was edited after the run
    path.write_text(json.dumps(record))
    for words in (("--dry-run",), ()):
        told = typed(console, "study", "reports/pets", "--row", "scratch", *words)
        assert "note: methods/scratch.py changed since 1 of the recorded runs" in told and "0 to make" in told


def test_the_commands_of_a_dry_run_make_what_a_study_lacks(console: Console) -> None:
    photographs(console, 0)
    teacher(console, 7)
    words = ("study", "reports/pets", "--dry-run", "--json")
    found = json.loads(console(*words).out)
    assert found["refused"] == found["teachers"] == [] and (found["runs"], found["recorded"]) == (2, 0)
    assert [(run["row"], run["column"], run["seed"]) for run in found["to_make"]] == [
        ("scratch", "Pets", 0),
        ("kf", "Pets", 0),
    ]
    for run in found["to_make"]:
        typed(console, *shlex.split(run["command"])[1:])
    found = json.loads(console(*words).out)
    assert (found["to_make"], found["recorded"], found["seconds"]) == ([], 2, 0)


def test_a_teacher_that_lies_here_and_does_not_suit_is_no_run_that_is_missing(console: Console) -> None:
    photographs(console, 0)
    teacher(console, 7)
    text = STUDY.replace('"kf"', '"finetune"').replace('network = "cnn-4"', 'network = "cnn-8"')
    Path("reports/pets/study.toml").write_text(text)
    told = typed(console, "study", "reports/pets", "--dry-run")
    refused = "method 'finetune' copies weights, but teacher 'imported:mine' is a 'cnn-4', not the student's 'cnn-8'"
    assert f"finetune · Pets: n/a, because {refused}" in told and "1 run, 1 to make" in told
    Path("results/teachers/imported/mine.safetensors").unlink()
    done = console("study", "reports/pets", "--dry-run")
    told = done.out + done.err
    why = "refused: no teacher 'imported:mine' in 'results'"  # it may come yet, so the cell is not n/a
    assert f"finetune · Pets · seed 0: {why}" in told and "2 runs, 1 to make, 1 refused" in told and done.code == 1
