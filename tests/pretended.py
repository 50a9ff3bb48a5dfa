"""An engine whose runs only pretend, and a driver that hands them to it: what tests of the driver share."""

import io
import os
from collections import Counter
from pathlib import Path

from rich.console import Console

from kfbench import registry
from kfbench.running import identity
from kfbench.running.records import RunRecord
from kfbench.spec import digest
from kfbench.studies import driver, locks, missing, trials
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


def drive(place: Place, engine: Pretended, jobs: list[Job], *, name: str = "s") -> tuple[dict[str, str], str]:
    """Make jobs and their teachers; return what went bad, and what was said."""
    said = io.StringIO()
    teachers = missing.missing_teachers([job.spec for job in jobs], place.results)
    with locks.alone(place, name), trials.storage(place.url) as storage:
        grid = trials.Grid(storage, name, jobs)
        bad = driver.drive(grid, teachers, place, name=name, console=Console(file=said), engine=engine)
    return bad, said.getvalue()
