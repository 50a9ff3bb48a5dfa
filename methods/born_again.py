"""Born-again networks: a network teaches a fresh one of its own kind, generation after generation.

Source: Furlanello et al. 2018, "Born-Again Neural Networks", arXiv 1805.04770: generation 0 learns from the labels,
    each later one starts anew and learns from its forerunner's outputs, L = H(p_before, p) at temperature 1 (BAN).
    Variant `labels` adds the labels' cross-entropy (BAN+L).
Differs: all generations share the run's budget, each with a schedule of its own, so that they cost what other methods
cost; the source trains each in full. The ensemble of generations (BANE) is not formed: one network is kept.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, cast

import torch
from annotated_types import Ge, Gt
from torch import nn

from kfbench import losses, networks, seeding
from kfbench.accompanied import Accompanied
from kfbench.methods import Batch, Method, Output, Parts, Stage
from kfbench.networks.network import Network
from kfbench.tasks import Task
from kfbench.teachers import Teacher


@dataclass(frozen=True)
class BornAgain(Method):
    """Settings of born-again networks."""

    generations: Annotated[int, Gt(1)] = 2  # networks trained one after another, the first by labels; choice
    labels: Annotated[float, Ge(0)] = 0.0  # weight of the labels' cross-entropy from the second on
    temperature: Annotated[float, Gt(0)] = 1.0

    kinds = ("images",)
    variants = {"labels": {"labels": 1.0}}
    search = {"generations": {"low": 2, "high": 4}, "labels": {"low": 0.0, "high": 1.0}}

    @property
    def stages(self) -> tuple[Stage, ...]:
        """One stage a generation, all of the same length."""
        return tuple(Stage(f"generation {n}", 1 / self.generations) for n in range(self.generations))

    def make_student(self, task: Task, teachers: Sequence[Teacher], rng: torch.Generator) -> Accompanied:
        """Return the task's network and, beside it, room for its forerunner."""
        network = task.make_network()
        return Accompanied(network, before=Forerunner(network.clone()))

    def begin(
        self,
        student: nn.Module,
        teachers: Sequence[Teacher],
        stage: Stage,
        batches: Iterable[Batch],
        rng: torch.Generator,
    ) -> None:
        """From the second generation on: what was trained becomes the forerunner, and a fresh network is drawn."""
        assert isinstance(student, Accompanied)
        student.stage = stage.name
        if stage.name == "generation 0":
            return
        network = student.network
        cast(Forerunner, student.parts["before"]).network.load_state_dict(network.state_dict())
        with seeding.global_generator(rng):
            fresh = networks.make(network.name, shape=network.shape, outputs=network.outputs)
        fresh.normalise_by(network.mean.cpu().flatten(), network.std.cpu().flatten())
        network.load_state_dict(fresh.state_dict())

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """Cross-entropy to the labels at first, then to the forerunner's outputs."""
        assert isinstance(student, Accompanied)
        output: Output = student(batch.images)
        parts = task.loss(output, batch)
        if student.stage == "generation 0":
            return output, parts
        with torch.no_grad():
            before: Output = student.parts["before"](batch.images)
        target = losses.softened(before.logits, self.temperature)
        parts = {name: self.labels * part for name, part in parts.items()} if self.labels else {}
        soft = self.temperature**2 * losses.cross_entropy(target, output.logits / self.temperature)
        return output, parts | {"before": soft}

    def export(self, student: nn.Module) -> Network:
        """The network of the present generation."""
        return cast(Accompanied, student).network


class Forerunner(nn.Module):
    """A frozen network that stays in evaluation mode whatever is asked of the module around it."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "Forerunner":
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, images: torch.Tensor) -> Output:
        """Map images [B, C, H, W] to the frozen network's Output."""
        output: Output = self.network(images)
        return output
