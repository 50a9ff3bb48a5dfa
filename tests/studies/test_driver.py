"""The driver with an engine that only pretends: teachers of several slots, full disks, runs of other drivers."""

import errno
import io
import os
from collections import Counter
from pathlib import Path

import optuna
import pytest
from rich.console import Console

from kfbench import registry
from kfbench.errors import KfbenchError, NoRoom
from kfbench.running import execute, identity, prepare, records, resolve
from kfbench.running.records import RunRecord
from kfbench.spec import digest
from kfbench.studies import driver, home, locks, missing, steps, trials
from kfbench.studies.carry import Order, Outcome, State
from kfbench.studies.place import Place
from kfbench.studies.trials import Job


class Pretended:
    """An engine whose runs end as they are told to: `ends` are the states of a run's tries, then it is done."""

    chains, pause, slots = False, 0.01, 2

    def __init__(self, place: Place, ends: dict[str, list[State]]) -> None:
        self.place, self.ends = place, ends
        self.orders: dict[str, Order] = {}
        self.started: Counter[str] = Counter()
        self.said: list[tuple[str, str]] = []

    def bag(self, name: str) -> Path:
        return self.place.cache / "runs" / name

    def checkpoint(self, name: str) -> Path:
        """Write a checkpoint that is newer than the one before."""
        file = self.bag(name) / ".checkpoints" / "x.ckpt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
        self.started["checkpoints"] += 1
        os.utime(file, (1e9 + self.started["checkpoints"],) * 2)
        return file

    def start(self, order: Order, files) -> None:
        self.orders[order.name] = order
        self.started[order.name] += 1

    def events(self) -> list:
        return []

    def answer(self, name: str, word: str) -> None:
        self.said.append((name, word))

    def look(self, name: str) -> Outcome:
        state = self.ends[name].pop(0) if self.ends.get(name) else "done"
        return Outcome(state, f"it was {state}", self.files(name) if state == "done" else {})

    def files(self, name: str) -> dict[str, bytes]:
        order = self.orders[name]
        values = identity.of(registry.read_spec(order.spec), ["0" * 64 for _ in order.spec["teachers"]])
        values["harness_revision"] = 0
        record = RunRecord(
            key=digest(values), spec=order.spec, identity=values, status="done", scores={"val": {"error": 50}}
        )
        home = "teachers/" if order.is_teacher else ""
        path = f"{home}{order.spec['task']}/{order.spec['method']}/{record.key}"
        return {f"{path}.safetensors": b"x", f"{path}.json": record.model_dump_json().encode()}

    def close(self) -> None:
        """Nothing is left."""


class Chained(Pretended):
    """An engine as SLURM is: students are handed over with their teachers, and die where those have not been made."""

    chains = True

    def look(self, name: str) -> Outcome:
        if any(teacher in self.ends and self.ends[teacher] for teacher in self.orders[name].after):
            return Outcome("lost", "its job ended without a word: CANCELLED")
        outcome = super().look(name)
        if outcome.state == "lost":
            self.checkpoint(name)
        return outcome


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "results")


@pytest.fixture
def student() -> Job:
    return Job(resolve.resolve("scratch", "digits/high", budget="smoke"), "student")


def drive(place: Place, engine: Pretended, jobs: list[Job], *, name: str = "s") -> tuple[dict[str, str], str]:
    """Make jobs and their teachers; return what went bad, and what was said."""
    said = io.StringIO()
    teachers = missing.missing_teachers([job.spec for job in jobs], place.results)
    with locks.alone(place, name), trials.storage(place.url) as storage:
        grid = trials.Grid(storage, name, jobs)
        bad = driver.drive(grid, teachers, place, name=name, console=Console(file=said), engine=engine)
    return bad, said.getvalue()


