"""Similarity-preserving distillation: images that look alike to the teacher look alike to the student.

Source: Tung & Mori 2019, "Similarity-Preserving Knowledge Distillation", arXiv 1907.09682:
    L = CE + γ/B² · |G_T - G_S|²,  G = Q Qᵀ with each row over its length, Q [B, C·H·W] the last feature maps;
    γ = 3000 (RepDistiller, run_cifar_distill.sh, `similarity`, for batches of 64).
Differs: the paper's sum over B² falls as 1/B; here it is a mean over the images, γ/64 · 1/B |G_T - G_S|², which is the
same for 64 images.

Tried on validation images (CIFAR-100, 10,000 images for 12 epochs, a cnn-16 from a cnn-32, one seed; `kd` 62.3 %
error, `scratch` 69.7 %): 65.3; with a tenth of the weight 66.3.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, cast

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from kfbench.methods import Batch, Method, Output, Parts
from kfbench.networks import taps
from kfbench.networks.network import Network
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer import losses, maps


@dataclass(frozen=True)
class SimilarityPreserving(Method):
    """Settings of similarity-preserving distillation."""

    weight: Annotated[float, Ge(0)] = 3000.0  # γ, for batches of 64

    kinds = ("images",)
    teachers = (1, 1)
    needs = "features"
    above_floor = "products of all pairs of images, over whole maps"
    search = {"weight": {"low": 100.0, "high": 10_000.0, "log": True}}

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """The task's loss, and the difference of the similarities among the batch's images."""
        own, theirs = cast(Network, student).layers[-1], teachers[0].network.layers[-1]
        with taps.read(student, [own]) as found:
            output: Output = student(batch.images)
        wanted = teachers[0].features(batch, [theirs])[theirs]
        return output, task.loss(output, batch) | {
            "similarity": self.weight / maps.BATCH * similarity(found[own], wanted)
        }


def similarity(features: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean over images of the squared difference of their rows of G; features [B, …] of any shapes."""
    with torch.no_grad():
        wanted = alike(teacher)
    return (alike(features) - wanted).square().sum(1).mean()


def alike(features: Tensor) -> Tensor:
    """Return G [B, B]: products among the features [B, …] of the batch's images, each row of length 1."""
    flat = features.float().flatten(1)
    return F.normalize(losses.product(flat, flat.T), dim=1)
