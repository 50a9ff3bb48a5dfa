"""Short runs on digits that remember what their teachers said, and what the tests of the memory ask of them."""

from pathlib import Path
from typing import Any

import torch

from kfbench.running import execute, prepare, resolve
from kfbench.running.records import RunRecord
from kfbench.spec import Recipe, RunSpec
from kfbench.train.memory import Memory
from kfbench.train.setup import Setup
from kfbench.train.supervised import Supervised

ROWS, STEP = 300, 64  # training images and rows of a step: 4 steps an epoch, 4 blocks and a part of a fifth
TEACHER = "random:digits/cnn-4"  # nothing to train


def spec_of(method: str = "kd", *, seed: int = 0, **changes: Any) -> RunSpec:
    """A run on 300 digits of 6 epochs and 3 evaluations, with crops of which each image keeps 2."""
    recipe = {"network": "cnn-4", "train_size": ROWS, "batch_size": STEP, "epochs": 6, "evaluations": 3}
    recipe |= {"pad": 1, "views": 2}
    teachers = [TEACHER, "random:digits/cnn-8"][: 2 if method == "ca_mkd" else 1]
    return resolve.resolve(method, "digits", budget="smoke", teachers=teachers, seed=seed, recipe={**recipe, **changes})


def outcome(record: RunRecord) -> dict[str, Any]:
    """All that a run's numbers are, times and the memory's own count aside."""
    timed = ("seconds", "images_per_second")
    return {
        "scores": record.scores,
        "curve": [{name: value for name, value in row.items() if name not in timed} for row in record.curve],
        "weights": record.provenance["weights"],
    }


def files(results: Path) -> list[Path]:
    return sorted((results / ".cache" / "memory").glob("*.f16"))


def rows_of(record: RunRecord) -> tuple[float, float]:
    return record.cost["teacher_rows_asked"], record.cost["teacher_rows_remembered"]


def setup_of(spec: RunSpec, results: Path) -> Setup:
    for wanted in prepare.missing_teachers(spec, results=results):
        execute.teacher(wanted, results=results)
    return prepare.setup(prepare.plan(spec, results=results), device=torch.device("cpu"))


def memory_of(setup: Setup, folder: Path, checksum: str | None) -> Memory:
    recipe, split, shape = setup.spec.recipe, setup.data.train, setup.task.shape
    assert isinstance(recipe, Recipe)
    return Memory(folder / "memory", recipe, split, shape=shape, device=setup.device, source={"data": checksum})


def loop_of(tmp_path: Path, spec: RunSpec) -> Supervised:
    """The loop of a run with a memory, and nothing around it."""
    setup = setup_of(spec, tmp_path)
    setup.memory = memory_of(setup, tmp_path, "the data's checksum")
    return Supervised(setup)
