"""RunSpec -> RunRecord: the whole life of a run, after what it needs has been planned (`prepare.py`)."""

import contextlib
import dataclasses
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from kfbench import machine
from kfbench.errors import Diverged, KfbenchError, NoMemory, NoRoom, is_full, unwritable
from kfbench.running import files, identity, outcome, prepare, provenance, records, stand_in, teacher_store
from kfbench.running.device import torch_device
from kfbench.running.heartbeat import heartbeat
from kfbench.running.identity import HARNESS
from kfbench.running.prepare import Plan
from kfbench.running.records import RunRecord
from kfbench.spec import RunSpec
from kfbench.train import checkpoint
from kfbench.train.loop import Loop, Watcher
from kfbench.train.setup import Setup

ROOM = 50e6  # bytes that must be free for results before training starts


class Interrupted(KfbenchError):
    """Stopped by a signal, with a checkpoint to go on from."""

    exit_code = 130


@dataclass(frozen=True)
class Conditions:
    """How runs are carried out: what changes no number, or the last bits only, and so is in the record, not in a spec.

    `compiled` lets torch.compile have every network that carries no hooks. `remember`: where the recipe fixes `views`,
    teachers' answers come from the memory in `results/.cache/memory` (see `train/memory.py`), or are computed in every
    step without it. `half`: matrices of the weights are kept in half precision, as the teacher store does. `chosen`
    tells how the teachers were chosen, if they were not named. `forced`: what is recorded is made again.
    """

    device: torch.device
    watcher: Watcher
    compiled: bool = False
    remember: bool = True
    checkpoint_seconds: float = 60.0
    half: bool = False
    chosen: Mapping[str, Any] | None = None
    forced: bool = False


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
    chosen: Mapping[str, Any] | None = None,
) -> RunRecord:
    """Return the record of a run: the finished one with its key if there is one, else after training it.

    The teachers that `prepare.missing_teachers` lists are trained first. For the options see `Conditions`.

    Raises KfbenchError for what the user can mend, Interrupted after a signal (a checkpoint is left), and after a
    failed run, whose record is written first, Diverged or NoMemory.
    """
    conditions = Conditions(
        torch_device(device), watcher or Watcher(), compiled, remember, checkpoint_seconds, chosen=chosen, forced=force
    )
    check_room(results)
    missing = prepare.missing_teachers(spec, results=results)
    if missing:
        prepare.require_others(spec, results=results)
        stand_in.require_student(spec, results=results)
    for wanted in missing:
        teacher(wanted, results=results, device=device, checkpoint_seconds=checkpoint_seconds, watcher=watcher)
    plan = prepare.plan(spec, results=results)
    with _alone(plan, results, conditions.watcher):
        file = checkpoint_of(plan, results)
        if force and not checkpoint.is_forced(file, changed=partial(identity.changed, spec)):
            file.unlink(missing_ok=True)
        if not force and (record := finished(plan, results)):
            conditions.watcher.say(f"recorded already: {spec.method} on {spec.task}, seed {spec.seed} [{record.key}]")
            if edited := identity.changed(spec, record.provenance.get("code", {})):
                conditions.watcher.say(
                    f"note: {' and '.join(edited)} changed since; run it again with --force, or raise the method's "
                    "`revision`, and none of its records counts any more"
                )
            return record
        return _make(plan, results, conditions)


def teacher(
    wanted: RunSpec,
    *,
    results: Path,
    device: str = "cpu",
    checkpoint_seconds: float = 60.0,
    watcher: Watcher | None = None,
) -> RunRecord:
    """Return the record of a teacher in the store of `results`, trained first if that lacks it or its weights."""
    watcher = watcher or Watcher()
    record = teacher_store.stored(wanted, results)
    if record is not None:
        return record
    plan, store = prepare.plan(wanted, results=results), files.store(results)
    with _alone(plan, store, watcher):
        record = teacher_store.stored(wanted, results)  # another process may have made it meanwhile
        if record is not None:
            return record
        again = " has a record but no weights here: it is trained again" if finished(plan, store) else ":"
        watcher.say(f"teacher {prepare.called(wanted)}{again}")
        conditions = Conditions(torch_device(device), watcher, checkpoint_seconds=checkpoint_seconds, half=True)
        return _make(plan, store, conditions)


@contextlib.contextmanager
def _alone(plan: Plan, place: Path, watcher: Watcher) -> Iterator[None]:
    """Let one process of those that share a folder make a run, which has one checkpoint there; others wait for it."""
    told = f"another process makes {plan.spec.method} on {plan.spec.task} [{plan.key}]; this one waits for it"
    with machine.alone(files.cache(place) / "locks" / f"{plan.key}.lock", waiting=partial(watcher.say, told)):
        yield


