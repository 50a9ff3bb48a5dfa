"""RunSpec -> RunRecord: the whole life of a run."""

import copy
import hashlib
import os
import statistics
import time
import traceback
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from kfbench import machine, registry
from kfbench.data import images
from kfbench.errors import Diverged, KfbenchError
from kfbench.games import emulators
from kfbench.methods import Method
from kfbench.networks import weights
from kfbench.networks.measure import multiply_adds, parameters
from kfbench.networks.network import Network
from kfbench.run import budgets, provenance, records
from kfbench.run.device import synchronize, torch_device
from kfbench.run.heartbeat import heartbeat
from kfbench.run.prepare import Prepared, compile_networks, make_loop, make_setup
from kfbench.run.records import RunRecord
from kfbench.spec import GameRecipe, Recipe, RunSpec, digest
from kfbench.tasks import GameTask, ImageTask
from kfbench.teachers import Teacher
from kfbench.train import checkpoint
from kfbench.train.loop import Loop, Watcher
from kfbench.train.memory import Memory
from kfbench.train.setup import Setup

HARNESS = 1  # raise it when a change of the harness changes numbers: older records then no longer count as this run
ROOM = 50e6  # bytes that must be free for results before training starts


class Interrupted(KfbenchError):
    """Stopped by a signal, with a checkpoint to go on from."""

    exit_code = 130


def run(
    spec: RunSpec,
    *,
    results: Path,
    device: str = "cpu",
    force: bool = False,
    compiled: bool = False,
    remember: bool = True,
    checkpoint_seconds: float = 60.0,
    watcher: Watcher | None = None,
) -> RunRecord:
    """Return the record of a run: the finished one with its key if there is one, else after training it.

    `compiled` lets torch.compile have every network that carries no hooks: like device and threads it changes the last
    bits only, so it is in the record and not in the spec. So is `remember`: where the recipe fixes `views`, teachers'
    answers come from the memory in `results/.cache/memory` (see `memory.py`), or are computed in every step without it.
    Missing teachers are trained first.

    Raises KfbenchError for what the user can mend, Interrupted after a signal (a checkpoint is left), Diverged after a
    failed run (its record is written first).
    """
    watcher = watcher or Watcher()
    place = torch_device(device)
    check_room(results)
    prepared = prepare(spec, results=results, device=place, watcher=watcher)
    path = records.path_of(results, prepared.key, spec)
    if path.is_file() and not force:
        record = records.read(path)
        if record.status == "done":
            watcher.say(f"recorded already: {spec.method} on {spec.task}, seed {spec.seed} [{record.key}]")
            return record
    setup = make_setup(spec, prepared, device=place)
    if compiled:
        compile_networks(setup)
    if remember:
        setup.memory = _memory(setup, prepared, results, watcher)
    loop = make_loop(setup)
    kept = results / ".checkpoints" / f"{prepared.key}.ckpt"
    if force:
        kept.unlink(missing_ok=True)
    record = RunRecord(
        key=prepared.key,
        spec=spec.to_json(),
        identity=prepared.identity,
        status="failed",
        provenance={**_provenance(prepared, place), "compiled": compiled, "remembers": setup.memory is not None},
    )
    try:
        if kept.is_file():
            checkpoint.restore(loop, kept)
            watcher.say(f"goes on from step {loop.position:,} of {loop.total:,}")
        watcher.begin(prepared.key, spec)
        with heartbeat(prepared.key, spec, results=results, device=str(place), then=watcher) as watched:
            _train(loop, spec, kept, checkpoint_seconds, watched)
            if loop.seconds > checkpoint_seconds:  # whatever is wrong with scoring or the disk, the training is kept
                checkpoint.write(kept, loop.state())
            _finish(record, setup, loop, prepared, results)
    except Exception as error:
        if isinstance(error, KfbenchError) and not isinstance(error, Diverged):
            raise
        record.curve, record.error = loop.curve, f"{type(error).__name__}: {error}".splitlines()[0]
        record.traceback = "".join(traceback.format_exception(error))
        records.write(results, record)
        kept.unlink(missing_ok=True)
        raise
    records.write(results, record)
    kept.unlink(missing_ok=True)
    return record


def prepare(spec: RunSpec, *, results: Path, device: torch.device, watcher: Watcher) -> Prepared:
    """Load data and teachers (training the missing ones) and work out the run's key."""
    from kfbench.run import teacher_store

    method = registry.recorded_method(spec.method, spec.settings)
    declared = registry.load_task(spec.task)
    data = None
    if isinstance(declared, ImageTask):
        assert isinstance(spec.recipe, Recipe)
        data = images.load(declared, spec.recipe.train_size)
    teachers = [
        teacher_store.load(name, spec=spec, index=index, results=results, device=device, watcher=watcher)
        for index, name in enumerate(spec.teachers)
    ]
    classes = (
        data.classes if data else cast(GameTask, declared).actions(full=cast(GameRecipe, spec.recipe).full_actions)
    )
    check_loaded(method, spec, classes, teachers)
    checksum = data.checksum if data else emulators.checksum(cast(GameTask, declared).game)
    stem, _ = registry.split(spec.method)
    others = {name: images.load(*other) for name, other in stage_tasks(method, spec).items()}
    identity = {
        "spec": spec.to_json(),
        "data": checksum,
        "teachers": [teacher.digest for teacher in teachers],
        "method_revision": method.revision,
        "harness_revision": HARNESS,
        **({"method_file": hashlib.sha256(Path(stem).read_bytes()).hexdigest()} if stem.endswith(".py") else {}),
        **({"stages": {name: other.checksum for name, other in others.items()}} if others else {}),
    }
    return Prepared(digest(identity), identity, method, declared, teachers, data, checksum, others)


