"""What tests of games share: small runs with untrained teachers, rollouts and rows of made-up numbers."""

import io
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kfbench import registry, seeding
from kfbench.methods import Batch, Method, Parts, Stage
from kfbench.networks.network import Output
from kfbench.running import resolve
from kfbench.teachers import Teacher
from kfbench.train.actor_critic import ActorCritic
from kfbench.train.setup import Setup
from kfbench.train.training import training_of

TINY = {
    "frames": 4 * 4 * 8 * 6,
    "environments": 4,
    "rollout": 8,
    "minibatches": 2,
    "evaluations": 2,
    "evaluation_environments": 1,
    "test_episodes": 1,
    "evaluation_frames": 120,
}


def make_setup(
    method: str | Method = "scratch", game: str = "road_runner", *, teachers: int = 0, **recipe: Any
) -> Setup:
    """Return what the loop works with, the teachers untrained."""
    spec = resolve.resolve("scratch", f"atari/{game}", recipe={**TINY, **recipe})
    declared = registry.load_task(spec.task)
    task = training_of(declared.kind).make_task(spec, declared, None)
    made = []
    for index in range(teachers):
        with seeding.global_stream(index, "teacher"):
            network = task.make_network()
        made.append(Teacher(network, f"teacher {index}", task.name, task.classes, "", index))
    chosen = registry.load_method(method) if isinstance(method, str) else method
    rng = seeding.stream(0, "method")
    return Setup(spec, chosen, chosen.make_student(task, made, rng), made, task, torch.device("cpu"), rng, None)


def trained(loop: ActorCritic) -> dict[str, Tensor]:
    for _ in loop:
        pass
    return {name: value.clone() for name, value in loop.setup.student.state_dict().items()}


def equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def rollout(seed: int = 0, steps: int = 7, environments: int = 3) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    rows = (steps, environments)
    return {
        "rewards": torch.randn(rows, generator=rng, dtype=torch.float64),
        "values": torch.randn(rows, generator=rng, dtype=torch.float64),
        "goes_on": (torch.rand(rows, generator=rng) > 0.3).double(),
        "after": torch.randn(environments, generator=rng, dtype=torch.float64),
    }


def rows(seed: int = 0, count: int = 9, actions: int = 5) -> tuple[Tensor, Tensor, Batch]:
    rng = torch.Generator().manual_seed(seed)
    logits, value, old = (torch.randn(count, k, generator=rng).squeeze(1) for k in (actions, 1, actions))
    batch = Batch(
        images=torch.zeros(count, 1, 1, 1),
        rng=rng,
        actions=torch.randint(actions, (count,), generator=rng),
        returns=torch.randn(count, generator=rng),
        advantages=torch.randn(count, generator=rng),
        output=Output(old),
    )
    return logits.requires_grad_(), value.requires_grad_(), batch


@dataclass(frozen=True)
class Recorder(Method):
    """A method that notes what it is told, and what it said when it acted."""

    def act(self, student: nn.Module, teachers: Any, batch: Batch, progress: float) -> tuple[Output, Parts]:
        """Remember a mark of every row."""
        output: Output = student(batch.images)
        return output, {
            "mark": batch.images.float().mean((1, 2, 3)),
            "progress": torch.full((len(output.logits),), progress),
        }

    def losses(
        self, student: nn.Module, teachers: Any, batch: Batch, task: Any, progress: float
    ) -> tuple[Output, Parts]:
        """Check that rows, outputs and extras belong together."""
        torch.testing.assert_close(batch.extras["mark"], batch.images.float().mean((1, 2, 3)))
        assert (batch.extras["progress"] == progress).all()
        assert batch.output is not None and batch.output.value is not None and batch.advantages is not None
        torch.testing.assert_close(batch.returns - batch.advantages, batch.output.value)
        if task.seed == 0 and not hasattr(self, "_first"):
            object.__setattr__(self, "_first", True)
            torch.testing.assert_close(student(batch.images).logits, batch.output.logits, atol=1e-5, rtol=1e-4)
        return super().losses(student, teachers, batch, task, progress)


def copied(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state as a checkpoint file gives it back."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


@dataclass(frozen=True)
class Elsewhere(Method):
    """Trains on another game first."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Half on Pong, half on the run's own game."""
        return (Stage("source", 0.5, "atari/pong"), Stage("target", 0.5))
