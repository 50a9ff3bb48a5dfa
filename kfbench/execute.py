"""RunSpec -> RunRecord: the whole life of a run.

A training loop (`train/supervised.py`, `train/actor_critic.py`) is made from a `Live` and has one surface: `total`
steps and the `position` among them; iterating trains, and yields a new row of the curve or None after each; `curve`,
`best` (weights with the best validation score), `status()` for the progress bar; `state()` and `restore(state)`;
`score(networks)`, the one reading of the test split.
"""

import copy
import hashlib
import os
import signal
import statistics
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kfbench import budgets, images, provenance, registry, seeding, store, weights
from kfbench.errors import Diverged, KfbenchError
from kfbench.methods import Batch, Method
from kfbench.networks.measure import multiply_adds, parameters
from kfbench.networks.network import Network, Output
from kfbench.spec import GameRecipe, Recipe, RunSpec, digest
from kfbench.store import RunRecord
from kfbench.tasks import GameTask, ImageTask, Task
from kfbench.teachers import Teacher

HARNESS = 1  # raise it when a change of the harness changes numbers: older records then no longer count as this run
ROOM = 50e6  # bytes that must be free for results before training starts


class Loop(Protocol):
    """The surface of a training loop; see the module's docstring."""

    total: int
    position: int
    seconds: float
    curve: list[dict[str, float]]
    best: dict[str, Tensor]

    def __iter__(self) -> Iterator[dict[str, float] | None]: ...
    def status(self) -> dict[str, float]: ...
    def state(self) -> dict[str, Any]: ...
    def restore(self, state: dict[str, Any]) -> None: ...
    def score(self, networks: dict[str, nn.Module]) -> dict[str, dict[str, float]]: ...


class Watcher:
    """Is told what happens; this one does not listen. The command line shows a progress bar."""

    def say(self, line: str) -> None:
        """Take one line of news."""

    def start(self, spec: RunSpec, loop: Loop) -> None:
        """A training loop begins."""

    def step(self, loop: Loop, row: dict[str, float] | None) -> None:
        """One more step is done, with a row of the curve if there was an evaluation."""

    def stop(self) -> None:
        """The loop is over, however it ended."""


class Interrupted(KfbenchError):
    """Stopped by a signal, with a checkpoint to go on from."""


@dataclass
class Live:
    """What a training loop works with."""

    spec: RunSpec
    method: Method
    student: nn.Module
    teachers: list[Teacher]
    task: Task
    device: torch.device
    rng: torch.Generator  # the method's stream; part of every checkpoint
    data: Any  # `images.Images`; None in games
    others: dict[str, tuple[Task, images.Split]] = field(default_factory=dict)  # {task of a stage: itself, its images}


def run(
    spec: RunSpec,
    *,
    results: Path,
    device: str = "cpu",
    force: bool = False,
    compiled: bool = False,
    checkpoint_seconds: float = 60.0,
    watcher: Watcher | None = None,
) -> RunRecord:
    """Return the record of a run: the finished one with its key if there is one, else after training it.

    `compiled` lets torch.compile have every network that carries no hooks: like device and threads it changes the last
    bits only, so it is in the record and not in the spec. Missing teachers are trained first.

    Raises KfbenchError for what the user can mend, Interrupted after a signal (a checkpoint is left), Diverged after a
    failed run (its record is written first).
    """
    watcher = watcher or Watcher()
    place = torch_device(device)
    check_room(results)
    prepared = prepare(spec, results=results, device=place, watcher=watcher)
    path = store.path_of(results, prepared.key, spec)
    if path.is_file() and not force:
        record = store.read(path)
        if record.status == "done":
            watcher.say(f"recorded already: {spec.method} on {spec.task}, seed {spec.seed} [{record.key}]")
            return record
    live = make_live(spec, prepared, device=place)
    if compiled:
        compile_networks(live)
    loop = make_loop(live)
    kept = results / ".checkpoints" / f"{prepared.key}.ckpt"
    if force:
        kept.unlink(missing_ok=True)
    record = RunRecord(
        key=prepared.key,
        spec=spec.to_json(),
        identity=prepared.identity,
        status="failed",
        provenance={**_provenance(prepared, place), "compiled": compiled},
    )
    try:
        if kept.is_file():
            restore(loop, kept)
            watcher.say(f"goes on from step {loop.position:,} of {loop.total:,}")
        _train(loop, spec, kept, checkpoint_seconds, watcher)
        if loop.seconds > checkpoint_seconds:  # whatever is wrong with scoring or the disk, the training is not lost
            write_checkpoint(kept, loop.state())
        _finish(record, live, loop, prepared, results)
    except Exception as error:
        if isinstance(error, KfbenchError) and not isinstance(error, Diverged):
            raise
        record.curve, record.error = loop.curve, f"{type(error).__name__}: {error}".splitlines()[0]
        record.traceback = "".join(traceback.format_exception(error))
        store.write(results, record)
        kept.unlink(missing_ok=True)
        raise
    store.write(results, record)
    kept.unlink(missing_ok=True)
    return record