def _memory(setup: Setup, prepared: Prepared, results: Path, watcher: Watcher) -> Memory | None:
    """Return the memory of a run whose recipe fixes the views of an image, and that has teachers."""
    recipe = setup.spec.recipe
    if not isinstance(recipe, Recipe) or recipe.views is None or not setup.teachers:
        return None
    source = {"data": prepared.data_checksum, "keep": prepared.data.keep, "harness": HARNESS}
    return Memory(
        results / ".cache" / "memory",
        recipe,
        setup.data.train,
        shape=setup.task.shape,
        device=setup.device,
        source=source,
        say=watcher.say,
    )


def stage_tasks(method: Method, spec: RunSpec) -> dict[str, tuple[ImageTask, int | None]]:
    """Return what else an image run trains on: {task of a stage: (itself, its training images at the run's budget)}."""
    found = {}
    for name in {stage.task for stage in method.stages} - {None, spec.task}:
        declared = registry.load_task(str(name))
        if isinstance(declared, ImageTask):
            recipe = budgets.recipe(declared, spec.budget)
            assert isinstance(recipe, Recipe)
            found[str(name)] = (declared, recipe.train_size)
    return found


def check_loaded(method: Method, spec: RunSpec, classes: tuple[str, ...], teachers: list[Teacher]) -> None:
    """Refuse teachers whose networks or outputs do not suit the method, now that they are known."""
    for teacher in teachers:
        network = teacher.network
        foreign = teacher.classes != classes and (teacher.classes or network.outputs != len(classes))
        if method.needs == "outputs" and classes and foreign:
            raise KfbenchError(
                f"method '{spec.method}' needs a teacher with the classes of '{spec.task}'; "
                f"'{teacher.name}' has {network.outputs} others"
            )
        if method.needs == "features" and not network.layers:
            raise KfbenchError(f"method '{spec.method}' reads features, but none are known of '{teacher.name}'")
        if method.needs == "architecture" and network.name.removesuffix(":pretrained") != spec.recipe.network:
            raise KfbenchError(
                f"method '{spec.method}' needs a teacher of the student's network '{spec.recipe.network}'; "
                f"'{teacher.name}' is a '{network.name}'; use --network {network.name}"
            )


def _train(loop: Loop, spec: RunSpec, kept: Path, checkpoint_seconds: float, watcher: Watcher) -> None:
    """Drive the loop to its end, with checkpoints on the way and at a signal."""
    watcher.start(spec, loop)
    try:
        with checkpoint.signals() as asked:
            saved = time.monotonic()
            for row in loop:
                watcher.step(loop, row)
                due = time.monotonic() - saved >= checkpoint_seconds
                if (due or asked) and loop.position < loop.total:
                    checkpoint.write(kept, loop.state())
                    saved = time.monotonic()
                if asked:
                    raise Interrupted(
                        f"stopped at step {loop.position:,} of {loop.total:,}; the same command goes on from there"
                    )
    finally:
        watcher.stop()


def _finish(record: RunRecord, setup: Setup, loop: Loop, prepared: Prepared, results: Path) -> None:
    """Export the student, read the test split once, measure what is kept, and fill in the record."""
    last = setup.method.export(setup.student)
    best = copy.deepcopy(last) if loop.best else last  # a copy: an export may share memory with the student
    if loop.best:
        best.load_state_dict(loop.best)
    record.scores = loop.score({"last": last, "best": best})
    record.scores["val"] = {
        name.removeprefix("val_"): value for name, value in loop.curve[-1].items() if name.startswith("val_")
    }
    record.curve = loop.curve
    record.cost = {
        "seconds": loop.seconds,
        "teacher_seconds": sum(teacher.seconds for teacher in prepared.teachers),
        "steps": loop.total,
        **(setup.memory.cost() if setup.memory else {}),
        **measure(last, setup.task.shape, setup.device),
    }
    record.status = "done"
    if isinstance(last, Network):
        about = {"task": setup.task.name, "classes": list(setup.task.classes), "key": record.key}
        place = records.path_of(results, record.key, setup.spec).with_suffix(".safetensors")
        half = results.name == "teachers"  # so that the small teachers of a report can be committed
        record.provenance["weights"] = weights.save(last, place, about, half=half)


def measure(network: nn.Module, shape: tuple[int, int, int], device: torch.device) -> dict[str, float]:
    """Return what is kept costs: parameters, multiply-adds an image, and latency in ms at batch 1 (median of 20)."""
    network.to(device).eval()
    one = torch.zeros(1, *shape, device=device)
    times = []
    with torch.no_grad():
        for _ in range(23):
            started = time.perf_counter()
            network(one)
            synchronize(device)
            times.append(1000 * (time.perf_counter() - started))
    return {
        "parameters": parameters(network),
        "multiply_adds": multiply_adds(network, shape),
        "latency_ms": statistics.median(times[3:]),
    }


def _provenance(prepared: Prepared, device: torch.device) -> dict[str, Any]:
    teachers = [
        {"name": t.name, "digest": t.digest, "network": t.network.name, "task": t.task, "seconds": t.seconds}
        for t in prepared.teachers
    ]
    return {**provenance.of_run(device), "data": prepared.data_checksum, "teachers": teachers}


def check_room(results: Path) -> None:
    """Find out before training, not after, whether results can be written. Raises KfbenchError."""
    probe = results / f".probe-{os.getpid()}"
    try:
        results.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"0" * 4096)
        probe.unlink()
        free = machine.free(results)
    except OSError as error:
        raise KfbenchError(
            f"cannot write to '{results}' ({error.strerror}); give another folder with --results"
        ) from error
    if free < ROOM:
        raise KfbenchError(f"only {free / 1e6:.0f} MB free for '{results}'; free some, or give --results elsewhere")
