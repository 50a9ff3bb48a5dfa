"""The one process that decides: takes jobs from a source, hands them to an engine, and alone writes `results/`.

What a run left is kept before Optuna is told, so a driver that dies anywhere can be started again: what is recorded is
not made again, what was under way goes on from its checkpoint in `results/.cache/runs/<name>/`.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console

from kfbench.errors import KfbenchError, NoRoom, is_full
from kfbench.running import execute
from kfbench.studies import carry, engines
from kfbench.studies.board import Board, open_board
from kfbench.studies.carry import Order, Outcome
from kfbench.studies.engines import Engine
from kfbench.studies.home import Home
from kfbench.studies.place import Place
from kfbench.studies.trials import Job, Source

MOST_DEATHS = 5  # workers that a run may take down, with no new checkpoint between, before it counts as failed
REST = 60.0  # seconds until a run is handed over again that another driver has, or whose disk was full
LOOK = 5.0  # seconds between two looks for room
MORE_MEMORY = "with more memory (--memory on ray and slurm, fewer --jobs here) the same command goes on"
INSIST = 120.0  # seconds that runs have for their checkpoints when all is to stop


class Stopped(KfbenchError):
    """The user wants no more for now; every run has left a checkpoint."""

    exit_code = 130


@dataclass
class UnderWay:
    """A run that an engine has, or that rests until it is handed over."""

    job: Job
    deaths: int = 0
    rests: float | None = None  # until when; with an outcome, a full disk, it keeps its place meanwhile
    is_others: bool = False  # another driver had it when it was last asked for
    judged: int = -1  # step of the latest score that was seen
    checkpoint: float = 0.0  # age of the checkpoint it began with
    outcome: Outcome | None = None  # how it ended, until that is kept
    log: str = ""  # the key that its log is called by, once it has one

    @property
    def has_place(self) -> bool:
        """Whether it counts among the engine's runs."""
        return self.rests is None or self.outcome is not None

    @property
    def is_due(self) -> bool:
        """Whether it has rested."""
        return self.rests is not None and self.rests <= time.monotonic()


def drive(
    source: Source, teachers: list[Job], place: Place, *, name: str, console: Console, engine: Engine | None = None
) -> dict[str, str]:
    """Make a source's runs, teachers first, with the place's engine; return {name: why} of what failed or was refused.

    Who calls it holds `locks.alone` for that name since before the source was made: to open a source ends what is
    under way in the database. Raises Stopped after Ctrl-C or SIGTERM, with every run at a checkpoint.
    """
    for folder in ("logs", "runs", "status"):
        (place.cache / folder).mkdir(exist_ok=True)
    total = source.total + len(teachers)
    with _signals(), open_board(name, total, place.cache, console, on=place.on) as board:
        engine = engine or engines.make(place, place.cache / "runs")
        driver = Driver(source, teachers, place, engine, board, name=name)
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
    driver.home.tidy()
    return driver.bad