def test_who_comes_second_disturbs_nothing(tmp_path, student):
    """To open a study ends what is under way in the database, so it is opened by the one driver only."""
    place, job = Place(tmp_path / "results"), student
    with locks.alone(place, "s"), trials.storage(place.url) as storage:
        assert trials.Grid(storage, "s", [job]).next(lambda _: True) == job
        with pytest.raises(KfbenchError, match="'s' is being run already"):
            steps._make([job], {}, place, name="s", console=Console(quiet=True))
        [trial] = optuna.load_study(study_name="s", storage=storage).get_trials()
        assert trial.state == optuna.trial.TrialState.RUNNING


def taught() -> tuple[Job, str]:
    """A student and the name of its teacher's run."""
    job = Job(resolve.resolve("kd", "digits/high", budget="smoke"), "student")
    [teacher] = job.needs
    return job, teacher


def test_a_teacher_that_needs_many_slots_costs_its_students_nothing(place: Place) -> None:
    """Its job's time is up again and again, each time with a new checkpoint; `afterok` cancels the student's."""
    job, teacher = taught()
    engine = Chained(place, {teacher: ["lost"] * 8})
    bad, _ = drive(place, engine, [job])
    assert bad == {} and engine.started[teacher] == 9 and engine.started[job.name] > driver.MOST_DEATHS
    assert not [*(place.cache / "runs").iterdir()]


