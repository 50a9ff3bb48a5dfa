"""Confidence-aware distillation from several teachers: for each image, the surer of the label counts for more.

Source: Zhang, Chen & Wang 2022, "Confidence-Aware Multi-Teacher Knowledge Distillation", ICASSP, arXiv 2201.00007, and
    the authors' code (Rorozhl/CA-MKD: helper/loops.py, distiller_zoo/CAMKD.py, models/util.py, scripts/run.sh):
    L = CE + a · sum_k w_k T² KL(p_k || p) + b · sum_k v_k mean((r_k(F) - F_k)²),
    w_k = (1 - softmax_k(CE of teacher k)) / (M - 1); F, F_k are the last feature maps, r_k convolution 1×1, BatchNorm
    and ReLU; v_k is as w_k, from what teacher k's head says of r_k(F). a = 1, b = 50 (scripts/run.sh), T = 4 as `kd`.
Differs: w and v carry no gradient; they sum to 1, as in the paper (its code divides by M once more). The features count
from the first step on (the code leaves them out of the first of its 240 epochs).
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
from kfbench.transfer.transplant import head


@dataclass(frozen=True)
class ConfidenceAware(Method):
    """Settings of confidence-aware distillation."""

    temperature: Annotated[float, Gt(0)] = 4.0
    alpha: Annotated[float, Ge(0)] = 1.0  # a: weight of the outputs
    beta: Annotated[float, Ge(0)] = 50.0  # b: weight of the features

    kinds = ("images",)
    teachers = (2, None)
    needs = "outputs"
    variants = {"outputs": {"beta": 0.0}}
    search = {
        "temperature": {"low": 1.0, "high": 20.0, "log": True},
        "alpha": {"low": 0.1, "high": 4.0, "log": True},
        "beta": {"low": 1.0, "high": 500.0, "log": True},
    }

    def make_student(self, task: Task, teachers: Sequence[Teacher], rng: torch.Generator) -> WithCompanions:
        """Return the task's network with a map from its last features to each teacher's.

        Raises KfbenchError where the student's features are no maps, or a teacher's head cannot read pooled ones.
        """
        network = task.make_network()
        width, *size = taps.shapes(network, network.layers[-1:])[network.layers[-1]]
        if self.beta and len(size) != 2:
            raise KfbenchError(f"the last features of network '{network.name}' are no maps; use ca_mkd/outputs")
        maps = []
        with seeding.global_generator(rng):
            for teacher in teachers if self.beta else ():
                shape = teacher.shapes(teacher.network.layers[-1:])[teacher.network.layers[-1]]
                reader = head(teacher.network)
                if len(shape) != 3 or not isinstance(reader, nn.Linear) or reader.in_features != shape[0]:
                    raise KfbenchError(f"the head of '{teacher.name}' does not read pooled maps; use ca_mkd/outputs")
                maps.append(nn.Sequential(nn.Conv2d(width, shape[0], 1), nn.BatchNorm2d(shape[0]), nn.ReLU()))
        return WithCompanions(network, maps=nn.ModuleList(maps))

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """The task's loss, the weighted divergences, and the weighted distances of features."""
        assert isinstance(student, WithCompanions) and batch.labels is not None
        own = student.network.layers[-1]
        with taps.read(student.network, [own]) as found:
            output: Output = student(batch.images)
        wanted = [teacher.features(batch, [teacher.network.layers[-1]], logits=True) for teacher in teachers]
        answers = torch.stack([teacher(batch).logits for teacher in teachers])  # [M, B, K]
        logged = F.log_softmax(output.logits.float() / self.temperature, dim=1)
        targets = F.log_softmax(answers.float() / self.temperature, dim=2)
        apart = (targets.exp() * (targets - logged)).sum(2)  # [M, B], KL(p_k || p)
        weights = losses.confidence(answers, batch.labels)
        soft = self.temperature**2 * (weights * apart).sum(0).mean()
        parts = task.loss(output, batch) | {"distillation": self.alpha * soft}
        if self.beta:
            theirs = [next(iter(each.values())) for each in wanted]
            parts["features"] = self.beta * self._features(student, teachers, found[own], theirs, batch.labels)
        return output, parts

    def _features(
        self, student: WithCompanions, teachers: Sequence[Teacher], own: Tensor, theirs: list[Tensor], labels: Tensor
    ) -> Tensor:
        """Return sum_k v_k mean((r_k(F) - F_k)²), a mean over the batch."""
        made = [
            learned(maps.meet(own, tuple(wanted.shape[2:])))
            for learned, wanted in zip(cast(nn.ModuleList, student.parts["maps"]), theirs, strict=True)
        ]
        with torch.no_grad():
            said = [head(teacher.network)(losses.pooled(each)) for teacher, each in zip(teachers, made, strict=True)]
            weights = losses.confidence(torch.stack(said), labels)  # [M, B]
        errors = [
            (each.float() - wanted.float()).square().flatten(1).mean(1)
            for each, wanted in zip(made, theirs, strict=True)
        ]
        return (weights * torch.stack(errors)).sum(0).mean()

    def export(self, student: nn.Module) -> Network:
        """The network; the maps stay behind."""
        return cast(WithCompanions, student).network
