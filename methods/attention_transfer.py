"""Attention transfer: where the student's activations lie imitates where the teacher's lie.

Source: Zagoruyko & Komodakis 2017, "Paying More Attention to Attention", arXiv 1612.03928:
    L = CE + b · sum_j mean((Q_S^j - Q_T^j)²),  Q^j = vec(mean_c A_c²) over its length, at each group j of layers;
    b = 1000 (the authors' README for CIFAR; RepDistiller, run_cifar_distill.sh, `attention`).
Differs: groups are linked by relative depth where the networks differ in their number; maps of different sizes meet by
average pooling of the larger (as in RepDistiller). Layers that are vectors have no map and are left out, and so are
maps of fewer than `smallest` rows or columns: the mean gives a map the weight 1/(H·W), and the sources' are of 8x8 to
32x32 on CIFAR, of 7x7 and more on ImageNet (imagenet.py). The 4x4 map of a cnn-16 pulls 6 to 120 times as hard as the
cross-entropy: on 10,000 images of CIFAR-100 the validation error is 72.5 % with it, 63.4 % without, `scratch` 69.7 %.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge
from torch import nn

from kfbench.methods import Batch, Method, Output, Parts
from kfbench.networks.network import Network
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer import losses, maps


@dataclass(frozen=True)
class AttentionTransfer(Method):
    """Settings of attention transfer."""

    beta: Annotated[float, Ge(0)] = 1000.0
    smallest: Annotated[int, Ge(1)] = 7  # rows and columns that a map must have: choice, the sources' smallest

    kinds = ("images",)
    teachers = (1, 1)
    needs = "features"
    above_floor = "squares of whole maps, meant over channels, at every pair of layers, forward and backward"
    younger = {"smallest": 1}  # every map, however small
    search = {"beta": {"low": 10.0, "high": 10_000.0, "log": True}}

    def make_student(self, task: Task, teachers: Sequence[Teacher], rng: torch.Generator) -> Network:
        """Return the task's network. Raises KfbenchError if no pair of layers has maps."""
        network = task.make_network()
        maps.pairs(network, teachers[0], smallest=self.smallest)
        return network

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """The task's loss, and the difference of attention maps over all pairs of layers."""
        assert isinstance(student, Network)
        output, couples = maps.read(student, teachers[0], batch, smallest=self.smallest)
        apart = [losses.attention(own, theirs) for own, theirs in couples]
        return output, task.loss(output, batch) | {"attention": self.beta * torch.stack(apart).sum()}
