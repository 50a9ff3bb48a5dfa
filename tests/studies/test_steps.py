"""A study from the command line, on real digits: teachers first, failures kept, verified."""

import io
import json
import os
from pathlib import Path

import pytest
from console import kfbench
from rich.console import Console

from kfbench.reporting import grid
from kfbench.running import records
from kfbench.studies import definition, steps
from kfbench.studies.place import Place

STUDY = """
title = "Digits"
budget = "smoke"
seeds = 2
methods = ["scratch", "kf", { method = "kf", label = "random", teachers = "random" }, "kickstarting", "breaks"]
tasks = [{ task = "digits/high", teachers = ["digits/low"], recipe = { epochs = 2 } }]

[[claims]]
text = "kf beats scratch"
better = "kf"
than = "scratch"
"""
BREAKS = '''"""A method whose loss is not finite."""

import math
from dataclasses import dataclass

from kfbench.methods import Method


@dataclass(frozen=True)
class Breaks(Method):
    """Nothing to set."""

    def losses(self, student, teachers, batch, task, progress):
        output, parts = super().losses(student, teachers, batch, task, progress)
        return output, {name: part * math.nan for name, part in parts.items()}
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a study, and the environment in which its method is found."""
    root = tmp_path_factory.mktemp("runner")
    (root / "reports" / "digits").mkdir(parents=True)
    (root / "reports" / "digits" / "study.toml").write_text(STUDY)
    (root / "own").mkdir()
    (root / "own" / "breaks.py").write_text(BREAKS)
    return root, {**os.environ, "KFBENCH_METHODS": str(root / "own"), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def ran(place):
    """The study run once with two jobs."""
    return kfbench(place, "study", "reports/digits", "--jobs", "2", check=1)


def test_all_runs_are_made_and_failures_are_told(place, ran):
    root, _ = place
    assert "breaks · digits/high · seed 0: failed: loss part 'cross-entropy' was not finite" in ran
    assert "kickstarting on digits/high: n/a, because method 'kickstarting' is for games" in ran
    found = list(records.records(root / "results"))
    done = sorted((r.spec["method"], r.spec["seed"]) for r in found if r.status == "done")
    assert done == [("kf", 0), ("kf", 0), ("kf", 1), ("kf", 1), ("scratch", 0), ("scratch", 1)]
    assert [r.spec["method"] for r in found if r.status == "failed"] == ["breaks", "breaks"]
    assert len(list((root / "results" / "teachers").rglob("*.json"))) == 1


def test_the_report_is_there(place, ran):
    root, _ = place
    folder = root / "reports" / "digits"
    text = (folder / "README.md").read_text()
    assert "kf beats scratch" in text and "2 failed" in text and "n/a" in text
    made = grid.load(folder, definition.load(folder), root / "results")
    assert len(made.cells["kf", "digits/high"].done) == 2 and len(made.cells["breaks", "digits/high"].failed) == 2


def test_what_is_recorded_is_not_run_again(place, ran):
    root, _ = place
    before = {path: path.stat().st_mtime_ns for path in (root / "results").rglob("*.json")}
    out = kfbench(place, "study", "reports/digits", "--row", "kf")
    assert "2 runs, 2 recorded already, 0 to make" in out
    assert {path: path.stat().st_mtime_ns for path in (root / "results").rglob("*.json")} == before
    out = kfbench(place, "study", "reports/digits", "--dry-run", "--row", "breaks")
    assert "breaks · digits/high: seeds 0, 1" in out and "2 runs, 2 to make" in out
    assert "multiply-adds in the networks' passes; an H100 takes" in out.splitlines()[-1]
    assert out.splitlines()[-1].startswith("less than 0.01 · 10¹⁵")


def test_nothing_is_trained_for_a_run_whose_other_teacher_is_not_there(
    tmp_path: Path, packed_digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KFBENCH_DATA", str(packed_digits))
    (tmp_path / "study.toml").write_text(
        'title = "Two"\nbudget = "smoke"\nseeds = 2\ntasks = ["digits/high"]\nmethods = ["scratch", '
        f'{{ method = "kf", teachers = ["digits/low", "file:{tmp_path}/no.pth"] }}]\n'
    )
    made: list[str] = []

    def drive(grid, teachers, *_, **__):
        made.extend([*(job.label for job in teachers), *(job.spec.method for job in grid._left)])
        return {}

    monkeypatch.setattr(steps, "drive", drive)
    said = io.StringIO()
    failed = steps.full(
        tmp_path, Place(tmp_path / "results"), row=None, column=None, console=Console(file=said, width=300)
    )
    assert failed == 2 and made == ["scratch", "scratch"]
    assert "kf · digits/high · seed 1: refused: no weights '" in said.getvalue()
    assert said.getvalue().startswith("4 runs, 0 recorded already, 2 to make, 2 refused\n")


def test_verify_finds_the_same_bits_and_a_changed_number(place, ran):
    root, _ = place
    record = next(r for r in records.records(root / "results") if r.spec["method"] == "kf" and r.status == "done")
    path = records.path_of(root / "results", record.key, record.run_spec())
    weights = path.with_suffix(".safetensors").read_bytes()
    path.with_suffix(".safetensors").unlink()
    out = kfbench(place, "verify", record.key[:8])
    assert f"{record.key}: bit-equal" in out
    assert path.with_suffix(".safetensors").read_bytes() == weights  # put back
    values = json.loads(path.read_text())
    kept = path.read_text()
    values["scores"]["last"]["error"] += 40.0
    values["curve"][0]["loss"] += 1.0
    path.write_text(json.dumps(values))
    out = kfbench(place, "verify", record.key, check=1)
    path.write_text(kept)
    assert "different" in out and "score last.error" in out and "curve loss from step" in out


def test_a_teacher_is_shown_and_verified_too(place, ran):
    root, _ = place
    teacher = next(records.records(root / "results" / "teachers"))
    assert "/teachers/" in kfbench(place, "show", teacher.key)
    path = records.path_of(root / "results" / "teachers", teacher.key, teacher.run_spec()).with_suffix(".safetensors")
    weights = path.read_bytes()
    path.unlink()
    assert "bit-equal" in kfbench(place, "verify", teacher.key)
    assert path.read_bytes() == weights


def test_a_student_that_is_trained_as_a_teacher_is_has_a_run_of_its_own(tmp_path: Path) -> None:
    """`scratch` has the very spec of the teacher beside it: both are made at once, and neither stands for the other."""
    place = tmp_path, {**os.environ, "OMP_NUM_THREADS": "1"}
    (tmp_path / "twins").mkdir()
    (tmp_path / "twins" / "study.toml").write_text(
        'title = "Twins"\nbudget = "smoke"\nseeds = 1\nmethods = ["scratch", "kd"]\n'
        'tasks = [{ task = "digits/high", network = "cnn-4", teachers = ["digits/high/cnn-4"] }]\n'
    )
    assert "twins/index.html: 2 of 2 runs" in kfbench(place, "study", "twins", "--jobs", "2")
    [student] = (tmp_path / "results" / "digits" / "high" / "scratch").glob("*.json")
    assert student.name in [path.name for path in (tmp_path / "results" / "teachers").rglob("*.json")]
    student.unlink()
    assert "1 to make" in kfbench(place, "study", "twins") and student.is_file()
