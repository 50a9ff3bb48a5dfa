"""PathNet: evolved paths through layers of modules; the path of an earlier task is frozen, and new paths may use it.

Source: Fernando et al. 2017, "PathNet: Evolution Channels Gradient Descent in Super Neural Networks", arXiv 1701.08734,
    and the public code kimhc6028/pathnet-pytorch and jsikyoon/pathnet. L layers of M modules (a layer and a ReLU); N
    modules of a layer are active, their outputs are summed; each task has a head of its own. Two paths of the
    population are drawn, each is trained for `batches` steps (games: `episodes` episodes), and the one with the lower
    training accuracy (return) becomes a copy of the other, in which each gene moves with probability 1/(L·N) by -2 to
    2. After a source task the last winner's modules are frozen, all others and the population start anew. Variant
    `linear`: the source's modules for MNIST, 20 units.
Differs: one path at a time is trained, by all emulators (the source: 64 workers with a path each), and in games it is
judged by the next `episodes` episodes that end, which earlier paths may have begun; a budget of minutes holds a few
tournaments on images and hardly one in games. The recipe's `overlap` is refused: it would judge a path by another's
play. What is frozen, and at the end kept, is the path that won the last
tournament, as in jsikyoon/pathnet (kimhc6028: the one with the highest accuracy so far). A path's modules of a layer
are distinct. On images modules are 3×3 convolutions of stride 2 by default: linear ones do not compare with
convolutional students. The source task takes a share of the budget, not as many generations as it needs. The optimiser
is the recipe's.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, cast

import torch
from annotated_types import Ge, Gt, Lt
from torch import nn

from kfbench import registry, seeding
from kfbench.errors import KfbenchError
from kfbench.methods import Batch, Method, Output, Parts, Stage
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer.pathways import Modules, Path


@dataclass(frozen=True)
class PathNet(Method):
    """Settings of PathNet; 0 stands for the source's number for the task's kind."""

    source: str = ""  # tasks to train on first, joined by "+"; empty: the task's first default source
    source_share: Annotated[float, Gt(0), Lt(1)] = 0.5  # of the budget, for the source tasks; choice
    form: Literal["convolution", "linear"] = "convolution"  # of modules on images
    modules: Annotated[int, Gt(1)] = 10  # M
    active: Annotated[int, Ge(0)] = 0  # N; the source's: 3 on images (MNIST), 4 in games
    width: Annotated[int, Ge(0)] = 0  # units or maps of a module; the source's: 20 on images, 8 maps in games
    population: Annotated[int, Gt(1)] = 64  # paths
    batches: Annotated[int, Gt(0)] = 50  # steps by which a path of image modules is judged
    episodes: Annotated[int, Gt(0)] = 10  # episodes by which a path is judged in games; choice

    keeps_teachers = True  # what is kept is not the plain network: a path, with what is frozen of the source tasks
    trains_a_part = True
    acts_ahead = False  # a path would be trained and judged on what the one before it had played
    variants = {"linear": {"form": "linear"}}
    search = {"modules": {"low": 6, "high": 20}}

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The source tasks, then the run's own."""
        sources = [name for name in self.source.split("+") if name]
        if not sources:
            return (Stage("target"),)
        each = self.source_share / len(sources)
        return (*(Stage(f"source {name}", each, task=name) for name in sources), Stage("target", 1 - self.source_share))

    def make_student(self, task: Task, teachers: Sequence[Teacher], rng: torch.Generator) -> Modules:
        """Return all modules, the heads of all tasks and a population of paths."""
        games = task.acts
        active, width = self.active or (4 if games else 3), self.width or (8 if games else 20)
        if active > self.modules:
            raise KfbenchError(f"a path of {active} modules a layer cannot be drawn from {self.modules}; raise modules")
        heads = {stage.name: _outputs(stage.task, task) for stage in self.stages}
        form = "atari" if games else self.form
        judged = self.episodes if games else self.batches
        with seeding.global_generator(rng):
            return Modules(task, form, heads, self.modules, active, width, self.population, judged)

    def begin(
        self,
        student: nn.Module,
        teachers: Sequence[Teacher],
        stage: Stage,
        batches: Iterable[Batch],
        rng: torch.Generator,
    ) -> None:
        """After a source task: freeze the last winner's modules, and let all else start anew."""
        assert isinstance(student, Modules)
        if student.stage:
            with seeding.global_generator(rng):
                student.start_anew()
        student.stage = stage.name
        student.draw(rng)

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """The task's loss of the present path; on images also a step of its judgement."""
        assert isinstance(student, Modules)
        output: Output = student(batch.images)
        parts = task.loss(output, batch)
        if batch.labels is not None:
            student.note((output.logits.detach().argmax(1) == batch.labels).float().mean())
            if student.count >= student.quota:
                student.next_path(batch.rng)
        return output, parts

    def observe(self, student: nn.Module, scores: Sequence[float]) -> None:
        """In games: episodes of the present path are over, with these returns; a path that was judged is followed."""
        assert isinstance(student, Modules)
        if not student.acts:
            return
        for score in scores:
            student.note(torch.tensor(score))
        if student.count >= student.quota:
            student.next_path(seeding.stream(student.seed, "path", student.stage, student.tournaments))

    def metrics(self, student: nn.Module) -> dict[str, float]:
        """`tournaments` held in this stage, and the share of frozen modules on the winner's path."""
        assert isinstance(student, Modules)
        genes = [(i, m) for i, row in enumerate(student.winner.tolist()) for m in row]
        reused = sum(bool(student.frozen[i, m]) for i, m in genes) / len(genes)
        return {"tournaments": float(student.tournaments), "path/frozen": reused}

    def export(self, student: nn.Module) -> Path:
        """The last winner's path with the head of the run's task."""
        return cast(Modules, student).path("target")


def _outputs(source: str | None, task: Task) -> int:
    """Return how many outputs the head of a stage has."""
    if source is None:
        return task.outputs
    assert task.recipe is not None
    return len(registry.load_task(source).placeholders(task.recipe))
