"""A queue of jobs kept as trials of an Optuna study: claimed by any number of workers, none lost, none done twice.

What Optuna gives: atomic claims, heartbeats while a trial runs, and FAIL for a trial whose heartbeat stopped. What is
added here, since a worker may die at any moment: every trial carries the key of its job, and whoever looks at the queue
puts back a job that has no live trial left. Of several live trials of one job the one with the lowest number counts.
"""

import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import optuna
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.trial import FrozenTrial, Trial, TrialState

from kfbench.errors import KfbenchError

State = Literal["waiting", "running", "done", "pruned", "failed", "refused", "lost"]
OPEN: tuple[State, ...] = ("waiting", "running", "lost")
MOST_DEATHS = 5  # workers that a job may take down with it before it is left alone
Objective = Callable[[Trial], float]


@dataclass(frozen=True)
class Job:
    """One piece of work; plain JSON values only."""

    key: str
    params: dict[str, Any] = field(
        default_factory=dict
    )  # Optuna parameters that are fixed; the rest the sampler chooses
    attrs: dict[str, Any] = field(default_factory=dict)  # what the worker needs to know


class Stopped(KfbenchError):
    """The worker was asked to stop; its job goes back into the queue."""

    exit_code = 130


class _NotMine(Exception):
    """This trial carries no job, or one that another trial has: Optuna invents a trial when the queue is empty."""


def open_storage(url: str, *, heartbeat: int = 15, grace: int = 60) -> RDBStorage:
    """Open a database by its URL. Seconds: between signs of life, and until silence counts as death.

    Raises KfbenchError if it cannot be reached.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    engine: dict[str, Any] = {"pool_pre_ping": True}
    if url.startswith("sqlite"):
        engine["connect_args"] = {"timeout": 120}
    if url.startswith(("postgres://", "postgresql://")):
        url = "postgresql+psycopg://" + url.partition("://")[2]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return RDBStorage(url, engine_kwargs=engine, heartbeat_interval=heartbeat, grace_period=grace)
    except ImportError as error:
        raise KfbenchError(
            "--storage postgresql:// needs a driver; install it: pip install kfbench[postgresql]"
        ) from error
    except Exception as error:
        told = str(error).splitlines()[0]
        raise KfbenchError(f"storage '{_public(url)}' cannot be opened ({told}); is the database running?") from error


def _public(url: str) -> str:
    """Return a URL without its password."""
    head, at, tail = url.rpartition("@")
    return f"{head.partition('://')[0]}://…{at}{tail}" if at else url


def load(storage: RDBStorage, name: str) -> optuna.Study:
    """Return a queue that exists."""
    return optuna.load_study(study_name=name, storage=storage)


def of(trial: FrozenTrial | Trial) -> str | None:
    """Return the key of a trial's job; None for one that Optuna invented."""
    return trial.user_attrs.get("key")


def _trials(study: optuna.Study) -> dict[str, list[FrozenTrial]]:
    """Return the trials of every job, duplicates left out, in order of number."""
    found: dict[str, list[FrozenTrial]] = {}
    for trial in study.get_trials(deepcopy=False):
        key = of(trial)
        if key is not None and trial.user_attrs.get("outcome") not in ("duplicate", "dropped"):
            found.setdefault(key, []).append(trial)
    return found


def _state(trials: list[FrozenTrial]) -> State:
    states = {trial.state for trial in trials}
    outcomes = [trial.user_attrs.get("outcome") for trial in trials]
    if TrialState.COMPLETE in states:
        return "done"
    if TrialState.PRUNED in states:
        return "pruned"
    if TrialState.RUNNING in states:
        return "running"
    if TrialState.WAITING in states:
        return "waiting"
    if outcomes[-1] in ("failed", "refused"):
        return "failed" if outcomes[-1] == "failed" else "refused"
    return "refused" if sum(outcome is None for outcome in outcomes) >= MOST_DEATHS else "lost"


def states(study: optuna.Study) -> dict[str, State]:
    """Return the state of every job."""
    return {key: _state(trials) for key, trials in _trials(study).items()}


def settled(study: optuna.Study) -> dict[str, FrozenTrial]:
    """Return the trial that settled each job which is done, pruned, failed or refused."""
    order = (TrialState.COMPLETE, TrialState.PRUNED)
    found = {}
    for key, trials in _trials(study).items():
        if _state(trials) not in OPEN:
            ended = [trial for state in order for trial in trials if trial.state == state]
            found[key] = ended[0] if ended else trials[-1]
    return found


