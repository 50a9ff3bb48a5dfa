"""Adaptive ensemble distillation: several teachers, weighted so that the student's gradient agrees with all of them.

Source: Du et al. 2020, "Agree to Disagree: Adaptive Ensemble Knowledge Distillation in Gradient Space", NeurIPS, and
    the authors' code (AnTuo1998/AE-KD, helper/loops.py, helper/optimization.py, train_student.py):
    L = CE + a · sum_m α_m T² KL(p_m || p) + b · sum_m β_m mean((r_m(F) - F_m)²),
    α = argmin |sum_m α_m g_m|² with sum α = 1, 0 ≤ α ≤ C,  g_m the gradient of teacher m's divergence by the student's
    logits, a mean over the batch; β likewise from the features' errors by the student's map F, the middle layer's.
    a = 0.9, b = 100, C = 0.6, T = 4.
Differs: r_m is linear, a 1×1 convolution, for which the gradient is written down; the code has BatchNorm and ReLU
behind it, and a backward pass for each teacher. The problem is solved exactly, over all choices of α_m at 0, at C and
between, on the device; the code has a one-class SVM on the CPU, and for features solves it with gradients of length 1,
whose shares it then divides by the gradients' lengths. Maps meet at the smallest size of all. Features count
from the first step on (the code leaves them out of the first of its 240 epochs).
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, cast

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from kfbench import seeding
from kfbench.errors import KfbenchError
from kfbench.methods import Batch, Method, Output, Parts
from kfbench.networks import taps
from kfbench.networks.network import Network
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer import losses, maps
from kfbench.transfer.companion import WithCompanions, middle


@dataclass(frozen=True)
class AdaptiveEnsemble(Method):
    """Settings of adaptive ensemble distillation."""

    temperature: Annotated[float, Gt(0)] = 4.0
    alpha: Annotated[float, Ge(0)] = 0.9  # a: weight of the outputs
    beta: Annotated[float, Ge(0)] = 100.0  # b: weight of the features
    tolerance: Annotated[float, Gt(0), Le(1)] = 0.6  # C: a teacher's largest share; 1/M where that is more

    kinds = ("images",)
    teachers = (2, 6)
    needs = "outputs"
    above_floor = "a regression of the middle map onto each teacher's, and its gradient by the map"
    variants = {"outputs": {"beta": 0.0}}
    search = {
        "temperature": {"low": 1.0, "high": 20.0, "log": True},
        "alpha": {"low": 0.1, "high": 4.0, "log": True},
        "beta": {"low": 1.0, "high": 500.0, "log": True},
        "tolerance": {"low": 0.2, "high": 1.0},
    }

    def make_student(self, task: Task, teachers: Sequence[Teacher], rng: torch.Generator) -> WithCompanions:
        """Return the task's network with a regressor to each teacher's middle layer.

        Raises KfbenchError where a middle layer is no map.
        """
        network = task.make_network()
        own = middle(network.layers)
        width, *size = taps.shapes(network, [own])[own]
        regressors = nn.ModuleList()
        with seeding.global_generator(rng):
            for teacher in teachers if self.beta else ():
                hint = middle(teacher.network.layers)
                shape = teacher.shapes([hint])[hint]
                if len(shape) != 3 or len(size) != 2:
                    name = network.name if len(size) != 2 else teacher.network.name
                    raise KfbenchError(f"the middle layer of network '{name}' is no map; use aekd/outputs")
                regressors.append(nn.Conv2d(width, shape[0], 1))
        return WithCompanions(network, regressors=regressors, shares=Shares(len(teachers), self.tolerance))

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """The task's loss, the divergences and the features' errors, each with its teachers' shares."""
        assert isinstance(student, WithCompanions)
        own, hints = middle(student.network.layers), [middle(teacher.network.layers) for teacher in teachers]
        with taps.read(student.network, [own]) as found:
            output: Output = student(batch.images)
        if self.beta:  # a pass to the end that leaves the middle layer behind
            wanted = [
                teacher.features(batch, [hint], logits=True)[hint]
                for teacher, hint in zip(teachers, hints, strict=True)
            ]
        answers = torch.stack([teacher(batch).logits for teacher in teachers])
        shares = cast(Shares, student.parts["shares"])
        apart, slopes = divergences(output.logits, answers, self.temperature)
        parts = task.loss(output, batch) | {"distillation": self.alpha * (shares(slopes) * apart).sum()}
        if self.beta:
            errors, slopes = hinted(cast(nn.ModuleList, student.parts["regressors"]), found[own], wanted)
            parts["features"] = self.beta * (shares(slopes) * errors).sum()
        return output, parts

    def export(self, student: nn.Module) -> Network:
        """The network; the regressors stay behind."""
        return cast(WithCompanions, student).network


