"""Runs of seconds on digits, and what the tests of a run's life ask of them."""

from pathlib import Path
from typing import Any

from kfbench.running import resolve
from kfbench.running.records import RunRecord
from kfbench.spec import RunSpec
from kfbench.train.loop import Loop, Watcher

TEACHERS = ["random:digits/low/cnn-4", "random:digits/high/mlp-30"]  # of two kinds; nothing to train


def spec_of(method: str = "scratch", *, teachers: list[str] | None = None, seed: int = 0, **changes: Any) -> RunSpec:
    """A run on digits of 10 steps an epoch, 3 epochs and 3 evaluations, with crops."""
    settings = changes.pop("settings", {})
    recipe = {"network": "cnn-4", "batch_size": 128, "epochs": 3, "evaluations": 3, "pad": 1, **changes}
    return resolve.resolve(
        method, "digits", budget="smoke", teachers=teachers, seed=seed, recipe=recipe, settings=settings
    )


class Told(Watcher):
    """Remembers what was said and how far the run came; acts at one step."""

    def __init__(self, at: int = -1, act: Any = None) -> None:
        self.at, self.act = at, act
        self.lines: list[str] = []
        self.position = self.total = 0

    def say(self, line: str) -> None:
        self.lines.append(line)

    def step(self, loop: Loop, row: dict[str, float] | None) -> None:
        self.position, self.total = loop.position, loop.total
        if loop.position == self.at:
            self.act()


def outcome(record: RunRecord) -> dict[str, Any]:
    """All that a run's numbers are, times aside; the digest of the weights stands for every parameter and buffer."""
    timed = ("seconds", "images_per_second")
    return {
        "key": record.key,
        "status": record.status,
        "scores": record.scores,
        "curve": [{name: value for name, value in row.items() if name not in timed} for row in record.curve],
        "weights": record.provenance["weights"],
    }


def checkpoint(results: Path) -> Path:
    [path] = (results / ".checkpoints").iterdir()
    return path
