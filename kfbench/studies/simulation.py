"""How many runs an hour one driver sustains: its costs are measured here, what they bound is simulated.

    python -m kfbench.studies.simulation [local|ray|slurm …]

Measured is the driver's own work on pretended runs (a trial in SQLite, 15 reports, a record of 60 kB, weights of
1 MB, kept on this disk), and what an engine's calls take on real runs of a second. Simulated is the driver's loop with
these costs: its turns, the runs that end in between, and the places that stand empty until a turn fills them.
"""

import dataclasses
import heapq
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from kfbench.running import resolve
from kfbench.running.records import RunRecord
from kfbench.spec import digest
from kfbench.studies import driver, engines, locks, trials
from kfbench.studies.carry import Files, Order, Outcome, Word
from kfbench.studies.engines import Engine
from kfbench.studies.place import Place
from kfbench.studies.trials import Job

EVENTS = 15  # reports of a pretended run, each with a score
PRETENDED, REAL = 100, 6  # runs that are measured


class Costs(NamedTuple):
    """Seconds of the driver's time."""

    own: float  # a run: trial, reports, keeping what it left
    start: float  # a run: the engine's call
    look: float  # a run under way, at every turn
    events: float  # a turn: the engine's call
    pause: float  # between two turns


class Pretend:
    """An engine whose runs end at once, with the files of a real one."""

    chains, pause, slots = False, 0.0, 8

    def __init__(self) -> None:
        self._orders: dict[str, Order] = {}
        self._events: list[tuple[str, dict[str, Any]]] = []

    def start(self, order: Order, files: Files) -> None:
        """Pretend all reports of a run."""
        self._orders[order.name] = order
        for step in range(EVENTS):
            event = {"step": step, "progress": step / EVENTS, "score": 50.0, "val": 50.0, "unit": "%", "rate": 1.0}
            self._events.append((order.name, {**event, "node": "here", "device": "cpu", "pid": 1}))

    def events(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the pretended reports."""
        events, self._events = self._events, []
        return events

    def answer(self, name: str, word: Word) -> None:
        """Nobody listens."""

    def look(self, name: str) -> Outcome | None:
        """Return a record with a curve, and weights, as of a run of images."""
        spec = self._orders.pop(name).spec
        identity = {"spec": spec}
        record = RunRecord(
            key=digest(identity), spec=spec, identity=identity, status="done", scores={"val": {"error": 50}}
        )
        record.curve = [{f"number {n}": 1.0 / 3 for n in range(100)} for _ in range(EVENTS)]
        folder = f"{spec['task']}/{spec['method']}/{record.key}"
        text = json.dumps(record.model_dump(), indent=1).encode()
        return Outcome("done", files={f"{folder}.safetensors": bytes(10**6), f"{folder}.json": text})

    def close(self) -> None:
        """There is nothing to end."""


class Timed:
    """An engine, and what its calls take."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.chains, self.pause = engine, engine.chains, engine.pause
        self.seconds: dict[str, list[float]] = {"start": [], "look": [], "events": []}

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.engine, name)
        if name not in self.seconds:
            return call

        def timed(*words: Any) -> Any:
            began = time.perf_counter()
            try:
                return call(*words)
            finally:
                self.seconds[name].append(time.perf_counter() - began)

        return timed


def jobs(count: int) -> list[Job]:
    """Return runs that differ in their seeds only."""
    spec = resolve.resolve("scratch", "digits/high", budget="smoke")
    return [Job(dataclasses.replace(spec, seed=seed), f"seed {seed}") for seed in range(count)]


def measure(on: str, folder: Path) -> Costs:
    """Return the costs of an engine on this machine: the driver's own in processor time, its calls' lower quartiles.

    On a machine that does other work too, both say what they would be on one that does not.
    """
    console = Console(quiet=True)

    def drive(engine: Engine, place: Place, count: int) -> float:
        with locks.alone(place, "simulation"), trials.storage(place.url) as storage:
            source = trials.Grid(storage, "simulation", jobs(count))
            began = time.process_time()
            driver.drive(source, [], place, name="simulation", console=console, engine=engine)
            return time.process_time() - began

    pretended = Place(folder / "pretended")
    own = drive(Pretend(), pretended, PRETENDED) / PRETENDED
    place = Place(folder / on, on=on, jobs=2)
    (place.cache / "logs").mkdir()
    (place.cache / "runs").mkdir()
    timed = Timed(engines.make(place, place.cache / "runs"))
    drive(timed, place, REAL)
    start, look, events = (
        statistics.quantiles(timed.seconds[name], method="inclusive")[0] for name in ("start", "look", "events")
    )
    return Costs(own, start, look, events, timed.pause)


def simulate(costs: Costs, *, places: int, seconds: float) -> tuple[float, float]:
    """Return runs an hour, and the share of the driver's time that is taken, with `places` runs of `seconds` at once.

    Durations vary by a tenth, or all would end in one turn; the beginning, when all places are filled, is left out.
    """
    chance, now, busy, done = random.Random(0), 0.0, 0.0, 0
    ends: list[float] = []  # when runs under way end
    begin, over = 2 * seconds, 12 * seconds + 3600
    while now < over:
        ended = 0
        while ends and ends[0] <= now:
            heapq.heappop(ends)
            ended += 1
        begun = places - len(ends)
        work = costs.events + costs.look * (len(ends) + ended) + costs.own * ended + costs.start * begun
        for number in range(begun):
            heapq.heappush(ends, now + costs.start * (number + 1) + seconds * chance.uniform(0.9, 1.1))
        now += work + costs.pause
        if now > begin:
            busy, done = busy + work, done + ended
    return done / (now - begin) * 3600, busy / (now - begin)


def main(names: list[str]) -> None:
    """Measure engines and print what a driver sustains with each."""
    for on in names or ["local"]:
        with tempfile.TemporaryDirectory() as folder:
            costs = measure(on, Path(folder))
        told = ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in costs._asdict().items())
        print(f"{on}: {told}\n  places  seconds a run  runs an hour  of what the places allow  driver busy")
        for places in (8, 64, 512, 4096):
            for seconds in (10.0, 60.0, 600.0, 3600.0):
                rate, busy = simulate(costs, places=places, seconds=seconds)
                share = rate / (places * 3600 / seconds)
                print(f"  {places:6}  {seconds:13.0f}  {rate:12,.0f}  {100 * share:22.0f} %  {100 * busy:9.0f} %")


if __name__ == "__main__":
    main(sys.argv[1:])
