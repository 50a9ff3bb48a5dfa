"""The coordinator of a study: fills the queue with what is missing, starts local workers, shows how far they are."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from kfbench import registry
from kfbench.errors import KfbenchError
from kfbench.run import identity, prepare, records
from kfbench.spec import RunSpec, digest
from kfbench.study import queue, trials, worker
from kfbench.study.definition import Study
from kfbench.study.plan import Planned
from kfbench.study.queue import Job

LOOK = 0.5  # seconds between looks at the queue
RESTARTS = 3  # of a local worker that dies


@dataclass(frozen=True)
class Place:
    """Where and how runs are made."""

    results: Path
    storage: str  # URL
    jobs: int = 1
    device: str = "cpu"
    threads: int = 1
    heartbeat: int = 15
    grace: int = 60


def default_storage(results: Path) -> str:
    """Return the URL of the SQLite file that a results folder has for its queues."""
    (results / ".cache").mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{(results / '.cache' / 'optuna.db').resolve().as_posix()}"


def open_storage(place: Place) -> RDBStorage:
    """Open the database of the queues."""
    return queue.open_storage(place.storage, heartbeat=place.heartbeat, grace=place.grace)


def recorded(results: Path) -> set[str]:
    """Return the names in the queue of all runs with a finished record that today's code would make the same."""
    return (
        {digest(record.spec) for record in records.records(results) if is_current(record)}
        if results.is_dir()
        else set()
    )


def is_current(record: records.RunRecord) -> bool:
    """Say whether a record is finished and of the present revisions of method and harness."""
    if record.status != "done" or record.identity.get("harness_revision") != identity.HARNESS:
        return False
    try:
        method = registry.recorded_method(record.spec["method"], record.spec["settings"])
    except KfbenchError:
        return False
    return bool(record.identity.get("method_revision") == method.revision)


def wanted(study: Study, cells: list[Planned], *, row: str | None, column: str | None) -> list[tuple[Planned, RunSpec]]:
    """Return every run of a study, of one row or one column if asked, with its cell."""
    chosen = [c for c in cells if row in (None, c.row) and column in (None, c.column)]
    return [(cell, spec) for cell in chosen for spec in cell.runs(study.seeds)]


def missing(runs: list[tuple[Planned, RunSpec]], results: Path) -> list[tuple[Planned, RunSpec]]:
    """Return the runs without a finished record, each spec once."""
    done = recorded(results)
    first = {trials.name_of(spec): (cell, spec) for cell, spec in reversed(runs)}
    return [pair for name, pair in reversed(first.items()) if name not in done]


def teacher_jobs(specs: list[RunSpec], results: Path) -> list[Job]:
    """Return a job for each teacher that the runs need and the store lacks."""
    return [
        Job(
            trials.name_of(spec),
            {"seed": spec.seed},
            {"spec": spec.to_json(), "teacher": True, "label": f"teacher {prepare.called(spec)}"},
        )
        for spec in prepare.missing_teachers(*specs, results=results)
    ]


def teacher_queue(storage: RDBStorage, name: str, jobs: list[Job]) -> list[optuna.Study]:
    """Queue teachers in a queue of their own, which workers empty first; no queue if there is nothing to train."""
    known = f"{name}/teachers" in optuna.get_all_study_names(storage)
    return [_queue(storage, f"{name}/teachers", jobs)] if jobs or known else []


def _queue(storage: RDBStorage, name: str, jobs: list[Job]) -> optuna.Study:
    sampler = optuna.samplers.RandomSampler(seed=0)  # never asked: a job's seed is fixed
    study = optuna.create_study(
        study_name=name, storage=storage, direction="maximize", sampler=sampler, load_if_exists=True
    )
    queue.fill(study, jobs)
    return study


def fill(storage: RDBStorage, name: str, runs: list[tuple[Planned, RunSpec]], *, results: Path) -> list[optuna.Study]:
    """Queue the missing runs and, before them, their teachers."""
    jobs = [
        Job(
            trials.name_of(spec),
            {"seed": spec.seed},
            {"spec": spec.to_json(), "label": f"{cell.row} · {cell.column} · seed {spec.seed}"},
        )
        for cell, spec in runs
    ]
    first = teacher_queue(storage, name, teacher_jobs([spec for _, spec in runs], results))
    return [*first, _queue(storage, name, jobs)]


