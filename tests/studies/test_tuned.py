"""Rows whose settings are searched first: what is asked for, what is kept of it, what a search that fails costs."""

import contextlib
import io
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from console import kfbench
from optuna.trial import TrialState
from rich.console import Console

from kfbench.running import estimate, records
from kfbench.studies import definition, forecast, locks, picks, plan, steps, trials
from kfbench.studies.place import Place

REPORTS = Path(__file__).parents[2] / "reports"
TUNED = """
title = "Tuned digits"
budget = "smoke"
seeds = 1
search = { trials = 2 }
methods = ["scratch", "kf"]
tasks = [{ task = "digits/high", teachers = ["digits/low"], recipe = { epochs = 2 } }]
"""


@pytest.fixture
def place(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A folder for studies, and an environment."""
    (tmp_path / "reports").mkdir()
    return tmp_path, {**os.environ, "OMP_NUM_THREADS": "1"}


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
