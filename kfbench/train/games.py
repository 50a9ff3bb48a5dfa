"""The runs of games: emulators instead of data, the actor-critic loop, and what they cost."""

import dataclasses
import time

import torch

from kfbench.errors import KfbenchError
from kfbench.games import emulators
from kfbench.networks.network import Network
from kfbench.spec import GameRecipe, RunSpec
from kfbench.tasks import GameTask, Task
from kfbench.train.actor import NO_VALUE
from kfbench.train.actor_critic import ActorCritic, rollouts
from kfbench.train.loop import phases
from kfbench.train.objective import Objective
from kfbench.train.setup import Setup
from kfbench.train.training import BACKWARD, StandIn, Training


class GameTraining(Training[GameTask, GameRecipe]):
    """Runs that act."""

    untimed = "the episodes that are only scored"

    def load(self, task: GameTask, recipe: GameRecipe, device: torch.device) -> None:
        """A game has nothing to load: the loop opens its emulators."""

    def make_task(self, spec: RunSpec, task: GameTask, data: None) -> Task:
        """Return what a method is told of a game. Observations are not normalised beyond 0..1, as in A3C."""
        recipe = GameRecipe.of(spec)
        return Task(
            name=spec.task,
            kind=task.kind.name,
            shape=task.shape,
            classes=task.labels(recipe),
            network=recipe.network,
            seed=spec.seed,
            train_size=0,
            steps=rollouts(recipe) * recipe.passes * recipe.minibatches,
            objective=Objective(recipe),
            mean=(0.0,) * emulators.SHAPE[0],
            std=(1.0,) * emulators.SHAPE[0],
            recipe=recipe,
            acts=True,
        )

    def make_loop(self, setup: Setup) -> ActorCritic:
        """Return the actor-critic loop."""
        return ActorCritic(setup)

    def require_student(self, setup: Setup) -> None:
        """Raise KfbenchError for a student without a value head."""
        seen = torch.zeros(1, *setup.task.shape)
        with torch.no_grad():
            if setup.method.export(setup.student).eval()(seen).value is None:
                raise KfbenchError(NO_VALUE)

    def made_up(self, task: GameTask, rows: int, device: torch.device) -> None:
        """A stand-in plays the game itself."""

    def settle(self, network: Network, task: GameTask) -> None:
        """Let a network see its frames as a student of games does: as they are."""
        network.normalise_by(torch.zeros(task.shape[0]), torch.ones(task.shape[0]))

    def without_data(self, network: Network, task: GameTask) -> None:
        """Do the same."""
        self.settle(network, task)

    def seen(self, task: GameTask, recipe: GameRecipe) -> int:
        """Return the observations, one for each agent step."""
        return recipe.frames // emulators.FRAMES_A_STEP

    def passes(self, recipe: GameRecipe) -> int:
        """Return the passes of an observation: one to act, and those of learning."""
        return 1 + (1 + BACKWARD) * recipe.passes

    def longer(self, recipe: GameRecipe, factor: float) -> GameRecipe:
        """Return the recipe with more frames."""
        return dataclasses.replace(recipe, frames=round(recipe.frames * factor))

    def seconds(self, spec: RunSpec, task: GameTask, stand_in: StandIn, *, tried: int) -> float:
        """Return the seconds of all rollouts by that of one in each phase; the length of episodes is not known."""
        loop = ActorCritic(stand_in(spec, 0))
        whole = took = 0.0
        for first, last in phases(loop.setup.method, loop.total):
            loop.skip(first)
            for _ in range(min(2, last - first)):  # the first warms up
                started = time.perf_counter()
                loop.advance()
                took = time.perf_counter() - started
            whole += took * (last - first)
        return whole
