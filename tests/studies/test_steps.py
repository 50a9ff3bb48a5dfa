"""A study from the command line, on real digits: teachers first, failures kept, tuned, verified."""

import contextlib
import io
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jobs_here
import optuna
import pytest
from optuna.trial import TrialState
from rich.console import Console

from kfbench.reporting import grid
from kfbench.running import estimate, records, resolve
from kfbench.spec import RunSpec
from kfbench.studies import definition, forecast, locks, picks, plan, search, steps, trials
from kfbench.studies.place import Place

REPORTS = Path(__file__).parents[2] / "reports"
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


def kfbench(place, *words: str, check: int | None = 0) -> str:
    root, environment = place
    command = [sys.executable, "-c", "from kfbench.cli.main import main; main()", *words]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=560)
    assert check is None or done.returncode == check, done.stdout + done.stderr
    return done.stdout + done.stderr


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


TUNED = """
title = "Tuned digits"
budget = "smoke"
seeds = 1
search = { trials = 2 }
methods = ["scratch", "kf"]
tasks = [{ task = "digits/high", teachers = ["digits/low"], recipe = { epochs = 2 } }]
"""


def test_a_study_with_a_search_tunes_first_and_its_page_says_what_was_chosen(place):
    root, _ = place
    folder = root / "reports" / "tuned"
    folder.mkdir()
    (folder / "study.toml").write_text(TUNED)
    out = kfbench(place, "study", "reports/tuned", "--results", "searched")
    assert "searching kf on digits/high: 2 trials" in out and "2 of 2 runs" in out
    found = json.loads((folder / "tuned.json").read_text())
    assert list(found) == ["kf"] and found["kf"]["validation"] >= found["kf"]["started"]
    cells = {cell.row: cell for cell in plan.read(folder, definition.load(folder))}
    assert cells["kf"].spec is not None and cells["kf"].spec.settings["cut"] == found["kf"]["settings"]["cut"]
    told = f"kf: initial_share {found['kf']['settings']['initial_share']:.3g}, "
    assert told in (folder / "README.md").read_text() and told in (folder / "index.html").read_text()
    seeds = {record.spec["seed"] for record in records.records(root / "searched") if record.spec["method"] == "kf"}
    assert 1000 in seeds
    again = kfbench(place, "study", "reports/tuned", "--results", "searched")
    assert "searching" not in again and "0 to make" in again


def ended(**about: Any) -> SimpleNamespace:
    """An Optuna study whose one trial has ended."""
    trial = SimpleNamespace(value=60.0, number=0, state=TrialState.COMPLETE, user_attrs={"key": "trial-0000"}, **about)
    return SimpleNamespace(get_trials=lambda **_: [trial], trials=[])


