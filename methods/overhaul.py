"""Overhaul of feature distillation: the student's maps before ReLU approach the teacher's, where that tells something.

Source: Heo et al. 2019, "A Comprehensive Overhaul of Feature Distillation", arXiv 1904.01866, and the authors' code
    (clovaai/overhaul-distillation, CIFAR-100):
    L = CE + w · sum_j 2^(j-n) d_p(max(F_T^j, m), r(F_S^j)),  d_p the sum over the map of (T - S)², but 0 where S ≤ T ≤
    0, of what enters the ReLU at the end of group j of n; r a 1×1 convolution and BatchNorm; m the mean of a channel's
    negative values, from the BatchNorm before: its shift and scale as a Gaussian's. w = 1/1000.
Differs: layers are linked by relative depth, the larger of two maps is average-pooled. After a residual sum the margin
is that of its last BatchNorm, as in the authors' code.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, cast

import torch
from annotated_types import Ge
from torch import Tensor, nn

from kfbench import seeding
from kfbench.errors import KfbenchError
from kfbench.methods import Batch, Method, Output, Parts
from kfbench.networks import taps
from kfbench.networks.network import Network
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer import maps
from kfbench.transfer.companion import WithCompanions


@dataclass(frozen=True)
class Overhaul(Method):
    """Settings of the overhaul."""

    weight: Annotated[float, Ge(0)] = 1e-3  # w, of the deepest pair of layers; half as much for each one above it

    kinds = ("images",)
    teachers = (1, 1)
    needs = "features"
    above_floor = "a 1×1 convolution with BatchNorm to the teacher's width on every map, and its loss at that size"
    search = {"weight": {"low": 1e-5, "high": 1e-2, "log": True}}

    def make_student(self, task: Task, teachers: Sequence[Teacher], rng: torch.Generator) -> WithCompanions:
        """Return the task's network with a connector for each pair of layers.

        Raises KfbenchError if no pair has maps, or the teacher has no BatchNorm before a layer.
        """
        network = task.make_network()
        found = maps.pairs(network, teachers[0], position="pre")
        with seeding.global_generator(rng):
            each = [Connected(pair, margin(norm_before(teachers[0].network, pair.theirs))) for pair in found]
        return WithCompanions(network, connectors=nn.ModuleList(each))

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """The task's loss, and the partial distances of all pairs."""
        assert isinstance(student, WithCompanions)
        output, couples = maps.read(student.network, teachers[0], batch, position="pre")
        connectors = cast(nn.ModuleList, student.parts["connectors"])
        each = [connected(*couple) for connected, couple in zip(connectors, couples, strict=True)]
        apart = sum(distance / 2 ** (len(each) - 1 - j) for j, distance in enumerate(each))
        return output, task.loss(output, batch) | {"features": self.weight * cast(Tensor, apart)}

    def export(self, student: nn.Module) -> Network:
        """The network; the connectors stay behind."""
        return cast(WithCompanions, student).network


class Connected(nn.Module):
    """The partial distance of a pair's maps, through a connector, above the teacher's margins [C, 1, 1]."""

    margin: Tensor

    def __init__(self, pair: maps.Pair, margin: Tensor) -> None:
        super().__init__()
        self.connector = maps.connector(pair.taken[0], pair.wanted[0])
        self.register_buffer("margin", margin[:, None, None].clone())

    def forward(self, own: Tensor, theirs: Tensor) -> Tensor:
        """Return the distance, a mean over the batch, of maps [B, C of the student, H, W] and [B, C, H, W]."""
        own, theirs = maps.shrink(self.connector(own).float(), theirs.float())
        return partial_distance(own, torch.maximum(theirs, self.margin))


def partial_distance(own: Tensor, target: Tensor) -> Tensor:
    """Return d_p, summed over the map and a mean over the batch, of [B, C, H, W] each."""
    least = torch.where(target > 0, -torch.inf, 0.0)  # where the teacher is silent, being more so costs nothing
    return torch.maximum(own - target, least).square().flatten(1).sum(1).mean()


def margin(norm: nn.BatchNorm2d) -> Tensor:
    """Return the mean of the values below 0 of each channel [C], were they Gaussian; -3 s where hardly one is."""
    scale, shift = norm.weight.detach().abs().clamp(min=1e-12), norm.bias.detach()
    below = torch.special.ndtr(-shift / scale)  # share of values below 0
    density = (-(shift / scale).square() / 2).exp() / math.sqrt(2 * math.pi)
    return torch.where(below > 0.001, shift - scale * density / below.clamp(min=1e-12), -3 * scale)


def norm_before(network: Network, layer: str) -> nn.BatchNorm2d:
    """Return the BatchNorm that ran last before a layer, among its neighbours in their module.

    Raises KfbenchError if there is none.
    """
    parent = network.get_submodule(layer.rpartition(".")[0])
    ran: list[nn.BatchNorm2d] = []
    handles = [
        norm.register_forward_hook(lambda module, _taken, _put: ran.append(module))
        for norm in parent.children()
        if isinstance(norm, nn.BatchNorm2d)
    ]
    try:
        with torch.no_grad(), taps.read(network, [layer], "pre", stop=True):
            network(torch.zeros(1, *network.shape, device=network.mean.device))
    finally:
        for handle in handles:
            handle.remove()
    if not ran:
        raise KfbenchError(
            f"no BatchNorm before layer '{layer}' of network '{network.name}', from which overhaul takes its margins; "
            "use a teacher that has them, as cnn, resnet, vgg and wrn do"
        )
    return ran[-1]
