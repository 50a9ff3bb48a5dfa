"""A watcher that writes how far its run is, for `kfbench status`; the file is described in `running/status.py`."""

import contextlib
import json
import math
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kfbench import registry
from kfbench.errors import KfbenchError
from kfbench.running import status
from kfbench.running.files import write_text
from kfbench.spec import RunSpec
from kfbench.train.loop import Loop, Row, Watcher

EVERY = 2.0  # seconds between two writings


class Heartbeat(Watcher):
    """Writes how far a run is, and passes on all that it is told to another watcher."""

    def __init__(self, path: Path, told: dict[str, Any], then: Watcher, *, score: str) -> None:
        self._path, self.told, self._then, self._score = path, told, then, score
        self._written = -math.inf
        self._first = (0.0, 0.0)  # time, and progress: where this process began
        self._loop: Loop | None = None

    def say(self, line: str) -> None:
        self._then.say(line)

    def begin(self, key: str, spec: RunSpec) -> None:
        self._then.begin(key, spec)

    def start(self, spec: RunSpec, loop: Loop) -> None:
        self._first, self._loop = (time.time(), loop.position / loop.total), loop
        self._look(loop)
        self._then.start(spec, loop)

    def step(self, loop: Loop, row: Row | None) -> None:
        if row and self._score in row:
            self.told["score"] = row[self._score]
        if time.monotonic() - self._written > EVERY:
            self.told["rate"] = loop.status()["rate"]
            self._look(loop)
        self._then.step(loop, row)

    def stop(self) -> None:
        if self._loop is not None:
            self._look(self._loop)
        self._then.stop()

    def _look(self, loop: Loop) -> None:
        progress = loop.position / loop.total
        left = status.left(*self._first, progress)
        self.told |= {"step": loop.position, "total": loop.total, "progress": progress, "left": left}
        self.write()

    def write(self) -> None:
        """Write the file; that it cannot be written ends no run."""
        self._written = time.monotonic()
        self.told["updated"] = time.time()
        finite = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in self.told.items()
        }
        with contextlib.suppress(OSError):
            write_text(self._path, json.dumps(finite, indent=1) + "\n")

    def forget(self) -> None:
        """Delete the file."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


@contextlib.contextmanager
def heartbeat(key: str, spec: RunSpec, *, results: Path, device: str, then: Watcher) -> Iterator[Watcher]:
    """Yield a watcher that writes a run's status file and passes on to `then`; at a bad end the file says why."""
    kind = registry.kind_of(spec.task)
    told = {
        "run": key,
        "label": f"{spec.method} on {spec.task}, seed {spec.seed}",
        "state": "running",
        "why": "",
        "started": time.time(),
        "pid": os.getpid(),
        "node": platform.node(),
        "device": device,
        "step": 0,
        "total": 0,
        "progress": 0.0,
        "rate": None,
        "left": None,
        "score": None,
        "unit": kind.score_unit,
    }
    beat = Heartbeat(status.place(results) / f"{key}.json", told, then, score=f"val_{kind.metric}")
    beat.write()
    try:
        yield beat
    except BaseException as error:
        is_stopped = getattr(error, "exit_code", 130 if isinstance(error, KeyboardInterrupt) else 1) == 130
        beat.told |= {"state": "stopped" if is_stopped else "failed", "left": None}
        words = str(error) if isinstance(error, KfbenchError) else f"{type(error).__name__}: {error}"
        beat.told["why"] = words.splitlines()[0]
        beat.write()
        raise
    beat.forget()
