"""A third kind of task is one file outside the package: data, recipe, loop and score of its own."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import kfbench.tasks
from kfbench import registry
from kfbench.cli import listing, summary
from kfbench.conformance import checks
from kfbench.errors import KfbenchError
from kfbench.networks import weights
from kfbench.reporting import comparison, page
from kfbench.running import execute, heartbeat, model_card, prepare, records, resolve, verify
from kfbench.running.progress import Bar
from kfbench.spec import RunSpec
from kfbench.studies import definition, plan
from kfbench.train.loop import Loop, Row, Watcher

BITS = '''"""The first of sixteen bits: a kind of task of its own.

Source: made for a test.
"""

import time
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from kfbench import seeding
from kfbench.batch import Batch
from kfbench.kinds import Declared, Kind
from kfbench.spec import AnyRecipe
from kfbench.tasks import Task
from kfbench.train.objective import CrossEntropy
from kfbench.train.training import Training


@dataclass(frozen=True)
class BitsRecipe(AnyRecipe):
    network: str = "mlp-30"
    steps: int = 60
    lr: float = 0.3


class Drawn(dict):
    """Rows of each split, drawn by name."""

    def __missing__(self, split):
        bits = torch.randint(2, (128, 1, 4, 4), generator=seeding.stream(0, "bits", split))
        return bits.float(), bits[:, 0, 0, 0]


class BitsLoop:
    """Full batches, plain gradient descent, one look at the end."""

    def __init__(self, setup):
        self.setup, self.total, self.stage = setup, setup.spec.recipe.steps, -1
        self.position, self.seconds, self.curve, self.best = 0, 0.0, [], {}

    def batch(self):
        images, labels = self.setup.data["train"]
        return Batch(images=images, labels=labels, index=torch.arange(len(labels)), rng=self.setup.rng)

    def __iter__(self):
        setup, method = self.setup, self.setup.method
        while self.position < self.total:
            started = time.perf_counter()
            if self.stage < 0:
                self._begin()
            seeding.seed_step(setup.spec.seed, self.position)
            setup.student.train()
            progress = self.position / self.total
            _, parts = method.losses(setup.student, setup.teachers, self.batch(), setup.task, progress)
            sum(parts.values()).backward()
            for group in method.parameter_groups(setup.student):
                for weight in group["params"]:
                    if weight.grad is not None:
                        weight.data -= setup.spec.recipe.lr * weight.grad
                        weight.grad = None
            self.position += 1
            self.seconds += time.perf_counter() - started
            row = None
            if self.position == self.total:
                row = {"step": float(self.position), "progress": 1.0, "seconds": self.seconds}
                row["val_accuracy"] = accuracy(method.export(setup.student), *setup.data["val"])
                row |= method.metrics(setup.student)
                setup.student.train()
                self.curve.append(row)
            yield row

    def _begin(self):
        self.stage = 0
        setup = self.setup
        setup.method.begin(setup.student, setup.teachers, setup.method.stages[0], [self.batch()], setup.rng)

    def status(self):
        return {"rate": 1.0}

    def state(self):
        return {"position": self.position, "seconds": self.seconds, "curve": self.curve,
                "student": self.setup.student.state_dict(), "rng": self.setup.rng.get_state()}

    def restore(self, state):
        self._begin()
        self.position, self.seconds, self.curve = state["position"], state["seconds"], state["curve"]
        self.setup.student.load_state_dict(state["student"])
        self.setup.rng.set_state(state["rng"])

    def score(self, networks):
        return {name: {"accuracy": accuracy(network, *self.setup.data["test"])} for name, network in networks.items()}


@torch.no_grad()
def accuracy(network, images, labels):
    return 100 * float((network.eval()(images).logits.argmax(1) == labels).float().mean())


class BitsTraining(Training):
    """What runs on bits do."""

    def load(self, task, recipe, device):
        return Drawn()

    def make_task(self, spec, task, data):
        return Task(name=task.name, kind=task.kind.name, shape=task.shape, classes=task.labels(spec.recipe),
                    network=spec.recipe.network, seed=spec.seed, train_size=128, steps=spec.recipe.steps,
                    objective=CrossEntropy(), recipe=spec.recipe)

    def make_loop(self, setup):
        return BitsLoop(setup)

    def made_up(self, task, rows, device):
        return Drawn()


KIND = Kind(
    "bits", BitsRecipe, f"{__name__}:BitsTraining", "accuracy", "rows", "bits", higher_is_better=True,
    teachers=("bits/coarse", "a library's"),
)


@dataclass(frozen=True, kw_only=True)
class BitsTask(Declared):
    """A task of two outputs."""

    kind = KIND

    @property
    def outputs(self):
        return 2

    def checksum(self):
        return "drawn from stream 0"


TASK = BitsTask(shape=(1, 4, 4), sources=("bits",), budgets={"smoke": {"steps": 12}})
'''


@pytest.fixture(autouse=True)
def bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The file lies in a user's own folder of tasks."""
    folder = tmp_path / "own-tasks"
    folder.mkdir()
    (folder / "bits.py").write_text(BITS)
    monkeypatch.setenv("KFBENCH_TASKS", str(folder))
    monkeypatch.setattr(kfbench.tasks, "__path__", [*kfbench.tasks.__path__, str(folder)])
    yield
    import sys

    sys.modules.pop("kfbench.tasks.bits", None)
    del kfbench.tasks.bits  # type: ignore[attr-defined]


