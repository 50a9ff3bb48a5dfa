"""Acting: a student plays rollouts in many emulators at once, for the loop that learns from them.

With `overlap` 1 it plays on a thread of its own, beside the learner, by the weights from before the learner's present
steps: a lag of one rollout, the same on every machine, whatever the speed of either. It then has a student and
teachers of its own, made as the learner's were, because hooks and memory must not be shared between two threads.
"""

import copy
import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kfbench import seeding
from kfbench.batch import Batch, Parts, Trajectory
from kfbench.errors import KfbenchError
from kfbench.games.emulators import Arcade, Step
from kfbench.networks.network import Output, output_of
from kfbench.spec import GameRecipe
from kfbench.train import episodes
from kfbench.train.precision import autocast
from kfbench.train.returns import generalised_advantages
from kfbench.train.rollout import Rollout, brightness
from kfbench.train.setup import Setup
from kfbench.train.told import student_of


class Row(NamedTuple):
    """A step of all N environments, as it was acted on."""

    seen: Tensor  # [N, 4, 84, 84] uint8
    actions: Tensor  # [N]
    output: Output
    extras: Parts


class Actor:
    """Plays rollouts of one game with the student of a `Setup` as it is, and changes nothing of it."""

    def __init__(self, setup: Setup, arcade: Arcade, game: str) -> None:
        """Start the emulators' first episodes."""
        self.setup, self.recipe, self.arcade, self.game = setup, GameRecipe.of(setup.spec), arcade, game
        self.observation = arcade.reset()
        self._batch: Batch | None = None  # the present observation's, for its teachers' answers
        self.age = torch.zeros(self.recipe.environments, dtype=torch.int64)  # steps since each episode began
        self._begun = (arcade.mark(), self.observation, self.age)  # where the latest rollout began

    def play(self, number: int, progress: float) -> Rollout:
        """Play the run's rollout of a number, counted from 0."""
        with torch.no_grad(), autocast(self.setup.device, self.recipe.precision):  # bf16 copies of weights serve it all
            return self._play(number, progress)

    def _play(self, number: int, progress: float) -> Rollout:
        setup, recipe, arcade = self.setup, self.recipe, self.arcade
        self._begun = (arcade.mark(), self.observation, self.age)
        setup.student.eval()
        shape = (recipe.rollout, recipe.environments)
        generator = seeding.stream(setup.spec.seed, "explore", number)
        uniform = torch.rand((*shape, arcade.actions), generator=generator).to(setup.device)
        rewards, goes_on = torch.zeros(shape), torch.ones(shape)
        images = self._room()
        rows: list[Row] = []
        scores: list[float] = []
        for t in range(recipe.rollout):
            row = self._act(progress, uniform[t], None if images is None else images[t])
            rows.append(row)
            step = arcade.receive()
            over = torch.zeros(recipe.environments, dtype=torch.bool)
            over[[episode.environment for episode in step.finished]] = True
            rewards[t], goes_on[t] = self._followed(step, over, progress)
            scores += [episode.score for episode in step.finished]
            self.observation, self._batch = step.observation, None
            self.age = torch.where(over, 0, self.age + 1)
        after, _ = self._ask(progress)
        trajectory = Trajectory(rewards.to(setup.device), goes_on.to(setup.device), _value(after))
        observations = torch.cat([row.seen for row in rows]) if images is None else images.flatten(0, 1)
        return self._rollout(rows, observations, trajectory, scores)

    def _act(self, progress: float, uniform: Tensor, into: Tensor | None) -> Row:
        """Choose actions for the present observation by uniform numbers [N, A], and send the emulators off."""
        said, extras = self._ask(progress, into)
        output = output_of(said)
        if output.logits.shape[1] != self.arcade.actions:
            raise KfbenchError(
                f"the network that acts has {output.logits.shape[1]} outputs, but '{self.game}' has "
                f"{self.arcade.actions} actions; --set-recipe full_actions=true gives every game the same 18"
            )
        action = episodes.choose(output.logits, uniform)
        self.arcade.send(action)  # the emulators work while the row is put away
        return Row(self.observation, action, output, extras)

    def _followed(self, step: Step, over: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        """Return the rewards that are learned from, and whether a return goes on past the step, [N] each.

        `over` [N] says where an episode has ended.
        """
        recipe = self.recipe
        rewards = step.rewards.clamp(-1, 1) if recipe.clip_rewards else step.rewards
        cut = step.truncated & ~step.ended if recipe.lost_life_ends else step.truncated
        if step.last is not None and cut.any():  # only the clock stopped it: its value stands for what was to come
            final = Batch(brightness(step.last), self.setup.rng)
            behind, _ = self.setup.method.act(self.setup.student, self.setup.teachers, final, progress)
            rewards = rewards + recipe.gamma * cut * _value(behind).cpu()
        return rewards, ~(over | step.ended if recipe.lost_life_ends else over)

    def _rollout(self, rows: list[Row], observations: Tensor, trajectory: Trajectory, scores: list[float]) -> Rollout:
        """Put a rollout's rows together, with their returns and advantages by what the student said when acting."""
        values = torch.cat([_value(row.output) for row in rows])
        output = Output(torch.cat([row.output.logits for row in rows]).float(), values)
        shaped = values.view(trajectory.rewards.shape)
        advantages = generalised_advantages(*trajectory, shaped, gamma=self.recipe.gamma, trace=self.recipe.trace)
        return Rollout(
            observations=observations,
            actions=torch.cat([row.actions for row in rows]),
            returns=(advantages + shaped).flatten(),
            advantages=advantages.flatten(),
            output=output,
            trajectory=trajectory,
            extras={name: torch.cat([row.extras[name] for row in rows]) for name in rows[0].extras},
            scores=tuple(scores),
        )

    def _room(self) -> Tensor | None:
        """Return room for a rollout's observations as floats, [T, N, 4, 84, 84], if it is learned from as a whole."""
        if self.recipe.minibatches > 1:
            return None
        count, channels, *size = self.observation.shape
        room = torch.empty(self.recipe.rollout, count, *size, channels, device=self.setup.device)
        return room.permute(0, 1, 4, 2, 3)  # channels_last, as the observations are

    def _ask(self, progress: float, into: Tensor | None = None) -> tuple[Output, Parts]:
        """Ask the method about the present observation; teachers answer once, also across an update.

        `into` takes the observation as floats.
        """
        setup = self.setup
        if self._batch is None:
            age = self.age.to(setup.device, non_blocking=True)
            self._batch = Batch(images=brightness(self.observation, into), rng=setup.rng, age=age)
        elif into is not None:
            into.copy_(self._batch.images)
        return setup.method.act(setup.student, setup.teachers, self._batch, progress)

    def state(self, *, begun: bool) -> dict[str, Any]:
        """Return what `restore` needs to stand where the actor stands, or stood when the latest rollout began."""
        mark, observation, age = self._begun if begun else (self.arcade.mark(), self.observation, self.age)
        return {"arcade": self.arcade.state(mark), "image": observation[:, -1].cpu(), "age": age}

    def restore(self, state: dict[str, Any]) -> None:
        """Let the emulators replay. Raises KfbenchError if they arrive at other images (another version of ale-py)."""
        self.observation, self._batch = self.arcade.restore(state["arcade"]), None
        self.age = state.get("age", self.age)  # older checkpoints are of methods that do not ask for it
        if not torch.equal(self.observation[:, -1].cpu(), state["image"]):
            raise KfbenchError(
                "the emulators do not replay to the checkpoint's images; install the ale-py it was made with"
            )


def twin(setup: Setup) -> Setup:
    """Return a `Setup` to act with beside the learner: the same method with a student and teachers of its own."""
    rng = seeding.stream(setup.spec.seed, "actor")
    teachers = [
        dataclasses.replace(teacher, network=copy.deepcopy(teacher.network), _sized={}) for teacher in setup.teachers
    ]
    student = student_of(setup.method, setup.task, teachers, rng)
    student.to(setup.device).to(memory_format=torch.channels_last)
    return dataclasses.replace(setup, student=student, teachers=teachers, rng=rng)


NO_VALUE = "the student's network has no value head, which games need; use --network a3c"


def _value(output: Output) -> Tensor:
    """Return an output's values [N]. Raises KfbenchError for a network that has none."""
    if output.value is None:
        raise KfbenchError(NO_VALUE)
    return output.value.float()
