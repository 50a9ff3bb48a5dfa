"""The one process that decides: takes jobs from a source, hands them to an engine, and alone writes `results/`.

What a run left is kept before Optuna is told, so a driver that dies anywhere can be started again: what is recorded is
not made again, what was under way goes on from its checkpoint in `results/.cache/runs/<name>/`.
"""

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console

from kfbench.errors import KfbenchError
from kfbench.running import imported, prepare, records, teacher_store
from kfbench.running.records import RunRecord
from kfbench.studies import carry, engines, missing
from kfbench.studies.board import Board, open_board
from kfbench.studies.carry import Files, Order, Outcome
from kfbench.studies.engines import Engine
from kfbench.studies.place import Place
from kfbench.studies.trials import Job, Source, teacher_called

MOST_DEATHS = 5  # workers that a run may take down, with no new checkpoint between, before it counts as failed
LAST_LINES = 20  # of its log, in the record of such a run
INSIST = 120.0  # seconds that runs have for their checkpoints when all is to stop


class Stopped(KfbenchError):
    """The user wants no more for now; every run has left a checkpoint."""

    exit_code = 130


@dataclass
class UnderWay:
    """A run that an engine has."""

    job: Job
    deaths: int = 0
    judged: int = -1  # step of the latest score that was seen
    checkpoint: float = 0.0  # age of the checkpoint it began with
    outcome: Outcome | None = None  # how it ended, until that is kept
    log: str = ""  # the key that its log is called by, once it has one


def drive(
    source: Source, teachers: list[Job], place: Place, *, name: str, console: Console, engine: Engine | None = None
) -> dict[str, str]:
    """Make a source's runs, teachers first, with the place's engine; return {name: why} of what failed or was refused.

    Raises Stopped after Ctrl-C or SIGTERM, with every run at a checkpoint.
    """
    for folder in ("logs", "runs"):
        (place.cache / folder).mkdir(exist_ok=True)
    total = source.total + len(teachers)
    with _alone(place, name), _signals(), open_board(name, total, place.cache, console) as board:
        engine = engine or engines.make(place, place.cache / "runs")
        driver = Driver(source, teachers, place, engine, board)
        try:
            while driver.turn():
                time.sleep(engine.pause)
        except KeyboardInterrupt:
            console.print("stopping: each run writes a checkpoint …")
            driver.stop()
            raise Stopped("stopped; the same command goes on from there") from None
        except Exception:
            driver.stop()  # whatever is wrong here, say the database, the runs' work is not lost
            raise
        finally:
            engine.close()
    driver.tidy()
    return driver.bad


