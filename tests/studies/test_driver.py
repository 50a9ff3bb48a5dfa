"""The driver with an engine that only pretends: teachers of several slots, failed runs, runs of other drivers."""

import os

import pytest
from pretended import Chained, Pretended, drive

from kfbench.errors import KfbenchError
from kfbench.running import records, resolve
from kfbench.studies import board, driver, home, locks, missing
from kfbench.studies.carry import Order, Outcome
from kfbench.studies.place import Place
from kfbench.studies.trials import Job


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

    engine, marked, mark = Watched(place, {}), [], board.Board.mark

    def note(self: board.Board, name: str, *, others: bool) -> None:
        marked.append((name, others))
        mark(self, name, others=others)

    monkeypatch.setattr(board.Board, "mark", note)
    with locks.alone(place, "theirs"):
        assert locks.claim(place, student.name, driver="theirs") and locks.claim(place, third.name, driver="theirs")
        bad, said = drive(place, engine, [student, other, third], name="ours")
    assert bad == {} and engine.started == {other.name: 1}
    assert {(student.name, True), (other.name, False)} <= {*marked}  # as the status says it
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
