"""Batch spectral shrinkage: fine-tuning that suppresses the weakest directions of each batch's features.

Source: Chen, Wang, Fu, Long & Wang 2019, "Catastrophic Forgetting Meets Negative Transfer: Batch Spectral Shrinkage for
    Safe Transfer Learning", NeurIPS, and the authors' Transfer-Learning-Library (tllib/regularization/bss.py):
    L = CE + w · sum_{i=1..k} s_{-i}²,  s_{-i} the i-th smallest singular value of the batch's features F, [B, C], as
    they enter the head; w = 0.001, k = 1 (examples/task_adaptation/image_classification/bss.py).
Differs: the body learns at the head's rate, as in `finetune`, so that the two are compared by the penalty alone; the
library gives every method, plain fine-tuning too, a tenth of it (`--set body_rate=0.1`). As there, the penalty is of
the whole batch and no mean over its rows. It is nothing where F's rank is below the smaller of B and C: where B is no
smaller than C, a single feature that is 0 for the whole batch takes the place of the smallest singular value.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, cast

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from kfbench.methods import Batch, Group, Method, Output, Parts
from kfbench.networks.network import Network
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer.transplant import below_head, carry, groups, head


@dataclass(frozen=True)
class BatchSpectralShrinkage(Method):
    """Settings of the penalty."""

    weight: Annotated[float, Ge(0)] = 0.001  # w
    smallest: Annotated[int, Gt(0)] = 1  # k, how many of the smallest singular values are penalised
    body_rate: Annotated[float, Gt(0)] = 1.0  # learning rate of the body over the head's; choice, see above

    kinds = ("images",)
    teachers = (1, 1)
    needs = "architecture"
    starts_from_teacher = True
    search = {
        "weight": {"low": 1e-5, "high": 0.1, "log": True},
        "smallest": {"low": 1, "high": 16, "log": True},
        "body_rate": {"low": 0.01, "high": 1.0, "log": True},
    }

    def make_student(self, task: Task, teachers: Sequence[Teacher], rng: torch.Generator) -> Network:
        """Return the teacher's body below a fresh head. Raises KfbenchError for one that reads maps."""
        network = task.make_network()
        head(network)
        carry(teachers[0].network, network)
        return network

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """The task's loss and the penalty on what enters the head."""
        with below_head(cast(Network, student)) as taken:
            output: Output = student(batch.images)
        return output, task.loss(output, batch) | {"spectrum": self.weight * weakest(taken[0], self.smallest)}

    def parameter_groups(self, student: nn.Module) -> list[Group]:
        """The head at the recipe's rate, the body at its multiple."""
        return groups(cast(Network, student), body_rate=self.body_rate)


def weakest(features: Tensor, count: int) -> Tensor:
    """Return the sum of squares of the `count` smallest singular values of features [B, C]."""
    falling: Tensor = torch.linalg.svdvals(features.float().nan_to_num(0, 0, 0))
    least = falling[-count:].square().sum()
    return least.where(features.isfinite().all(), torch.nan)  # torch would raise; so the run tells that it diverged
