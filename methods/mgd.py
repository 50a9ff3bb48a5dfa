"""Masked generative distillation: what is left of the student's last map has to make the teacher's whole one.

Source: Yang et al. 2022, "Masked Generative Distillation", arXiv 2205.01529, and the first author's code for
    classifiers (yzd-v/cls_KD, mmcls/models/dis_losses/mgd.py, configs/distillers/cifar100):
    L = CE + a/B · |G(M ∘ r(F_S)) - F_T|²,  M is 0 for a share λ of the channels, drawn for each image, r a 1×1
    convolution (nothing, where the channels agree), G two 3×3 convolutions with a ReLU between; a = 0.0012, λ = 0.15.
Differs: maps of different sizes, which the code refuses, meet by average pooling of the larger.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, cast

import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn

from kfbench import seeding
from kfbench.methods import Batch, Method, Output, Parts
from kfbench.networks import taps
from kfbench.networks.network import Network
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer import maps
from kfbench.transfer.companion import WithCompanions


@dataclass(frozen=True)
class MaskedGenerative(Method):
    """Settings of masked generative distillation."""

    weight: Annotated[float, Ge(0)] = 0.0012  # a, of the squared error summed over the map
    masked: Annotated[float, Ge(0), Lt(1)] = 0.15  # λ: share of the channels

    kinds = ("images",)
    teachers = (1, 1)
    needs = "features"
    above_floor = "two 3×3 convolutions at the teacher's width on the last map, forward and backward"
    search = {"weight": {"low": 1e-5, "high": 1e-2, "log": True}, "masked": {"low": 0.0, "high": 0.75}}

    def make_student(self, task: Task, teachers: Sequence[Teacher], rng: torch.Generator) -> WithCompanions:
        """Return the task's network with r and G. Raises KfbenchError where the last features are no maps."""
        network = task.make_network()
        pair = maps.last(network, teachers[0])
        with seeding.global_generator(rng):
            return WithCompanions(network, generator=Generator(pair.taken[0], pair.wanted[0]))

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """The task's loss, and the error of the generated map."""
        assert isinstance(student, WithCompanions)
        own, theirs = student.network.layers[-1], teachers[0].network.layers[-1]
        with taps.read(student.network, [own]) as found:
            output: Output = student(batch.images)
        taken, wanted = maps.shrink(found[own], teachers[0].features(batch, [theirs])[theirs])
        kept = seeding.uniform(len(wanted), wanted.shape[1], rng=batch.rng, device=wanted.device) >= self.masked
        made = student.parts["generator"](taken, kept)
        error = (made.float() - wanted.float()).square().flatten(1).sum(1).mean()
        return output, task.loss(output, batch) | {"generated": self.weight * error}

    def export(self, student: nn.Module) -> Network:
        """The network; the generator stays behind."""
        return cast(WithCompanions, student).network


class Generator(nn.Module):
    """r and G: from a map with `before` channels, of which some are hidden, to one with `after`."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.align: nn.Module = nn.Identity() if before == after else nn.Conv2d(before, after, 1)
        self.generate = nn.Sequential(
            nn.Conv2d(after, after, 3, padding=1), nn.ReLU(), nn.Conv2d(after, after, 3, padding=1)
        )

    def forward(self, features: Tensor, kept: Tensor) -> Tensor:
        """Map [B, before, H, W], with `kept` [B, after] telling which channels are seen, to [B, after, H, W]."""
        made: Tensor = self.generate(self.align(features) * kept[:, :, None, None])
        return made