def _make(plan: Plan, place: Path, conditions: Conditions) -> RunRecord:
    """Train, score and record a run in the folder `place`, whose teachers are there."""
    file = checkpoint_of(plan, place)
    with _memory_told(conditions.device):
        setup = _setup(plan, place, conditions)
        loop = prepare.make_loop(setup)
    record = RunRecord(
        key=plan.key,
        spec=plan.spec.to_json(),
        identity=plan.identity,
        status="failed",
        provenance=_provenance(setup, plan, conditions),
    )
    try:
        conditions.watcher.begin(plan.key, plan.spec)
        told = heartbeat(plan.key, plan.spec, results=place, device=str(setup.device), then=conditions.watcher)
        with told as watcher, _memory_told(conditions.device):
            _train(loop, plan.spec, file, dataclasses.replace(conditions, watcher=watcher))
            outcome.fill_in(record, setup, loop, results=place, half=conditions.half)
    except Exception as error:
        if isinstance(error, KfbenchError) and not isinstance(error, Diverged | NoMemory):
            raise  # what the user can mend is no failure of the run
        if is_full(error):
            raise NoRoom(f"the disk is full ({error}); make room, and the same command goes on") from error
        record.curve, record.error = loop.curve, f"{type(error).__name__}: {error}".splitlines()[0]
        record.traceback = "".join(traceback.format_exception(error))
        records.write(place, record)
        if not _goes_on(loop, error):
            file.unlink(missing_ok=True)
        raise
    records.write(place, record)
    file.unlink(missing_ok=True)
    return record


def _goes_on(loop: Loop, error: Exception) -> bool:
    """Say whether a failed run can go on another time: only its scoring is left, or the device had no room for it."""
    is_trained = loop.position == loop.total and not isinstance(error, Diverged)
    return is_trained or isinstance(error, (NoMemory, *checkpoint.OF_DEVICE))


@contextlib.contextmanager
def _memory_told(device: torch.device) -> Iterator[None]:
    """Say what to do where a device's memory runs out: others may have it, for now."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        said = " ".join(str(error).partition(" If reserved")[0].split()).rstrip(".")  # else torch's own settings follow
        raise NoMemory(
            f"{device} has no memory left ({said}); with fewer runs or others' programs on it the same command goes on "
            "from the last checkpoint, else a smaller network or batch is another run: --set-recipe batch_size=…"
        ) from error


def checkpoint_of(plan: Plan, results: Path) -> Path:
    """Return where a run's checkpoint lies."""
    return files.checkpoint(results, plan.key)


def finished(plan: Plan, results: Path) -> RunRecord | None:
    """Return the finished record of a run, if a results folder has it."""
    path = records.path_of(results, plan.key, plan.spec)
    record = records.read(path) if path.is_file() else None
    return record if record is not None and record.status == "done" else None


def _setup(plan: Plan, place: Path, conditions: Conditions) -> Setup:
    """Return what the loop works with, compiled and with a memory of its teachers as the conditions say."""
    setup = prepare.setup(plan, device=conditions.device)
    if conditions.compiled:
        prepare.compile_networks(setup)
    if conditions.remember:
        source = {"data": plan.identity["data"], "harness": HARNESS}
        training = prepare.training_for(plan.spec)
        setup.memory = training.memory(setup, place / files.MEMORY, source=source, say=conditions.watcher.say)
    return setup


def _train(loop: Loop, spec: RunSpec, file: Path, conditions: Conditions) -> None:
    """Drive the loop to its end, from a checkpoint if one is there, with checkpoints on the way and at a signal."""
    watcher, every = conditions.watcher, conditions.checkpoint_seconds
    save = partial(checkpoint.write, file, code=identity.code(spec), forced=conditions.forced)
    if file.is_file():
        try:
            checkpoint.restore(loop, file, changed=partial(identity.changed, spec))
        except KfbenchError:
            if conditions.forced:  # what --force cannot go on from it would meet again
                file.unlink()
            raise
        watcher.say(f"goes on from step {loop.position:,} of {loop.total:,}")
    watcher.start(spec, loop)
    try:
        with checkpoint.signals() as asked:
            saved = time.monotonic()
            for row in loop:
                watcher.step(loop, row)
                due = time.monotonic() - saved >= every
                if asked or (due and loop.position < loop.total):
                    save(loop.state())
                    saved = time.monotonic()
                if asked:
                    raise Interrupted(
                        f"stopped at step {loop.position:,} of {loop.total:,}; the same command goes on from there"
                    )
    finally:
        watcher.stop()
    if loop.seconds > every:  # whatever is wrong with scoring or the disk, the training is not lost
        save(loop.state())


def _provenance(setup: Setup, plan: Plan, conditions: Conditions) -> dict[str, object]:
    teachers = [
        {"name": t.name, "digest": t.digest, "network": t.network.name, "task": t.task, "seconds": t.seconds}
        for t in setup.teachers
    ]
    return {
        **provenance.of_run(setup.device),
        "data": plan.identity["data"],
        "teachers": teachers,
        "code": identity.code(plan.spec),
        "compiled": conditions.compiled,
        "remembers": setup.memory is not None,
        **({"teachers_chosen": dict(conditions.chosen)} if conditions.chosen is not None else {}),
    }


def check_room(results: Path) -> None:
    """Find out before training, not after, whether results can be written. Raises NoRoom, or KfbenchError."""
    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=results, prefix=".probe-") as probe:
            (Path(probe) / "probe").write_bytes(b"0" * 4096)
        free = machine.free(results)
    except OSError as error:
        line = f"cannot write to '{results}' ({error.strerror}); give another folder with --results"
        raise unwritable(error, line) from error
    if free < ROOM:
        raise NoRoom(f"only {free / 1e6:.0f} MB free for '{results}'; free some, or give --results elsewhere")
