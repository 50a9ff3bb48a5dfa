"""The actor-critic loop: the student acts in many emulators at once, learns from the rollout, and is evaluated alone.

A rollout is `rollout` agent steps of every environment. The method acts (`act`), and what it says beside its output,
the teachers' features, comes back with the rows when it learns (`losses`). Order of minibatches, sampled actions and
dropout are functions of (seed, rollout), so a checkpoint is the student, the optimiser, the method's generator, a
number, and the actions from which the emulators are replayed.
"""

import contextlib
import ctypes
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

from kfbench import machine, seeding
from kfbench.batch import Batch
from kfbench.games import emulators
from kfbench.spec import GameRecipe
from kfbench.train import actor, episodes, evaluation, optimizer, told
from kfbench.train.actor import Actor
from kfbench.train.evaluation import Evaluation
from kfbench.train.loop import Row, set_training, spans
from kfbench.train.meter import Meter
from kfbench.train.precision import autocast
from kfbench.train.rollout import Rollout, brightness
from kfbench.train.setup import Setup

CHECKED = 50  # optimiser steps, at least, between looks at whether the loss is finite


def rollouts(recipe: GameRecipe) -> int:
    """Return how many rollouts the budget of frames holds."""
    return max(1, round(recipe.frames / (recipe.rollout * recipe.environments * emulators.FRAMES_A_STEP)))


