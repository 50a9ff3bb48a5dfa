"""QDagger for an actor-critic: first imitate the teacher's play, then learn by reward, less tied the better one plays.

Source: Agarwal, Schwarzer, Castro, Courville & Bellemare 2022, "Reincarnating Reinforcement Learning", arXiv
    2206.01626, section 4, and the authors' code (google-research/reincarnating_rl: qdagger_dqn_agent.py,
    loss_helpers.py, run_experiment.py, configs/qdagger_dqn.gin):
    L = L_RL + c · max(0, 1 - (G - G_0) / (G_T - G_0)) · KL(softmax(q_T / tau) || softmax(q / tau)),
    G, G_T and G_0 the returns of student, teacher and a random policy; c = 3; the term ends after 0.6 of the online
    steps. Before, offline, the student learns from the teacher's own transitions, with the whole weight.
Differs: q are the logits of policies, which need no sharpening: tau = 1 (there 0.1, of action values). In place of a
teacher's replay memory, the teacher plays for a share of the budget, its frames counted, and the student learns its
policy and, by the actor-critic's own value loss, its values; G_T is the mean return of the episodes it began: of those
that the student ends, one an emulator, the first to end count. G is that of the last training episodes, not of an
evaluation. While no episode has told G or G_T the weight is whole; a teacher no better than a random policy gets none
(there the quotient changes its sign). A weight that was 0 comes back if the returns fall again, as in CleanRL's
QDagger (there it stays 0). The learning rate is the recipe's (there it falls with the weight, from 1e-4 to 1e-5).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, cast

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor, nn

from kfbench.errors import KfbenchError
from kfbench.games import reference
from kfbench.methods import Batch, Method, Output, Parts, Stage
from kfbench.networks.network import Network
from kfbench.spec import GameRecipe
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer import losses
from kfbench.transfer.companion import WithCompanions


@dataclass(frozen=True)
class QDagger(Method):
    """Settings of QDagger."""

    offline: Annotated[float, Gt(0), Lt(1)] = 0.2  # share of the budget in which the teacher plays; choice
    weight: Annotated[float, Ge(0)] = 3.0  # c
    until: Annotated[float, Gt(0), Le(1)] = 0.6  # share of what follows after which the teacher is gone
    tau: Annotated[float, Gt(0)] = 1.0  # divides both policies' logits; choice, see above
    window: Annotated[int, Gt(0)] = 20  # latest episodes that G is the mean of; choice
    random_return: float | None = None  # G_0, points; None: the published one (`kfbench.games.reference`)

    kinds = ("games",)
    teachers = (1, 1)
    needs = "outputs"
    revision = 3  # 2: episodes that the teacher began are its; 3: with the recipe's overlap too
    search = {
        "offline": {"low": 0.05, "high": 0.5},
        "weight": {"low": 0.3, "high": 30.0, "log": True},
        "tau": {"low": 0.1, "high": 2.0, "log": True},
    }

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The teacher plays, then the student."""
        return (Stage("offline", self.offline), Stage("online", 1 - self.offline))

    def make_student(self, task: Task, teachers: Sequence[Teacher], rng: torch.Generator) -> WithCompanions:
        """Return the task's network and the returns seen so far. Raises KfbenchError if G_0 is not known."""
        chance = self.random_return
        if chance is None:
            chance = reference.random_return(task.name.partition("/")[2])
        if chance is None:
            raise KfbenchError(
                f"no return of a random policy is known of '{task.name}', which qdagger compares with; measure it and "
                "give --set random_return=POINTS"
            )
        return WithCompanions(task.make_network(), returns=Returns(chance, self.window))

    def begin(
        self,
        student: nn.Module,
        teachers: Sequence[Teacher],
        stage: Stage,
        batches: Iterable[Batch],
        rng: torch.Generator,
    ) -> None:
        """Note who plays."""
        cast(WithCompanions, student).stage = stage.name

    def _asks(self, progress: float) -> bool:
        """Say whether the teacher is asked while the student plays."""
        return (progress - self.offline) / (1 - self.offline) < self.until

    def act(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, progress: float
    ) -> tuple[Output, Parts]:
        """What the one who plays would do, the student's values, and the teacher's logits to learn from."""
        output: Output = student(batch.images)
        if cast(WithCompanions, student).stage == "offline":
            said = teachers[0](batch).logits
            return Output(said, output.value), {"teacher": said}
        return output, {"teacher": teachers[0](batch).logits} if self._asks(progress) else {}

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """Offline the teacher's policy and values; online the actor-critic's loss and what is left of the former."""
        assert isinstance(student, WithCompanions)
        output: Output = student(batch.images)
        parts = task.loss(output, batch)
        if "teacher" not in batch.extras:
            return output, parts
        target = losses.softened(batch.extras["teacher"], self.tau)
        follow = self.weight * losses.kl(target, output.logits / self.tau)
        returns = cast(Returns, student.parts["returns"])
        if student.stage == "offline":
            assert isinstance(task.recipe, GameRecipe)
            returns.begun.fill_(task.recipe.environments)  # not in `act`, whose student may be a copy of this one
            return output, {"value": parts["value"], "distillation": follow}
        return output, parts | {"distillation": returns.left() * follow}

    def observe(self, student: nn.Module, scores: Sequence[float]) -> None:
        """Note the returns of the one who began the episodes."""
        assert isinstance(student, WithCompanions)
        cast(Returns, student.parts["returns"]).take(scores, of_teacher=student.stage == "offline")

    def metrics(self, student: nn.Module) -> dict[str, float]:
        """`distillation/left`: what is left of the weight."""
        return {"distillation/left": float(cast(Returns, cast(WithCompanions, student).parts["returns"]).left())}

    def export(self, student: nn.Module) -> Network:
        """The network."""
        return cast(WithCompanions, student).network


class Returns(nn.Module):
    """Returns, in points: of a random policy, of the teacher (sum and number), of the student's latest episodes."""

    chance: Tensor
    teacher: Tensor
    latest: Tensor
    count: Tensor
    begun: Tensor

    def __init__(self, chance: float, window: int) -> None:
        super().__init__()
        self.register_buffer("chance", torch.tensor(chance))
        self.register_buffer("teacher", torch.zeros(2))
        self.register_buffer("latest", torch.zeros(window))
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("begun", torch.tensor(0))  # by the teacher, episodes that still go on when it stops

    def take(self, scores: Sequence[float], *, of_teacher: bool) -> None:
        """Note the returns of episodes that ended."""
        its = len(scores) if of_teacher else min(len(scores), int(self.begun))
        self.teacher += torch.tensor([sum(scores[:its]), its], device=self.teacher.device)
        if of_teacher:
            return
        self.begun -= its
        for score in scores[its:]:
            self.latest[int(self.count) % len(self.latest)] = score
            self.count += 1

    def left(self) -> Tensor:
        """Return max(0, 1 - (G - G_0) / (G_T - G_0)), []; 1 until G and G_T are known, 0 if G_T is not above G_0."""
        best = self.teacher[0] / self.teacher[1].clamp(min=1) - self.chance
        seen = torch.arange(len(self.latest), device=self.latest.device) < self.count
        now = (self.latest * seen).sum() / seen.sum().clamp(min=1) - self.chance
        left = torch.where(best > 0, (1 - now / best.clamp(min=1e-8)).clamp(min=0), 0.0)
        return torch.where((self.teacher[1] > 0) & (self.count > 0), left, 1.0)
