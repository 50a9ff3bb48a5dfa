"""Packed digits for whatever trains; a small study with schema-true records, for the tests of the reading half."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from console import Console

from kfbench.running import records
from kfbench.running.records import RunRecord
from kfbench.spec import GameRecipe, Recipe, RunSpec, digest
from kfbench.studies import definition, plan
from kfbench.studies.plan import Planned

STUDY = """
title = "A small study"
about = "Made for tests."
seeds = 4
methods = ["scratch", "kf", { method = "kd", label = "kd, T 4" }, "pathnet"]
tasks = [
    { task = "cifar10", label = "cifar10, 250 images", train_size = 250 },
    { task = "cifar10", label = "cifar10, 1,000 images", train_size = 1000 },
    "cifar100",
    "atari/krull",
]

[[claims]]
text = "kf beats scratch on images"
better = "kf"
than = "scratch"
on = ["cifar10, 250 images", "cifar10, 1,000 images"]

[[claims]]
text = "kd loses to scratch"
better = "scratch"
than = "kd, T 4"
on = ["cifar100"]

[[claims]]
text = "kf beats pathnet on cifar100"
better = "kf"
than = "pathnet"
on = ["cifar100"]

[[claims]]
text = "the student stands alone at the end"
row = "kf"
curve = "share/student"
above = 0.9
on = ["cifar100"]

[[reference]]
row = "scratch"
column = "cifar100"
value = 27.5
source = "somebody 2020, table 1"
"""
ERRORS = {"cifar10, 250 images": 50.0, "cifar10, 1,000 images": 40.0, "cifar100": 60.0}
GAINS = {"scratch": 0.0, "kf": 3.0, "kd, T 4": -1.0, "pathnet": 2.0}


def made_record(cell: Planned, spec: RunSpec) -> RunRecord:
    """A record as `execute` writes it: a curve, scores and costs that depend on the spec only."""
    rng = np.random.default_rng(spec.seed)
    luck = float(rng.normal(0, 0.4))
    own = float(np.random.default_rng([spec.seed, list(GAINS).index(cell.row)]).normal(0, 0.15))
    is_game = isinstance(spec.recipe, GameRecipe)
    final = ERRORS.get(cell.column, 0.0) - GAINS[cell.row] + luck + own
    if is_game:
        final = 3000 + 200 * GAINS[cell.row] + 100 * luck
    teachers = [name.partition("@")[0] for name in spec.teachers]
    curve = []
    for n in range(11):
        progress = n / 10
        row = {"step": 100.0 * n, "progress": progress, "seconds": 5.0 * n, "loss": 3 * math.exp(-3 * progress)}
        if is_game:
            row |= {"frames": 4000.0 * n, "val_return": final * (1 - math.exp(-4 * progress))}
        else:
            row |= {"epoch": 1.2 * n, "val_error": final + 40 * math.exp(-5 * progress), "val_loss": 1.0}
        if teachers and cell.row == "kf":
            share = 0.47 - 0.2 * progress if progress < 0.5 else 0.37 + (progress - 0.5) * 1.26
            row |= {"share/student": share}
            for k, layer in enumerate(("conv1", "conv2", "conv3")):
                row[f"share/{layer}/student"] = share
                for teacher, part in zip(teachers, (0.5 + 0.1 * k, 0.5 - 0.1 * k), strict=True):
                    row[f"share/{layer}/{teacher}"] = (1 - share) * part
                    if cell.column == "cifar100":  # records of other columns are older
                        row[f"influence/{layer}/{teacher}"] = 3 * (1 - share) * part * (n < 9)
            if progress < 0.9 and not is_game:
                row["val_error_attached"] = final + 4
        curve.append(row)
    identity = {"spec": spec.to_json(), "data": "0" * 64, "teachers": [], "method_revision": 1, "harness_revision": 1}
    metric = "return" if is_game else "error"
    return RunRecord(
        key=digest(identity),
        spec=spec.to_json(),
        identity=identity,
        status="done",
        scores={"last": {metric: final}, "best": {metric: final + 0.1}, "val": {metric: final + 0.3}},
        curve=curve,
        cost={
            "seconds": 50.0 * (1.4 if teachers else 1.0),
            "teacher_seconds": 80.0 if teachers else 0.0,
            "parameters": 78_042.0 if cell.column == "cifar100" else 77_754.0,
            "multiply_adds": 12_500_000.0,
            "latency_ms": 0.8 + 0.01 * spec.seed,
            "steps": 1000.0,
        },
        provenance={"commit": "0123456789abcdef", "device": "cpu (test)", "threads": 1, "versions": {"torch": "2.14"}},
    )


def planned_cells(made: definition.Study) -> list[Planned]:
    cells = []
    for row in made.methods:
        for column in made.tasks:
            if row.method == "kd" and column.task == "atari/krull":
                cells.append(Planned(row.label, column.label, None, "method 'kd' is for images"))
                continue
            is_game = column.task.startswith("atari")
            spec = RunSpec(
                method=row.method,
                task=column.task,
                teachers=() if row.method == "scratch" else ("cifar10/cnn-16@small", "digits/cnn-16@small"),
                recipe=GameRecipe() if is_game else Recipe(train_size=column.train_size),
            )
            cells.append(Planned(row.label, column.label, spec))
    return cells


def make_small(root: Path) -> tuple[Path, Path]:
    """Write a study and its records: pathnet not run on cifar100 and for seed 3, one of its runs failed."""
    folder, results = root / "reports" / "small", root / "results"
    folder.mkdir(parents=True)
    (folder / "study.toml").write_text(STUDY)
    made = definition.load(folder)
    cells = planned_cells(made)
    plan.write(folder, made, cells)
    for cell in cells:
        for spec in cell.runs(made.seeds):
            if cell.row == "pathnet" and (cell.column == "cifar100" or spec.seed == 3):
                continue
            record = made_record(cell, spec)
            if cell.row == "pathnet" and cell.column == "cifar10, 250 images" and spec.seed == 2:
                record.status, record.error, record.scores = "failed", "Diverged: loss is nan at step 40", {}
            records.write(results, record)
    return folder, results


@pytest.fixture(scope="session")
def packed_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that holds the digits, packed once; not to be written to."""
    from kfbench.data import sources

    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KFBENCH_DATA", str(folder))
        sources.find("digits")
    return folder


@pytest.fixture
def type_in(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Console:
    """Run a command in this process, as the console script would."""
    return Console(monkeypatch, capsys)


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, Path]:
    """A small study's folder and the folder of its records."""
    return make_small(tmp_path)


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same with its report made, once for all tests of a file."""
    from kfbench.reporting import page

    folder, results = make_small(tmp_path_factory.mktemp("reported"))
    page.index(folder.parent, results, {folder.resolve(): page.make(folder, results)}, str)
    return folder, results


@pytest.fixture
def quiet_machine(packed_digits: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread, and the packed digits."""
    import torch

    monkeypatch.setenv("KFBENCH_DATA", str(packed_digits))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