@dataclass
class Prepared:
    """What is known of a run before its student is made."""

    key: str
    identity: dict[str, Any]
    method: Method
    declared: ImageTask | GameTask
    teachers: list[Teacher]
    data: Any
    data_checksum: str | None
    others: dict[str, Any] = field(default_factory=dict)  # {task of a stage: its `images.Images`}


def prepare(spec: RunSpec, *, results: Path, device: torch.device, watcher: Watcher) -> Prepared:
    """Load data and teachers (training the missing ones) and work out the run's key."""
    from kfbench import teacher_store

    method = registry.load_method(spec.method, spec.settings)
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
    checksum = data.checksum if data else None
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


def make_live(spec: RunSpec, prepared: Prepared, *, device: torch.device) -> Live:
    """Make the student and all that its loop works with, on the device."""
    rng = seeding.stream(spec.seed, "method")
    method, data, declared = prepared.method, prepared.data, prepared.declared
    if isinstance(declared, ImageTask):
        task = image_task(spec, spec.task, data)
        data = data.to(device)
    else:
        from kfbench.train.actor_critic import make_task

        assert isinstance(spec.recipe, GameRecipe)
        task = make_task(spec, declared)
    for teacher in prepared.teachers:
        teacher.network.to(device).to(memory_format=torch.channels_last)
    student = method.make_student(task, prepared.teachers, rng)
    student.to(device).to(memory_format=torch.channels_last)
    others = {name: (image_task(spec, name, other), other.train.to(device)) for name, other in prepared.others.items()}
    return Live(spec, method, student, prepared.teachers, task, device, rng, data, others)


def image_task(spec: RunSpec, name: str, data: images.Images) -> Task:
    """Return what a method is told of an image task on which a run trains."""
    from kfbench.train.supervised import steps

    assert isinstance(spec.recipe, Recipe)
    return Task(
        name=name,
        kind="images",
        shape=cast(tuple[int, int, int], tuple(data.train.images.shape[1:])),
        classes=data.classes,
        network=spec.recipe.network,
        seed=spec.seed,
        train_size=len(data.train),
        steps=steps(spec.recipe, len(data.train)),
        objective=CrossEntropy(spec.recipe.label_smoothing),
        mean=tuple(data.mean.tolist()),
        std=tuple(data.std.tolist()),
    )