class ActorCritic:
    """A run over a game: iterate over it to train; it yields the new row of the curve, or None, after every rollout."""

    def __init__(self, setup: Setup, *, threads: int | None = None) -> None:
        """Open the emulators; `threads` of them work at a time (None: one a core), which changes no number."""
        self.setup, self.recipe, self.device = setup, GameRecipe.of(setup.spec), setup.device
        self.threads = threads or min(machine.cores(), self.recipe.environments)
        self.rows = self.recipe.rollout * self.recipe.environments
        self.total = rollouts(self.recipe)
        looks = self.recipe.evaluations
        self.marks = {round(self.total * (i + 1) / looks) for i in range(looks)}
        self.stages = spans(setup.method.stages, self.total)
        self.stage = -1  # the stage that has begun
        self.position = 0  # rollouts done
        self.curve: list[Row] = []
        self.best: dict[str, Tensor] = {}  # weights of the exported student with the best validation return
        self.seconds = 0.0
        self.episodes = 0  # that ended in training
        self.recent: deque[float] = deque(maxlen=100)  # raw returns of the last of them
        self.meter = Meter()
        self._best_return = -float("inf")
        self._since = 0  # rollouts since the last look at whether the loss is finite
        self._optimizer: torch.optim.Optimizer
        self._acting = actor.twin(setup) if self.recipe.overlap else setup  # what the actor plays with
        self._actor: Actor
        self._thread = ThreadPoolExecutor(1, "actor") if self.recipe.overlap else None
        self._ahead: Rollout | None = None  # the present position's rollout, if it was played ahead
        self._evaluation = Evaluation(setup.spec, device=setup.device, threads=self.threads)
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
        rollout, self._ahead = self._ahead or self._play(self.position), None
        with self._playing_ahead():
            self._learn(rollout, self.position / self.total)
        if rollout.scores:
            self.setup.method.observe(self.setup.student, rollout.scores)
        self.episodes += len(rollout.scores)
        self.recent.extend(rollout.scores)
        self.position += 1
        self._since += self.recipe.passes * self.recipe.minibatches
        if self.position in self.marks or self._since >= CHECKED:
            self.meter.check()
            self._since = 0

    def skip(self, step: int) -> None:
        """Go to a later rollout of the present stage, or to the first of the next: for what only measures."""
        self.position, self._ahead = step, None

    def batch(self) -> Batch:
        """Play a rollout, learn nothing, and return its rows."""
        return self._play(self.position).batch(None, self.setup.rng)

    def _play(self, number: int) -> Rollout:
        """Play a rollout with the student as it is now."""
        self._arm(number)
        return self._actor.play(number, number / self.total)

    def _arm(self, number: int) -> None:
        """Give the actor the student's present weights, if it has a student of its own."""
        if self._acting is not self.setup:
            self._acting.student.load_state_dict(self.setup.student.state_dict())
            self._acting.rng.manual_seed(seeding.number(self.setup.spec.seed, "actor", number))

    @contextlib.contextmanager
    def _playing_ahead(self) -> Iterator[None]:
        """With `overlap`, play the stage's next rollout during the block, with the weights from before it."""
        number = self.position + 1
        if self._thread is None or number == self.stages[self.stage][2]:
            yield
            return
        self._arm(number)
        playing = self._thread.submit(self._actor.play, number, number / self.total)
        try:
            yield
        finally:
            self._ahead = playing.result()

    @property
    def frames(self) -> int:
        """Emulator frames so far, whichever game."""
        return self.position * self.rows * emulators.FRAMES_A_STEP

    def _begin(self, which: int) -> None:
        """Begin a stage: its game, what the method prepares, a fresh optimiser."""
        stage = self.stages[which][0]
        game = emulators.rom((stage.task or self.setup.spec.task).partition("/")[2])
        if self.stage < 0 or game != self._actor.game:
            if self.stage >= 0:
                self._actor.arcade.close()
            arcade = episodes.open_arcade(
                self.setup.spec,
                game,
                self.recipe.environments,
                f"train {which}",
                threads=self.threads,
                frames=self.recipe.episode_frames,
                device=self.device,
            )
            self._actor = Actor(self._acting, arcade, game)
        for setup in [self.setup] if self._acting is self.setup else [self.setup, self._acting]:
            seen = Batch(images=brightness(self._actor.observation), rng=setup.rng)
            setup.method.begin(setup.student, setup.teachers, stage, [seen], setup.rng)
        self._optimizer = optimizer.make(self.setup.method, self.setup.student, self.recipe)
        self.meter.check()
        self.stage, self.meter = which, Meter()

    def _learn(self, rollout: Rollout, progress: float) -> None:
        """Take `passes` · `minibatches` optimiser steps on a rollout."""
        setup, recipe = self.setup, self.recipe
        set_training(setup.student)
        optimizer.set_rate(self._optimizer, recipe, self._fraction())
        weights = [weight for group in self._optimizer.param_groups for weight in group["params"]]
        number = self.position * recipe.passes * recipe.minibatches
        for rows in self._minibatches():
            with seeding.STATE:  # not while a rollout is waited for, whose thread may want it
                seeding.seed_step(setup.spec.seed, number)
                batch = rollout.batch(rows, setup.rng)
                with autocast(self.device, recipe.precision):
                    said = setup.method.losses(setup.student, setup.teachers, batch, setup.task, progress)
                parts = told.parts_of(said)
                torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(weights, recipe.clip_norm)
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            self.meter.add(parts, number)
            number += 1

    def _minibatches(self) -> Iterator[Tensor | None]:
        """Yield the rows of each optimiser step: shuffled minibatches, or None for the whole rollout in order."""
        recipe = self.recipe
        if recipe.minibatches == 1:
            yield from [None] * recipe.passes
            return
        generator = seeding.stream(self.setup.spec.seed, "data", self.position)
        orders = torch.stack([torch.randperm(self.rows, generator=generator) for _ in range(recipe.passes)])
        for order in orders.to(self.device):  # one copy, before there is anything to wait for
            yield from order.chunk(recipe.minibatches)

    def _fraction(self) -> float:
        """Return how much of the present stage is done, 0..1."""
        _, first, last = self.stages[self.stage]
        return (self.position - first) / (last - first)

    def status(self) -> Row:
        """Return what a progress bar shows: episodes, mean return of the last 100, frames a second."""
        shown = {"episodes": float(self.episodes), "rate": self.frames / max(1e-9, self.seconds)}
        if self.recent:
            shown["return"] = sum(self.recent) / len(self.recent)
        return shown

    def _evaluate(self, started: float) -> Row:
        """Play validation episodes with the student alone, and add a row to the curve."""
        setup, recipe, method = self.setup, self.recipe, self.setup.method
        seconds = self.seconds + time.perf_counter() - started
        means = self.meter.means()
        self.meter.clear()
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
        exported = told.exported(method, setup.student)
        row |= {f"val_{name}": value for name, value in self._evaluation.validate(exported).items()}
        row |= told.metrics_of(method, setup.student)
        if row["val_return"] > self._best_return:
            self._best_return = row["val_return"]
            self.best = {name: value.detach().clone() for name, value in exported.state_dict().items()}
        self.curve.append(row)
        return row

    def score(self, networks: dict[str, nn.Module]) -> dict[str, Row]:
        """Play the test episodes with each network, and add the `area` under the curve, in points: its mean height."""
        covered = evaluation.area(self.curve)
        return {name: {**row, "area": covered} for name, row in self._evaluation.test(networks).items()}

    def state(self) -> dict[str, Any]:
        """Return tensors and plain values from which `restore` goes on as if nothing had happened."""
        ahead = self._ahead is not None  # then what was played ahead is played again at a resume, by the same weights
        return {
            "position": self.position,
            "stage": self.stage,
            "student": self.setup.student.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "rng": self.setup.rng.get_state(),
            "actor": self._actor.state(begun=ahead),
            "acting": self._acting.student.state_dict() if ahead else {},
            "episodes": self.episodes,
            "recent": list(self.recent),
            "curve": self.curve,
            "best": self.best,
            "best_return": self._best_return,
            "seconds": self.seconds,
            "since": self._since,
            "tally": self.meter.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a state: stages are begun again, then the emulators replay the actions, a step at a time.

        A rollout that had been played ahead is played again, by the weights that had played it. Raises KfbenchError if
        the emulators do not arrive at the same images (another version of ale-py).
        """
        for which in range(state["stage"] + 1):
            self._begin(which)
        self._actor.restore(state["actor"])
        self.position, self.seconds, self._since = state["position"], state["seconds"], state["since"]
        self.setup.student.load_state_dict(state["acting"] or state["student"])
        self._ahead = self._play(self.position) if state["acting"] else None
        self.setup.student.load_state_dict(state["student"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.setup.rng.set_state(state["rng"])
        self.episodes, self.recent = state["episodes"], deque(state["recent"], maxlen=100)
        self.curve, self.best, self._best_return = state["curve"], state["best"], state["best_return"]
        self.meter.restore(state["tally"], self.device)


def keep_memory() -> None:
    """Let glibc keep freed memory up to 1 GiB: an eighth of A2C's time went into page faults of fresh memory."""
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD: blocks up to 32 MiB, its largest value, are not mapped anew
        library.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD
