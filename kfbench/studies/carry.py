"""One run, carried anywhere: its files are laid out in a folder, `execute.run`, its record and weights are handed back.

The folder mirrors `results/`: teachers lie in `teachers/`, the checkpoint in `.checkpoints/`. Engines move what goes in
and what comes out; nothing here knows where it is.
"""

import contextlib
import os
import platform
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from kfbench import registry
from kfbench.errors import Diverged, KfbenchError, NoMemory, NoRoom, is_full
from kfbench.running import execute, prepare, records
from kfbench.running.files import CHECKPOINTS, store
from kfbench.spec import RunSpec
from kfbench.train.loop import Loop, Watcher
from kfbench.version import __version__

TELL = 1.0  # seconds between reports
PATIENCE = 30.0  # seconds that a judged run waits for the pruner's verdict
Files = Mapping[str, Path | bytes]  # {place below a results folder: a file or folder on this machine, or its content}
State = Literal["done", "failed", "refused", "pruned", "stopped", "full", "lost", "memory"]
Word = Literal["go", "stop", "prune"]
Report = Callable[[dict[str, Any]], Word]  # takes an event of the run, returns what it is to do


@dataclass(frozen=True)
class Order:
    """What a worker must know of a run; plain values, to be pickled."""

    name: str  # of the job: of its folder, and of its log until the record has a key
    spec: dict[str, Any]
    is_teacher: bool = False
    is_judged: bool = False  # a pruner looks at its scores: it waits for the verdict
    after: tuple[str, ...] = ()  # names of teachers' orders under way, whose files are taken when this one starts
    device: str = "cpu"
    threads: int = 1
    checkpoint_seconds: float = 60.0
    versions: dict[str, str] = field(default_factory=dict)
    chosen: dict[str, Any] | None = None  # how the teachers were chosen, for the record
    results: str = ""  # the driver's results folder: what is said of a file says where it lies there
    bag: str = ""  # the driver's folder of this run, where its checkpoint lies


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    "stopped": it left a checkpoint; "full": its disk has no room, and an older checkpoint may be there; "lost": its
    worker died; "memory": for want of memory.
    """

    state: State
    why: str = ""
    files: Files = field(default_factory=dict)  # record, weights; else the checkpoint


class Pruned(KfbenchError):
    """The pruner wants to see no more of this run."""


def carry(order: Order, files: Files, *, folder: Path, report: Report) -> Outcome:
    """Make a run in a folder of its own; whatever happens is told by the outcome. Signals are heard in main threads."""
    spec, why = registry.read_spec(order.spec), ""
    state: State = "done"
    run = partial(execute.run, chosen=order.chosen)
    place, make = (store(folder), execute.teacher) if order.is_teacher else (folder, run)
    try:
        check_versions(order)
        lay_out(files, folder)
        torch.set_num_threads(order.threads)
        if not order.is_teacher and prepare.missing_teachers(spec, results=folder):
            raise KfbenchError("its teachers did not come along")  # or each run would train them for itself
        report(_event(order.device))
        make(
            spec,
            results=folder,
            device=order.device,
            checkpoint_seconds=order.checkpoint_seconds,
            watcher=Reporter(order.device, report),
        )
    except execute.Interrupted as error:
        state, why = "stopped", str(error)
    except NoRoom as error:
        state, why = "full", str(error)
    except KfbenchError as error:
        is_failed = isinstance(error, Diverged | NoMemory)
        state, why = "pruned" if isinstance(error, Pruned) else "failed" if is_failed else "refused", str(error)
    except Exception as error:
        state, why = "full" if is_full(error) else "failed", f"{type(error).__name__}: {error}".splitlines()[0]
        with contextlib.suppress(OSError):
            traceback.print_exc(file=sys.stdout)
    why = driver_paths(why, folder, order)
    with contextlib.suppress(OSError):  # of a full disk: what there is to say is in the outcome
        print(f"{state}{': ' if why else ''}{why}", flush=True)
    left = {path.relative_to(folder).as_posix(): path for path in _left(place, spec)}
    return Outcome(state, why, left)


def driver_paths(why: str, folder: Path, order: Order) -> str:
    """Return a message that calls files of a worker's folder as they are on the driver's machine, for its user."""
    if not order.results:
        return why
    homes = {CHECKPOINTS: order.bag}  # all else is of the results
    inside = re.compile(re.escape(f"{folder}{os.sep}") + f"({re.escape(CHECKPOINTS)})?")
    return inside.sub(lambda found: f"{homes.get(found[1], order.results)}{os.sep}{found[1] or ''}", why)


def lay_out(files: Files, folder: Path) -> None:
    """Put files where a run looks for them: content is written, what is on this machine is linked.

    Where links may not be made (Windows keeps them for administrators and developers), files are copied; without a
    folder, the memory of teachers' answers, a run fills its own.
    """
    for name, source in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(source, bytes):
            target.write_bytes(source)
            continue
        if target.is_symlink() and target.resolve() != source.resolve():  # the results folder was moved, or copied
            target.unlink()
        if not target.is_symlink() and not target.exists():
            try:
                target.symlink_to(source.resolve(), target_is_directory=source.is_dir())
            except OSError:
                if source.is_file():
                    half = target.with_name(f".half-{target.name}")
                    shutil.copy2(source, half)
                    half.replace(target)  # whole, or not there


def _left(place: Path, spec: RunSpec) -> Iterator[Path]:
    """Yield the weights and the record that a run has left, weights first, or its checkpoint."""
    for path in records.path_of(place, "", spec).parent.glob("*.json"):
        if not path.is_symlink() and records.read(path).spec == spec.to_json():
            yield from (each for each in (path.with_suffix(".safetensors"), path) if each.is_file())
    yield from place.glob(f"{CHECKPOINTS}/*.ckpt")


def versions() -> dict[str, str]:
    """Return what the driver and a worker must have in common."""
    return {"torch": torch.__version__, "kfbench": __version__}


def check_versions(order: Order) -> None:
    """Refuse a machine whose numbers may differ. Raises KfbenchError."""
    for name, wanted in order.versions.items():
        if wanted != versions()[name]:
            raise KfbenchError(f"a worker has {name} {versions()[name]}, the driver {wanted}; install the same on both")


def _event(device: str, **told: Any) -> dict[str, Any]:
    """Return what is reported of a run, and where it is; the first one says that it has begun.

    `score` is what a pruner goes by, higher is better; `val` and its `unit` are what people read.
    """
    nothing = {"step": 0, "progress": 0.0, "score": None, "val": None, "unit": "", "rate": 0.0}
    return {**nothing, **told, "node": platform.node(), "device": device, "pid": os.getpid()}


class Reporter(Watcher):
    """Says the run's news to its log, reports how far it is, and does what the answer is."""

    def __init__(self, device: str, report: Report) -> None:
        self._device, self._report = device, report
        self._told, self._is_stopping = 0.0, False

    def say(self, line: str) -> None:
        """Put a line into the log."""
        print(line, flush=True)

    def start(self, spec: RunSpec, loop: Loop) -> None:
        """Say what begins."""
        self._kind = registry.kind_of(spec.task)
        self.say(f"{spec.method} on {spec.task}, seed {spec.seed}: {loop.total:,} steps")
        self._told = 0.0

    def step(self, loop: Loop, row: dict[str, float] | None) -> None:
        """Report now and then, and at every score. Raises Pruned; a checkpoint is asked for by a signal, as ever."""
        score = None if row is None else self._kind.goodness(row)
        if score is None and time.monotonic() - self._told < TELL:
            return
        self._told = time.monotonic()
        rate = loop.status().get("rate", 0.0)
        event = _event(self._device, step=loop.position, progress=loop.position / loop.total, score=score, rate=rate)
        if row is not None and score is not None:
            val, unit = row[f"val_{self._kind.metric}"], self._kind.score_unit
            event |= {"val": val, "unit": unit}
            self.say(f"step {loop.position:,} of {loop.total:,}: val {val:.2f} {unit}, {rate:,.0f} a second")
        word = self._report(event)
        if word == "prune":
            raise Pruned(f"pruned at step {loop.position:,} of {loop.total:,}")
        if word == "stop" and not self._is_stopping:
            self._is_stopping = True  # a second signal would not wait for the checkpoint
            signal.raise_signal(signal.SIGTERM)
