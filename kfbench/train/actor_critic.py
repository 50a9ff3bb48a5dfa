"""The actor-critic loop: the student acts in many emulators at once, learns from the rollout, and is evaluated alone.

A rollout is `rollout` agent steps of every environment. The method acts (`act`), and what it says beside its output,
the teachers' features, comes back with the rows when it learns (`losses`). Order of minibatches, sampled actions and
dropout are functions of (seed, rollout), so a checkpoint is the student, the optimiser, the method's generator, a
number, and the actions from which the emulators are replayed.
"""

import contextlib
import ctypes
import os
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kfbench import atari, seeding
from kfbench.atari import Arcade
from kfbench.errors import KfbenchError
from kfbench.methods import Batch, Parts
from kfbench.networks.network import Output
from kfbench.spec import GameRecipe, RunSpec
from kfbench.tasks import GameTask, Task
from kfbench.train import episodes, optimizer
from kfbench.train.objective import Objective
from kfbench.train.returns import generalised_advantages
from kfbench.train.rollout import Rollout, brightness
from kfbench.train.supervised import autocast, set_training, spans
from kfbench.train.tally import Tally

if TYPE_CHECKING:
    from kfbench.live import Live

Row = dict[str, float]
CHECKED = 50  # optimiser steps, at least, between looks at whether the loss is finite


def make_task(spec: RunSpec, declared: GameTask) -> Task:
    """Return what a method is told of a game. Observations are not normalised beyond 0..1, as in A3C."""
    assert isinstance(spec.recipe, GameRecipe)
    return Task(
        name=spec.task,
        kind="games",
        shape=declared.shape,
        classes=declared.actions(full=spec.recipe.full_actions),
        network=spec.recipe.network,
        seed=spec.seed,
        train_size=0,
        steps=rollouts(spec.recipe) * spec.recipe.passes * spec.recipe.minibatches,
        objective=Objective(spec.recipe),
        mean=(0.0,) * atari.SHAPE[0],
        std=(1.0,) * atari.SHAPE[0],
    )


def rollouts(recipe: GameRecipe) -> int:
    """Return how many rollouts the budget of frames holds."""
    return max(1, round(recipe.frames / (recipe.rollout * recipe.environments * atari.FRAMES_A_STEP)))


