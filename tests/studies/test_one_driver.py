"""A study has one driver: a second writes nothing. What an earlier one left is forgotten when nothing is lacking."""

import json
from pathlib import Path

import optuna
import pytest
from rich.console import Console

from kfbench.cli import status
from kfbench.running import resolve
from kfbench.studies import definition, locks, steps, trials
from kfbench.studies.locks import Busy
from kfbench.studies.place import Place
from kfbench.studies.search import Search
from kfbench.studies.trials import Job

STUDY = """
title = "One"
budget = "smoke"
seeds = 1
methods = ["scratch"]
tasks = [{ task = "digits", train_size = 60, recipe = { epochs = 1 } }]
"""


@pytest.fixture
def folder(tmp_path: Path, packed_digits: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a study of one run."""
    monkeypatch.setenv("KFBENCH_DATA", str(packed_digits))
    (tmp_path / "study.toml").write_text(STUDY)
    return tmp_path


def full(folder: Path) -> int:
    return steps.full(folder, Place(folder / "results"), row=None, column=None, console=Console(quiet=True))


def test_a_second_driver_leaves_the_plan_of_the_first_and_what_it_has_under_way(folder: Path) -> None:
    """It may have read another study.toml; and to open a study ends what is under way in the database."""
    place, name = Place(folder / "results"), definition.load(folder).name
    job = Job(resolve.resolve("scratch", "digits", budget="smoke"), "one")
    with locks.alone(place, name), trials.storage(place.url) as storage:
        assert trials.Grid(storage, place.queue(name), [job]).next(lambda _: True) == job
        with pytest.raises(Busy, match=f"'{name}' is being run already"):
            full(folder)
        [trial] = optuna.load_study(study_name=place.queue(name), storage=storage).get_trials()
        assert trial.state == optuna.trial.TrialState.RUNNING
    assert not (folder / "plan.json").exists()
    assert full(folder) == 0 and (folder / "plan.json").exists()


def test_the_best_settings_of_a_search_have_one_driver(folder: Path) -> None:
    place = Place(folder / "results")
    asked = Search(resolve.resolve("kd", "digits", budget="smoke", recipe={"train_size": 60, "epochs": 1}), 1)
    with locks.alone(place, f"{asked.name}-fresh"), pytest.raises(Busy, match="-fresh' is being run already"):
        steps.tune(asked, place, seeds=[0], console=Console(quiet=True))


def test_a_stopped_study_that_lacks_nothing_any_more_is_no_stopped_one(folder: Path) -> None:
    assert full(folder) == 0
    (told,) = (folder / "results" / ".cache" / "status").glob(f"{definition.load(folder).name}.json")
    told.write_text(json.dumps({**json.loads(told.read_text()), "ended": 0, "over": True}))
    (stopped,) = status.status(folder / "results")["stopped_studies"]
    assert stopped["ended"] == 0
    assert full(folder) == 0
    assert status.status(folder / "results")["stopped_studies"] == []
