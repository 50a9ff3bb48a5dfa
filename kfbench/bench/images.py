"""The time of a training step over its floor, per method: repeats interleaved, ratios taken within a repeat.

The floor is the bare cost of what a method cannot avoid: one forward and backward pass of the student, the optimiser,
and one forward pass of each teacher it asks, no deeper than the last layer it asks for. A method whose teachers are
remembered (`memory.py`) asks none: its ratio to the full step of the same method is beside it.

On one CPU thread a step's time is its CPU time, which leaves out what others do on a shared machine; else the clock's.
"""

import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from kfbench import registry
from kfbench.bench import after_cut, settings_of
from kfbench.errors import KfbenchError
from kfbench.networks import taps
from kfbench.running import resolve, stand_in
from kfbench.running.device import synchronize, torch_device
from kfbench.spec import Recipe, RunSpec
from kfbench.train import optimizer
from kfbench.train.images import ImageTraining, still
from kfbench.train.precision import autocast
from kfbench.train.setup import Setup
from kfbench.train.supervised import Supervised

Turn = Callable[[], object]
DEAR = 1.25  # a step that takes more than this of its floor needs a reason
WARM = 2  # steps of the budget beside those that are timed: one is taken to warm up
REMEMBERED = "kd remembered"  # the same step with what its teacher says read from the memory


class Contender(NamedTuple):
    """A method that is timed: a step of its loop, and of its floor."""

    name: str
    step: Turn
    floor: Turn


def methods() -> list[str]:
    """Return every method that runs on images, those with a cut also after it, and distillation with a memory."""
    found = [name for name in registry.names("methods") if registry.method_class(name).serves("images")]
    return [*found, *after_cut(found), REMEMBERED]


def measure(
    names: list[str],
    *,
    task: str = "cifar100",
    network: str = "resnet8x4",
    teacher: str = "resnet32x4",
    batch_size: int = 64,
    precision: str = "fp32",
    repeats: int = 20,
    device: str = "cpu",
) -> list[dict[str, Any]]:
    """Return one row a method: medians in ms of its step and its floor, and their ratio with its quartiles.

    With `kd` among the names a row for its step with a memory is added: `of_full` is its ratio to the step of `kd`.
    """
    device = str(torch_device(device))
    if "kd" in names and REMEMBERED not in names:
        names = [*names, REMEMBERED]
    contenders: list[Contender] = []
    floors: dict[tuple[Any, ...], Turn] = {}
    for name in names:
        spec = _spec(name, task=task, network=network, teacher=teacher, batch_size=batch_size, precision=precision)
        step, asked = _warmed_up(
            spec, batch_size=batch_size, repeats=repeats, device=device, remembers=name == REMEMBERED
        )
        key = tuple((spec.teachers[k], tuple(sorted(layers or ()))) for k, layers in asked.items())
        if key not in floors:
            floors[key] = floor(spec, batch_size=batch_size, device=device, asked=asked)
        contenders.append(Contender(name, step, floors[key]))
    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    times = _rounds(contenders, repeats, clock, wait=functools.partial(synchronize, torch.device(device)))
    rows = [_row(contender, times, batch_size=batch_size, repeats=repeats) for contender in contenders]
    steps = {contender.name: times[contender.step] for contender in contenders}
    for row in rows:
        if row["method"] == REMEMBERED and "kd" in steps:
            row |= _ratio("of_full", steps[REMEMBERED], steps["kd"])
    return rows


def _warmed_up(
    spec: RunSpec, *, batch_size: int, repeats: int, device: str, remembers: bool
) -> tuple[Turn, dict[int, set[str] | None]]:
    """Return a step of a run's longest stage, the last of equals, and what it asks of each teacher; one is taken."""
    steps = 20 * (repeats + WARM)  # what is timed lies in the first twentieth of a stage: before any cut
    setup = stand_in.setup(still(spec, steps=steps), rows=batch_size, device=device)
    loop = Supervised(setup)
    step = iter(loop).__next__
    longest = max(range(len(loop.stages)), key=lambda which: (round(loop.stages[which][0].share, 6), which))
    for _, first, _ in loop.stages[:longest]:
        loop.skip(first)
        step()
    loop.skip(loop.stages[longest][1])
    with tempfile.TemporaryDirectory(prefix="kfbench-bench-") as folder:
        if remembers:
            setup.memory = ImageTraining().memory(setup, Path(folder), source={}, say=print)
        step()  # fills the memory; its mapping outlives the file
    return step, _asked(loop) if setup.memory is None else {}


def _rounds(
    contenders: Sequence[Contender], repeats: int, clock: Callable[[], float], *, wait: Callable[[], None]
) -> dict[Turn, list[float]]:
    """Return the ms of every step and floor in each round; a floor that several share is timed once."""
    turns = list(dict.fromkeys([*(each.floor for each in contenders), *(each.step for each in contenders)]))
    times: dict[Turn, list[float]] = {turn: [] for turn in turns}
    for _ in range(repeats):
        for turn in turns:
            times[turn].append(_timed(turn, clock, wait))
    return times


