"""Three short runs and their teacher, as a driver makes them on an engine, held against the same made plainly."""

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
from rich.console import Console

from kfbench import registry
from kfbench.running import execute, records, resolve, verify
from kfbench.running.records import RunRecord
from kfbench.studies import board, driver, locks, missing, search, trials
from kfbench.studies.place import Place
from kfbench.studies.search import Search
from kfbench.studies.trials import Grid, Job, name_of

board.WRITE = 0.1  # tests find processes through the board's file
RUNS = {"kf": 4, "scratch": 100, "kd": 2}  # epochs; `scratch` is long enough to be hit by what a test does to it
LONG = "scratch"


def jobs() -> list[Job]:
    """The runs of all these tests: each method on the same digits."""
    specs = []
    for method, epochs in RUNS.items():
        recipe = {"epochs": epochs, "evaluations": 4, "network": "cnn-4"}
        teachers = ["digits/high/cnn-8@smoke:epochs=2"] if method != "scratch" else []
        specs.append(resolve.resolve(method, "digits/high", budget="smoke", teachers=teachers, recipe=recipe))
    return [Job(spec, spec.method) for spec in specs]


def by_hand(results: Path) -> dict[str, RunRecord]:
    """Make the runs with `execute.run`, one after the other: what every engine must give to the bit."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    made = {job.name: execute.run(job.spec, results=results) for job in jobs()}
    torch.set_num_threads(threads)
    return made


def drive(place: Place, *, name: str = "fleet") -> dict[str, str]:
    """Make the runs that a place lacks with its engine; return what went wrong."""
    specs = {job.name: job for job in jobs()}
    left = [job for key, job in specs.items() if key not in missing.recorded(place.results)]
    with locks.alone(place, name), trials.storage(place.url) as storage:
        teachers = missing.missing_teachers([job.spec for job in left], place.results)
        return driver.drive(Grid(storage, name, left), teachers, place, name=name, console=Console(quiet=True))


def dispose(storage) -> None:
    """Close a database's connections, or its file is said to be left open."""
    getattr(storage, "_backend", storage).engine.dispose()


def check(place: Place, expected: dict[str, RunRecord], *, is_continued: bool = True, name: str = "fleet") -> None:
    """Every record once and bit-equal, every run one finished trial, nothing left behind, the long run continued."""
    there = {name_of(record.run_spec()): record for record in records.records(place.results)}
    assert len(list(records.records(place.results))) == len(there) == len(RUNS) and there.keys() == expected.keys()
    for key, record in expected.items():
        assert verify.differences(record, there[key]) == ()
        assert there[key].key == record.key and there[key].provenance["weights"] == record.provenance["weights"]
        assert records.path_of(place.results, record.key, record.run_spec()).with_suffix(".safetensors").is_file()
        assert (place.cache / "logs" / f"{record.key}.log").is_file()
    assert len(list(records.records(place.results / "teachers"))) == 1
    assert not [path for path in place.results.rglob("*.ckpt")] and not [*(place.cache / "runs").iterdir()]
    storage = trials.open_storage(place.url)
    done = optuna.load_study(study_name=name, storage=storage).get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    assert sorted(trial.user_attrs["key"] for trial in done) == sorted(expected)
    dispose(storage)
    long = next(record for record in expected.values() if record.spec["method"] == LONG)
    assert is_continued == ("goes on from step" in (place.cache / "logs" / f"{long.key}.log").read_text())


def search_on(place: Place, asked: Search, *, trials_there: int | None = None) -> search.Trials:
    """Make a search's trials on a place's engine."""
    storage = trials.open_storage(place.url)
    source = search.Trials(storage, asked)
    assert trials_there is None or source.total == (asked.trials - trials_there) * asked.seeds_per_trial
    teachers = missing.missing_teachers([asked.spec], place.results)
    driver.drive(source, teachers, place, name=asked.name, console=Console(quiet=True))
    return source


def prune_all_but_good(place: Place, asked: Search) -> optuna.Study:
    """Search once where six trials before scored 99.9 all along: what lies below their median is stopped on the way."""
    storage = trials.open_storage(place.url)
    study = search.open_search(storage, asked)
    total = total_steps(asked.spec)
    for _ in range(6):
        trial = study.ask({"temperature": optuna.distributions.FloatDistribution(1, 20, log=True)})
        for step in (total // 2, total):
            trial.report(99.9, step)
        study.tell(trial, 99.9)
    dispose(storage)
    return search_on(place, asked).study


def total_steps(spec) -> int:
    """How many steps a run of images has."""
    from kfbench.data import images
    from kfbench.train.supervised import steps

    data = images.load(registry.load_task(spec.task), spec.recipe.train_size)
    return steps(spec.recipe, len(data.train))


def bag(place: Place) -> Path:
    """The folder of the long run."""
    return place.cache / "runs" / next(job.name for job in jobs() if job.spec.method == LONG)


def when_there_is_a_checkpoint(place: Place, act: Callable[[], None]) -> Callable[[], None]:
    """Do something to the long run as soon as its driver has a checkpoint of it; return what waits until it is done."""

    def wait() -> None:
        until = time.monotonic() + 240  # of busy machines
        while not list(bag(place).rglob("*.ckpt")):
            assert time.monotonic() < until, "no checkpoint"
            time.sleep(0.02)
        act()

    pool = ThreadPoolExecutor(1)
    done = pool.submit(wait)
    pool.shutdown(wait=False)
    return done.result


def pid_of_the_long_run(place: Place) -> int:
    """The process that makes it, as the board's file says."""
    import json

    until = time.monotonic() + 60
    while time.monotonic() < until:
        status = json.loads(next((place.cache / "status").glob("*.json")).read_text())
        row = status["running"].get(bag(place).name, {})
        if "pid" in row:
            return row["pid"]
        time.sleep(0.1)
    raise AssertionError("the long run never reported")


def kill(pid: int) -> None:
    """End a process as a fault would."""
    os.kill(pid, signal.SIGKILL)


def die(order, files, bag, log, environment, slot):
    """A worker that always dies."""
    with log.open("a") as file:
        file.write("a last word\n")
    os._exit(7)


def be_killed(order, files, bag, log, environment, slot):
    """A worker that the kernel kills."""
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)
