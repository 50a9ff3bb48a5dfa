"""DIST: the student's outputs correlate with the teacher's, over the classes of an image and over a class's images.

Source: Huang et al. 2022, "Knowledge Distillation from A Stronger Teacher", arXiv 2205.10536, and the authors'
    code (hunto/image_classification_sota, lib/models/losses/dist_kd.py):
    L = CE + β T² (1 - mean_i ρ(y_i, ŷ_i)) + γ T² (1 - mean_c ρ(y_c, ŷ_c)),  ρ Pearson's correlation of rows and of
    columns of the softmax at T; β = γ = 2, T = 4 on CIFAR-100 (configs/strategies/distill/dist_cifar.yaml).
Differs: nothing known. (A correlation keeps its size whatever T and could go without T², which is the code's.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt
from torch import Tensor, nn

from kfbench.methods import Batch, Method, Output, Parts
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer import losses


@dataclass(frozen=True)
class Dist(Method):
    """Settings of DIST."""

    temperature: Annotated[float, Gt(0)] = 4.0
    beta: Annotated[float, Ge(0)] = 2.0  # weight of each image's correlation over classes
    gamma: Annotated[float, Ge(0)] = 2.0  # weight of each class's correlation over images

    kinds = ("images",)
    teachers = (1, 1)
    needs = "outputs"
    has_t2 = False  # its T² makes the terms grow with T, for a correlation keeps its size
    search = {
        "temperature": {"low": 1.0, "high": 8.0, "log": True},
        "beta": {"low": 0.1, "high": 10.0, "log": True},
        "gamma": {"low": 0.1, "high": 10.0, "log": True},
    }

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """The task's loss, and what both correlations lack."""
        output: Output = student(batch.images)
        own = losses.softened(output.logits, self.temperature)
        theirs = losses.softened(teachers[0](batch).logits, self.temperature)
        square = self.temperature**2
        return output, task.loss(output, batch) | {
            "images": self.beta * square * decorrelation(own, theirs),
            "classes": self.gamma * square * decorrelation(own.T, theirs.T),
        }


def decorrelation(own: Tensor, theirs: Tensor) -> Tensor:
    """Return 1 less the mean of Pearson's correlation of the rows of two tables [N, M]."""
    own, theirs = own - own.mean(1, keepdim=True), theirs - theirs.mean(1, keepdim=True)
    lengths = own.norm(dim=1) * theirs.norm(dim=1) + 1e-8  # as in the authors' code
    correlations: Tensor = (own * theirs).sum(1) / lengths
    return 1 - correlations.mean()
