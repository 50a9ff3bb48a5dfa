"""Born-again networks: a trained network teaches a fresh one of its own kind, generation after generation.

Source: Furlanello et al. 2018, "Born-Again Neural Networks", arXiv 1805.04770: generation 0 learns from the labels,
    each later one starts anew and learns from its forerunner's outputs, L = H(p_before, p) at temperature 1 (BAN).
    Variant `labels` adds the labels' cross-entropy (BAN+L).
A generation is a run: the default teacher, the student's network trained on the same images, is generation 0, and the
run is generation 1; its key makes generation 2, `--teachers run:KEY`, and so on. Teachers of other networks may be
given, as the source gives DenseNets to ResNets.
Differs: the default teacher has seed 0, so that the student of seed 0 starts, as all methods do, from the weights that
its teacher started from; the students of other seeds start elsewhere, as in the source. The ensemble of generations
(BANE) is not formed: one network is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt
from torch import nn

from kfbench.methods import Batch, Method, Output, Parts
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer import losses


@dataclass(frozen=True)
class BornAgain(Method):
    """Settings of born-again networks."""

    labels: Annotated[float, Ge(0)] = 0.0  # weight of the labels' cross-entropy
    temperature: Annotated[float, Gt(0)] = 1.0

    kinds = ("images",)
    teachers = (1, 1)
    needs = "outputs"
    teacher_is_twin = True
    revision = 2  # 2: a generation is a run; 1: two generations shared one
    variants = {"labels": {"labels": 1.0}}
    search = {"labels": {"low": 0.0, "high": 1.0}}

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """Cross-entropy to the forerunner's outputs and, weighed, to the labels."""
        output: Output = student(batch.images)
        before = losses.softened(teachers[0](batch).logits, self.temperature)
        soft = self.temperature**2 * losses.cross_entropy(before, output.logits / self.temperature)
        parts = {name: self.labels * part for name, part in task.loss(output, batch).items()} if self.labels else {}
        return output, parts | {"before": soft}
