"""Stochastic normalisation: while fine-tuning, each channel is normalised by its batch or by its history, by chance.

Source: Kou, You, Long & Wang 2020, "Stochastic Normalization", NeurIPS, and the authors' Transfer-Learning-Library
    (tllib/normalization/stochnorm.py): in training, each BatchNorm puts out
    z = (1 - s) z_0 + s z_1,  z_0 normalised by the running statistics as they were before this batch, z_1 by the
    batch's own, s drawn for each channel and step, P(s = 1) = p; p = 0.5. The kept network has plain BatchNorm.
Differs: the body learns at the head's rate, as in `finetune` (see `bss`). z_0's gradient is that of the statistics
it was computed with; the library's backward pass reads them after the batch has moved them. (The library's
`convert_model` hands p on as another argument, so its own p is 0.5 whatever --prob says.)

Tried on validation images (CIFAR-100, 10,000 images for 12 epochs, a cnn-16 from one of CIFAR-10, one seed; `finetune`
66.0 % error): 70.4; with p = 0.9 66.1. In so short a run much of the history is that of the teacher's images.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, cast

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from kfbench import seeding
from kfbench.errors import KfbenchError
from kfbench.methods import Batch, Group, Method, Output, Parts
from kfbench.networks.network import Network
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer.transplant import carry, groups

BatchNorm = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True)
class StochasticNormalisation(Method):
    """Settings of stochastic normalisation."""

    p: Annotated[float, Ge(0), Le(1)] = 0.5  # how often a channel is normalised by the batch; 1: plain fine-tuning
    body_rate: Annotated[float, Gt(0)] = 1.0  # learning rate of the body over the head's; choice, see above

    kinds = ("images",)
    teachers = (1, 1)
    needs = "architecture"
    above_floor = "each BatchNorm runs twice, by its history and by the batch"
    starts_from_teacher = True
    search = {
        "p": {"low": 0.0, "high": 1.0},
        "body_rate": {"low": 0.01, "high": 1.0, "log": True},
    }

    def make_student(self, task: Task, teachers: Sequence[Teacher], rng: torch.Generator) -> Network:
        """Return the teacher's body, statistics too, below a fresh head. Raises KfbenchError if it has no BatchNorm."""
        network = task.make_network()
        if not _norms(network):
            raise KfbenchError(
                f"network '{network.name}' has no batch normalisation with running statistics, which stochnorm "
                "changes; use finetune, or a --network such as cnn-16"
            )
        carry(teachers[0].network, network)
        return network

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """The task's loss of a pass with stochastic normalisation."""
        with stochastic(student, self.p, batch.rng):
            output: Output = student(batch.images)
        return output, task.loss(output, batch)

    def parameter_groups(self, student: nn.Module) -> list[Group]:
        """The head at the recipe's rate, the body at its multiple."""
        return groups(cast(Network, student), body_rate=self.body_rate)


def _norms(network: nn.Module) -> list[nn.Module]:
    return [m for m in network.modules() if isinstance(m, BatchNorm) and m.track_running_stats]


@contextmanager
def stochastic(network: nn.Module, p: float, rng: torch.Generator) -> Iterator[None]:
    """Let every BatchNorm that is in training choose, channel by channel, between the batch's statistics and its own.

    Layers that activate as they normalise (timm's) are served too: a choice commutes with what is done elementwise.
    """
    histories: dict[nn.Module, Tensor] = {}

    def before(norm: nn.Module, taken: tuple[Any, ...]) -> None:
        if norm.training:
            histories[norm] = by_history(norm, taken[0])

    def after(norm: nn.Module, taken: tuple[Any, ...], by_batch: Tensor) -> Tensor | None:
        if norm not in histories:
            return None
        drawn = seeding.uniform(by_batch.shape[1], rng=rng, device=by_batch.device) < p  # s, [C]
        return torch.where(drawn.view(1, -1, *(1,) * (by_batch.dim() - 2)), by_batch, histories.pop(norm))

    norms = _norms(network)
    handles = [norm.register_forward_pre_hook(before) for norm in norms]
    handles += [norm.register_forward_hook(after) for norm in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def by_history(norm: nn.Module, features: Tensor) -> Tensor:
    """Return what a BatchNorm makes of features [B, C, …] by its running statistics, in whatever mode it is."""
    was = norm.running_mean, norm.running_var
    norm.running_mean, norm.running_var = (value.clone() for value in was)  # type: ignore[operator]
    norm.training = False
    made: Tensor = norm.forward(features)  # not called: the hooks are for the pass by the batch
    norm.training = True
    norm.running_mean, norm.running_var = was
    return made