class ActorCritic:
    """A run over a game: iterate over it to train; it yields the new row of the curve, or None, after every rollout."""

    def __init__(self, live: "Live", *, threads: int | None = None) -> None:
        """Open the emulators; `threads` of them work at a time (None: one a core), which changes no number."""
        assert isinstance(live.spec.recipe, GameRecipe)
        self.live, self.recipe, self.device = live, live.spec.recipe, live.device
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.threads = threads or min(cores, self.recipe.environments)
        self.rows = self.recipe.rollout * self.recipe.environments
        if self.rows % self.recipe.minibatches:
            raise KfbenchError(
                f"{self.recipe.minibatches} minibatches do not divide a rollout of {self.rows} rows; change minibatches"
            )
        self.total = rollouts(self.recipe)
        looks = self.recipe.evaluations
        self.marks = {round(self.total * (i + 1) / looks) for i in range(looks)}
        self.stages = spans(live.method.stages, self.total)
        self.stage = -1  # the stage that has begun
        self.position = 0  # rollouts done
        self.curve: list[Row] = []
        self.best: dict[str, Tensor] = {}  # weights of the exported student with the best validation return
        self.seconds = 0.0
        self.episodes = 0  # that ended in training
        self.recent: deque[float] = deque(maxlen=100)  # raw returns of the last of them
        self.tally = Tally()
        self._best_return = -float("inf")
        self._since = 0  # rollouts since the last look at whether the loss is finite
        self._optimizer: torch.optim.Optimizer
        self._arcade: Arcade | None = None
        self._places: dict[str, Arcade] = {}  # where students are evaluated, by split
        self._game = ""
        self._observation: Tensor
        self._batch: Batch | None = None  # the present observation's, for its teachers' answers
        keep_memory()

    def __iter__(self) -> Iterator[Row | None]:
        """Train to the end of the budget. Raises Diverged when a part of the loss is not finite."""
        while self.position < self.total:
            started = time.perf_counter()
            if self.stage < 0:
                self._begin(0)
                self._evaluate(started)
            self.advance()
            row = self._evaluate(started) if self.position in self.marks else None
            self.seconds += time.perf_counter() - started
            yield row

    def advance(self) -> None:
        """Play one rollout and learn from it. Raises Diverged, now and then, if a part of the loss was not finite."""
        while self.stage + 1 < len(self.stages) and self.position == self.stages[self.stage + 1][1]:
            self._begin(self.stage + 1)
        progress = self.position / self.total
        self._learn(self._act(progress), progress)
        self.position += 1
        self._since += self.recipe.passes * self.recipe.minibatches
        if self.position in self.marks or self._since >= CHECKED:
            self.tally.check()
            self._since = 0

    def batch(self) -> Batch:
        """Play a rollout, learn nothing, and return its rows."""
        return self._act(self.position / self.total).batch(None, self.live.rng)

    @property
    def frames(self) -> int:
        """Emulator frames so far, whichever game."""
        return self.position * self.rows * atari.FRAMES_A_STEP

    def _begin(self, which: int) -> None:
        """Begin a stage: its game, what the method prepares, a fresh optimiser."""
        live, stage = self.live, self.stages[which][0]
        game = atari.rom((stage.task or live.spec.task).partition("/")[2])
        if game != self._game:
            if self._arcade:
                self._arcade.close()
            self._game, self._arcade = game, self._open(game, self.recipe.environments, f"train {which}", self.threads)
            self._observation, self._batch = self._arcade.reset(), None
        seen = Batch(images=brightness(self._observation), rng=live.rng)
        live.method.begin(live.student, live.teachers, stage, [seen], live.rng)
        self._optimizer = optimizer.make(live.method, live.student, self.recipe)
        self.tally.check()
        self.stage, self.tally = which, Tally()

    def _open(
        self, game: str, environments: int, name: str, threads: int, *, episode_frames: int | None = None
    ) -> Arcade:
        recipe = self.recipe
        return Arcade(
            game,
            environments,
            seed=self.live.spec.seed,
            name=name,
            threads=threads,
            sticky=recipe.sticky,
            full_actions=recipe.full_actions,
            noops=recipe.noops,
            fire=recipe.fire,
            episode_frames=episode_frames or recipe.episode_frames,
            device=self.device,
        )

    @torch.no_grad()
    def _act(self, progress: float) -> Rollout:
        """Play a rollout with the student as it is now."""
        live, recipe, arcade = self.live, self.recipe, self._arcade
        assert arcade is not None
        live.student.eval()
        generator = seeding.stream(live.spec.seed, "explore", self.position)
        shape = (recipe.rollout, recipe.environments, arcade.actions)
        uniform = torch.rand(shape, generator=generator).to(self.device)
        rewards, goes_on = torch.zeros(shape[:2]), torch.ones(shape[:2])
        seen, said, kept, actions = [], [], [], []
        for t in range(recipe.rollout):
            output, extras = self._ask(progress)
            if output.logits.shape[1] != arcade.actions:
                raise KfbenchError(
                    f"the student has {output.logits.shape[1]} outputs, but '{self._game}' has {arcade.actions} "
                    "actions; --set-recipe full_actions=true gives every game the same 18"
                )
            action = episodes.choose(output.logits, uniform[t])
            arcade.send(action)  # the emulators work while the row is put away
            seen.append(self._observation)
            said.append(output)
            kept.append(extras)
            actions.append(action)
            step = arcade.receive()
            over = torch.zeros(recipe.environments, dtype=torch.bool)
            for episode in step.finished:
                over[episode.environment] = True
                self.episodes += 1
                self.recent.append(episode.score)
                live.method.observe(live.student, episode.score)
            rewards[t] = step.rewards.clamp(-1, 1) if recipe.clip_rewards else step.rewards
            if step.last is not None:  # only the clock stopped it: its value stands for what was still to come
                final = Batch(brightness(step.last), live.rng)
                behind, _ = live.method.act(live.student, live.teachers, final, progress)
                rewards[t] += recipe.gamma * step.truncated * _value(behind).cpu()
            goes_on[t] = ~(over | step.ended if recipe.lost_life_ends else over)
            self._observation, self._batch = step.observation, None
        after, _ = self._ask(progress)
        output = Output(torch.cat([o.logits for o in said]).float(), torch.cat([_value(o) for o in said]))
        assert output.value is not None
        values = output.value.view(shape[:2])
        advantages = generalised_advantages(
            rewards.to(self.device),
            values,
            goes_on.to(self.device),
            _value(after),
            gamma=recipe.gamma,
            trace=recipe.trace,
        )
        return Rollout(
            observations=torch.cat(seen),
            actions=torch.cat(actions),
            returns=(advantages + values).flatten(),
            advantages=advantages.flatten(),
            output=output,
            extras={name: torch.cat([extras[name] for extras in kept]) for name in kept[0]},
        )

    def _ask(self, progress: float) -> tuple[Output, Parts]:
        """Ask the method about the present observation; teachers answer once, also across an update."""
        if self._batch is None:
            self._batch = Batch(images=brightness(self._observation), rng=self.live.rng)
        precision = self.recipe.precision if self.device.type == "cuda" else "fp32"  # few rows gain nothing on a CPU
        with autocast(self.device, precision):
            return self.live.method.act(self.live.student, self.live.teachers, self._batch, progress)

    def _learn(self, rollout: Rollout, progress: float) -> None:
        """Take `passes` · `minibatches` optimiser steps on a rollout."""
        live, recipe = self.live, self.recipe
        set_training(live.student)
        optimizer.set_rate(self._optimizer, recipe, self._fraction())
        weights = [weight for group in self._optimizer.param_groups for weight in group["params"]]
        number = self.position * recipe.passes * recipe.minibatches
        for rows in self._minibatches():
            seeding.seed_step(live.spec.seed, number)
            batch = rollout.batch(rows, live.rng)
            with autocast(self.device, recipe.precision):
                _, parts = live.method.losses(live.student, live.teachers, batch, live.task, progress)
            torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(weights, recipe.clip_norm)
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            self.tally.add(parts, number)
            number += 1

    def _minibatches(self) -> Iterator[Tensor | None]:
        """Yield the rows of each optimiser step: shuffled minibatches, or None for the whole rollout in order."""
        recipe = self.recipe
        generator = seeding.stream(self.live.spec.seed, "data", self.position)
        for _ in range(recipe.passes):
            if recipe.minibatches == 1:
                yield None
            else:
                order = torch.randperm(self.rows, generator=generator).to(self.device)
                yield from order.chunk(recipe.minibatches)

    def _fraction(self) -> float:
        """Return how much of the present stage is done, 0..1."""
        _, first, last = self.stages[self.stage]
        return (self.position - first) / (last - first)

    def status(self) -> Row:
        """Return what a progress bar shows: episodes, mean return of the last 100, student's share, frames a second."""
        shown = {"episodes": float(self.episodes), "rate": self.frames / max(1e-9, self.seconds)}
        if self.recent:
            shown["return"] = sum(self.recent) / len(self.recent)
        if self.live.method.is_attached(self.position / self.total):
            metrics = self.live.method.metrics(self.live.student)
            shown |= {name: value for name, value in metrics.items() if name == "share/student"}
        return shown

    def _evaluate(self, started: float) -> Row:
        """Play validation episodes with the student alone, and add a row to the curve."""
        live, recipe, method = self.live, self.recipe, self.live.method
        seconds = self.seconds + time.perf_counter() - started
        means = self.tally.means()
        self.tally.clear()
        row = {
            "step": float(self.position),
            "frames": float(self.frames),
            "progress": self.position / self.total,
            "seconds": seconds,
            "frames_per_second": self.frames / seconds,
            "lr": recipe.lr * optimizer.factor(recipe, self._fraction()),
            "episodes": float(self.episodes),
            **({"loss": sum(means.values())} if means else {}),
            **{f"loss/{name}": mean for name, mean in means.items()},
            **({"train_return": sum(self.recent) / len(self.recent)} if self.recent else {}),
        }
        kept = method.export(live.student)
        row |= {f"val_{name}": value for name, value in self._read(kept, "val", recipe.evaluation_episodes).items()}
        row |= method.metrics(live.student)
        if row["val_return"] > self._best_return:
            self._best_return = row["val_return"]
            self.best = {name: value.detach().clone() for name, value in kept.state_dict().items()}
        self.curve.append(row)
        return row

    def _read(self, network: nn.Module, split: str, each: int) -> Row:
        """Return the summary of `each` whole episodes a validation or test environment, played by a network alone."""
        recipe, spec = self.recipe, self.live.spec
        game = atari.rom(spec.task.partition("/")[2])
        if split not in self._places:
            count = recipe.evaluation_environments
            self._places[split] = self._open(
                game, count, split, min(self.threads, count), episode_frames=recipe.evaluation_frames
            )
        played = episodes.play(network, self._places[split], episodes=each, greedy=recipe.greedy, seed=spec.seed)
        return episodes.summary(game, played)

    def score(self, networks: dict[str, nn.Module]) -> dict[str, Row]:
        """Play the test episodes with each network, and add the `area` under the curve, in points: its mean height."""
        scores: dict[str, Row] = {}
        for name, network in networks.items():
            same = [other for other in scores if _equal(networks[other], network)]
            scores[name] = dict(scores[same[0]]) if same else self._read(network, "test", self.recipe.test_episodes)
            scores[name]["area"] = area(self.curve)
        return scores

    def state(self) -> dict[str, Any]:
        """Return tensors and plain values from which `restore` goes on as if nothing had happened."""
        assert self._arcade is not None
        return {
            "position": self.position,
            "stage": self.stage,
            "student": self.live.student.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "rng": self.live.rng.get_state(),
            "arcade": self._arcade.state(),
            "image": self._observation[:, -1].cpu(),
            "episodes": self.episodes,
            "recent": list(self.recent),
            "curve": self.curve,
            "best": self.best,
            "best_return": self._best_return,
            "seconds": self.seconds,
            "since": self._since,
            "tally": self.tally.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a state: stages are begun again, then the emulators replay the actions, a step at a time.

        Raises KfbenchError if they do not arrive at the same images (another version of ale-py).
        """
        for which in range(state["stage"] + 1):
            self._begin(which)
        assert self._arcade is not None
        self._observation, self._batch = self._arcade.restore(state["arcade"]), None
        if not torch.equal(self._observation[:, -1].cpu(), state["image"]):
            raise KfbenchError(
                "the emulators do not replay to the checkpoint's images; install the ale-py it was made with"
            )
        self.live.student.load_state_dict(state["student"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.live.rng.set_state(state["rng"])
        self.position, self.seconds, self._since = state["position"], state["seconds"], state["since"]
        self.episodes, self.recent = state["episodes"], deque(state["recent"], maxlen=100)
        self.curve, self.best, self._best_return = state["curve"], state["best"], state["best_return"]
        self.tally.restore(state["tally"], self.device)


def keep_memory() -> None:
    """Let glibc keep freed memory up to 1 GiB: an eighth of A2C's time went into page faults of fresh memory."""
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD: blocks up to 32 MiB, its largest value, are not mapped anew
        library.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD


def area(curve: list[Row]) -> float:
    """Return the area under the validation return over frames, by the frames: the curve's mean height, in points."""
    frames = torch.tensor([row["frames"] for row in curve], dtype=torch.float64)
    returns = torch.tensor([row["val_return"] for row in curve], dtype=torch.float64)
    return float(torch.trapezoid(returns, frames) / (frames[-1] - frames[0])) if len(curve) > 1 else float(returns[-1])


def _equal(one: nn.Module, other: nn.Module) -> bool:
    """Say whether two networks have the same weights, bit for bit."""
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def _value(output: Output) -> Tensor:
    """Return an output's values [N]. Raises KfbenchError for a network that has none."""
    if output.value is None:
        raise KfbenchError("the student's network has no value head, which games need; use --network a3c")
    return output.value.float()
