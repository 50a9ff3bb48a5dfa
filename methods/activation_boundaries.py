"""Activation boundaries: the student first learns which of the teacher's neurons are active, then the task.

Source: Heo et al. 2019, "Knowledge Transfer via Distillation of Activation Boundaries Formed by Hidden Neurons", arXiv
    1811.03233, and the authors' code (bhheo/AB_distillation, cifar10_AB_distillation.py). First
    L = 3/1000 · sum_j 2^(j-n) |[T > 0] (μ - r(S))₊ + [T ≤ 0] (μ + r(S))₊|²,
    of what enters the ReLU at the end of group j of n, summed over the map; r a 1×1 convolution and BatchNorm; μ = 1.
    Then the labels' cross-entropy. The first stage takes 30 of 270 epochs (RepDistiller, --init_epochs).
Differs: the second stage is the labels' alone, as in RepDistiller (the authors' code has soft targets of T = 3 there).
Layers are linked by relative depth, the larger of two maps is average-pooled; r stands between equal shapes too.

Tried on validation images (CIFAR-100, 10,000 images for 12 epochs, a cnn-16 from a cnn-32, one seed; `kd` 62.3 %
error, `scratch` 69.7 %): 69.2; with three tenths of the budget for the boundaries 67.3: a ninth of 12 epochs is
short.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, cast

import torch
import torch.nn.functional as F
from annotated_types import Gt, Lt
from torch import Tensor, nn

from kfbench import seeding
from kfbench.methods import Batch, Method, Output, Parts, Stage
from kfbench.networks.network import Network
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer import maps
from kfbench.transfer.companion import WithCompanions
from kfbench.transfer.transplant import is_head

SCALE = 3 / 1000  # of the authors' code


@dataclass(frozen=True)
class ActivationBoundaries(Method):
    """Settings of the two stages."""

    share: Annotated[float, Gt(0), Lt(1)] = 30 / 270  # of the budget, for the boundaries
    margin: Annotated[float, Gt(0)] = 1.0  # μ

    kinds = ("images",)
    teachers = (1, 1)
    needs = "features"
    above_floor = "a 1×1 convolution with BatchNorm to the teacher's width on every map, and its loss at that size"
    search = {"share": {"low": 0.05, "high": 0.6}, "margin": {"low": 0.1, "high": 4.0, "log": True}}

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The boundaries, then the task."""
        return (Stage("boundaries", self.share), Stage("train", 1 - self.share))

    def make_student(self, task: Task, teachers: Sequence[Teacher], rng: torch.Generator) -> WithCompanions:
        """Return the task's network with a connector for each pair of layers. Raises KfbenchError if there is none."""
        network = task.make_network()
        found = maps.pairs(network, teachers[0], position="pre")
        with seeding.global_generator(rng):
            each = [maps.connector(pair.taken[0], pair.wanted[0]) for pair in found]
        return WithCompanions(network, connectors=nn.ModuleList(each))

    def begin(
        self,
        student: nn.Module,
        teachers: Sequence[Teacher],
        stage: Stage,
        batches: Iterable[Batch],
        rng: torch.Generator,
    ) -> None:
        """Train body and connectors first, then the network, its head too, without connectors."""
        assert isinstance(student, WithCompanions)
        student.stage = stage.name
        for name, weight in student.network.named_parameters():
            weight.requires_grad_(stage.name == "train" or not is_head(student.network, name))
        student.parts.requires_grad_(stage.name == "boundaries")

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """How far the student's neurons are from the teacher's sides of 0; or the task's loss."""
        assert isinstance(student, WithCompanions)
        if student.stage == "train":
            output: Output = student(batch.images)
            return output, task.loss(output, batch)
        output, couples = maps.read(student.network, teachers[0], batch, position="pre")
        connectors = cast(nn.ModuleList, student.parts["connectors"])
        each = [
            boundaries(connected(own), theirs, self.margin)
            for connected, (own, theirs) in zip(connectors, couples, strict=True)
        ]
        apart = sum(distance / 2 ** (len(each) - 1 - j) for j, distance in enumerate(each))
        return output, {"boundaries": SCALE * cast(Tensor, apart)}

    def export(self, student: nn.Module) -> Network:
        """The network; the connectors stay behind."""
        return cast(WithCompanions, student).network


def boundaries(own: Tensor, theirs: Tensor, margin: float) -> Tensor:
    """Return the squared hinge of pre-activations [B, C, H, W], summed over the map and a mean over the batch."""
    own, theirs = maps.shrink(own.float(), theirs.float())
    side = torch.where(theirs > 0, -1.0, 1.0)
    return F.relu(side * own + margin).square().flatten(1).sum(1).mean()
