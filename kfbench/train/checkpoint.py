"""Checkpoints: a loop's state on disk, never half, never unpickled; and signals that ask for one."""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from kfbench import machine
from kfbench.errors import KfbenchError, unwritable
from kfbench.train.loop import Loop

Changed = Callable[[Mapping[str, str]], list[str]]
NONE: Mapping[str, str] = {}
REMEDY = "delete it, or start anew with kfbench run --force"  # in a study too: it counts such a run
OF_DEVICE = (torch.OutOfMemoryError, torch.AcceleratorError)  # RuntimeErrors that are no fault of a file


def write(path: Path, state: dict[str, Any], *, code: Mapping[str, str] = NONE, forced: bool = False) -> None:
    """Write a state of tensors and plain values, never half: an older one stays if this one cannot be written.

    `code` says which files the run is made by, {name: digest}, `forced` that it is made again by `--force`.
    Raises NoRoom on a full disk, KfbenchError if the file may not be written.
    """
    whole = {"threads": torch.get_num_threads(), "code": dict(code), "forced": forced, **state}
    try:
        with machine.replacing(path) as half:
            torch.save(whole, half)
    except OF_DEVICE:
        raise
    except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError on a full disk
        line = (
            f"cannot write '{path}' ({_first_line(error)}); make room, and the same command goes on from the last one"
        )
        raise unwritable(error, line) from error


def read(path: Path, *, changed: Changed = lambda code: []) -> dict[str, Any]:
    """Read a state; nothing but tensors and plain values is unpickled.

    `changed` returns which files are others now. Raises KfbenchError if it is damaged, or of other threads or code.
    """
    state = _read(path, changed)
    state.pop("forced", None)
    return state


def is_forced(path: Path, *, changed: Changed = lambda code: []) -> bool:
    """Say whether a checkpoint is of a run that `--force` began, and today's code and threads can go on from it."""
    try:
        return bool(_read(path, changed).get("forced"))
    except KfbenchError:
        return False


def _read(path: Path, changed: Changed) -> dict[str, Any]:
    try:
        # to the CPU, from which the loop copies it: the GPU it was saved from may be another's, or not be here
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        threads, code = state.pop("threads"), state.pop("code", {})
    except Exception as error:
        raise KfbenchError(f"checkpoint '{path}' cannot be read; {REMEDY}") from error
    if threads != torch.get_num_threads():
        raise KfbenchError(f"checkpoint '{path}' was made with --threads {threads}; give that, {REMEDY}")
    if others := changed(code):
        raise KfbenchError(f"checkpoint '{path}' was made before {' and '.join(others)} changed; {REMEDY}")
    return state


def restore(loop: Loop, path: Path, *, changed: Changed = lambda code: []) -> None:
    """Bring a loop to a checkpoint's state. Raises KfbenchError if the file is damaged or of another run."""
    state = read(path, changed=changed)
    try:
        loop.restore(state)
    except OF_DEVICE:
        raise
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise KfbenchError(f"checkpoint '{path}' is not of this run ({_first_line(error)}); {REMEDY}") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


@contextmanager
def signals() -> Iterator[list[int]]:
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
