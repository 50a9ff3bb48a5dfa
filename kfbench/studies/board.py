"""What is seen of many runs: one bar for all of them, a row for each that is under way; and the same in a file.

The file, `results/.cache/status/<study>.json`, is what `kfbench status` reads in another terminal.
"""

import contextlib
import json
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from kfbench.running.files import write_text
from kfbench.running.status import left
from kfbench.studies.trials import Job

WRITE = 2.0  # seconds between two writings of the file


class Board:
    """Shows and writes how far a study is."""

    def __init__(self, title: str, total: int, *, path: Path, logs: Path, shown: Progress, on: str) -> None:
        self._path, self._logs, self._shown, self._written = path, logs, shown, 0.0
        self._rows: dict[str, TaskID] = {}
        self._last = ""
        self._whole = shown.add_task(title, total=total, note="")
        self._status: dict[str, Any] = {"study": title, "driver": {"pid": os.getpid(), "node": platform.node()}}
        self._status |= {"on": on, "started": time.time(), "total": total, "ended": 0, "failed": [], "running": {}}

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        self._shown.console.print(line, soft_wrap=True, markup=False)

    def begin(self, job: Job) -> None:
        """Show a run that was handed to the engine."""
        log = str(self._logs / f"{job.name}.log")
        self._status["running"][job.name] = {"label": job.label, "log": log, "started": time.time(), "progress": 0.0}
        self._rows[job.name] = self._shown.add_task(f"  {job.label}", total=1.0, note="waits")

    def mark(self, name: str, *, others: bool) -> None:
        """Note whether another study has a run."""
        self._status["running"][name]["others"] = others

    def event(self, name: str, event: dict[str, Any]) -> None:
        """Show how far a run is, where, and how fast."""
        row = self._status["running"][name]
        row |= {key: event[key] for key in ("step", "progress", "rate", "node", "device", "pid")}
        row |= {"score": event["val"], "unit": event["unit"]} if event["val"] is not None else {}
        if event["step"] == 0:  # it has begun, and may go on from a checkpoint
            return
        first = row.setdefault("first", (time.time(), event["progress"]))
        row["left"] = left(first[0], first[1], event["progress"])
        note = f"{row['node']} {row['device']} · {row['rate']:,.0f}/s"
        self._shown.update(self._rows[name], completed=event["progress"], note=note)

    def end(self, job: Job, state: str, why: str, *, log: str) -> None:
        """Take a run off the board; say what went wrong with it."""
        self._status["running"].pop(job.name, None)
        if job.name in self._rows:
            self._shown.remove_task(self._rows.pop(job.name))
        self._status["ended"] += 1
        self._written = 0.0  # the next look writes the file: a driver that is killed then has told of it
        if state not in ("done", "pruned"):
            row = {
                "name": job.name,
                "label": job.label,
                "state": state,
                "why": why,
                "log": str(self._logs / f"{log}.log"),
            }
            self._status["failed"].append(row)
            self.say(f"{job.label}: {state}: {why}")
        if not self._shown.console.is_terminal:
            self.say(f"{self._status['ended']} of {self._status['total']}: {job.label}: {state}")

    def look(self, *, is_over: bool = False) -> None:
        """Bring the bar, and now and then the file, up to date."""
        status = self._status
        part = sum(row["progress"] for row in status["running"].values())
        bad = f", {len(status['failed'])} failed" if status["failed"] else ""
        note = f"{status['ended']} of {status['total']}{bad}"
        self._shown.update(self._whole, completed=status["ended"] + part, note=note)
        if is_over or time.monotonic() - self._written > WRITE:
            self._written = time.monotonic()
            status |= {"updated": time.time(), "over": is_over}
            with contextlib.suppress(OSError):  # a full disk must not end a study
                write_text(self._path, json.dumps(status, indent=1) + "\n")


def forget(title: str, cache: Path) -> None:
    """Remove what an earlier driver wrote of a study that lacks nothing any more."""
    _file(title, cache).unlink(missing_ok=True)


def _file(title: str, cache: Path) -> Path:
    return cache / "status" / f"{title.replace('/', '-')}.json"


@contextlib.contextmanager
def open_board(title: str, total: int, cache: Path, console: Console, *, on: str = "local") -> Iterator[Board]:
    """Show a board while runs are made."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    path = _file(title, cache)
    shown = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    # before version 14.3 of Rich even a disabled one ends in an empty line
    with shown if console.is_terminal else contextlib.nullcontext():
        board = Board(title, total, path=path, logs=cache / "logs", shown=shown, on=on)
        try:
            yield board
        finally:
            board.look(is_over=True)