def _row(contender: Contender, times: dict[Turn, list[float]], *, batch_size: int, repeats: int) -> dict[str, Any]:
    steps, floors = times[contender.step], times[contender.floor]
    return {
        "method": contender.name,
        "step_ms": statistics.median(steps),
        "floor_ms": statistics.median(floors),
        **_ratio("ratio", steps, floors),
        "images_per_second": 1000 * batch_size / statistics.median(steps),
        "repeats": repeats,
        "above_floor": registry.method_class(contender.name.split()[0]).above_floor,
    }


def _spec(name: str, *, task: str, network: str, teacher: str, batch_size: int, precision: str) -> RunSpec:
    """Return the run of a row, with as many teachers of the network as its method needs."""
    stem = name.split()[0]
    settings = settings_of(name)
    method = registry.load_method(stem, settings)
    of = {"outputs": task, "architecture": f"{task}/{network}"}.get(method.needs, task)
    chosen = [of if method.needs == "architecture" else f"{of}/{teacher}"] * method.teachers[0]
    if getattr(method, "source", None) == "" and not registry.load_task(task).sources:
        settings["source"] = task  # an own folder has no task to train on first; a step costs the same
    recipe = {"network": network, "batch_size": batch_size, "precision": precision}
    recipe |= {"views": 1} if name == REMEMBERED else {}
    return resolve.resolve(stem, task, teachers=chosen, recipe=recipe, settings=settings)


def _ratio(name: str, times: list[float], bare: list[float]) -> dict[str, Any]:
    """Return the median of the ratios within a repeat, and their quartiles."""
    ratios = sorted(step / least for step, least in zip(times, bare, strict=True))
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return {name: middle, f"{name}_quartiles": [low, high]}


def _timed(act: Turn, clock: Callable[[], float], wait: Callable[[], None]) -> float:
    started = clock()
    act()
    wait()
    return 1000 * (clock() - started)


def _asked(loop: Supervised) -> dict[int, set[str] | None]:
    """Return what a step asks of each teacher: layers, or None for its outputs (a whole pass)."""
    setup, batch = loop.setup, loop.batch()
    with torch.no_grad():
        setup.method.losses(setup.student, setup.teachers, batch, setup.task, loop.position / loop.total)
    asked: dict[int, set[str] | None] = {}
    for index, *place in batch.memo:
        if place == ["output"]:
            asked[index] = None
        elif asked.get(index, set()) is not None:
            asked.setdefault(index, set()).add(place[1])  # type: ignore[union-attr]
    return asked


def floor(spec: RunSpec, *, batch_size: int, device: str, asked: dict[int, set[str] | None]) -> Turn:
    """Return a bare hand-written step with these passes of the run's teachers and nothing of kfbench's loop."""
    recipe = Recipe.of(spec)
    own = {"network": recipe.network, "batch_size": batch_size}
    setup: Setup = stand_in.setup(resolve.resolve("scratch", spec.task, recipe=own), rows=batch_size, device=device)
    names = spec.teachers
    teachers = [stand_in.teacher(name, spec, index) for index, name in enumerate(names)]
    for teacher in teachers:
        teacher.network.to(setup.device).to(memory_format=torch.channels_last)
    student, optimiser = setup.student.train(), optimizer.make(setup.method, setup.student, recipe)
    batch = Supervised(setup).batch()
    images, labels = batch.images, batch.labels
    assert labels is not None

    def step() -> None:
        with autocast(setup.device, recipe.precision):
            for index, layers in asked.items():
                with torch.no_grad():
                    if layers is None:
                        teachers[index].network(images)
                    else:
                        with taps.read(teachers[index].network, sorted(layers), stop=True):
                            teachers[index].network(images)
            loss = F.cross_entropy(student(images).logits.float(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    step()
    return step


def text(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a table."""
    if not rows:
        raise KfbenchError("no method to time; see kfbench list methods")
    wide = max(len(row["method"]) for row in rows)
    lines = [f"{'method':<{wide}}  {'step':>9}  {'floor':>9}  ratio (quartiles)    images/s"]
    for row in rows:
        low, high = row["ratio_quartiles"]
        lines.append(
            f"{row['method']:<{wide}}  {row['step_ms']:>6.1f} ms  {row['floor_ms']:>6.1f} ms  "
            f"{row['ratio']:.2f} ({low:.2f}-{high:.2f})  {row['images_per_second']:>8,.0f}"
        )
    for row in rows:
        if row["ratio"] > DEAR:
            why = row["above_floor"] or "no reason is stated: set `above_floor` in its file, or make it faster"
            lines.append(f"{row['method']}, {row['ratio']:.2f} of its floor: {why}")
    for row in rows:
        if "of_full" in row:
            low, high = row["of_full_quartiles"]
            lines.append(f"{row['method']} takes {row['of_full']:.2f} ({low:.2f}-{high:.2f}) of the full step")
    return "\n".join([*lines, f"medians of {rows[0]['repeats']} interleaved repeats"])