class Driver:
    """What is under way, and what went wrong."""

    def __init__(
        self, source: Source, teachers: list[Job], place: Place, engine: Engine, board: Board, *, name: str
    ) -> None:
        self._source, self._waiting, self._place, self._engine, self._board = source, teachers, place, engine, board
        self.home = Home(place, driver=name)
        self._under_way: dict[str, UnderWay] = {}
        self._has_room, self._looked, self._is_told = True, 0.0, False  # on the disk, when it was looked for, said
        self.bad: dict[str, str] = {}  # {name: why}

    def turn(self) -> bool:
        """Hand over what there is room for, hear reports, keep what has ended; say whether anything is left.

        While the disk is full, nothing is done.
        """
        if not self._finds_room():
            self._board.look()
            return True
        for run in [run for run in self._under_way.values() if run.is_due and run.has_place]:
            self._hand_over(run)
        while sum(run.has_place for run in self._under_way.values()) < self._engine.slots:
            following = self._next()
            if following is None:
                break
            self._hand_over(following)
        if not self._under_way:
            return False
        self._hear()
        for run in [run for run in self._under_way.values() if run.rests is None]:
            run.outcome = run.outcome or self._engine.look(run.job.name)
            if run.outcome is not None:
                self._ended(run, run.outcome)
        self._board.look()
        return True

    def _next(self) -> UnderWay | None:
        """Return the next run to hand over: one that has rested, a teacher, or the source's next; None: none is due."""
        rested = next((run for run in self._under_way.values() if run.is_due), None)
        if rested is not None:
            return rested
        job = self._waiting.pop(0) if self._waiting else self._source.next(self._is_ready)
        if job is None:
            return None
        self._board.begin(job)
        self._under_way[job.name] = UnderWay(job)
        return self._under_way[job.name]

    def _finds_room(self, *, now: bool = False) -> bool:
        """Say whether results can be written, as was found a moment ago; that they cannot is told once."""
        if now or time.monotonic() - self._looked > LOOK:
            self._looked, self._has_room = time.monotonic(), True
            try:
                execute.check_room(self._place.results)
            except KfbenchError as error:
                self._has_room = False
                self._wait(str(error))
        return self._has_room

    def _wait(self, why: str) -> None:
        """Say once what is waited for."""
        if not self._is_told:
            self._board.say(f"{why}; waiting for room")
        self._is_told = True

    def stop(self) -> None:
        """Ask every run for a checkpoint and wait for it; keep what ends by itself meanwhile."""
        until = time.monotonic() + INSIST
        there = {name: run for name, run in self._under_way.items() if run.rests is None}
        unasked = {*there}
        while there and time.monotonic() < until:
            for name, run in list(there.items()):
                with contextlib.suppress(OSError):  # a full disk: all of it is tried again
                    if run.outcome is None and name in unasked:
                        self._engine.answer(name, "stop")
                        unasked.remove(name)
                    run.outcome = run.outcome or self._engine.look(name)
                    if run.outcome is not None:
                        self.home.keep(run.job, run.outcome)
                        del there[name]
            time.sleep(self._engine.pause)

    def _is_ready(self, job: Job) -> bool:
        """Say whether a run may be handed over: no teacher of it is under way, or the engine has it and waits."""
        teachers = [self._under_way[name] for name in self._under_way.keys() & job.needs]
        return not teachers or (self._engine.chains and all(teacher.rests is None for teacher in teachers))

    def _hand_over(self, run: UnderWay) -> None:
        """Give a run to the engine, unless it is recorded by now, cannot be made, or has to rest."""
        job, place = run.job, self._place
        run.rests = run.outcome = None
        bad = next((bad for bad in self.bad if bad in job.needs), None)
        if self.home.has(job):  # two trials of a search chose the same; or another driver made it
            self._close(run, Outcome("done"))
        elif bad is not None:
            self._close(run, Outcome("refused", f"its teacher is missing: {self.bad[bad]}"))
        elif not self._is_ready(job) or self._is_others(run) or self.home.has(job):  # it may be by now
            run.rests = time.monotonic() + REST
        else:
            run.checkpoint = self.home.checkpoint(job)
            order = Order(
                job.name,
                job.spec.to_json(),
                is_teacher=job.is_teacher,
                is_judged=job.is_judged,
                after=tuple(sorted(job.needs & self._under_way.keys())),
                device=place.runs_on,
                threads=place.threads,
                checkpoint_seconds=place.checkpoint_seconds,
                versions=carry.versions(),
                chosen=job.chosen,
                results=str(place.results),
                bag=str(self.home.bag(job.name)),
            )
            try:
                files = self.home.files(job)
            except KfbenchError as error:
                self._close(run, Outcome("refused", str(error)))
                return
            try:
                self._engine.start(order, files)
            except BaseException as error:
                if is_full(error):
                    run.outcome = Outcome("full", str(error))
                    return
                del self._under_way[job.name]
                raise

    def _is_others(self, run: UnderWay) -> bool:
        """Say whether another driver has a run, and tell the user so."""
        is_ours = self.home.claim(run.job.name)
        if not is_ours and not run.is_others:
            self._board.say(f"{run.job.label}: another study makes it; its record will serve both")
        run.is_others = not is_ours
        self._board.mark(run.job.name, others=run.is_others)
        return run.is_others

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
                with contextlib.suppress(OSError):  # of a full disk: the run's patience ends, and it goes on
                    self._engine.answer(name, word)

    def _ended(self, run: UnderWay, outcome: Outcome) -> None:
        """Keep what a run left and close it, or hand it over again; a full disk is waited for, and nothing is lost."""
        if outcome.state == "lost" and not self._finds_room(now=True):  # then it need not have died of itself
            outcome = run.outcome = Outcome("full", outcome.why, outcome.files)
        try:
            key = self.home.keep(run.job, outcome)
            run.log = key or run.log
            goes_on = outcome.state == "memory" or _is_left_to_go_on(outcome)
            deaths = run.deaths + self._is_death(run, outcome)
            if outcome.state == "memory" or deaths >= MOST_DEATHS:
                why = f"no memory left: {outcome.why}; {MORE_MEMORY}"
                why = why if outcome.state == "memory" else f"took {deaths} workers down: {outcome.why}"
                outcome = Outcome("failed", why)
                self._record_failure(run, outcome.why)
            elif outcome.state == "failed" and not key:  # before it had a record to write
                self._record_failure(run, outcome.why)
        except (OSError, NoRoom) as error:
            told = error.strerror if isinstance(error, OSError) else error
            self._wait(f"cannot write to '{self._place.results}' ({told})")
            return
        if outcome.state == "full":
            self._wait(f"{run.job.label}: {outcome.why}")
            run.rests = time.monotonic() + REST
            return
        self._is_told, run.deaths = False, deaths
        if outcome.state in ("lost", "stopped"):
            self._hand_over(run)
        else:
            self._close(run, outcome, goes_on=goes_on)

    def _record_failure(self, run: UnderWay, why: str) -> None:
        """Record how a run ended that did not do so itself, or say why that cannot be. Raises NoRoom."""
        try:
            run.log = self.home.record_failure(run.job, why)
        except NoRoom:
            raise
        except KfbenchError as error:
            self._board.say(f"{run.job.label}: there is no record of how it ended: {error}")

    def _is_death(self, run: UnderWay, outcome: Outcome) -> bool:
        """Say whether a run took a worker down: it left no new checkpoint, and did not only wait for a teacher.

        A new one may have an earlier time: the clocks of nodes differ.
        """
        waited = bool(run.job.needs & self._under_way.keys())
        return outcome.state == "lost" and not waited and self.home.checkpoint(run.job) == run.checkpoint

    def _close(self, run: UnderWay, outcome: Outcome, *, goes_on: bool = False) -> None:
        """Tell the source how a run ended, and forget it; where it `goes_on` another time its checkpoint stays."""
        job = run.job
        del self._under_way[job.name]
        if outcome.state not in ("done", "pruned"):
            self.bad[job.name] = outcome.why
        self._board.end(job, outcome.state, outcome.why, log=run.log or job.name)
        if not job.is_teacher:
            record = self.home.record(job) if outcome.state == "done" else None
            self._source.ended(job, outcome.state, outcome.why, record)
        # what was refused may go on from its checkpoint
        is_over = (outcome.state in ("done", "pruned", "failed") and not goes_on) or not self.home.checkpoint(job)
        if is_over and not (job.is_teacher and self._engine.chains):
            self.home.remove(job.name)


def _is_left_to_go_on(outcome: Outcome) -> bool:
    """Say whether a failed run can go on another time: `execute` leaves the checkpoint of such a one only."""
    return outcome.state == "failed" and any(name.endswith(".ckpt") for name in outcome.files)


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Let SIGTERM, and SIGINT where a shell has it ignored, stop the driver as Ctrl-C does; a thread hears neither."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
