"""A worker: takes runs from a study's queue, makes them with `execute.run`, and leaves the record in the queue too."""

from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import Trial

from kfbench import registry
from kfbench.errors import KfbenchError, near
from kfbench.run import execute, records
from kfbench.run.records import RunRecord
from kfbench.study import queue, search
from kfbench.study.trials import TrialWatcher, goodness, run_one


def grid_objective(results: Path, device: str) -> queue.Objective:
    """Return what a worker does with a trial of a grid: a teacher to train, or a run to make."""

    def objective(trial: Trial) -> float:
        spec = registry.read_spec(trial.user_attrs["spec"])
        trial.suggest_int("seed", 0, 2**31 - 1)
        if "teacher" in trial.user_attrs:
            try:
                watcher = TrialWatcher(trial, spec)
                return execute.teacher(spec, results=results, device=device, watcher=watcher).cost["seconds"]
            except execute.Interrupted as error:
                raise queue.Stopped(str(error)) from error
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
        record = RunRecord.model_validate(kept)
        path = records.path_of(results, record.key, record.run_spec())
        if not path.is_file():
            records.write(results, record)
            records.read(path)
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
    for study in queues(storage, name):
        about = study.user_attrs.get("search")
        objective = search.objective(about, results, device) if about else grid_objective(results, device)
        if about:
            study.sampler, study.pruner = search.sampler(about), search.pruner(about)
        queue.work(study, objective, poll=poll)