class Stop(Watcher):
    def step(self, loop: Loop, row: Row | None) -> None:
        if loop.position == 7:
            raise KeyboardInterrupt


def spec_of(method: str, **recipe: object) -> RunSpec:
    return resolve.resolve(method, "bits", budget="small", recipe=recipe)


def test_a_run_of_a_third_kind_goes_the_whole_way(tmp_path: Path) -> None:
    spec = spec_of("kf")
    assert [wanted.method for wanted in prepare.missing_teachers(spec, results=tmp_path)] == ["scratch"]
    record = execute.run(spec, results=tmp_path)
    assert set(record.scores) == {"last", "best", "val"} and record.scores["last"]["accuracy"] > 50
    assert registry.kind_of("bits").goodness(record.scores["val"]) == record.scores["val"]["accuracy"]
    assert prepare.missing_teachers(spec, results=tmp_path) == []
    again = records.read(records.path_of(tmp_path, record.key, spec))
    assert again.run_spec() == spec
    assert "accuracy" in summary.text(again, tmp_path)
    assert verify.compare(again, execute.run(spec, results=tmp_path, force=True), []).word == "bit-equal"


def test_its_score_is_told_while_it_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    beat = heartbeat.heartbeat("0123456789ab", spec_of("scratch"), results=tmp_path, device="cpu", then=Bar())
    with beat as watcher:
        execute.run(spec_of("scratch"), results=tmp_path, watcher=watcher)
        assert watcher.told["score"] > 50
    assert re.search(r"val \d+\.\d % · .* rows/s", capsys.readouterr().err)


def test_its_score_is_what_reports_compare(tmp_path: Path) -> None:
    """Not an error and not a return: what the kind calls it, in its unit, and its way round."""
    folder, results = tmp_path / "bits", tmp_path / "results"
    folder.mkdir()
    (folder / "study.toml").write_text(
        'title = "Bits"\nseeds = 3\ntasks = ["bits"]\n'
        'methods = ["scratch", { method = "scratch", label = "short", recipe = { steps = 1 } }]\n'
        '[[claims]]\ntext = "more steps are better"\nbetter = "scratch"\nthan = "short"\n'
    )
    study = definition.load(folder)
    cells = plan.make(study)
    plan.write(folder, study, cells)
    made = [execute.run(spec, results=results) for cell in cells for spec in cell.runs(study.seeds)]
    page.make(folder, results)
    said = (folder / "README.md").read_text()
    scores = [record.scores["last"]["accuracy"] for record in made]
    assert f"{sum(scores[:3]) / 3:.1f} ± " in said and "Accuracy in %, higher is better" in said
    assert "**reproduced**" in said and "points of accuracy" in said
    drawn = (folder / "plots" / "cost.svg").read_text()
    assert "test accuracy, %" in drawn and "error" not in drawn
    first, second = comparison.rows(comparison.of_keys(results, [made[0].key, made[3].key], all_seeds=True))
    assert first["metric"] == "accuracy" and second["verdict"] == "worse" and second["difference"] < 0
    assert "accuracy, %" in comparison.text(comparison.of_keys(results, [made[0].key, made[3].key]))
    network, _, _ = weights.load(records.path_of(results, made[0].key, made[0].run_spec()).with_suffix(".safetensors"))
    card = model_card.text(made[0], network, "me/bits")
    assert f"| accuracy, % | test, after the last step | {scores[0]:.2f} |" in card


def test_it_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    spec = spec_of("scratch")
    whole = execute.run(spec, results=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        execute.run(spec, results=tmp_path, watcher=Stop(), checkpoint_seconds=0)
    assert execute.run(spec, results=tmp_path).scores == whole.scores


def test_it_is_listed_checked_and_refused_like_any_other(tmp_path: Path) -> None:
    assert "bits" in [row["name"] for row in listing.listing("tasks", tmp_path)["tasks"]]
    assert checks.check_task("bits") == [("bits", rule, None) for rule in ("reads", "finds_its_data", "builds")]
    [(spec, rules)] = [(spec, rules) for kind, spec, rules in checks.cases("scratch") if kind == "bits"]
    assert rules
    for rule in rules:
        rule(spec)
    with pytest.raises(KfbenchError, match="'kd' is for images, task 'bits' is of bits"):
        resolve.resolve("kd", "bits")
    with pytest.raises(KfbenchError, match="as bits/coarse, or run:KEY, imported:NAME, file:PATH, a library's"):
        resolve.resolve("kf", "bits", teachers=[])
    with pytest.raises(KfbenchError, match="no field 'stepz'.*did you mean 'steps'"):
        spec_of("scratch", stepz=3)