def divergences(logits: Tensor, teachers: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return T² KL of each teacher [M], and its gradient by the logits, a mean over the batch, [M, K].

    Logits are [B, K], the teachers' [M, B, K].
    """
    targets = [losses.softened(each, temperature) for each in teachers]
    apart = torch.stack([losses.distillation(logits, target, temperature) for target in targets])
    own = losses.softened(logits.detach(), temperature)
    slopes = torch.stack([(own - target).mean(0) for target in targets])  # d KL / d z = (q - p) / T
    return apart, temperature / len(logits) * slopes


def hinted(regressors: nn.ModuleList, own: Tensor, wanted: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return each teacher's mean((r_m(F) - F_m)²) [M], and its gradient by F, a mean over the batch, [M, C·H·W].

    Maps are [B, C, H, W], C of their own network.
    """
    size = tuple(min(each.shape[side] for each in (own, *wanted)) for side in (2, 3))
    own = maps.to_size(own, cast(tuple[int, int], size))
    errors, slopes = [], []
    for learned, other in zip(regressors, wanted, strict=True):
        gap = learned(own).float() - maps.to_size(other, cast(tuple[int, int], size)).float()
        errors.append(gap.square().mean())
        weight = cast(nn.Conv2d, learned).weight.detach().flatten(1)  # [C of the teacher, C]
        mean = gap.detach().mean(0).flatten(1)  # [C of the teacher, H·W]
        slopes.append((2 / gap.numel() * losses.product(weight.T, mean)).flatten())
    return torch.stack(errors), torch.stack(slopes)


class Shares(nn.Module):
    """The shares of M teachers that make the sum of their gradients shortest, none above a tolerance."""

    places: Tensor

    def __init__(self, teachers: int, tolerance: float) -> None:
        super().__init__()
        self.most = max(tolerance, 1 / teachers)
        choices = torch.tensor(list(itertools.product((0, 1, 2), repeat=teachers)))  # [3^M, M]: at 0, at C, between
        self.register_buffer("places", choices, persistent=False)

    @torch.no_grad()
    def forward(self, slopes: Tensor) -> Tensor:
        """Return the shares [M], which sum to 1, from gradients [M, any]."""
        here = torch.device("cpu") if slopes.device.type == "mps" else slopes.device  # Apple GPUs have no float64
        places, wanted = self.places.to(here), slopes.device
        slopes = slopes.to(here).double()
        teachers = len(slopes)
        gram = slopes @ slopes.T
        eye = torch.eye(teachers, dtype=gram.dtype, device=gram.device)
        gram = gram / gram.diagonal().mean().clamp(min=1e-30) + 1e-9 * eye  # a little convex, where two teachers agree
        between = (places == 2)[..., None]  # [3^M, M, 1]
        # for each choice: (G α)_m = ν where α_m is between its ends, else α_m is at its end; sum α = 1, else ν = 0
        above = torch.cat([torch.where(between, gram, eye), -between.double()], 2)  # [3^M, M, M + 1]
        some = between.any(1).double()  # [3^M, 1]
        below = torch.cat([some.expand(-1, teachers), 1 - some], 1)[:, None]  # [3^M, 1, M + 1]
        told = torch.cat([(places == 1).double() * self.most, some], 1)
        found, _ = torch.linalg.solve_ex(torch.cat([above, below], 1), told)
        alpha = found[:, :teachers]
        fits = ((alpha > -1e-6) & (alpha < self.most + 1e-6)).all(1) & ((alpha.sum(1) - 1).abs() < 1e-6)
        length = torch.where(fits, ((alpha @ gram) * alpha).sum(1), torch.inf)
        best: Tensor = alpha.index_select(0, length.argmin()[None])[0].clamp(0, self.most)
        return (best / best.sum()).float().to(wanted)
