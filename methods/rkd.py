"""Relational distillation: distances and angles among the images of a batch imitate the teacher's.

Source: Park et al. 2019, "Relational Knowledge Distillation", arXiv 1904.05068:
    L = CE + d · Huber(distances) + a · Huber(angles),  of the features before the last layer; d = 25, a = 50
    (section 4.1, and the authors' run_distill_classification.py, on the branch `classification` of lenscloth/RKD; also
    RepDistiller's).
Differs: features are not made of length 1 first (the authors' code for classification does; RepDistiller does not),
and no term of Hinton's is added.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, cast

from annotated_types import Ge
from torch import nn

from kfbench.methods import Batch, Method, Output, Parts
from kfbench.networks import taps
from kfbench.networks.network import Network
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer import losses


@dataclass(frozen=True)
class RelationalDistillation(Method):
    """Settings of relational distillation."""

    distance: Annotated[float, Ge(0)] = 25.0  # weight of the distances among images
    angle: Annotated[float, Ge(0)] = 50.0  # weight of the angles among images

    kinds = ("images",)
    teachers = (1, 1)
    needs = "features"
    above_floor = "the angles of all triples of images in the batch"
    search = {
        "distance": {"low": 1.0, "high": 100.0, "log": True},
        "angle": {"low": 1.0, "high": 200.0, "log": True},
    }

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """The task's loss, and the two relational ones on the last layer's features."""
        own, theirs = cast(Network, student).layers[-1], teachers[0].network.layers[-1]
        with taps.read(student, [own]) as found:
            output: Output = student(batch.images)
        wanted = teachers[0].features(batch, [theirs])[theirs]
        apart, seen = losses.relational(losses.pooled(found[own]), losses.pooled(wanted))
        return output, task.loss(output, batch) | {"distance": self.distance * apart, "angle": self.angle * seen}
