"""Talk between a run and its driver through a folder that both see: events one way, a word and an outcome the other."""

import contextlib
import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from filelock import FileLock

from kfbench.running.files import write_text
from kfbench.studies.carry import PATIENCE, Files, Order, Outcome, Word, carry


def work(order: Order, files: Files, bag: Path, log: Path, *, is_requeued: bool = False) -> bool:
    """Make a run in its bag, alone there, its output in the log; leave the outcome in the bag, and say whether it did.

    Where the run `is_requeued` by others after a signal, stopping is no outcome, unless the driver asked for it.
    """
    # the worker of a driver that died may still be writing its checkpoint
    with FileLock(bag / "lock"), log.open("ab") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
        before = read(bag)
        if before is not None and before.state == "done":  # by a worker of the driver before
            return True
        teachers = [(bag.parent / name, read(bag.parent / name)) for name in order.after]
        if any(outcome is None or outcome.state != "done" for _, outcome in teachers):
            outcome = Outcome("lost", "a teacher that it waited for was not made")
        else:
            made = {place: path for _, left in teachers if left for place, path in left.files.items()}
            outcome = carry(order, {**files, **made}, folder=bag, report=Reports(order, bag))
        if outcome.state == "stopped" and is_requeued and said(bag)[0] != "stop":
            return False
        values = {"state": outcome.state, "why": outcome.why, "files": [*outcome.files]}
        write_text(bag / "outcome.json", json.dumps({**values, "versions": order.versions}))
        return True


def said(bag: Path) -> tuple[Word, int]:
    """Return what the driver says to a run, and how many of its reports it has seen."""
    try:
        word, seen = (bag / "word").read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return "go", 0
    return cast(Word, word), int(seen)


def read(bag: Path) -> Outcome | None:
    """Return the outcome in a bag; None if there is none yet."""
    try:
        values = json.loads((bag / "outcome.json").read_bytes())
    except (OSError, ValueError):
        return None
    files = {name: bag / name for name in values["files"]}
    return Outcome(values["state"], values["why"], files)


class Reports:
    """The run's side: appends events, reads the word; an orphan stops."""

    def __init__(self, order: Order, bag: Path) -> None:
        self._order, self._bag, self._count = order, bag, 0

    def __call__(self, event: dict[str, Any]) -> Word:
        """Report an event, and wait for a verdict where a score is judged; that it cannot be written ends no run."""
        with contextlib.suppress(OSError):
            with (self._bag / "events").open("a", encoding="utf-8") as file:
                file.write(json.dumps(event) + "\n")
            self._count += 1
        patience = PATIENCE if self._order.is_judged and event["score"] is not None else 0.0
        until = time.monotonic() + patience
        while True:
            parent = multiprocessing.parent_process()
            if parent is not None and not parent.is_alive():
                return "stop"
            word, seen = said(self._bag)
            if word != "go" or seen >= self._count or time.monotonic() >= until:
                return word
            time.sleep(0.01)


class Folder:
    """The driver's side, for engines whose workers see its file system."""

    def __init__(self, bags: Path) -> None:
        self.bags = bags
        self._read: dict[str, tuple[int, int]] = {}  # bytes and events seen of each run

    def open(self, order: Order) -> Path:
        """Make a run's bag ready: its checkpoint stays, and an outcome that the driver before did not see to keep."""
        bag = self.bags / order.name
        bag.mkdir(exist_ok=True)
        with contextlib.suppress(OSError, ValueError):
            before = json.loads((bag / "outcome.json").read_bytes())
            if before["state"] != "done" or before["versions"] != order.versions:
                (bag / "outcome.json").unlink()
        for name in ("events", "word"):
            (bag / name).unlink(missing_ok=True)
        self._read[order.name] = (0, 0)
        return bag

    def events(self) -> list[tuple[str, dict[str, Any]]]:
        """Return what runs have reported since the last look."""
        return [(name, event) for name in list(self._read) for event in self._new(name)]

    def _new(self, name: str) -> Iterator[dict[str, Any]]:
        path, (start, count) = self.bags / name / "events", self._read[name]
        with contextlib.suppress(OSError), path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < start:  # it was begun anew
                start = count = 0
            file.seek(start)
            whole = file.read().rpartition(b"\n")[0]
            if whole:
                lines = whole.split(b"\n")
                self._read[name] = (start + len(whole) + 1, count + len(lines))
                for line in lines:
                    with contextlib.suppress(ValueError):  # torn, where a disk was full for a while
                        yield json.loads(line)

    def answer(self, name: str, word: Word) -> None:
        """Say to a run what it is to do, and how many of its reports are seen."""
        write_text(self.bags / name / "word", f"{word} {self._read.get(name, (0, 0))[1]}")

    def forget(self, name: str) -> None:
        """Take a run off the list."""
        self._read.pop(name, None)
