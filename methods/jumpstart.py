"""Jump-start: the teacher plays the first steps of each episode, fewer and fewer, and the student goes on from there.

Source: Uchendu, Xiao, Lu, Zhu, Yan et al. 2022, "Jump-Start Reinforcement Learning", arXiv 2204.02372, its
    curriculum: the guide plays h steps, the learner the rest; h falls by one of n steps from H to 0 each time
    that the mean return of both together is not below the best so far, less a tolerance. n = 10, and a first mean
    that only sets the mark, as in steventango/jumpstart-rl. H = 100 is the largest roll-in of Agarwal et al. 2022,
    "Reincarnating Reinforcement Learning", on Atari (configs/jsrl_dqn.gin, where each episode draws its own, and,
    with roll_in_guide = False, the learner plays it and the guide more and more rarely what follows).
Differs: the sources' learners are off-policy and learn from the guide's steps too. An actor-critic's gradient is of its
own actions, so rows that the teacher played are left out of all its terms, and their advantages are used by nobody.
Means are of training episodes, not of evaluations; as few of them end in a short budget, h is also at most a line from
H to 0 at `until`. The variant that draws h for each episode is not here.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, cast

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from kfbench.methods import Batch, Method, Output, Parts
from kfbench.networks.network import Network
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer.companion import WithCompanions


@dataclass(frozen=True)
class JumpStart(Method):
    """Settings of the curriculum."""

    horizon: Annotated[int, Gt(0)] = 100  # H, agent steps
    levels: Annotated[int, Gt(0)] = 10  # n
    window: Annotated[int, Gt(0)] = 5  # episodes that a mean is taken over; choice
    tolerance: Annotated[float, Ge(0)] = 0.05  # of the best mean, that a mean may be below it; choice
    until: Annotated[float, Gt(0), Le(1)] = 0.5  # progress at which h is 0 at the latest; choice

    kinds = ("games",)
    teachers = (1, 1)
    needs = "outputs"
    search = {
        "horizon": {"low": 10, "high": 1000, "log": True},
        "tolerance": {"low": 0.0, "high": 0.2},
        "until": {"low": 0.1, "high": 1.0},
    }

    def make_student(self, task: Task, teachers: Sequence[Teacher], rng: torch.Generator) -> WithCompanions:
        """Return the task's network and where it stands in the curriculum."""
        return WithCompanions(task.make_network(), curriculum=Curriculum())

    def is_attached(self, progress: float) -> bool:
        """True while the teacher may play."""
        return progress < self.until

    def act(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, progress: float
    ) -> tuple[Output, Parts]:
        """The teacher's policy in young episodes, else the student's; the student's values; which rows are its own."""
        output: Output = student(batch.images)
        if not self.is_attached(progress) or batch.age is None:
            return output, {}
        level = cast(Curriculum, cast(WithCompanions, student).parts["curriculum"]).level
        steps = (self.horizon * (1 - level / self.levels)).clamp(max=self.horizon * (1 - progress / self.until))
        guided = batch.age < steps  # [B]
        logits = torch.where(guided[:, None], teachers[0](batch).logits.to(output.logits.dtype), output.logits)
        return Output(logits, output.value), {"own": (~guided).float()}

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """The actor-critic's loss of the student's own steps."""
        output: Output = student(batch.images)
        return output, task.loss(output, dataclasses.replace(batch, counts=batch.extras.get("own")))

    def observe(self, student: nn.Module, scores: Sequence[float]) -> None:
        """Go on by a level when a window's mean return is good enough."""
        curriculum = cast(Curriculum, cast(WithCompanions, student).parts["curriculum"])
        for score in scores:
            curriculum.take(score, self)

    def metrics(self, student: nn.Module) -> dict[str, float]:
        """`guide/level`: how many of the curriculum's n steps are done."""
        return {"guide/level": float(cast(Curriculum, cast(WithCompanions, student).parts["curriculum"]).level)}

    def export(self, student: nn.Module) -> Network:
        """The network."""
        return cast(WithCompanions, student).network


class Curriculum(nn.Module):
    """The level, the best mean return so far, and the returns of the present window, as their sum and number."""

    level: Tensor
    best: Tensor
    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("level", torch.tensor(0.0))
        self.register_buffer("best", torch.tensor(-torch.inf))
        self.register_buffer("window", torch.zeros(2))

    def take(self, score: float, settings: JumpStart) -> None:
        """Note the return of an episode."""
        self.window += torch.tensor([score, 1.0], device=self.window.device)
        total, count = self.window.tolist()
        if count < settings.window:
            return
        mean, best = total / count, float(self.best)
        self.window.zero_()
        if best > -torch.inf and mean >= best - settings.tolerance * abs(best):
            self.level += float(self.level) < settings.levels
        self.best.fill_(max(best, mean))
