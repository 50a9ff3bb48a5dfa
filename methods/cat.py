"""CAT: lateral connections whose split among several teachers follows how well each teacher plays the new game.

Source: You, Yang, Zheng, Hao & Taylor 2022, "Cross-domain Adaptive Transfer Reinforcement Learning Based on
    State-Action Correspondence", UAI, and the authors' code, which took MIKT's over
    (TJU-DRL-LAB/transfer-and-multi-task-reinforcement-learning, folder CAT: common/student_models.py, ppo2/model.py,
    ppo2/runner.py, ppo2/ppo2.py, run.py): before its activation, layer j is
    p_0 z_j + p_1 sum_k w_k U_k z_jk(phi_k(s)),  p as in `mikt`, w a second softmax;
    L = L_MIKT (a phi and a term of information for each teacher) + c · sum_k mean (rho_k(phi_k(s)) - s)²
        + mean_jk (w_jk - usefulness_k)²,  the last for w alone;  usefulness is the softmax of the reward that each
    teacher earns in 100 steps of the new game, which it plays again before each update; c = 1.
Differs: teacher k plays an environment of its own among the student's until the cut, so that what it costs is counted;
its steps are left out of the actor-critic's loss. Its usefulness is 100 times a running mean of what its steps bring
over the student's values: how much more it would earn in 100 steps. An advantage holds the steps behind it too, so it
is divided by how many it holds. Its actions are the game's of the same names (there: a map from action to action that
no loss trains). The code has the terms of w and rho with a minus, which drives them off what they are to meet, and
takes the first teacher's phi for both rho; here both are minimised, each rho of its own phi. What `mikt` says of phi,
sigma, shares, their rate and the term of the old policy holds here too; w starts even (there 0.55, 0.45).
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, cast

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from kfbench import seeding
from kfbench.errors import KfbenchError
from kfbench.methods import Batch, Group, Method, Output, Parts
from kfbench.networks.network import Network
from kfbench.spec import GameRecipe
from kfbench.tasks import Task
from kfbench.teachers import Teacher, fit
from kfbench.transfer.laterals import Correction, Laterals, floats, near_old

Fraction = Annotated[float, Ge(0), Le(1)]
Weight = Annotated[float, Ge(0)]


@dataclass(frozen=True)
class CrossDomainAdaptiveTransfer(Method):
    """Settings of CAT."""

    dep: Weight = 1.0  # final weight of the dependency term; the source draws from 1 and 0.5
    dep_start: Fraction = 0.45  # progress at which it leaves 0
    cut: Fraction = 0.9  # progress at which it is reached, and the teachers are cut off
    kl: Weight = 0.1  # keeps the policy near that which acted; the source draws from 0.1 and 0.05
    information: Weight = 0.5  # of each teacher's embedding; the source draws from 0.5 and 1
    cycle: Weight = 1.0  # c
    steps: Annotated[int, Gt(0)] = 100  # agent steps over which usefulness is a gain
    memory: Annotated[float, Gt(0), Le(1)] = 0.1  # share of the newest in the running mean of gains; choice
    width: Annotated[int, Gt(0)] = 16  # hidden units for a patch in phi, mu and rho; choice
    mix_rate: Annotated[float, Gt(0)] = 10.0  # learning rate of p and w over the network's; choice

    kinds = ("games",)
    of_teachers = "plays, so it must have some of the game's actions, by name; its features are read, too"
    teachers = (1, None)
    needs = "features"
    search = {
        "dep": {"low": 0.05, "high": 20.0, "log": True},
        "cut": {"low": 0.5, "high": 0.95},
        "kl": {"low": 0.01, "high": 1.0, "log": True},
        "information": {"low": 0.05, "high": 5.0, "log": True},
        "mix_rate": {"low": 1.0, "high": 100.0, "log": True},
    }

    def make_student(self, task: Task, teachers: Sequence[Teacher], rng: torch.Generator) -> "Adaptive":
        """Return the task's network among its lateral connections. Raises KfbenchError if a teacher cannot play.

        And if the teachers would play more than half of the environments.
        """
        assert isinstance(task.recipe, GameRecipe)
        if task.recipe.environments < 2 * len(teachers):
            raise KfbenchError(
                f"each of cat's {len(teachers)} teachers plays one environment, but there are "
                f"{task.recipe.environments}; --set-recipe environments={2 * len(teachers)} or more"
            )
        places = torch.stack([same_actions(teacher, task) for teacher in teachers])
        network = task.make_network()
        with seeding.global_generator(rng):
            return Adaptive(network, teachers, places, width=self.width)

    def is_attached(self, progress: float) -> bool:
        """True before the cut."""
        return progress < self.cut

    def act(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, progress: float
    ) -> tuple[Output, Parts]:
        """The student's policy and, in environment k, that of teacher k; the student's values; who plays each row."""
        assert isinstance(student, Adaptive)
        if not self.is_attached(progress):
            return student(batch.images), {}
        embedded = student.embed(batch.images)
        output = student(batch.images, student.ask(teachers, embedded))
        played = [student.policy(k, teacher, embedded[k][k : k + 1]) for k, teacher in enumerate(teachers)]
        logits = torch.cat([*(one.to(output.logits.dtype) for one in played), output.logits[len(teachers) :]])
        player = torch.arange(len(batch.images), device=logits.device)
        return Output(logits, output.value), {"player": player}

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """The actor-critic's loss of the student's rows and MIKT's terms; until the cut also those of rho and w."""
        assert isinstance(student, Adaptive) and batch.output is not None and batch.actions is not None
        more: Parts = {}
        counts = None
        if "player" in batch.extras:
            counts = (batch.extras["player"] >= len(teachers)).float()
            assert isinstance(task.recipe, GameRecipe)
            student.judge(batch, self.memory, steps_held(task.recipe))
        if self.is_attached(progress):
            embedded = student.embed(batch.images)
            output = student(batch.images, student.ask(teachers, embedded))
            ramp = max(0.0, progress - self.dep_start) / max(self.cut - self.dep_start, 1e-9)
            more["dependency"] = self.dep * ramp * student.dependency()
            more["information"] = self.information * student.information(embedded, batch.images)
            more["cycle"] = self.cycle * student.cycle(embedded, batch.images)
            more["usefulness"] = student.misfit(self.steps)
        else:
            output = student(batch.images)
        more["kl"] = self.kl * near_old(output, batch.output, batch.actions, counts)
        return output, task.loss(output, dataclasses.replace(batch, counts=counts)) | more

    def parameter_groups(self, student: nn.Module) -> list[Group]:
        """The shares at a multiple of the recipe's rate, all else at the rate."""
        assert isinstance(student, Adaptive)
        shares = [*student.shares.parameters(), *student.weights.parameters()]
        rest = [weight for weight in student.parameters() if all(weight is not share for share in shares)]
        return [{"params": rest}, {"params": shares, "lr_scale": self.mix_rate}]

    def metrics(self, student: nn.Module) -> dict[str, float]:
        """Shares as in `mikt`, and `usefulness/TEACHER`, which sum to 1."""
        assert isinstance(student, Adaptive)
        useful = student.usefulness(self.steps).tolist()
        return student.metrics() | {
            f"usefulness/{k}:{n}": u for k, (n, u) in enumerate(zip(student.names, useful, strict=True))
        }

    def export(self, student: nn.Module) -> Network:
        """A plain network with the student's weights."""
        return cast(Adaptive, student).network.clone()