def run(name: str, studies: list[optuna.Study], place: Place, *, console: Console) -> dict[str, FrozenTrial]:
    """Start local workers, wait until the queues are empty, show progress; return the trial that settled each job.

    Raises queue.Stopped after Ctrl-C, with every run at a checkpoint.
    """
    with _signals(), _workers(name, place) as crew, _progress(console) as shown:
        board = Board(shown, studies)
        try:
            while board.look():
                crew.look_after(left=True)
                time.sleep(max(LOOK, 30 * board.took))  # a look reads every trial: at most 3 % of a core
        except KeyboardInterrupt:
            console.print("stopping: each run writes a checkpoint …")
            crew.stop()
            raise queue.Stopped("stopped; the same command goes on from there") from None
    for study in studies:
        worker.collect(study, place.results)
    return {key: trial for study in studies for key, trial in queue.settled(study).items()}


class Board:
    """One bar for everything, weighted by jobs and their progress, and a row for each job that is being done."""

    def __init__(self, shown: Progress, studies: list[optuna.Study]) -> None:
        self._shown, self._studies = shown, studies
        self._before = sum(state not in queue.OPEN for study in studies for state in queue.states(study).values())
        self._whole = shown.add_task("all", total=None, note="")
        self._rows: dict[int, TaskID] = {}
        self._last = ""
        self.took = 0.0  # seconds of the latest look

    def look(self) -> bool:
        """Show the present state; say whether any job is open."""
        started = time.perf_counter()
        states = [state for study in self._studies for state in queue.states(study).values()]
        setup = {trial._trial_id: trial for study in self._studies for trial in queue.running(study)}
        ended = sum(state not in queue.OPEN for state in states) - self._before
        total = len(states) - self._before
        part = sum(float(trial.user_attrs.get("progress", 0.0)) for trial in setup.values())
        bad = sum(state in ("failed", "refused") for state in states)
        note = f"{ended} of {total}" + (f", {bad} failed" if bad else "")
        self._shown.update(self._whole, total=total, completed=ended + part, note=note)
        for number in set(self._rows) - set(setup):
            self._shown.remove_task(self._rows.pop(number))
        for number, trial in setup.items():
            if number not in self._rows:
                self._rows[number] = self._shown.add_task(f"  {trial.user_attrs.get('label', '')}", total=1.0, note="")
            self._shown.update(self._rows[number], completed=trial.user_attrs.get("progress", 0.0))
        if not self._shown.console.is_terminal and note != self._last:
            self._shown.console.print(note)
        self._last = note
        self.took = time.perf_counter() - started
        return any(state in queue.OPEN for state in states)


@contextlib.contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        yield shown


class Crew:
    """The local worker processes."""

    def __init__(self, name: str, place: Place) -> None:
        self._name, self._place = name, place
        self._logs = place.results / ".cache" / "logs"
        self._logs.mkdir(parents=True, exist_ok=True)
        self._members = [self._start(number) for number in range(place.jobs)]
        self._restarts = RESTARTS * place.jobs

    def _start(self, number: int) -> "subprocess.Popen[bytes]":
        place = self._place
        command = [sys.executable, "-c", "from kfbench.cli.main import main; main()", "worker", self._name]
        command += ["--storage", place.storage, "--results", str(place.results), "--threads", str(place.threads)]
        command += ["--device", spread(place.device, number), "--heartbeat", str(place.heartbeat)]
        command += ["--grace", str(place.grace)]
        log: IO[bytes]
        with self._log(number).open("ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def _log(self, number: int) -> Path:
        return self._logs / f"worker-{number}.log"

    def look_after(self, *, left: bool) -> None:
        """Start workers again that died while jobs are left. Raises KfbenchError if they keep dying."""
        for number, member in enumerate(self._members):
            if not left or member.poll() is None:
                continue
            if member.returncode != 0:
                self._restarts -= 1
            if self._restarts < 0:
                last = self._log(number).read_text(errors="replace").strip().splitlines()[-1:]
                raise KfbenchError(
                    f"workers keep dying; see '{self._log(number)}': {''.join(last) or 'it says nothing'}"
                )
            self._members[number] = self._start(number)

    def stop(self, *, wait: float = 120.0) -> None:
        """Ask every worker to leave a checkpoint and go; after `wait` seconds insist."""
        for member in self._members:
            if member.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(member.pid, signal.SIGINT)
        until = time.monotonic() + wait
        for member in self._members:
            try:
                member.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                member.kill()
                member.wait()


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Let SIGTERM, and SIGINT where a shell has it ignored, stop the coordinator as Ctrl-C does."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _workers(name: str, place: Place) -> Iterator[Crew]:
    crew = Crew(name, place)
    try:
        yield crew
    finally:
        crew.stop()


def spread(device: str, number: int) -> str:
    """Return the n-th worker's device: `cuda` goes round the GPUs, anything else is taken as it is."""
    if device != "cuda":
        return device
    import torch

    return f"cuda:{number % max(1, torch.cuda.device_count())}"
