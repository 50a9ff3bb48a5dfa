"""The supervised loop: batches from resident images, the method's losses, one optimiser step; a row at an evaluation.

The loop keeps no random state of its own: batch order, augmentation and dropout are functions of (seed, epoch or step),
so every method sees the same ones, and a checkpoint is the student, the optimiser, the method's generator and a number.
"""

import time
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kfbench import seeding
from kfbench.batch import Batch
from kfbench.data import images
from kfbench.errors import Diverged
from kfbench.methods import Stage
from kfbench.networks.network import output_of
from kfbench.spec import Recipe
from kfbench.teachers import fit
from kfbench.train import optimizer, told
from kfbench.train.loop import Row, set_training, spans
from kfbench.train.meter import Meter
from kfbench.train.precision import autocast
from kfbench.train.setup import Setup

CHECKED = 50  # steps between looks at whether the loss is finite: each is a wait for the device


class Supervised:
    """A run over images: iterate over it to train; it yields the new row of the curve, or None, after every step."""

    def __init__(self, setup: Setup) -> None:
        self.setup, self.recipe = setup, Recipe.of(setup.spec)
        self.data: images.Images = setup.data
        self.device = setup.device
        self.batch_size = min(self.recipe.batch_size, len(self.data.train))
        self.task, self.train = setup.task, self.data.train  # what the present stage trains on
        self.per_epoch = images.steps_per_epoch(len(self.data.train), self.batch_size)
        self.total = steps(self.recipe, len(self.data.train))
        self.marks = {round(self.total * (i + 1) / self.recipe.evaluations) for i in range(self.recipe.evaluations)}
        self.stages = spans(setup.method.stages, self.total)
        self.stage = -1  # the stage that has begun
        self.position = 0  # steps done
        self.curve: list[Row] = []
        self.best: dict[str, Tensor] = {}  # weights of the exported student with the best validation score
        self.seconds = 0.0
        self._best_error = float("inf")
        self._optimizer: torch.optim.Optimizer
        self._rows = self._from(0)
        self.meter = Meter()
        self._rate = 0.0

    def __iter__(self) -> Iterator[Row | None]:
        """Train to the end of the budget. Raises Diverged when a part of the loss is not finite."""
        while self.position < self.total:
            started = time.perf_counter()
            if self.stage + 1 < len(self.stages) and self.position == self.stages[self.stage + 1][1]:
                self._begin(self.stage + 1)
            with seeding.STATE:
                self._step()
            self.position += 1
            row = None
            if self.position in self.marks or self.position % CHECKED == 0:
                self._check()
            if self.position in self.marks:
                row = self._evaluate(started)
            self.seconds += time.perf_counter() - started
            yield row

    def skip(self, step: int) -> None:
        """Go to a later step of the present stage, or to the first of the next: for what only measures."""
        self.position = step

    def _begin(self, which: int) -> None:
        setup, (stage, _, _) = self.setup, self.stages[which]
        self._enter(stage)
        setup.method.begin(setup.student, setup.teachers, stage, self._ordered(), setup.rng)
        self._optimizer = optimizer.make(setup.method, setup.student, self.recipe)
        set_training(setup.student)
        self._check()
        self.stage, self.meter = which, Meter()

    def _enter(self, stage: Stage) -> None:
        """Take up a stage's task and its training images. What is validated on stays the run's own."""
        here = stage.task in (None, self.setup.task.name)
        task, data = (self.setup.task, self.data) if here else self.setup.others[str(stage.task)]
        train = data.train
        if train is not self.train:
            self.task, self.train = task, train
            self._rows = self._from(self.position)

    def _step(self) -> None:
        setup = self.setup
        _, first, last = self.stages[self.stage]
        seeding.seed_step(setup.spec.seed, self.position)
        self._rate = optimizer.set_rate(self._optimizer, self.recipe, (self.position - first) / (last - first))
        batch = self.batch()
        with autocast(self.device, self.recipe.precision):
            said = setup.method.losses(setup.student, setup.teachers, batch, self.task, self.position / self.total)
        parts = told.parts_of(said)
        torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.meter.add(parts, self.position)

    def _check(self) -> None:
        """Raise Diverged if a part of the loss was not finite, and name the teacher if its outputs are why."""
        try:
            self.meter.check()
        except Diverged as error:
            batch = next(self._ordered())
            for teacher in self.setup.teachers:
                with autocast(self.device, self.recipe.precision):
                    is_sound = bool(teacher(batch).logits.isfinite().all())
                if not is_sound:
                    then = f"the outputs of teacher '{teacher.name}' are not finite: choose another"
                    raise Diverged(error.part, error.step, then) from error
            raise

    def _from(self, step: int) -> Iterator[images.Rows]:
        recipe = self.recipe
        return images.batches(
            self.train,
            batch_size=min(self.recipe.batch_size, len(self.train)),
            seed=self.setup.spec.seed,
            pad=recipe.pad,
            flip=recipe.flip,
            crop=recipe.crop,
            views=recipe.views,
            start=step,
        )

    def batch(self) -> Batch:
        """Return the next batch: the same for every method of this seed."""
        rows = next(self._rows)
        taken = fit(images.as_float(rows.images), self.setup.task.shape)
        memory = self.setup.memory if self.train is self.data.train else None
        past = None if memory is None else memory.past(taken, rows)
        return Batch(images=taken, labels=rows.labels, index=rows.index, view=rows.view, rng=self.setup.rng, past=past)

    def _ordered(self) -> Iterator[Batch]:
        """Yield one pass over the training split, in its own order, without augmentation."""
        train = self.train
        for rows in torch.arange(len(train), device=self.device).split(self.batch_size):  # type: ignore[no-untyped-call]
            whole = fit(images.as_float(train.take(rows)), self.setup.task.shape)
            yield Batch(images=whole, labels=train.labels[rows], index=rows, rng=self.setup.rng)

    def status(self) -> Row:
        """Return what a progress bar shows; it waits for the device."""
        means = self.meter.means()  # none after an evaluation
        shown = {"loss": sum(means.values()) if means or not self.curve else self.curve[-1]["loss"]}
        if self.curve:
            shown["val_error"] = self.curve[-1]["val_error"]
        return shown | {"rate": self.position * self.batch_size / max(1e-9, self.seconds)}

    def _evaluate(self, started: float) -> Row:
        method, student = self.setup.method, self.setup.student
        progress = self.position / self.total
        means = self.meter.means()
        self.meter.clear()
        seconds = self.seconds + time.perf_counter() - started
        row = {
            "step": float(self.position),
            "epoch": self.position / self.per_epoch,
            "progress": progress,
            "seconds": seconds,
            "images_per_second": self.position * self.batch_size / seconds,
            "lr": self._rate,
            "loss": sum(means.values()),
            **{f"loss/{name}": mean for name, mean in means.items()},
        }
        exported = told.exported(method, student)
        alone = evaluate(exported, self.data.val, precision=self.recipe.precision)
        row |= {f"val_{name}": value for name, value in alone.items()}
        student.eval()
        if method.is_attached(progress):
            row["val_error_attached"] = self._attached(progress)
        row |= told.metrics_of(method, student)
        method.observe(student, [100 - row["val_error"]])
        set_training(student)
        if row["val_error"] < self._best_error:
            self._best_error = row["val_error"]
            self.best = {name: value.detach().clone() for name, value in exported.state_dict().items()}
        self.curve.append(row)
        return row

    def _attached(self, progress: float) -> float:
        """Return the validation error in % of the student with its teachers."""
        setup, wrong = self.setup, 0
        with torch.no_grad(), autocast(self.device, self.recipe.precision):
            for taken, labels in self.data.val.chunks():
                batch = Batch(images=images.channels_last(taken), labels=labels, rng=setup.rng)
                output, _ = setup.method.act(setup.student, setup.teachers, batch, progress)
                wrong += int((output_of(output).logits.argmax(1) != labels).sum())
        return 100 * wrong / len(self.data.val)

    def score(self, networks: dict[str, nn.Module]) -> dict[str, Row]:
        """Read the test split, which is loaded only now, and return each network's `error` in % and `loss`."""
        test = self.data.test()
        return {name: evaluate(network, test, precision=self.recipe.precision) for name, network in networks.items()}

    def state(self) -> dict[str, Any]:
        """Return tensors and plain values from which `restore` goes on as if nothing had happened."""
        memory = self.setup.memory
        return {
            "teacher_rows": [] if memory is None else [memory.asked, memory.computed],
            "position": self.position,
            "stage": self.stage,
            "student": self.setup.student.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "rng": self.setup.rng.get_state(),
            "curve": self.curve,
            "best": self.best,
            "best_error": self._best_error,
            "seconds": self.seconds,
            "tally": self.meter.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a state; stages are begun again first, for what they freeze or build."""
        for which in range(state["stage"] + 1):
            self._begin(which)
        self.setup.student.load_state_dict(state["student"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.setup.rng.set_state(state["rng"])
        self.position, self.seconds = state["position"], state["seconds"]
        self._rows = self._from(self.position)
        self.curve, self.best, self._best_error = state["curve"], state["best"], state["best_error"]
        self.meter.restore(state["tally"], self.device)
        if self.setup.memory is not None and state.get("teacher_rows"):
            self.setup.memory.asked, self.setup.memory.computed = state["teacher_rows"]


def steps(recipe: Recipe, rows: int) -> int:
    """Return how many optimiser steps a recipe takes over `rows` training images."""
    return max(1, round(recipe.epochs * images.steps_per_epoch(rows, recipe.batch_size)))


@torch.no_grad()
def evaluate(network: nn.Module, split: images.Split, *, precision: str = "fp32") -> Row:
    """Return the `error` in % and the mean cross-entropy `loss` of a network, in evaluation mode, over a split."""
    network.eval()
    wrong = torch.zeros((), device=split.labels.device)
    loss = torch.zeros((), device=split.labels.device)
    for taken, labels in split.chunks():
        with autocast(taken.device, precision):
            output = output_of(network(images.channels_last(taken)))
        wrong += (output.logits.argmax(1) != labels).sum()
        loss += F.cross_entropy(output.logits.float(), labels, reduction="sum")
    return {"error": 100 * float(wrong) / len(split), "loss": float(loss) / len(split)}