def steps_held(recipe: GameRecipe) -> float:
    """Return how many steps' gains an advantage of a rollout holds, later ones discounted: a mean over its steps."""
    fading = recipe.gamma * recipe.trace
    ahead = range(recipe.rollout)  # a step so far ahead is held by all but that many of the rollout's advantages
    return sum(fading**k * (recipe.rollout - k) for k in ahead) / recipe.rollout


def same_actions(teacher: Teacher, task: Task) -> Tensor:
    """Return which of the teacher's actions is each of the task's by name, [A]; -1 where it has none.

    Raises KfbenchError if there is no such action at all: the teacher is no player, or its actions are not known.
    """
    theirs = {name: place for place, name in enumerate(teacher.classes)}
    places = torch.tensor([theirs.get(name, -1) for name in task.classes])
    if not bool((places >= 0).any()):
        raise KfbenchError(
            f"teacher '{teacher.name}' has none of the actions of '{task.name}', so cat cannot let it play; use mikt "
            "or kf, which read features alone"
        )
    return places


class Adaptive(Laterals):
    """Laterals with an embedding for each teacher, the way back from it, and how well each teacher plays."""

    places: Tensor
    gains: Tensor
    seen: Tensor

    def __init__(self, network: Network, teachers: Sequence[Teacher], places: Tensor, *, width: int) -> None:
        super().__init__(network, teachers, split=True, width=width)
        self.reverse = nn.ModuleList(Correction(network.shape[0], width) for _ in teachers)  # rho
        self.register_buffer("places", places)  # [teachers, A]
        self.register_buffer("gains", torch.zeros(len(teachers)))  # running mean of what a step of each one's gains
        self.register_buffer("seen", torch.zeros(len(teachers), dtype=torch.bool))

    def policy(self, k: int, teacher: Teacher, shown: Tensor) -> Tensor:
        """Return teacher k's logits of this game's actions, [1, A], for an embedded observation [1, C, H, W]."""
        said = F.log_softmax(teacher.network(fit(shown, teacher.network.shape)).logits.float(), dim=1)
        places = self.places[k]
        return torch.where(places >= 0, said[:, places.clamp(min=0)], -1e4)  # finite: 0 · inf is nan

    def judge(self, batch: Batch, rate: float, held: float) -> None:
        """Take the advantages of the teachers' rows, over `held` steps, into their running means; the first whole."""
        assert batch.advantages is not None
        teachers = torch.arange(len(self.gains), device=self.gains.device)
        rows = batch.extras["player"] == teachers[:, None]  # [teachers, B]
        count = rows.sum(1)
        mean = (rows * batch.advantages.detach()).sum(1) / count.clamp(min=1) / held
        moved = torch.where(self.seen, torch.lerp(self.gains, mean, rate), mean)
        self.gains.copy_(torch.where(count > 0, moved, self.gains))
        self.seen |= count > 0

    def usefulness(self, steps: int) -> Tensor:
        """Return the softmax of what each teacher would gain over the student in so many steps, [teachers]."""
        return F.softmax(steps * self.gains, dim=0)

    def misfit(self, steps: int) -> Tensor:
        """Return the mean over layers and teachers of (w - usefulness)², []."""
        split = torch.stack([F.softmax(weights, dim=0) for weights in self.weights.values()])
        return (split - self.usefulness(steps)).square().mean()

    def cycle(self, embedded: Sequence[Tensor], images: Tensor) -> Tensor:
        """Return the mean squared error of the observations [B, C, H, W] made back, a sum over teachers, []."""
        seen = floats(images)
        errors = [(back(shown) - seen).square().mean() for back, shown in zip(self.reverse, embedded, strict=True)]
        return torch.stack(errors).sum()