@dataclass(frozen=True)
class CrossEntropy:
    """The supervised task's own loss, the mean over the batch in nats."""

    smoothing: float = 0.0

    def __call__(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Return {"cross-entropy": []}."""
        assert batch.labels is not None
        return {"cross-entropy": F.cross_entropy(output.logits.float(), batch.labels, label_smoothing=self.smoothing)}


def compile_networks(live: Live) -> None:
    """Compile the student's networks in place, where no hook reads or rewrites their layers: those it would freeze."""
    for network in live.student.modules():
        hooked = any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
        if isinstance(network, Network) and not hooked:
            network.compile()


def make_loop(live: Live) -> Loop:
    """Make the training loop of the task's kind."""
    if live.task.kind == "images":
        from kfbench.train.supervised import Supervised

        return Supervised(live)
    from kfbench.train.actor_critic import ActorCritic

    return ActorCritic(live)


def _train(loop: Loop, spec: RunSpec, kept: Path, checkpoint_seconds: float, watcher: Watcher) -> None:
    """Drive the loop to its end, with checkpoints on the way and at a signal."""
    watcher.start(spec, loop)
    try:
        with _signals() as asked:
            saved = time.monotonic()
            for row in loop:
                watcher.step(loop, row)
                due = time.monotonic() - saved >= checkpoint_seconds
                if (due or asked) and loop.position < loop.total:
                    write_checkpoint(kept, loop.state())
                    saved = time.monotonic()
                if asked:
                    raise Interrupted(
                        f"stopped at step {loop.position:,} of {loop.total:,}; the same command goes on from there"
                    )
    finally:
        watcher.stop()


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list instead of dying in mid-step; a second one dies."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(number: int, _frame: Any) -> None:
        if asked:
            signal.default_int_handler(number, _frame)
        asked.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a state of tensors and plain values, never half: an older one stays if this one cannot be written."""
    half = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"threads": torch.get_num_threads(), **state}, half)
        os.replace(half, path)
    except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError on a full disk
        raise KfbenchError(
            f"cannot write '{path}' ({_first_line(error)}); make room, and the same command goes on from the last one"
        ) from error
    finally:
        half.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a state; nothing but tensors and plain values is unpickled. Raises KfbenchError if it is damaged."""
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True)
        threads = state.pop("threads")
    except Exception as error:
        raise KfbenchError(f"checkpoint '{path}' cannot be read; delete it, or start anew with --force") from error
    if threads != torch.get_num_threads():
        raise KfbenchError(
            f"checkpoint '{path}' was made with --threads {threads}; give that, or start anew with --force"
        )
    return state


def restore(loop: Loop, path: Path) -> None:
    """Bring a loop to a checkpoint's state. Raises KfbenchError if the file is damaged or of another run."""
    state = read_checkpoint(path)
    try:
        loop.restore(state)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise KfbenchError(
            f"checkpoint '{path}' is not of this run ({_first_line(error)}); delete it, or start anew with --force"
        ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _finish(record: RunRecord, live: Live, loop: Loop, prepared: Prepared, results: Path) -> None:
    """Export the student, read the test split once, measure what is kept, and fill in the record."""
    last = live.method.export(live.student)
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
        **measure(last, live.task.shape, live.device),
    }
    record.status = "done"
    if isinstance(last, Network):
        about = {"task": live.task.name, "classes": list(live.task.classes), "key": record.key}
        place = store.path_of(results, record.key, live.spec).with_suffix(".safetensors")
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
            if device.type == "cuda":
                torch.cuda.synchronize(device)
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


def torch_device(name: str) -> torch.device:
    """Return a device that is there. Raises KfbenchError."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise KfbenchError(f"no device '{name}'; use cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise KfbenchError(f"no GPU '{name}': torch sees {torch.cuda.device_count()}; use --device cpu")
    if device.type not in ("cpu", "cuda"):
        raise KfbenchError(f"device '{name}' is not supported; use cpu, cuda or cuda:N")
    return device


def check_room(results: Path) -> None:
    """Find out before training, not after, whether results can be written. Raises KfbenchError."""
    probe = results / f".probe-{os.getpid()}"
    try:
        results.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"0" * 4096)
        probe.unlink()
        free = os.statvfs(results).f_bavail * os.statvfs(results).f_frsize
    except OSError as error:
        raise KfbenchError(
            f"cannot write to '{results}' ({error.strerror}); give another folder with --results"
        ) from error
    if free < ROOM:
        raise KfbenchError(f"only {free / 1e6:.0f} MB free for '{results}'; free some, or give --results elsewhere")