def running(study: optuna.Study) -> list[FrozenTrial]:
    """Return the live trials that are being worked on, duplicates left out."""
    found = [next((t for t in trials if t.state == TrialState.RUNNING), None) for trials in _trials(study).values()]
    return [trial for trial in found if trial is not None]


def fill(study: optuna.Study, jobs: Iterable[Job]) -> None:
    """Put jobs in the queue unless they are open there already; take out what waits and is not among them.

    A job that failed before is tried again; one that is done (its record must be gone) is done anew, as `key.2`.
    """
    known = _trials(study)
    wanted: dict[str, Job] = {}
    for job in jobs:
        name, turn = job.key, 1
        while name in known and _state(known[name]) in ("done", "pruned"):
            turn += 1
            name = f"{job.key}.{turn}"
        wanted[name] = job
    for key, trials in known.items():
        for trial in trials:
            if key not in wanted and trial.state == TrialState.WAITING:
                study._storage.set_trial_user_attr(trial._trial_id, "outcome", "dropped")
                study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    for key, job in wanted.items():
        if key not in known or _state(known[key]) in ("failed", "refused"):
            study.enqueue_trial(job.params, user_attrs={**job.attrs, "key": key})


def mend(study: optuna.Study, greeted: set[int]) -> None:
    """Put back jobs whose workers died.

    A worker that dies between its claim and its first heartbeat leaves a trial which Optuna never calls stale; so each
    looker-on, once, gives every running trial a heartbeat in its name, after which silence counts.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        fail_stale_trials(study)
    for key, trials in _trials(study).items():
        for trial in trials:
            if trial.state == TrialState.RUNNING and trial._trial_id not in greeted:
                greeted.add(trial._trial_id)
                assert isinstance(study._storage, BaseHeartbeat)
                study._storage.record_heartbeat(trial._trial_id)
        if _state(trials) == "lost":
            last = trials[-1]
            fixed = last.params or last.system_attrs.get("fixed_params", {})
            kept = {name: value for name, value in last.user_attrs.items() if name not in ("outcome", "progress")}
            study.enqueue_trial(fixed, user_attrs={**kept, "key": key})


def work(study: optuna.Study, objective: Objective, *, poll: float = 2.0) -> None:
    """Do jobs until none is open, also those that other workers leave behind.

    The objective raises Stopped to end this worker (the job goes back), TrialPruned, KfbenchError for a job that cannot
    be done here, or anything else for one that failed.
    """
    greeted: set[int] = set()
    while True:
        mend(study, greeted)
        there = set(states(study).values())
        if "waiting" in there:
            _one(study, objective)
        elif "running" in there:
            time.sleep(poll)
        elif "lost" not in there:
            return


def _one(study: optuna.Study, objective: Objective) -> None:
    """Claim and do one job."""

    def claimed(trial: Trial) -> float:
        if not _is_mine(study, trial):
            trial.set_user_attr("outcome", "duplicate")
            raise _NotMine
        try:
            return objective(trial)
        except (Stopped, KeyboardInterrupt):
            trial.set_user_attr("outcome", "stopped")
            raise
        except optuna.TrialPruned:
            raise
        except KfbenchError as error:
            failed = type(error).__name__ == "Diverged"
            trial.set_user_attr("outcome", "failed" if failed else "refused")
            trial.set_user_attr("why", str(error))
            raise
        except Exception as error:
            trial.set_user_attr("outcome", "failed")
            trial.set_user_attr("why", f"{type(error).__name__}: {error}".splitlines()[0])
            raise

    try:
        study.optimize(claimed, n_trials=1)
    except (Stopped, KeyboardInterrupt):
        raise
    except Exception as error:  # the trial says why; a worker outlives its jobs, and being thought dead
        if isinstance(error, optuna.exceptions.StorageInternalError):
            raise


def _is_mine(study: optuna.Study, trial: Trial) -> bool:
    """Say whether this trial is the one that counts for its job: it is open, and no live trial of it is older."""
    key = of(trial)
    if key is None:
        return False
    others = [other for other in _trials(study).get(key, []) if other.number != trial.number]
    ended = any(other.state in (TrialState.COMPLETE, TrialState.PRUNED) for other in others)
    return not ended and not any(other.number < trial.number and not other.state.is_finished() for other in others)
