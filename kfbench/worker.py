"""A worker: takes runs from a study's queue, makes them with `execute.run`, and leaves the record in the queue too."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import Trial

from kfbench import execute, queue, resolve, store, teacher_store
from kfbench.errors import Diverged, KfbenchError, near
from kfbench.execute import Watcher
from kfbench.live import Loop, torch_device
from kfbench.spec import RunSpec, digest
from kfbench.store import RunRecord

TELL = 5.0  # seconds between signs of progress


class Pruned(KfbenchError):
    """The pruner wants to see no more of this run."""


class TrialWatcher(Watcher):
    """Passes a run's progress on to its trial; with `prunes` its validation score too, where it may be told to stop."""

    def __init__(self, trial: Trial, spec: RunSpec, *, prunes: bool = False) -> None:
        self._trial, self._spec = trial, spec
        self._prunes = prunes
        self._is_own = False
        self._told = 0.0

    def start(self, spec: RunSpec, loop: Loop) -> None:
        """Tell the run of the trial from a teacher that is trained for it on the way."""
        self._is_own = spec == self._spec

    def step(self, loop: Loop, row: dict[str, float] | None) -> None:
        """Tell the queue now and then how far the run is."""
        if time.monotonic() - self._told > TELL:
            self._told = time.monotonic()
            self._trial.set_user_attr("progress", round(loop.position / loop.total, 4))
        value = None if row is None else goodness(row)
        if value is not None and self._prunes and self._is_own:
            self._trial.report(value, loop.position)
            if self._trial.should_prune():
                raise Pruned(f"pruned at step {loop.position:,} of {loop.total:,}")


def goodness(values: dict[str, float]) -> float | None:
    """Return what a curve's row, or `scores["val"]`, says of validation: accuracy in %, or return; None: nothing."""
    for name in ("val_error", "error"):
        if name in values:
            return 100 - values[name]
    return values.get("val_return", values.get("return"))


def name_of(spec: RunSpec) -> str:
    """Return a run's name in the queue: a digest of its spec."""
    return digest(spec.to_json())


def run_one(
    spec: RunSpec, trial: Trial, *, results: Path, device: str, prunes: bool = False, force: bool = False
) -> RunRecord:
    """Make one run for a trial and leave its record there. Raises queue.Stopped after a signal, Pruned when told to."""
    try:
        watcher = TrialWatcher(trial, spec, prunes=prunes)
        record = execute.run(spec, results=results, device=device, watcher=watcher, force=force)
    except execute.Interrupted as error:
        raise queue.Stopped(str(error)) from error
    except Exception as error:
        left = _failed(spec, results) if not isinstance(error, KfbenchError) or isinstance(error, Diverged) else None
        if left is not None:
            trial.set_user_attr("record", dataclasses.asdict(left))
        raise
    trial.set_user_attr("record", dataclasses.asdict(record))
    return record


def _failed(spec: RunSpec, results: Path) -> RunRecord | None:
    """Return the record that a failed run has just left."""
    found = [store.read(path) for path in store.path_of(results, "", spec).parent.glob("*.json")]
    return next((record for record in found if record.spec == spec.to_json() and record.status == "failed"), None)


def grid_objective(results: Path, device: str) -> queue.Objective:
    """Return what a worker does with a trial of a grid: a teacher to train, or a run to make."""

    def objective(trial: Trial) -> float:
        spec = RunSpec.from_json(trial.user_attrs["spec"])
        trial.suggest_int("seed", 0, 2**31 - 1)
        if "teacher" in trial.user_attrs:
            asked = resolve.teacher_name(trial.user_attrs["teacher"], budget=spec.budget)
            place = torch_device(device)
            try:
                made = teacher_store.trained(
                    asked, index=0, results=results, device=place, watcher=TrialWatcher(trial, spec)
                )
            except execute.Interrupted as error:
                raise queue.Stopped(str(error)) from error
            return made.seconds
        record = run_one(spec, trial, results=results, device=device)
        return goodness(record.scores["val"]) or 0.0

    return objective


def collect(study: optuna.Study, results: Path) -> int:
    """Write the records that workers elsewhere left in the queue and that are not here yet; return how many."""
    count = 0
    for trial in queue.settled(study).values():
        kept: dict[str, Any] | None = trial.user_attrs.get("record")
        if kept is None:
            continue
        record = RunRecord(**kept)
        path = store.path_of(results, record.key, record.run_spec())
        if not path.is_file():
            store.write(results, record)
            store.read(path)
            count += 1
    return count


def queues(storage: RDBStorage, name: str) -> list[optuna.Study]:
    """Return the queues of a study in the order of emptying them. Raises KfbenchError if there is none."""
    there = optuna.get_all_study_names(storage)
    if name not in there:
        raise KfbenchError(
            f"no study '{name}' in this storage; {near(name, [n for n in there if '/teachers' not in n])}"
        )
    wanted = [f"{name}/teachers", name]
    return [optuna.load_study(study_name=each, storage=storage) for each in wanted if each in there]


def work(storage: RDBStorage, name: str, *, results: Path, device: str, poll: float = 2.0) -> None:
    """Empty a study's queues, teachers first, and help until no other worker's job is open."""
    from kfbench import search

    for study in queues(storage, name):
        about = study.user_attrs.get("search")
        objective = search.objective(about, results, device) if about else grid_objective(results, device)
        if about:
            study.sampler, study.pruner = search.sampler(about), search.pruner(about)
        queue.work(study, objective, poll=poll)
