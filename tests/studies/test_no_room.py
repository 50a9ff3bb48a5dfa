"""A disk that is full before a run, under it or after it: waited for, and no run is refused or lost by it."""

import errno
from pathlib import Path

import pytest
from pretended import Pretended, drive

from kfbench.errors import NoRoom
from kfbench.running import execute, prepare, records, resolve
from kfbench.studies import driver, home
from kfbench.studies.carry import Order, Outcome
from kfbench.studies.place import Place
from kfbench.studies.trials import Job


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