class Driver:
    """What is under way, what is recorded, what went wrong."""

    def __init__(self, source: Source, teachers: list[Job], place: Place, engine: Engine, board: Board) -> None:
        self._source, self._waiting, self._place, self._engine, self._board = source, teachers, place, engine, board
        stored = missing.recorded(teacher_store.folder(place.results))
        self._recorded = {teacher_called(name): path for name, path in stored.items()} | missing.recorded(place.results)
        self._under_way: dict[str, UnderWay] = {}
        self._has_room = True  # on the disk
        self.bad: dict[str, str] = {}  # {name: why}

    def turn(self) -> bool:
        """Hand over what there is room for, hear reports, keep what has ended; say whether anything is left."""
        while len(self._under_way) < self._engine.slots:
            job = self._waiting.pop(0) if self._waiting else self._source.next(self._is_ready)
            if job is None:
                break
            self._board.begin(job)
            self._under_way[job.name] = UnderWay(job)
            self._hand_over(self._under_way[job.name])
        if not self._under_way:
            return False
        self._hear()
        for run in list(self._under_way.values()):
            run.outcome = run.outcome or self._engine.look(run.job.name)
            if run.outcome is not None:
                self._ended(run, run.outcome)
        self._board.look()
        return True

    def stop(self) -> None:
        """Ask every run for a checkpoint and wait for it; keep what ends by itself meanwhile."""
        until = time.monotonic() + INSIST
        for name in self._under_way:
            self._engine.answer(name, "stop")
        while self._under_way and time.monotonic() < until:
            for name, run in list(self._under_way.items()):
                outcome = run.outcome or self._engine.look(name)
                if outcome is not None:
                    del self._under_way[name]
                    self._keep(run, outcome)
            time.sleep(self._engine.pause)

    def tidy(self) -> None:
        """Remove the folders of what is recorded: of teachers that a chaining engine's students read, and leftovers."""
        for bag in (self._place.cache / "runs").iterdir():
            if bag.name in self._recorded:
                shutil.rmtree(bag, ignore_errors=True)

    def _is_ready(self, job: Job) -> bool:
        """Say whether a run may be handed over: no teacher of it is under way, or the engine waits for them."""
        return self._engine.chains or not self._under_way.keys() & job.needs

    def _hand_over(self, run: UnderWay) -> None:
        """Give a run to the engine, unless it is recorded by now or cannot be made."""
        job, place = run.job, self._place
        bad = next((bad for bad in self.bad if bad in job.needs), None)
        if job.name in self._recorded:  # two trials of a search chose the same
            self._close(run, Outcome("done"))
        elif bad is not None:
            self._close(run, Outcome("refused", f"its teacher is missing: {self.bad[bad]}"))
        else:
            run.checkpoint, run.outcome = self._checkpoint(job), None
            try:
                files = self._files(job)
            except KfbenchError as error:
                self._close(run, Outcome("refused", str(error)))
                return
            order = Order(
                job.name,
                job.spec.to_json(),
                is_teacher=job.is_teacher,
                is_judged=job.is_judged,
                after=tuple(sorted(job.needs & self._under_way.keys())),
                device=place.device or ("cuda" if place.gpus else "cpu"),
                threads=place.threads,
                checkpoint_seconds=place.checkpoint_seconds,
                versions=carry.versions(),
                chosen=job.chosen,
            )
            try:
                self._engine.start(order, files)
            except BaseException:
                del self._under_way[job.name]
                raise

    def _files(self, job: Job) -> Files:
        """Return what a run reads: its teachers' records and weights, and the memory of their answers."""
        results = self._place.results
        paths = [self._recorded[name] for name in sorted(job.needs) if name in self._recorded]
        for key in (name.removeprefix("run:") for name in job.spec.teachers if name.startswith("run:")):
            folder, record = records.locate(results, key)
            paths.append(records.path_of(folder, record.key, record.run_spec()))
        memory = self._place.cache / "memory"
        memory.mkdir(exist_ok=True)
        theirs = [name.removeprefix("imported:") for name in job.spec.teachers if name.startswith("imported:")]
        paths += [imported.path_of(results, name) for name in theirs]
        both = [each for path in paths for each in {path, path.with_suffix(".safetensors")} if each.is_file()]
        return {".cache/memory": memory, **{path.relative_to(results).as_posix(): path for path in both}}

    def _hear(self) -> None:
        for name, event in self._engine.events():
            run = self._under_way.get(name)
            if run is None:
                continue
            self._board.event(name, event)
            if event["score"] is None or run.job.is_teacher:
                continue
            is_new = event["step"] > run.judged  # a run that goes on from a checkpoint says some things again
            run.judged = max(run.judged, event["step"])
            word = self._source.report(run.job, event["step"], event["score"]) if is_new else "go"
            if run.job.is_judged:
                self._engine.answer(name, word)

    def _ended(self, run: UnderWay, outcome: Outcome) -> None:
        """Keep what a run left and close it, or hand it over again; a full disk is waited for, and nothing is lost."""
        try:
            self._keep(run, outcome)
            if outcome.state == "lost" and self._checkpoint(run.job) <= run.checkpoint:
                run.deaths += 1
            if outcome.state == "memory" or run.deaths >= MOST_DEATHS:
                why = "no memory left" if outcome.state == "memory" else f"took {run.deaths} workers down"
                outcome = Outcome("failed", f"{why}: {outcome.why}")
                self._record_failure(run, outcome.why)
        except OSError as error:
            if self._has_room:
                self._board.say(f"cannot write to '{self._place.results}' ({error.strerror}); waiting for room")
            self._has_room = False
            return
        self._has_room = True
        if outcome.state in ("lost", "stopped"):
            self._hand_over(run)
        else:
            self._close(run, outcome)

    def _keep(self, run: UnderWay, outcome: Outcome) -> None:
        """Bring home what a run left: record and weights into the results, a checkpoint into the run's own folder."""
        job, bag = run.job, self._place.cache / "runs" / run.job.name
        for name, file in outcome.files.items():
            is_result = name.endswith((".json", ".safetensors"))
            target = (self._place.results if is_result else bag) / name
            if target != file:
                _write(target, file)
            if is_result and name.endswith(".json"):
                record = records.read(target)
                self._rename_log(run, record.key)
                if record.status == "done":
                    self._recorded[job.name] = target

    def _close(self, run: UnderWay, outcome: Outcome) -> None:
        """Tell the source how a run ended, and forget it."""
        job = run.job
        del self._under_way[job.name]
        if outcome.state not in ("done", "pruned"):
            self.bad[job.name] = outcome.why
        self._board.end(job, outcome.state, outcome.why, log=run.log or job.name)
        if not job.is_teacher:
            done = outcome.state == "done" and records.read(self._recorded[job.name])
            self._source.ended(job, outcome.state, outcome.why, done or None)
        if not job.is_teacher or not self._engine.chains:
            shutil.rmtree(self._place.cache / "runs" / job.name, ignore_errors=True)

    def _record_failure(self, run: UnderWay, why: str) -> None:
        """Write the failed record of a run that never came to write its own, with the last lines of its log."""
        job = run.job
        folder = teacher_store.folder(self._place.results) if job.is_teacher else self._place.results
        plan = prepare.plan(job.spec, results=self._place.results)
        log = self._place.cache / "logs" / f"{job.name}.log"
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:] if log.is_file() else []
        record = RunRecord(key=plan.key, spec=job.spec.to_json(), identity=plan.identity, status="failed", error=why)
        record.traceback = "\n".join(lines)
        records.write(folder, record)
        self._rename_log(run, plan.key)

    def _rename_log(self, run: UnderWay, key: str) -> None:
        """Call a run's log by the key of its record, now that it has one."""
        run.log, logs = key, self._place.cache / "logs"
        with contextlib.suppress(OSError):
            (logs / f"{run.job.name}.log").replace(logs / f"{key}.log")

    def _checkpoint(self, job: Job) -> float:
        """Return when the latest checkpoint of a run was written; 0: there is none."""
        bag = self._place.cache / "runs" / job.name
        return max((path.stat().st_mtime for path in bag.rglob("*.ckpt")), default=0.0)


def _write(target: Path, file: Path | bytes) -> None:
    """Put a file in place, never half."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, half = tempfile.mkstemp(dir=target.parent, prefix=".tmp-")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(file if isinstance(file, bytes) else file.read_bytes())
        os.chmod(half, 0o644)
        os.replace(half, target)
    except BaseException:
        Path(half).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _alone(place: Place, name: str) -> Iterator[None]:
    """Let one driver of a study work at a time. Raises KfbenchError if there is another."""
    path = place.cache / "status" / f"{name.replace('/', '-')}.lock"
    path.parent.mkdir(exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise KfbenchError(f"'{name}' is being run already in '{place.results}'; see: kfbench status") from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Let SIGTERM, and SIGINT where a shell has it ignored, stop the driver as Ctrl-C does."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
