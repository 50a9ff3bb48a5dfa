"""Semantic calibration: each of the student's layers attends to those of the teacher's layers that it can learn from.

Source: Chen et al. 2021, "Cross-Layer Distillation with Semantic Calibration", AAAI, arXiv 2012.03236, and the authors'
    code (DefangChen/SimKD, models/util.py, distiller_zoo/SemCKD.py, scripts/run_distill.sh):
    L = CE + T² KL + 400 · 1/n sum_l sum_t α_lt mean((r_lt(F_S^l) - F_T^t)²),
    α_l = softmax over t of q_l · k_t, for each image; q and k are made of its row of the batch's similarities F Fᵀ by
    two linear layers with a ReLU, of length 1; r_lt three convolutions, 1×1, 3×3, 1×1, by way of twice the teacher's
    channels. The larger of two maps is average-pooled. T = 4.
Differs: a row of similarities is as long as the batch, and q and k are made for 64; for another batch it is brought to
64 by averages or repetition, and at 64 is the source's. A step costs many times the student's, for every pair of
layers has its r_lt; `--set width=0.25` makes them narrower, which the record then states.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, cast

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from torch import Tensor, nn

from kfbench import seeding
from kfbench.errors import KfbenchError
from kfbench.methods import Batch, Method, Output, Parts
from kfbench.networks import taps
from kfbench.networks.network import Network
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer import losses, maps
from kfbench.transfer.companion import WithCompanions


@dataclass(frozen=True)
class SemanticCalibration(Method):
    """Settings of semantic calibration."""

    beta: Annotated[float, Ge(0)] = 400.0  # weight of the features
    kd: Annotated[float, Ge(0)] = 1.0  # weight of the soft targets
    temperature: Annotated[float, Gt(0)] = 4.0  # of the soft targets
    width: Annotated[float, Gt(0)] = 2.0  # channels within r, of the teacher's
    factor: Annotated[int, Gt(0)] = 4  # what queries and keys are narrower by than the batch is long

    kinds = ("images",)
    teachers = (1, 1)
    needs = "outputs"
    above_floor = "every pair of layers has three convolutions of its own, at twice the teacher's channels"
    search = {
        "beta": {"low": 20.0, "high": 2000.0, "log": True},
        "kd": {"low": 0.1, "high": 10.0, "log": True},
        "temperature": {"low": 1.0, "high": 20.0, "log": True},
    }

    def make_student(self, task: Task, teachers: Sequence[Teacher], rng: torch.Generator) -> WithCompanions:
        """Return the task's network with its calibration. Raises KfbenchError where one of both has no maps."""
        network = task.make_network()
        own, theirs = (
            [shape[0] for shape in shapes.values() if len(shape) == 3]
            for shapes in (taps.shapes(network, network.layers), teachers[0].shapes(teachers[0].network.layers))
        )
        if not own or not theirs:
            raise KfbenchError(
                f"networks '{network.name}' and '{teachers[0].network.name}' need layers with maps; use convolutional "
                "ones"
            )
        with seeding.global_generator(rng):
            calibration = Calibration(own, theirs, self.width, self.factor)
        return WithCompanions(network, calibration=calibration)

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """The task's loss, soft targets, and the features, weighted layer by layer for each image."""
        assert isinstance(student, WithCompanions)
        teacher = teachers[0]
        with taps.read(student.network, student.network.layers) as found:
            output: Output = student(batch.images)
        wanted = teacher.features(batch, teacher.network.layers, logits=True)
        own, theirs = (
            [features[name] for name in network.layers if features[name].dim() == 4]
            for network, features in ((student.network, found), (teacher.network, wanted))
        )
        target = losses.softened(teacher(batch).logits, self.temperature)
        soft = losses.distillation(output.logits, target, self.temperature)
        apart = student.parts["calibration"](own, theirs)
        return output, task.loss(output, batch) | {"distillation": self.kd * soft, "features": self.beta * apart}

    def export(self, student: nn.Module) -> Network:
        """The network; the calibration stays behind."""
        return cast(WithCompanions, student).network


class Calibration(nn.Module):
    """Queries of the student's layers, keys of the teacher's, and regressors between them, of these channels."""

    def __init__(self, own: list[int], theirs: list[int], width: float, factor: int) -> None:
        super().__init__()
        self.queries = nn.ModuleList(_embedding(factor) for _ in own)
        self.keys = nn.ModuleList(_embedding(factor) for _ in theirs)
        self.regressors = nn.ModuleList(
            nn.ModuleList(regressor(one, other, max(1, round(width * other))) for other in theirs) for one in own
        )

    def attention(self, own: list[Tensor], theirs: list[Tensor]) -> Tensor:
        """Return α [B, student's layers, teacher's layers]; it sums to 1 over the last."""
        queries, keys = (
            torch.stack(
                [F.normalize(made(similarities(each)), dim=1) for made, each in zip(embed, features, strict=True)], 1
            )
            for embed, features in ((self.queries, own), (self.keys, theirs))
        )
        return F.softmax(losses.product(queries, keys.transpose(1, 2)), dim=2)

    def forward(self, own: list[Tensor], theirs: list[Tensor]) -> Tensor:
        """Return the weighted mean squared differences of maps [B, C, H, W], a mean over images and own layers."""
        weights = self.attention(own, theirs)
        apart = []
        for regressors, one in zip(self.regressors, own, strict=True):
            for learned, other in zip(cast(nn.ModuleList, regressors), theirs, strict=True):
                taken, wanted = maps.shrink(one, other)
                apart.append((learned(taken).float() - wanted.float()).square().flatten(1).mean(1))
        return (weights.flatten(1) * torch.stack(apart, 1)).sum(1).mean() / len(own)


def _embedding(factor: int) -> nn.Sequential:
    narrow = max(1, maps.BATCH // factor)
    return nn.Sequential(nn.Linear(maps.BATCH, 2 * narrow), nn.ReLU(), nn.Linear(2 * narrow, narrow))


def regressor(before: int, after: int, middle: int) -> nn.Sequential:
    """Return convolutions 1x1, 3x3 and 1x1 with BatchNorm and ReLU between them."""
    return nn.Sequential(
        nn.Conv2d(before, middle, 1, bias=False),
        nn.BatchNorm2d(middle),
        nn.ReLU(),
        nn.Conv2d(middle, middle, 3, padding=1, bias=False),
        nn.BatchNorm2d(middle),
        nn.ReLU(),
        nn.Conv2d(middle, after, 1, bias=False),
    )


def similarities(features: Tensor) -> Tensor:
    """Return F Fᵀ [B, 64] of features [B, …]: the products among the batch's images, averaged or repeated to 64."""
    flat = features.float().flatten(1)
    found = losses.product(flat, flat.T)
    return found if len(found) == maps.BATCH else F.adaptive_avg_pool1d(found[None], maps.BATCH)[0]
