"""Variational information distillation: the student's maps tell, through a learned Gaussian, what the teacher's hold.

Source: Ahn et al. 2019, "Variational Information Distillation for Knowledge Transfer", arXiv 1904.05835:
    L = CE + w · sum_j mean[ (μ_j(F_S) - F_T)² / (2 σ²) + log σ² / 2 ],  σ² = softplus(α_c) + ε, one a channel, μ
    three 1×1 convolutions with ReLU between them; σ² = 5 at first, ε = 1e-5, w = 1 (VIDLoss in RepDistiller is the
    authors' code, ssahn0215/variational-information-distillation; run_cifar_distill.sh, `vid`).
Differs: layers are linked by relative depth, the larger of two maps is average-pooled (as in RepDistiller). Outputs are
not compared, only maps.

Tried on validation images (CIFAR-100, 10,000 images for 12 epochs, a cnn-16 from a cnn-32, one seed; `kd` 62.3 %
error, `scratch` 69.7 %): 68.2; with ten times the weight 67.1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, cast

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from torch import Tensor, nn

from kfbench import seeding
from kfbench.methods import Batch, Method, Output, Parts
from kfbench.networks.network import Network
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer import maps
from kfbench.transfer.companion import WithCompanions

EPSILON = 1e-5


@dataclass(frozen=True)
class VariationalInformation(Method):
    """Settings of variational information distillation."""

    weight: Annotated[float, Ge(0)] = 1.0  # w, of each pair of layers
    variance: Annotated[float, Gt(0.001)] = 5.0  # σ² at first

    kinds = ("images",)
    teachers = (1, 1)
    needs = "features"
    above_floor = "three 1×1 convolutions at the teacher's width on every map, forward and backward"
    search = {"weight": {"low": 0.1, "high": 10.0, "log": True}}

    def make_student(self, task: Task, teachers: Sequence[Teacher], rng: torch.Generator) -> WithCompanions:
        """Return the task's network with a Gaussian for each pair of layers. Raises KfbenchError if there is none."""
        network = task.make_network()
        found = maps.pairs(network, teachers[0])
        with seeding.global_generator(rng):
            each = [Gaussian(pair.taken[0], pair.wanted[0], self.variance) for pair in found]
        return WithCompanions(network, gaussians=nn.ModuleList(each))

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """The task's loss, and what the teacher's maps cost under the Gaussians."""
        assert isinstance(student, WithCompanions)
        output, couples = maps.read(student.network, teachers[0], batch)
        gaussians = cast(nn.ModuleList, student.parts["gaussians"])
        each = [gaussian(*maps.shrink(*couple)) for gaussian, couple in zip(gaussians, couples, strict=True)]
        return output, task.loss(output, batch) | {"information": self.weight * torch.stack(each).sum()}

    def metrics(self, student: nn.Module) -> dict[str, float]:
        """`variance/j`: the mean σ² of pair j."""
        gaussians = cast(nn.ModuleList, cast(WithCompanions, student).parts["gaussians"])
        return {
            f"variance/{j}": float(cast(Gaussian, each).variance().detach().mean()) for j, each in enumerate(gaussians)
        }

    def export(self, student: nn.Module) -> Network:
        """The network; the Gaussians stay behind."""
        return cast(WithCompanions, student).network


class Gaussian(nn.Module):
    """q(F_T | F_S): a learned mean of `wanted` channels at each place, and a learned variance of each channel."""

    def __init__(self, taken: int, wanted: int, variance: float) -> None:
        super().__init__()
        widths = ((taken, wanted), (wanted, wanted), (wanted, wanted))
        first, second, third = (nn.Conv2d(before, after, 1, bias=False) for before, after in widths)
        self.mean = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)
        least = variance - EPSILON
        start = least + math.log(-math.expm1(-least))  # the inverse of softplus, where exp would overflow, too
        self.scale = nn.Parameter(torch.full((wanted,), start))  # α

    def variance(self) -> Tensor:
        """Return σ² of each channel."""
        return F.softplus(self.scale) + EPSILON

    def forward(self, own: Tensor, theirs: Tensor) -> Tensor:
        """Return the mean of -log q but for its constant, for maps [B, taken, H, W] and [B, wanted, H, W]."""
        variance = self.variance()
        apart: Tensor = (self.mean(own).float() - theirs.float()).square().mean((0, 2, 3))  # [wanted]
        return 0.5 * (apart / variance + variance.log()).mean()
