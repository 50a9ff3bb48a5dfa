"""The one exception that users are meant to read, and the near-match sentence it ends with."""

import errno
import os
import traceback
import warnings
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path


class KfbenchError(Exception):
    """A user's mistake or a missing thing, in one line with its remedy; the command line exits with `exit_code`."""

    exit_code = 2


class NoRoom(KfbenchError):
    """A disk is full: once there is room, what was begun goes on from where it was last written down."""


class NoMemory(KfbenchError):
    """A device has no memory left for a run: that is recorded as failed, and goes on from its last checkpoint."""

    exit_code = 1


def is_full(error: BaseException) -> bool:
    """Say whether an error means that a disk is full, or what its owner may take of it."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None))


def unwritable(error: Exception, line: str) -> KfbenchError:
    """Return what to raise where a file cannot be written: NoRoom if the disk is full, else KfbenchError.

    Some writers (torch's, safetensors') have for a full disk an error of their own, which is no OSError.
    """
    return NoRoom(line) if is_full(error) or not isinstance(error, OSError) else KfbenchError(line)


class KfbenchWarning(UserWarning):
    """Something a user should know, in one line; the command line prints it and goes on."""


@cache
def warn_once(line: str) -> None:
    """Warn of something that is met more than once in a run, as its teachers are loaded more than once."""
    warnings.warn(line, KfbenchWarning, stacklevel=2)


def place(error: BaseException, file: Path | str) -> str:
    """Return " (mine.py:12)", the innermost line of a file that an error came by; "" if it came by none."""
    ours, line = os.path.realpath(file), 0
    cause: BaseException | None = error
    while cause is not None:
        for frame, number in traceback.walk_tb(cause.__traceback__):
            line = number if os.path.realpath(frame.f_code.co_filename) == ours else line
        cause = cause.__cause__
    return f" ({Path(file).name}:{line})" if line else ""


def near(
    asked: str,
    there: Iterable[str],
    *,
    most: int = 12,
    titles: Mapping[str, str] | None = None,
    first: Collection[str] = (),
) -> str:
    """Return "did you mean 'x'?", or the list of what there is; case and punctuation do not count.

    `titles` are longer names, {title: name}, under which people may know a thing; the list begins with the names of
    `first`.
    """
    names = sorted(there, key=lambda name: (name not in first, name))
    plain: dict[str, str] = {}
    for known, name in [*((name, name) for name in names), *(titles or {}).items()]:
        plain.setdefault(_plain(known), name)
    close = get_close_matches(_plain(asked), plain, n=1, cutoff=0.6)
    if close and _plain(asked):
        return f"did you mean '{plain[close[0]]}'?"
    shown = ", ".join(names[:most]) + (", …" if len(names) > most else "")
    return f"there is: {shown}" if names else "there is none"


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


class Diverged(KfbenchError):
    """A part of the loss is no longer finite; the run is recorded as failed."""

    exit_code = 1

    def __init__(self, part: str, step: int, then: str = "") -> None:
        at_once = "no weight had moved yet: look at the method's formula, its settings and its teachers"
        then = then or ("try a lower rate: --set-recipe lr=…" if step else at_once)
        super().__init__(f"loss part '{part}' was not finite at step {step}; {then}")
        self.part, self.step = part, step
