"""FitNets: a hidden layer of the student, through a learned regressor, imitates one of the teacher's.

Source: Romero et al. 2015, "FitNets: Hints for Thin Deep Nets", arXiv 1412.6550. First the student's lower part learns
    L_HT = 1/2 |u(x) - r(v(x))|²,  then all of it by  L_KD = CE(y, q) + w · H(p_T, q_T),
    T = 3, w from 4 linearly down to 1 (the authors' yaml/cifar10_fitnet19_all.yaml; without T², as in their KDCost.py).
    Variant `one-stage`: CE + 100 · MSE(u, r(v)) throughout (RepDistiller, run_cifar_distill.sh, `hint`).
Differs: the squared error is a mean, not a sum, over units; the regressor is RepDistiller's ConvReg (convolution,
BatchNorm, ReLU), for maxout as in the source is not what our networks have. The hint stage ends at a set share of the
budget, not when its validation error stops falling.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, cast

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn

from kfbench import seeding
from kfbench.errors import KfbenchError
from kfbench.methods import Batch, Method, Output, Parts, Stage
from kfbench.networks import taps
from kfbench.networks.network import Network
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer import losses
from kfbench.transfer.companion import WithCompanions, middle


@dataclass(frozen=True)
class FitNets(Method):
    """Settings of the two stages, or of the single one."""

    hint_share: Annotated[float, Ge(0), Lt(1)] = 0.3  # of the budget, for the hint stage; 0: one stage; choice
    hint: str = ""  # the teacher's layer; empty: its middle one, as in the source
    guided: str = ""  # the student's layer; empty: its middle one
    temperature: Annotated[float, Gt(0)] = 3.0  # T
    soft_start: Annotated[float, Ge(0)] = 4.0  # w at the start of the second stage
    soft_end: Annotated[float, Ge(0)] = 1.0  # w at its end
    hint_weight: Annotated[float, Ge(0)] = 0.0  # of the mean squared error, where there is one stage

    kinds = ("images",)
    has_t2 = False
    teachers = (1, 1)
    needs = "outputs"
    variants = {"one-stage": {"hint_share": 0.0, "soft_start": 0.0, "soft_end": 0.0, "hint_weight": 100.0}}
    search = {
        "hint_share": {"low": 0.1, "high": 0.6},
        "temperature": {"low": 1.0, "high": 10.0, "log": True},
        "soft_start": {"low": 1.0, "high": 8.0},
    }
    variant_search = {"one-stage": {"hint_weight": {"low": 1.0, "high": 1000.0, "log": True}}}

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Hints, then distillation; or one stage."""
        if not self.hint_share:
            return (Stage("train"),)
        return (Stage("hint", self.hint_share), Stage("distil", 1 - self.hint_share))

    def make_student(self, task: Task, teachers: Sequence[Teacher], rng: torch.Generator) -> WithCompanions:
        """Return the task's network with a regressor from its guided layer to the teacher's hint."""
        network = task.make_network()
        guided, hint = self._pair(network, teachers[0])
        taken = taps.shapes(network, [guided])[guided]
        made = teachers[0].shapes([hint])[hint]
        with seeding.global_generator(rng):
            return WithCompanions(network, regressor=regressor(taken, made))

    def _pair(self, network: Network, teacher: Teacher) -> tuple[str, str]:
        return self.guided or middle(network.layers), self.hint or middle(teacher.network.layers)

    def begin(
        self,
        student: nn.Module,
        teachers: Sequence[Teacher],
        stage: Stage,
        batches: Iterable[Batch],
        rng: torch.Generator,
    ) -> None:
        """Train only what leads to the guided layer in the hint stage, the whole network without regressor after it."""
        assert isinstance(student, WithCompanions)
        student.stage = stage.name
        guided, _ = self._pair(student.network, teachers[0])
        leading = leads_to(student.network, guided)
        for weight in student.network.parameters():
            weight.requires_grad_(stage.name != "hint" or id(weight) in leading)
        student.parts.requires_grad_(stage.name != "distil" and (stage.name == "hint" or self.hint_weight > 0))

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """The hint's error; or the task's loss, with soft targets or with the hint's error beside it."""
        assert isinstance(student, WithCompanions)
        guided, hint = self._pair(student.network, teachers[0])
        if student.stage == "distil":
            output: Output = student(batch.images)
            done = max(0.0, progress - self.hint_share) / (1 - self.hint_share)
            weight = self.soft_start + (self.soft_end - self.soft_start) * done
            target = losses.softened(teachers[0](batch).logits, self.temperature)
            soft = losses.cross_entropy(target, output.logits / self.temperature)
            return output, task.loss(output, batch) | {"distillation": weight * soft}
        with taps.read(student.network, [guided]) as found:
            output = student(batch.images)
        wanted = teachers[0].features(batch, [hint])[hint].float()
        error = (student.parts["regressor"](found[guided]).float() - wanted).square().mean()
        if student.stage == "hint":
            return output, {"hint": 0.5 * error}
        return output, task.loss(output, batch) | {"hint": self.hint_weight * error}

    def export(self, student: nn.Module) -> Network:
        """The network; the regressor stays behind."""
        return cast(WithCompanions, student).network


def regressor(taken: tuple[int, ...], made: tuple[int, ...]) -> nn.Module:
    """Return a learned map from features [B, *taken] to [B, *made]. Raises KfbenchError where sizes do not meet."""
    if len(taken) == len(made) == 1:
        return nn.Sequential(nn.Linear(taken[0], made[0]), nn.ReLU())
    if len(taken) != len(made) or (made[1] > taken[1] and made[1] != 2 * taken[1]):
        raise KfbenchError(f"no regressor from features of {taken} to {made}; choose layers with hint= and guided=")
    if taken[1] == 2 * made[1]:
        layer: nn.Module = nn.Conv2d(taken[0], made[0], 3, 2, padding=1)
    elif made[1] == 2 * taken[1]:
        layer = nn.ConvTranspose2d(taken[0], made[0], 4, 2, padding=1)
    else:
        layer = nn.Conv2d(taken[0], made[0], (1 + taken[1] - made[1], 1 + taken[2] - made[2]))
    return nn.Sequential(layer, nn.BatchNorm2d(made[0]), nn.ReLU())


def leads_to(network: Network, layer: str) -> set[int]:
    """Return the ids of the parameters on which a layer's output depends."""
    weights = list(network.parameters())
    for weight in weights:
        weight.requires_grad_(True)
    was_training = network.training
    blank: Tensor = torch.zeros(2, *network.shape, device=network.mean.device)
    with torch.enable_grad(), taps.read(network.eval(), [layer], stop=True) as found:
        network(blank)
    slopes = torch.autograd.grad(found[layer].sum(), weights, allow_unused=True)
    network.train(was_training)
    return {id(weight) for weight, slope in zip(weights, slopes, strict=True) if slope is not None}
