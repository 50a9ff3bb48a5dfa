"""Teachers of a task, ranked without training: every score of each, from one pass over the training images."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfbench import registry
from kfbench.data import images
from kfbench.data.images import Images
from kfbench.errors import KfbenchError, near
from kfbench.ranking import names, scores
from kfbench.ranking.features import Said, said
from kfbench.ranking.probe import probe
from kfbench.running import teacher_names, teacher_store
from kfbench.running.device import torch_device
from kfbench.running.teacher_store import Found
from kfbench.spec import Recipe, RunSpec
from kfbench.tasks import IMAGES, ImageTask
from kfbench.teachers import Teacher

Score = Callable[[Said, scores.Labels], float]
SCORES: dict[str, Score] = {
    "logme": lambda answers, labels: scores.logme(answers.features, labels),
    "leep": lambda answers, labels: scores.leep(answers.probabilities, labels),
    "nleep": lambda answers, labels: scores.nleep(answers.features, labels),
    "h-score": lambda answers, labels: scores.h_score(answers.features, labels),
    "h-shrunk": lambda answers, labels: scores.h_shrunk(answers.features, labels),
    "parc": lambda answers, labels: scores.parc(answers.features, labels),
}
PROBE = "probe"  # the yardstick: accuracy in % on the validation images
NAMES = tuple(names.SCORES)


@dataclass(frozen=True)
class Ranked:
    """A teacher with what it promises; higher is better in every score."""

    teacher: str  # its name in full
    network: str
    trained_on: str | None  # its task, if known
    outputs: int  # of the teacher
    dimensions: int  # of its features
    scores: dict[str, float]  # by name
    seconds: float  # for its passes and scores on this machine

    def row(self) -> dict[str, Any]:
        """Return plain values, flat."""
        about = {name: getattr(self, name) for name in ("teacher", "network", "trained_on", "outputs", "dimensions")}
        return {**about, **self.scores, "seconds": self.seconds}


def rank(
    spec: RunSpec,
    teachers: Sequence[str],
    *,
    by: str = names.DEFAULT,
    only: Sequence[str] = NAMES,
    results: Path,
    device: str = "cpu",
    say: Callable[[str], None] = lambda line: None,
) -> list[Ranked]:
    """Return teachers by what they promise for the task and training images of a run; the best by score `by` first.

    `only` these scores are worked out. Raises KfbenchError for a teacher that is not there, a task without classes to
    tell apart, or an unknown score.
    """
    require_score(by)
    asked = list(dict.fromkeys(str(teacher_names.read(name, budget=spec.budget)) for name in teachers if name))
    if not asked:
        raise KfbenchError("no teachers to rank; give --teachers A,B,…: see kfbench list teachers")
    declared = registry.load_task(spec.task)
    require_images(spec.task)
    assert isinstance(declared, ImageTask)
    if len(declared.labels(spec.recipe)) < 2:
        raise KfbenchError(f"task '{spec.task}' has one class: there is nothing to tell apart, and none to rank")
    found = [teacher_store.find(name, spec=spec, index=0, results=results) for name in asked]
    data = images.load(declared, Recipe.of(spec).train_size).to(torch_device(device))
    return ordered([_ranked(one, data, only, say) for one in found], by)


def ordered(rows: Sequence[Ranked], by: str) -> list[Ranked]:
    """Return rows, the highest score first; equal ones by name."""
    return sorted(rows, key=lambda row: (-row.scores[by], row.teacher))


def require_images(task: str) -> None:
    """Raise KfbenchError for a task of another kind: its teachers cannot be ranked."""
    if (kind := registry.kind_of(task)) is not IMAGES:
        raise KfbenchError(f"teachers are ranked for images, and task '{task}' is of {kind.name}")


def require_score(name: str) -> None:
    """Raise KfbenchError if there is no score of that name."""
    if name not in NAMES:
        raise KfbenchError(f"no score '{name}'; {near(name, NAMES)}")


def _ranked(found: Found, data: Images, only: Sequence[str], say: Callable[[str], None]) -> Ranked:
    teacher: Teacher = found.load()
    teacher.network.to(data.device)
    started = time.perf_counter()
    say(f"{teacher.name}: {len(data.train):,} images")
    answers, labels = said(teacher, data.train), data.train.labels.cpu().numpy()
    values = {name: score(answers, labels) for name, score in SCORES.items() if name in only}
    if PROBE in only:
        held = said(teacher, data.val)
        values[PROBE] = probe(answers.features, labels, held.features, data.val.labels.cpu().numpy())
    seconds = time.perf_counter() - started
    network = teacher.network
    return Ranked(teacher.name, network.name, teacher.task, network.outputs, answers.features.shape[1], values, seconds)
