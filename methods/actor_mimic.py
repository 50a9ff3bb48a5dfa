"""Actor-mimic: the student first imitates experts, each in its own game, then learns the target game from there.

Source: Parisotto, Ba & Salakhutdinov 2016, "Actor-Mimic", arXiv 1511.06342, and the authors' code
    (eparisotto/ActorMimic):
    L = H(pi_E(.|s), pi(.|s)) + b/2 |f_i(h(s)) - h_E(s)|²,  pi_E = softmax(q_E / tau), f_i linear, h the last
    hidden layer, on the student's own trajectories; b = 0.01, tau = 1 (scripts/). Then the head is dropped and the
    target game learnt.
Differs: experts are actor-critics, not DQNs: q_E is the logits of a policy. Source games take turns (`rounds`), each
with a fresh optimiser, for one game is played at a time; the source mixes their replay memories. All games share one
action set instead of masks. Mimicry takes a share of the budget, not 4 million frames a game.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, cast

import torch
from annotated_types import Ge, Gt, Lt
from torch import nn

from kfbench import networks, seeding
from kfbench.errors import KfbenchError
from kfbench.methods import Batch, Method, Output, Parts, Stage
from kfbench.networks import taps
from kfbench.networks.network import Network
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer import losses
from kfbench.transfer.companion import WithCompanions
from kfbench.transfer.transplant import is_head


@dataclass(frozen=True)
class ActorMimic(Method):
    """Settings of mimicry and of what follows it."""

    source: str = ""  # games to mimic, joined by "+"; empty: the teachers'
    mimic_share: Annotated[float, Gt(0), Lt(1)] = 0.5  # of the budget; choice
    rounds: Annotated[int, Gt(0)] = 2  # turns of each source game; choice
    features: Annotated[float, Ge(0)] = 0.01  # b
    tau: Annotated[float, Gt(0)] = 1.0  # divides the experts' logits

    kinds = ("games",)
    teachers = (1, None)
    needs = "outputs"
    revision = 2  # features: a sum over units, as in the source, where it was their mean
    search = {
        "mimic_share": {"low": 0.1, "high": 0.8},
        "features": {"low": 1e-3, "high": 1.0, "log": True},
        "tau": {"low": 0.1, "high": 2.0, "log": True},
    }

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The source games in turns, then the target game."""
        games = [game for game in self.source.split("+") if game] * self.rounds
        turns = (Stage(f"mimic {n}", self.mimic_share / len(games), task=game) for n, game in enumerate(games))
        return (*turns, Stage("target", 1 - self.mimic_share)) if games else (Stage("target"),)

    def make_student(self, task: Task, teachers: Sequence[Teacher], rng: torch.Generator) -> WithCompanions:
        """Return the task's network and a linear map to each expert's last hidden layer.

        Raises KfbenchError for two experts of one game, of which the second would never be asked.
        """
        games = [teacher.task for teacher in teachers]
        if twice := next((game for game in games if games.count(game) > 1), None):
            raise KfbenchError(f"two teachers of actor_mimic were trained on '{twice}'; give one expert a game")
        network, maps = task.make_network(), []
        width = taps.shapes(network, network.layers[-1:])[network.layers[-1]][0]
        with seeding.global_generator(rng):
            for teacher in teachers:
                (shape,) = teacher.shapes(teacher.network.layers[-1:]).values()
                maps.append(nn.Linear(width, shape[0]))
        return WithCompanions(network, maps=nn.ModuleList(maps))

    def begin(
        self,
        student: nn.Module,
        teachers: Sequence[Teacher],
        stage: Stage,
        batches: Iterable[Batch],
        rng: torch.Generator,
    ) -> None:
        """On to another game; on to the target game with fresh heads."""
        assert isinstance(student, WithCompanions)
        student.stage = stage.task or ""
        if stage.name != "target":
            return
        network = student.network
        with seeding.global_generator(rng):
            fresh = networks.make(network.name, shape=network.shape, outputs=network.outputs).state_dict()
        heads = {name: value for name, value in fresh.items() if is_head(network, name)}
        network.load_state_dict(heads, strict=False)
        student.parts.requires_grad_(False)

    def act(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, progress: float
    ) -> tuple[Output, Parts]:
        """What the student says; while it mimics, also the expert's logits and hidden layer."""
        assert isinstance(student, WithCompanions)
        output: Output = student(batch.images)
        if not student.stage:
            return output, {}
        teacher = teachers[expert(teachers, student.stage)]
        last = teacher.network.layers[-1]
        hidden = teacher.features(batch, [last], logits=True)[last]
        return output, {"expert": teacher(batch).logits, "hidden": hidden}

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """The expert's policy and features; past mimicry, the actor-critic's loss."""
        assert isinstance(student, WithCompanions)
        if not student.stage:
            output: Output = student(batch.images)
            return output, task.loss(output, batch)
        last = student.network.layers[-1]
        with taps.read(student.network, [last]) as found:
            output = student(batch.images)
        learned = cast(nn.ModuleList, student.parts["maps"])[expert(teachers, student.stage)]
        error = (learned(found[last]).float() - batch.extras["hidden"].float()).square().sum(1).mean()
        policy = losses.cross_entropy(losses.softened(batch.extras["expert"], self.tau), output.logits)
        return output, {"mimic": policy, "features": self.features / 2 * error}

    def export(self, student: nn.Module) -> Network:
        """The network; the maps stay behind."""
        return cast(WithCompanions, student).network


def expert(teachers: Sequence[Teacher], game: str) -> int:
    """Return which teacher was trained on a game. Raises KfbenchError if none was."""
    for k, teacher in enumerate(teachers):
        if teacher.task == game:
            return k
    raise KfbenchError(f"no teacher was trained on '{game}', only on {', '.join(str(t.task) for t in teachers)}")