def test_a_failure_that_cannot_be_recorded_is_told_and_the_study_goes_on(
    place: Place, student: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Job(resolve.resolve("scratch", "digits/high", budget="smoke", seed=1), "other")
    monkeypatch.setattr(home.prepare, "plan", lambda *_, **__: (_ for _ in ()).throw(KfbenchError("no teacher")))
    engine = Pretended(place, {student.name: ["lost"] * driver.MOST_DEATHS})
    bad, said = drive(place, engine, [student, other])
    assert bad == {student.name: "took 5 workers down: it was lost"} and "no record of how it ended: no teacher" in said
    assert [record.spec["seed"] for record in records.records(place.results)] == [1]


def test_a_failure_whose_record_finds_no_room_is_recorded_later(
    place: Place, student: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, write_text = [True] * 3, records.write_text

    def writing(path: Path, text: str) -> None:
        if full and full.pop():
            raise OSError(errno.ENOSPC, "No space left on device")
        write_text(path, text)

    monkeypatch.setattr(records, "write_text", writing)
    engine = Pretended(place, {student.name: ["memory"]})
    bad, said = drive(place, engine, [student])
    assert (
        bad == {student.name: f"no memory left: it was memory; {driver.MORE_MEMORY}"}
        and said.count("waiting for room") == 1
    )
    assert [record.status for record in records.records(place.results)] == ["failed"]


@pytest.mark.parametrize(("ahead", "tries"), [(-1, 9), (0, driver.MOST_DEATHS)])
def test_a_checkpoint_is_new_whatever_the_clock_of_its_node_says(
    ahead: int, tries: int, place: Place, student: Job
) -> None:
    """Each node that a run comes to is a second behind the one before; 0: it writes none, and dies for nothing."""

    class Elsewhere(Pretended):
        def look(self, name: str) -> Outcome:
            os.utime(self.checkpoint(name), (1e9 + ahead * self.started[name],) * 2)
            return super().look(name)

    engine = Elsewhere(place, {student.name: ["lost"] * 8})
    os.utime(engine.checkpoint(student.name), (1e9,) * 2)
    bad, _ = drive(place, engine, [student])
    assert engine.started[student.name] == tries and bool(bad) == (ahead == 0)


def test_a_run_without_memory_keeps_its_checkpoint_and_so_does_one_that_was_only_not_scored(
    place: Place, student: Job
) -> None:
    """The machine's memory: its worker was killed; else `execute` has left the checkpoint beside the failed record."""

    class Unscored(Pretended):
        def look(self, name: str) -> Outcome:
            outcome = super().look(name)
            return Outcome(outcome.state, outcome.why, {".checkpoints/x.ckpt": b"x"} if outcome.state != "done" else {})

    for engine in (Pretended(place, {student.name: ["memory"]}), Unscored(place, {student.name: ["failed"]})):
        file = engine.checkpoint(student.name)
        bad, _ = drive(place, engine, [student])
        assert [*bad] == [student.name] and file.is_file()
    engine = Unscored(place, {student.name: ["pruned"]})
    drive(place, engine, [student])
    assert not file.is_file()


def test_a_run_that_failed_before_it_had_a_record_gets_one(place: Place, student: Job) -> None:
    """A method's `make_student` broke: a table is to say so, and have no silent gap."""
    drive(place, Pretended(place, {student.name: ["failed"]}), [student])
    assert [(record.status, record.error) for record in records.records(place.results)] == [("failed", "it was failed")]


def test_a_run_that_is_refused_keeps_its_checkpoint_and_one_that_failed_does_not(place: Place, student: Job) -> None:
    for state, stays in (("refused", True), ("failed", False), ("done", False)):
        engine = Pretended(place, {student.name: [state]})
        file = engine.checkpoint(student.name)
        drive(place, engine, [student])
        assert file.is_file() == stays, state


@pytest.mark.parametrize("there", [0, 1e6])
def test_a_full_disk_is_waited_for_and_nothing_is_handed_over(
    there: float, place: Place, student: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Disk full when the run is to start; then full under it, whether it could still say so or not."""
    seconds, full = {"REST": 0.05, "LOOK": 0.0}, [True] * 5
    for name, value in seconds.items():
        monkeypatch.setattr(driver, name, value)
    free = execute.machine.free
    monkeypatch.setattr(execute.machine, "free", lambda path: there if full and full.pop() else free(path))

    class Filling(Pretended):
        def start(self, order: Order, files) -> None:
            assert not full
            super().start(order, files)

        def look(self, name: str) -> Outcome:
            outcome = super().look(name)
            full.extend([True] * 3 if outcome.state == "lost" else [])
            return outcome

    engine = Filling(place, {student.name: ["lost", "full"] * driver.MOST_DEATHS})
    bad, said = drive(place, engine, [student])
    assert bad == {} and engine.started[student.name] == 2 * driver.MOST_DEATHS + 1
    assert said.count("waiting for room") == 1 and f"only {there / 1e6:.0f} MB free" in said


def test_a_start_that_finds_no_room_is_tried_again(place: Place, student: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "REST", 0.05)

    class Stumbling(Pretended):
        def start(self, order: Order, files) -> None:
            super().start(order, files)
            if self.started[order.name] == 1:
                raise OSError(errno.ENOSPC, "No space left on device")

    engine = Stumbling(place, {})
    bad, said = drive(place, engine, [student])
    assert bad == {} and engine.started[student.name] == 2 and "student: [Errno 28] No space left" in said


def test_ctrl_c_on_a_full_disk_is_ctrl_c(place: Place, student: Job) -> None:
    """The word cannot be written at first, nor what the run left."""

    class Full(Pretended):
        def start(self, order: Order, files) -> None:
            super().start(order, files)
            self.tries = 0

        def events(self) -> list:
            raise KeyboardInterrupt

        def answer(self, name: str, word: str) -> None:
            self.tries += 1
            if self.tries < 3:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().answer(name, word)

        def look(self, name: str) -> Outcome:
            assert self.said
            return Outcome("stopped", "", {".checkpoints/y.ckpt": b"y"})

    engine, fails = Full(place, {}), [True, True]
    write = home.write
    with pytest.MonkeyPatch.context() as patch, pytest.raises(driver.Stopped):

        def unwritable(target: Path, file) -> None:
            if fails and fails.pop():
                raise OSError(errno.ENOSPC, "No space left on device")
            write(target, file)

        patch.setattr(home, "write", unwritable)
        drive(place, engine, [student])
    assert engine.said == [(student.name, "stop")]
    assert (engine.bag(student.name) / ".checkpoints" / "y.ckpt").read_bytes() == b"y"


def test_a_run_of_another_driver_is_left_to_it_and_its_record_serves_both(
    place: Place, student: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two studies in one results folder have a run in common; others are made meanwhile."""
    monkeypatch.setattr(driver, "REST", 0.05)
    monkeypatch.setattr(missing, "is_current", lambda record: record.status == "done")
    other, third = (
        Job(resolve.resolve("scratch", "digits/high", budget="smoke", seed=seed), f"seed {seed}") for seed in (1, 2)
    )
    (place.cache / "runs").mkdir()
    theirs = Pretended(place, {})
    for job in (student, third):
        theirs.orders[job.name] = Order(job.name, job.spec.to_json())

    class Watched(Pretended):
        slots = 1

        def look(self, name: str) -> Outcome:
            assert name == other.name
            for made in (student.name, third.name):
                for path, content in theirs.files(made).items():
                    home.write(self.place.results / path, content)
            return super().look(name)

    engine = Watched(place, {})
    with locks.alone(place, "theirs"):
        assert locks.claim(place, student.name, driver="theirs") and locks.claim(place, third.name, driver="theirs")
        bad, said = drive(place, engine, [student, other, third], name="ours")
    assert bad == {} and engine.started == {other.name: 1}
    assert said.count("another study makes it") == 1 and engine.bag(student.name).is_dir()  # it is theirs
    assert drive(place, engine, [student], name="ours")[0] == {} and engine.started == {other.name: 1}
    assert not engine.bag(student.name).exists()


def test_the_run_of_a_driver_that_is_gone_is_taken_over(place: Place, student: Job) -> None:
    (place.cache / "runs").mkdir()
    with locks.alone(place, "theirs"):
        assert locks.claim(place, student.name, driver="theirs")
        assert not locks.claim(place, student.name, driver="ours")
    engine = Pretended(place, {})
    assert drive(place, engine, [student], name="ours")[0] == {} and engine.started[student.name] == 1


def test_a_teacher_of_another_driver_is_waited_for(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its student is not handed over meanwhile, not even to an engine that chains."""
    monkeypatch.setattr(driver, "REST", 0.05)
    job, teacher = taught()
    (place.cache / "runs").mkdir()
    engine, turns = Chained(place, {}), []
    turn = driver.Driver.turn

    def watched(self: driver.Driver) -> bool:
        turns.append(1)
        if len(turns) == 20:
            assert engine.started == {}
            (place.cache / "runs" / teacher / "driver").unlink()  # what a run's end takes with it
        return turn(self)

    monkeypatch.setattr(driver.Driver, "turn", watched)
    with locks.alone(place, "theirs"):
        assert locks.claim(place, teacher, driver="theirs")
        assert drive(place, engine, [job], name="ours")[0] == {}
    assert engine.started == {teacher: 1, job.name: 1}


def test_no_room_is_an_outcome_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full at the start, under a checkpoint, or anywhere else, neither refuses a run nor fails it."""
    import torch

    from kfbench.studies import carry

    spec = resolve.resolve("scratch", "digits/high", budget="smoke")
    order = Order("x", spec.to_json(), checkpoint_seconds=0, threads=torch.get_num_threads())

    def no_room(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    for number, (where, name) in enumerate(
        [(execute.machine, "os.replace"), (execute.machine, "free"), (records, "write_text"), (prepare, "setup")]
    ):
        with monkeypatch.context() as patch:
            owner, _, attribute = name.rpartition(".")
            patch.setattr(getattr(where, owner) if owner else where, attribute, no_room)
            outcome = carry.carry(order, {}, folder=tmp_path / str(number), report=lambda event: "go")
        assert outcome.state == "full", (name, outcome)
        assert not list(records.records(tmp_path / str(number)))
    assert carry.carry(order, {}, folder=tmp_path / "2", report=lambda event: "go").state == "done"
    with pytest.raises(NoRoom), monkeypatch.context() as patch:
        patch.setattr(execute.machine, "free", lambda path: 1)
        execute.check_room(tmp_path)
