"""MIKT: Knowledge Flow's lateral connections, with the teacher shown a learned embedding of what the student sees.

Source: Wan, Gangwani & Peng 2020, "Mutual Information Based Knowledge Transfer Under State-Action Dimension Mismatch",
    UAI, arXiv 2006.07041, and the authors' code (michaelwan11/MIKT: common/student_models.py, ppo2/model.py,
    ppo2/ppo2.py, run.py): before its activation, layer j is p_0 z_j + sum_k p_k U_k z_jk(phi(s)), p the softmax of
    logits that start at -0.1 (the student's) and 0.01;
    L = L_RL - dep(t) · mean_j log p_0^j + k · 1/2 mean (log pi - log pi_acting)²
        + m · mean (log sigma + (s - mu(phi(s)))² / (2 sigma²)),
    whose last mean is minus a bound of the mutual information of s and phi(s). dep rises from 0 at 45 % of the updates
    to its end at 90 %, where the teachers are cut off. Of what run.py draws from: dep 1 (or 0.5), k 0.1 (or 0.05),
    m 0.5 (or 1).
Differs: all games are seen as images of one shape, so phi and mu are corrections of what they are given, made from its
4×4 patches, and begin as the identity (there: networks that map one robot's state to another's, from nothing). sigma
is a channel's, and at least 0.05: black pixels that are told exactly have no bound. Policy and value share a trunk, so
there is one set of shares (there: two, the values' with a dep of 0.05 or 0.1). The shares learn at ten times the
network's rate, as in `kf`, else they hardly move in a short budget. Under a2c without `overlap` the term of the old
policy is 0: the only step of a rollout is taken where the policy that acted still is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, cast

import torch
from annotated_types import Ge, Gt, Le
from torch import nn

from kfbench import seeding
from kfbench.methods import Batch, Group, Method, Output, Parts
from kfbench.networks.network import Network
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer.laterals import Laterals, near_old

Fraction = Annotated[float, Ge(0), Le(1)]
Weight = Annotated[float, Ge(0)]


@dataclass(frozen=True)
class MutualInformation(Method):
    """Settings of MIKT."""

    dep: Weight = 1.0  # final weight of the dependency term
    dep_start: Fraction = 0.45  # progress at which it leaves 0
    cut: Fraction = 0.9  # progress at which it is reached, and the teachers are cut off
    kl: Weight = 0.1  # k, keeps the policy near that which acted
    information: Weight = 0.5  # m
    width: Annotated[int, Gt(0)] = 16  # hidden units for a patch in phi and in mu; choice
    mix_rate: Annotated[float, Gt(0)] = 10.0  # learning rate of the shares over the network's; choice, see above

    kinds = ("games",)
    teachers = (1, None)
    needs = "features"
    search = {
        "dep": {"low": 0.05, "high": 20.0, "log": True},
        "cut": {"low": 0.5, "high": 0.95},
        "kl": {"low": 0.01, "high": 1.0, "log": True},
        "information": {"low": 0.05, "high": 5.0, "log": True},
        "mix_rate": {"low": 1.0, "high": 100.0, "log": True},
    }

    def make_student(self, task: Task, teachers: Sequence[Teacher], rng: torch.Generator) -> Laterals:
        """Return the task's network among its lateral connections."""
        network = task.make_network()
        with seeding.global_generator(rng):
            return Laterals(network, teachers, split=False, width=self.width)

    def is_attached(self, progress: float) -> bool:
        """True before the cut."""
        return progress < self.cut

    def act(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, progress: float
    ) -> tuple[Output, Parts]:
        """What the student says, with its teachers until the cut; they are asked anew in `losses`, by a newer phi."""
        assert isinstance(student, Laterals)
        if not self.is_attached(progress):
            return student(batch.images), {}
        return student(batch.images, student.ask(teachers, student.embed(batch.images))), {}

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """The actor-critic's loss and the term of the old policy; until the cut also dependency and information."""
        assert isinstance(student, Laterals) and batch.output is not None and batch.actions is not None
        more: Parts = {}
        if self.is_attached(progress):
            embedded = student.embed(batch.images)
            output = student(batch.images, student.ask(teachers, embedded))
            ramp = max(0.0, progress - self.dep_start) / max(self.cut - self.dep_start, 1e-9)
            more["dependency"] = self.dep * ramp * student.dependency()
            more["information"] = self.information * student.information(embedded, batch.images)
        else:
            output = student(batch.images)
        more["kl"] = self.kl * near_old(output, batch.output, batch.actions)
        return output, task.loss(output, batch) | more

    def parameter_groups(self, student: nn.Module) -> list[Group]:
        """The shares at a multiple of the recipe's rate, all else at the rate."""
        shares = list(cast(Laterals, student).shares.parameters())
        rest = [weight for weight in student.parameters() if all(weight is not share for share in shares)]
        return [{"params": rest}, {"params": shares, "lr_scale": self.mix_rate}]

    def metrics(self, student: nn.Module) -> dict[str, float]:
        """`share/LAYER/student`, `share/LAYER/TEACHER` and the mean over layers, `share/student`."""
        return cast(Laterals, student).metrics()

    def export(self, student: nn.Module) -> Network:
        """A plain network with the student's weights."""
        return cast(Laterals, student).network.clone()
