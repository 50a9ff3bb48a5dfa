"""Multi-level logit distillation: outputs match at several temperatures, image by image, among images, among classes.

Source: Jin, Wang & Lin 2023, "Multi-Level Logit Distillation", CVPR, and the authors' code
    (Jin-Ying/Multi-Level-Logit-Distillation, distillers/KD_ours.py):
    L = 0.1 CE + sum_T [ a T² KL(p_T || q_T) + b/B |p pᵀ - q qᵀ|² + c/K |pᵀp - qᵀq|² ],  p, q [B, K] the teacher's and
    the student's softmax at T = 2, 3, 4, 5, 6; a = 0.9, and b = c = 0.45: 0.9 in the code, times its mask's half.
Differs: one view of each image, the recipe's; the code adds a second, strongly augmented one, with CE and KL (two of
whose temperatures take the first view's outputs) but without the products, which so weigh half as much there. Its
masks, of the half of images or classes that the teacher is least sure of, multiply a loss that is a scalar already, so
they halve it: the products, as here, and the first view's KL, which is whole here. The two products are without T², as
there; their sums over the batch grow with B and B², here they are means, times what makes them the code's for 64
images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from kfbench.errors import KfbenchError
from kfbench.methods import Batch, Method, Output, Parts
from kfbench.networks.network import Network
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer import losses, maps


@dataclass(frozen=True)
class MultiLevel(Method):
    """Settings of multi-level logit distillation."""

    temperatures: str = "2+3+4+5+6"  # joined by "+"
    hard: Annotated[float, Ge(0)] = 0.1  # weight of the labels
    instance: Annotated[float, Ge(0)] = 0.9  # a: weight of each image's divergence
    batch: Annotated[float, Ge(0)] = 0.45  # b: weight of the products among images, for batches of 64
    classes: Annotated[float, Ge(0)] = 0.45  # c: weight of the products among classes, for batches of 64

    kinds = ("images",)
    teachers = (1, 1)
    needs = "outputs"
    search = {
        "instance": {"low": 0.1, "high": 4.0, "log": True},
        "batch": {"low": 0.05, "high": 4.0, "log": True},
        "classes": {"low": 0.05, "high": 4.0, "log": True},
    }

    def make_student(self, task: Task, teachers: Sequence[Teacher], rng: torch.Generator) -> Network:
        """Return the task's network. Raises KfbenchError for temperatures that are none."""
        self._each()
        return task.make_network()

    def _each(self) -> list[float]:
        try:
            found = [float(text) for text in self.temperatures.split("+")]
        except ValueError:
            found = [0.0]
        if min(found) <= 0:
            raise KfbenchError(f"temperatures={self.temperatures!r} are not numbers above 0; write them as 2+3+4+5+6")
        return found

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """The labels' cross-entropy, and the three levels summed over the temperatures."""
        output: Output = student(batch.images)
        theirs = teachers[0](batch).logits
        parts = {name: self.hard * part for name, part in task.loss(output, batch).items()}
        found = [levels(output.logits, theirs, temperature) for temperature in self._each()]
        instance, among, classes = (torch.stack(each).sum() for each in zip(*found, strict=True))
        return output, parts | {
            "instance": self.instance * instance,
            "batch": self.batch * maps.BATCH * among,
            "classes": self.classes * maps.BATCH**2 * classes,
        }


def levels(logits: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return T² KL, the mean squared difference of p pᵀ over pairs of images, and that of pᵀp / B summed over K²/K.

    Logits are [B, K].
    """
    target, own = losses.softened(teacher, temperature), losses.softened(logits, temperature)
    rows, classes = own.shape
    among = (losses.product(target, target.T) - losses.product(own, own.T)).square().mean()
    each = ((losses.product(target.T, target) - losses.product(own.T, own)) / rows).square().sum() / classes
    return losses.distillation(logits, target, temperature), among, each
