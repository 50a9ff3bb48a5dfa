"""Probabilistic transfer: an image is as likely a neighbour of another to the student as to the teacher.

Source: Passalis & Tefas 2018, "Learning Deep Representations with Probabilistic Knowledge Transfer", arXiv 1803.10837,
    with the cosine kernel:
    K(a, b) = (cos(a, b) + 1) / 2,  p_j|i = K(x_i, x_j) / sum_k K(x_i, x_k),  KL(p_T || p_S) over all i and j,
    of the features before the last layer; L = CE + 30000 · its mean over B² (RepDistiller, run_cifar_distill.sh, `pkt`,
    for batches of 64; PKT.py is the authors' code, with its ε = 1e-7).
Differs: the mean over B² falls as 1/B; here the weight is 30000/64 times the mean over images of each one's sum over j,
which is the same for 64 images. The paper trains features alone; with labels as RepDistiller does.

Tried on validation images (CIFAR-100, 10,000 images for 12 epochs, a cnn-16 from a cnn-32, one seed; `kd` 62.3 %
error, `scratch` 69.7 %): 64.6; with ten times the weight 65.6.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, cast

import torch
from annotated_types import Ge
from torch import Tensor, nn

from kfbench.methods import Batch, Method, Output, Parts
from kfbench.networks import taps
from kfbench.networks.network import Network
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer import losses, maps

EPSILON = 1e-7


@dataclass(frozen=True)
class ProbabilisticTransfer(Method):
    """Settings of probabilistic transfer."""

    weight: Annotated[float, Ge(0)] = 30_000.0  # of the divergence, for batches of 64

    kinds = ("images",)
    teachers = (1, 1)
    needs = "features"
    search = {"weight": {"low": 1000.0, "high": 100_000.0, "log": True}}

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """The task's loss, and the divergence of the neighbourhoods."""
        own, theirs = cast(Network, student).layers[-1], teachers[0].network.layers[-1]
        with taps.read(student, [own]) as found:
            output: Output = student(batch.images)
        wanted = losses.pooled(teachers[0].features(batch, [theirs])[theirs])
        apart = divergence(losses.pooled(found[own]), wanted)
        return output, task.loss(output, batch) | {"neighbours": self.weight / maps.BATCH * apart}


def divergence(features: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean over rows i of KL(p_j|i of the teacher || of the student); features [B, C] of any widths."""
    with torch.no_grad():
        wanted = neighbours(teacher)
    return (wanted * ((wanted + EPSILON) / (neighbours(features) + EPSILON)).log()).sum(1).mean()


def neighbours(features: Tensor) -> Tensor:
    """Return p_j|i [B, B], rows i, from features [B, C]."""
    unit = features / (features.square().sum(1, keepdim=True).clamp(min=1e-30).sqrt() + EPSILON)  # sqrt'(0) is inf
    kernel = (losses.product(unit, unit.T) + 1) / 2
    return kernel / kernel.sum(1, keepdim=True)
