"""Reused classifier: the student's last map, projected to look like the teacher's, goes into the teacher's own head.

Source: Chen et al. 2022, "Knowledge Distillation with the Reused Teacher Classifier", arXiv 2203.14001, and the
    authors' code (DefangChen/SimKD, models/util.py, scripts/run_distill.sh): L = mean((P(F_S) - F_T)²), nothing else;
    P is three convolutions, 1×1, 3×3, 1×1, by way of half the teacher's channels, each with BatchNorm and ReLU; the
    larger of the maps is average-pooled. What is kept is the student's body, P and the teacher's head.
Differs: nothing known. The task's labels are not used.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Gt
from torch import Tensor, nn

from kfbench import seeding
from kfbench.errors import KfbenchError
from kfbench.methods import Batch, Method, Output, Parts
from kfbench.networks import taps
from kfbench.networks.network import Network
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer import losses, maps
from kfbench.transfer.transplant import head, old_head


@dataclass(frozen=True)
class ReusedClassifier(Method):
    """Settings of the projector."""

    factor: Annotated[int, Gt(0)] = 2  # what P is narrower by, inside, than the teacher's map

    kinds = ("images",)
    teachers = (1, 1)
    needs = "outputs"
    above_floor = "three convolutions to the teacher's last map, and the teacher's head, forward and backward"
    keeps_teachers = True
    search = {"factor": {"choices": [1, 2, 4, 8]}}

    def make_student(self, task: Task, teachers: Sequence[Teacher], rng: torch.Generator) -> "Reused":
        """Return the task's body with projector and the teacher's head.

        Raises KfbenchError where the features are no maps, or the teacher's head cannot read pooled ones.
        """
        network, teacher = task.make_network(), teachers[0]
        pair, reader = maps.last(network, teacher), head(teacher.network)
        if not isinstance(reader, nn.Linear) or reader.in_features != pair.wanted[0]:
            raise KfbenchError(f"the head of '{teacher.name}' does not read pooled maps; simkd cannot reuse it")
        with seeding.global_generator(rng):
            return Reused(network, old_head(teacher.network), pair, self.factor)

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """The mean squared difference of the projected map from the teacher's."""
        assert isinstance(student, Reused)
        layer = teachers[0].network.layers[-1]
        wanted = teachers[0].features(batch, [layer])[layer]
        made, wanted = student.project(batch.images), maps.to_size(wanted, student.size)
        return student.read(made), {"features": F.mse_loss(made.float(), wanted.float())}

    def export(self, student: nn.Module) -> nn.Module:
        """The whole of it: the teacher's head does not go back to the student's width."""
        return student


class Reused(nn.Module):
    """A student's body without its head, a projector, and a teacher's frozen head."""

    def __init__(self, network: Network, reader: nn.Module, pair: maps.Pair, factor: int) -> None:
        super().__init__()
        self.network, self.layer = network, pair.own
        network.set_submodule(network.heads[0], nn.Identity())
        before, after = pair.taken[0], pair.wanted[0]
        self.projector = projector(before, after, max(1, after // factor))
        self.reader = reader.requires_grad_(False)
        self.size = (min(pair.taken[1], pair.wanted[1]), min(pair.taken[2], pair.wanted[2]))

    def project(self, images: Tensor) -> Tensor:
        """Return the projected last map [B, C of the teacher, *size] of images [B, C, H, W]."""
        with taps.read(self.network, [self.layer], stop=True) as found:
            self.network(images)
        made: Tensor = self.projector(maps.to_size(found[self.layer], self.size))
        return made

    def read(self, made: Tensor) -> Output:
        """Return what the teacher's head says of a projected map."""
        return Output(self.reader(losses.pooled(made)))

    def forward(self, images: Tensor) -> Output:
        """Map images [B, C, H, W] to the Output of the teacher's head."""
        return self.read(self.project(images))


def projector(before: int, after: int, middle: int) -> nn.Sequential:
    """Return P: convolutions 1x1, 3x3 and 1x1, each with BatchNorm and ReLU."""
    made = nn.Sequential()
    for taken, wanted, side in ((before, middle, 1), (middle, middle, 3), (middle, after, 1)):
        made.append(nn.Conv2d(taken, wanted, side, padding=side // 2, bias=False))
        made.extend([nn.BatchNorm2d(wanted), nn.ReLU()])
    return made
