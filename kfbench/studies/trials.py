"""What Optuna keeps: the database, and a grid's runs as trials without parameters; the driver alone writes it."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import optuna
from optuna.storages import RDBStorage
from optuna.trial import Trial, TrialState

from kfbench import registry
from kfbench.errors import KfbenchError
from kfbench.running import prepare
from kfbench.running.records import RunRecord
from kfbench.spec import RunSpec, digest
from kfbench.studies.carry import State, Word

ENDS: dict[State, TrialState] = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED}  # all others: FAIL


@dataclass(frozen=True)
class Job:
    """A run to be made."""

    spec: RunSpec
    label: str
    is_teacher: bool = False
    is_judged: bool = False  # a pruner looks at its scores
    chosen: dict[str, Any] | None = None  # how its teachers were chosen, for the record

    @cached_property
    def name(self) -> str:
        """The run's name until its record has a key: a digest of its spec; a teacher and a student may share that."""
        return teacher_called(name_of(self.spec)) if self.is_teacher else name_of(self.spec)

    @cached_property
    def needs(self) -> frozenset[str]:
        """Names of the runs that train its teachers."""
        return frozenset(teacher_called(name_of(spec)) for spec in prepare.teachers_of(self.spec))

    def score(self, record: RunRecord | None) -> float | None:
        """Return what a record of this run is judged by: on validation, higher is better; None if it has none."""
        return registry.kind_of(self.spec.task).goodness(record.scores.get("val", {})) if record else None


class Source(Protocol):
    """Where the driver's jobs come from: a grid, or a search that chooses them on the way."""

    total: int

    def next(self, ready: Callable[[Job], bool]) -> Job | None: ...
    def report(self, job: Job, step: int, score: float) -> Word: ...
    def ended(self, job: Job, state: State, why: str, record: RunRecord | None) -> None: ...


def name_of(spec: RunSpec) -> str:
    """Return a run's name: a digest of its spec."""
    return digest(spec.to_json())


def teacher_called(name: str) -> str:
    """Return what a run is called that is made for the store of teachers."""
    return f"teacher-{name}"


def open_storage(url: str) -> RDBStorage:
    """Open a database by its URL. Raises KfbenchError if it cannot be reached."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if url.startswith(("postgres://", "postgresql://")):
        url = "postgresql+psycopg://" + url.partition("://")[2]
    options = {"connect_args": {"timeout": 120}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    try:
        return RDBStorage(url, engine_kwargs=options)
    except ImportError as error:
        raise KfbenchError(
            "--storage postgresql:// needs a driver; install it: pip install kfbench[postgresql]"
        ) from error
    except Exception as error:
        told = str(error).splitlines()[0]
        raise KfbenchError(f"storage '{public(url)}' cannot be opened ({told}); is the database running?") from error


def public(url: str) -> str:
    """Return a URL without its password."""
    head, at, tail = url.rpartition("@")
    return f"{head.partition('://')[0]}://…{at}{tail}" if at else url


@contextlib.contextmanager
def storage(url: str) -> Iterator[RDBStorage]:
    """Open a database by its URL for a while. Raises KfbenchError if it cannot be reached."""
    opened = open_storage(url)
    try:
        yield opened
    finally:
        opened.engine.dispose()  # else its connections stay open, which Python 3.13 and later complain of


def open_study(storage: RDBStorage, name: str, **options: Any) -> optuna.Study:
    """Return a study in which nothing is under way: what a driver left that died counts as failed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(
            study_name=name, storage=storage, direction="maximize", load_if_exists=True, **options
        )
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING)):
        if trial.state == TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)
        else:
            storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    return study


def finish(study: optuna.Study, trial: Trial, state: State, why: str, value: float | None) -> None:
    """Tell Optuna how a trial ended."""
    if state != "done":
        trial.set_user_attr("outcome", state)
        trial.set_user_attr("why", why)
    end = ENDS.get(state, TrialState.FAIL)
    study.tell(trial, value if end == TrialState.COMPLETE else None, state=end)


class Grid:
    """A study's missing runs, each one trial."""

    def __init__(self, storage: RDBStorage, name: str, jobs: list[Job]) -> None:
        self._study = open_study(storage, name, sampler=optuna.samplers.RandomSampler(seed=0))  # never asked
        self._left, self.total = list(jobs), len(jobs)
        self._trials: dict[str, Trial] = {}

    def next(self, ready: Callable[[Job], bool]) -> Job | None:
        """Return the first job whose teachers are there; None if there is none."""
        job = next((job for job in self._left if ready(job)), None)
        if job is not None:
            self._left.remove(job)
            about = {"key": job.name, "label": job.label, "spec": job.spec.to_json()}
            self._study.enqueue_trial({}, user_attrs=about)
            self._trials[job.name] = self._study.ask()
        return job

    def report(self, job: Job, step: int, score: float) -> Word:
        """Keep a point of the curve: a grid's runs go on whatever they score."""
        self._trials[job.name].report(score, step)
        return "go"

    def ended(self, job: Job, state: State, why: str, record: RunRecord | None) -> None:
        """Close the job's trial."""
        finish(self._study, self._trials.pop(job.name), state, why, job.score(record) or 0.0)