def test_what_is_searched_is_one_rows_is_counted_and_is_kept_without_a_database(
    tmp_path: Path, packed_digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fresh clone has the committed tuned.json and no database: what that holds of the same search stays."""
    monkeypatch.setenv("KFBENCH_DATA", str(packed_digits))
    monkeypatch.setattr(estimate, "seconds", lambda spec, tried: 60.0)
    methods = 'methods = ["scratch", "kf", { method = "kd", teachers = ["digits/high"] }]'
    (tmp_path / "study.toml").write_text(TUNED.replace('methods = ["scratch", "kf"]', methods))
    made, asked = Place(tmp_path / "results"), []

    @contextlib.contextmanager
    def searched(wanted, place, *, console):
        asked.append(wanted.spec.method)
        chosen = {"temperature": 3.0, "alpha": 0.5} if wanted.spec.method == "kd" else {"cut": 0.5}
        yield ended(params=chosen)

    def dry(row: str | None = None) -> list[str]:
        said: list[str] = []
        forecast.tell(tmp_path, results=made.results, row=row, column=None, say=said.append, note=said.append)
        return said

    def tune(row: str | None = None) -> list[str]:
        asked.clear()
        study = definition.load(tmp_path)
        every = steps.searches(study, {}, made.results)
        steps.tune_all(tmp_path, study, made, every, row=row, console=Console(quiet=True))
        return [*asked]

    monkeypatch.setattr(steps, "_search", searched)
    lines = dry()
    for row in ("kf", "kd"):
        assert f"search {row}: 2 trials, less those made already: about 1 min a run" in lines
    assert "3 runs, 3 to make, 4 of searches: about " in lines[-2] and "multiply-adds" in lines[-1]
    assert "3 of searches" not in dry("scratch")[-2] and tune("scratch") == []
    assert tune("kd") == ["kd"] and list(plan.chosen(tmp_path)) == ["kd"]
    assert tune() == ["kf"] and list(plan.chosen(tmp_path)) == ["kf", "kd"] and tune() == []
    assert not [line for line in dry() if "search" in line]
    (tmp_path / "study.toml").write_text((tmp_path / "study.toml").read_text().replace("trials = 2", "trials = 3"))
    assert tune("kd") == ["kd"] and plan.chosen(tmp_path)["kd"]["trials"] == 3
    (tmp_path / "study.toml").write_text((tmp_path / "study.toml").read_text().replace("epochs = 2", "epochs = 3"))
    assert tune() == ["kf", "kd"]  # other runs, another search


def test_records_with_other_settings_fill_no_cell_whose_search_is_still_to_be_made(
    tmp_path: Path, packed_digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a study of tuned methods would be reported complete, with verdicts, before anything is tuned."""
    monkeypatch.setenv("KFBENCH_DATA", str(packed_digits))
    monkeypatch.setattr(estimate, "seconds", lambda spec, tried: 60.0)
    (tmp_path / "study.toml").write_text(TUNED)
    study, results, made = definition.load(tmp_path), tmp_path / "results", list[str]()
    untuned = {trials.name_of(cell.spec): Path() for cell in plan.make(study, results=results) if cell.spec}
    monkeypatch.setattr(steps.missing, "recorded", lambda results: untuned)
    monkeypatch.setattr(steps.missing, "edited", lambda runs, done: [])

    def planned() -> dict[str, str]:
        return {cell.row: cell.reason for cell in plan.read(tmp_path, study) if cell.spec is None}

    found = forecast.tell(tmp_path, results=results, row=None, column=None, say=str, note=str)
    assert (found["runs"], found["recorded"]) == (2, 1)
    assert [(run["row"], run["command"]) for run in found["to_make"]] == [("kf", None)]
    assert planned() == {"kf": "its search has not been made yet"}
    monkeypatch.setattr(steps, "_make", lambda jobs, *_, **__: made.extend(job.spec.method for job in jobs) or {})
    said = io.StringIO()
    assert not steps.full(tmp_path, Place(results), row="scratch", column=None, console=Console(file=said))
    assert made == [] and planned() == {"kf": "its search has not been made yet"} and "n/a" not in said.getvalue()


def test_a_search_without_a_finished_trial_costs_its_own_row_alone(
    tmp_path: Path, packed_digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are made; the row is not run with other settings instead, and the command ends with 1."""
    monkeypatch.setenv("KFBENCH_DATA", str(packed_digits))
    (tmp_path / "study.toml").write_text(TUNED)
    made, place = list[str](), Place(tmp_path / "results")

    @contextlib.contextmanager
    def searched(wanted, place, *, console):
        study = optuna.create_study()
        trial = study.ask()
        trial.set_user_attr("key", "trial-0000")
        trial.set_user_attr("why", "cuda has no memory left")
        yield study

    monkeypatch.setattr(steps, "_search", searched)
    monkeypatch.setattr(steps, "_make", lambda jobs, *_, **__: made.extend(job.spec.method for job in jobs) or {})
    assert steps.full(tmp_path, place, row=None, column=None, console=Console(quiet=True)) == 1 and made == ["scratch"]
    kf = next(cell for cell in plan.read(tmp_path, definition.load(tmp_path)) if cell.row == "kf")
    assert kf.spec is None and "has finished (the last: cuda has no memory left)" in kf.reason
    assert plan.tuned(tmp_path, definition.load(tmp_path)) == {}


def test_a_row_that_another_study_searches_costs_itself_alone(
    tmp_path: Path, packed_digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own runs wait; the others are made, and the command that is typed again takes what was found."""
    monkeypatch.setenv("KFBENCH_DATA", str(packed_digits))
    (tmp_path / "study.toml").write_text(TUNED)
    made, place, study = list[str](), Place(tmp_path / "results"), definition.load(tmp_path)
    monkeypatch.setattr(steps, "_make", lambda jobs, *_, **__: made.extend(job.spec.method for job in jobs) or {})
    [asked] = steps.searches(study, {}, place.results).values()
    console = Console(file=io.StringIO(), width=300)
    with locks.alone(place, asked.name):
        assert steps.full(tmp_path, place, row=None, column=None, console=console) == 1 and made == ["scratch"]
    kf = next(cell for cell in plan.read(tmp_path, study) if cell.row == "kf")
    assert kf.spec is None and "is being run already" in kf.reason
    assert f"kf: '{asked.name}' is being run already" in console.file.getvalue()  # type: ignore[attr-defined]


def test_what_an_older_search_chose_is_not_heeded_once_the_study_asks_for_none(
    tmp_path: Path, packed_digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dry run lists the very runs that are made."""
    monkeypatch.setenv("KFBENCH_DATA", str(packed_digits))
    monkeypatch.setattr(estimate, "seconds", lambda spec, tried: 60.0)
    (tmp_path / "study.toml").write_text(TUNED.replace("search = { trials = 2 }", ""))
    plan.write_chosen(tmp_path, {"kf": {"settings": {"cut": 0.7}, "search": "x", "trials": 2}})
    found = forecast.tell(tmp_path, results=tmp_path / "r", row="kf", column=None, say=str, note=str)
    assert "cut=0.7" not in found["to_make"][0]["command"] and len(found["to_make"]) == 1


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


@pytest.mark.parametrize("folder", sorted(path.parent for path in REPORTS.glob("*/tuned.json")), ids=str)
def test_what_was_chosen_for_committed_studies_is_of_the_search_that_they_ask_for(folder: Path) -> None:
    """Else whoever clones them searches again, and overwrites what the tables hold."""
    made = definition.load(folder)
    assert (
        steps.to_search(
            steps.searches(made, picks.read(folder), REPORTS.parent / "results"), plan.chosen(folder), row=None
        )
        == {}
    )


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


def test_what_is_measured_for_a_dry_run_serves_other_tasks(
    tmp_path: Path, packed_digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KFBENCH_DATA", str(packed_digits))
    asked: list[RunSpec] = []
    monkeypatch.setattr(estimate, "seconds", lambda spec, tried: asked.append(spec) or 90.0)
    (tmp_path / "study.toml").write_text(
        'title = "Two"\nbudget = "smoke"\nseeds = 2\nmethods = ["scratch", "kf"]\n[[tasks]]\ntask = "digits/high"\n'
        'teachers = ["digits/low"]\n[[tasks]]\ntask = "digits/low"\nteachers = ["digits/high"]\n'
    )
    lines: list[str] = []
    asking = {"results": tmp_path / "results", "row": None, "column": None}
    found = forecast.tell(tmp_path, **asking, say=lines.append, note=lines.append)
    # teachers have another network than students: they are runs of another length
    assert [(spec.method, spec.task) for spec in asked] == [
        ("scratch", "digits/low"),
        ("scratch", "digits/high"),
        ("kf", "digits/high"),
    ]
    cells = [f"{row} · digits/{part}" for row in ("scratch", "kf") for part in ("high", "low")]
    assert lines[2:6] == [f"{cell}: seeds 0, 1: about 1 min 30 s a run" for cell in cells]
    assert lines[6] == "8 runs, 8 to make: about 15 min for one job here"
    assert (found["seconds"], found["not_counted"]) == (90.0 * 10, 0) and len(found["to_make"]) == 8


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


def test_drivers_of_one_study_from_two_results_folders_share_a_database(tmp_path: Path, monkeypatch) -> None:
    """Neither closes the other's trials; where nobody shares the database, a study keeps its own name in it."""
    jobs, grids = jobs_here.jobs()[1:2], []
    monkeypatch.setattr(steps, "drive", lambda grid, *_, **__: grids.append((grid, grid.next(lambda job: True))) or {})
    for name in ("ours", "theirs"):
        place = Place(tmp_path / name, storage=f"sqlite:///{tmp_path}/shared.db")
        steps._make(jobs, {}, place, name="quick", console=Console(quiet=True))
    for queue, job in grids:
        queue.report(job, 1, 50.0)
        queue.ended(job, "failed", "", None)
        jobs_here.dispose(queue._study._storage)
    steps._make(jobs, {}, Place(tmp_path / "alone"), name="quick", console=Console(quiet=True))
    names = [queue._study.study_name for queue, _ in grids]
    assert len({*names}) == 3 and names[2] == "quick" and all(name.startswith("quick-") for name in names[:2])


def test_searches_from_two_results_folders_share_a_database_and_each_goes_on_from_its_own_trials(
    tmp_path: Path, packed_digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On whatever node the driver is started again, and where the folder was moved."""
    monkeypatch.setenv("KFBENCH_DATA", str(packed_digits))
    asked = search.Search(resolve.resolve("kd", "digits/high", budget="smoke", teachers=["random:digits/high"]), 2)
    driven: list[tuple[str, int]] = []

    def drive(source, *_, **__):
        driven.append((source.study.study_name, source.total))
        job = source.next(lambda job: True)
        if job is not None and len(driven) == 2:
            trials.finish(source.study, source._turns[job.name].trial, "done", "", 50.0)
        return {}

    def begin(name: str, node: str) -> None:
        monkeypatch.setattr(platform, "node", lambda: node)
        with steps._search(asked, Place(tmp_path / name, storage=url), console=Console(quiet=True)):
            pass

    monkeypatch.setattr(steps, "drive", drive)
    url = f"sqlite:///{tmp_path}/shared.db"
    begin("theirs", "login1")
    begin("ours", "login1")
    with trials.storage(url) as storage:
        theirs = optuna.load_study(study_name=driven[0][0], storage=storage)
        assert [trial.state for trial in theirs.trials] == [optuna.trial.TrialState.RUNNING]
    (tmp_path / "ours").rename(tmp_path / "moved")
    begin("moved", "login2")
    assert driven[2] == (driven[1][0], 1) and len({name for name, _ in driven}) == 2


def test_a_search_whose_fresh_runs_fail_says_so_and_ends_with_1(
    tmp_path: Path, type_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    @contextlib.contextmanager
    def searched(wanted, place, *, console):
        yield ended(params={"alpha": 0.5})

    def make(jobs, unable, place, **_):
        return {jobs[0].name: "it broke", "teacher-x": "a teacher is no fresh run"} if fails else {}

    monkeypatch.setattr(steps, "_search", searched)
    monkeypatch.setattr(steps, "_make", make)
    words = ["search", "--method", "kd", "--task", "digits/high", "--budget", "smoke", "--seeds", "2"]
    for fails in (True, False):
        done = type_in(*words)
        assert done.code == int(fails) and ("  seed 0: not made: it broke" in done.out.splitlines()) == fails
        found = json.loads(type_in(*words, "--json").out)
        assert found["settings"] == {"alpha": 0.5} and found["validation"] == 60.0 and found["runs"] == []
        assert found["failed"] == ([{"seed": 0, "why": "it broke"}] if fails else [])
