"""Knowledge review: the student's layers, fused from deep to shallow, answer each of the teacher's.

Source: Chen et al. 2021, "Distilling Knowledge via Knowledge Review", arXiv 2104.09044, and the authors' code
    (dvlab-research/ReviewKD, CIFAR-100): L = CE + w(e) · sum_j HCL(ABF_j, F_T^j). From the pooled features up, ABF_j
    fuses the student's layer j with what the deeper ones left, by two attention maps, and answers the teacher's layer
    (before ReLU; the pooled features last); HCL is the mean squared difference of the maps and of their averages on
    grids of 4, 2 and 1, weighted 1, 1/2, 1/4, 1/8 over their sum. w rises linearly to 5 in 20 of 240 epochs (script/: 5
    for resnet8x4 and wide ResNets, 8, 1 or 0.6 for some others).
Differs: the warm-up is a fraction of the budget. Layers are linked by relative depth; sizes need not be square.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, cast

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le
from torch import Tensor, nn

from kfbench import seeding
from kfbench.methods import Batch, Method, Output, Parts
from kfbench.networks.network import Network
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer import losses, maps
from kfbench.transfer.companion import WithCompanions

WIDEST = 512  # channels in which layers are fused, at most
GRIDS = (4, 2, 1)


@dataclass(frozen=True)
class KnowledgeReview(Method):
    """Settings of knowledge review."""

    weight: Annotated[float, Ge(0)] = 5.0  # w at its height
    warmup: Annotated[float, Ge(0), Le(1)] = 20 / 240  # progress at which w has its full height

    kinds = ("images",)
    teachers = (1, 1)
    needs = "features"
    above_floor = "3×3 convolutions and attention maps fuse the layers at the size of the largest map"
    search = {"weight": {"low": 0.3, "high": 20.0, "log": True}}

    def make_student(self, task: Task, teachers: Sequence[Teacher], rng: torch.Generator) -> WithCompanions:
        """Return the task's network with a fusion for each pair of layers and for the pooled features.

        Raises KfbenchError if the last features, or no layers, are maps.
        """
        network = task.make_network()
        found, deepest = maps.pairs(network, teachers[0]), maps.last(network, teachers[0])
        middle = min(WIDEST, deepest.taken[0])
        shapes = [(pair.taken[0], pair.wanted[0]) for pair in (*found, deepest)]
        with seeding.global_generator(rng):
            each = [Fusion(*shape, middle, fuses=j < len(found)) for j, shape in enumerate(shapes)]
        return WithCompanions(network, fusions=nn.ModuleList(each))

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """The task's loss, and the differences of the fused maps from the teacher's, from shallow to deep."""
        assert isinstance(student, WithCompanions)
        network, teacher = student.network, teachers[0].network
        output, couples = maps.read(network, teachers[0], batch, of_teacher="pre")
        own, theirs = couples[-1]
        with torch.no_grad():
            active = teacher.get_submodule(teacher.layers[-1])(theirs)  # asking for it would be another pass
        couples.append(tuple(losses.pooled(each)[..., None, None] for each in (own, active)))  # type: ignore[arg-type]
        fusions = cast(nn.ModuleList, student.parts["fusions"])
        apart, left = [], None
        for fusion, (own, theirs) in zip(reversed(fusions), reversed(couples), strict=True):
            made, left = fusion(own, left, (theirs.shape[2], theirs.shape[3]))
            apart.append(hierarchical(made, theirs))
        weight = self.weight * (min(1.0, progress / self.warmup) if self.warmup else 1.0)
        return output, task.loss(output, batch) | {"review": weight * torch.stack(apart).sum()}

    def export(self, student: nn.Module) -> Network:
        """The network; the fusions stay behind."""
        return cast(WithCompanions, student).network


class Fusion(nn.Module):
    """ABF, attention-based fusion: a layer's map with what deeper ones left, each times an attention map."""

    def __init__(self, taken: int, wanted: int, middle: int, *, fuses: bool) -> None:
        super().__init__()
        self.narrow = nn.Sequential(nn.Conv2d(taken, middle, 1, bias=False), nn.BatchNorm2d(middle))
        self.answer = nn.Sequential(nn.Conv2d(middle, wanted, 3, padding=1, bias=False), nn.BatchNorm2d(wanted))
        self.attention = nn.Conv2d(2 * middle, 2, 1) if fuses else None
        for part in (self.narrow, self.answer):
            nn.init.kaiming_uniform_(cast(nn.Conv2d, part[0]).weight, a=1)  # as in the authors' code

    def forward(self, own: Tensor, left: Tensor | None, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return the answer [B, wanted, *size] and what is left for shallower layers, [B, middle, *size]."""
        fused: Tensor = self.narrow(own)
        if self.attention is not None and left is not None:
            size_here, weight = fused.shape[2:], self.attention.weight  # of a 1x1 convolution of both, side by side
            here, there = weight.chunk(2, dim=1)
            told = F.interpolate(F.conv2d(left, there, self.attention.bias), size_here, mode="nearest")
            shares = (F.conv2d(fused, here) + told).sigmoid()  # [B, 2, H, W]
            fused = fused * shares[:, :1] + F.interpolate(left, size_here, mode="nearest") * shares[:, 1:]
        if tuple(fused.shape[2:]) != size:
            fused = F.interpolate(fused, size, mode="nearest")
        return self.answer(fused), fused


def hierarchical(own: Tensor, theirs: Tensor) -> Tensor:
    """Return HCL, the context loss of two maps [B, C, H, W]."""
    own, theirs = own.float(), theirs.float()
    error, share, total = F.mse_loss(own, theirs), 1.0, 1.0
    for grid in GRIDS:
        if grid < own.shape[2]:
            share /= 2
            total += share
            one, other = (F.adaptive_avg_pool2d(each, grid) for each in (own, theirs))
            error = error + share * F.mse_loss(one, other)
    return error / total
