"""Who works on what: one driver a study, and one a run, for studies may share a results folder and runs in it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from kfbench.errors import KfbenchError
from kfbench.studies.place import Place


class Busy(KfbenchError):
    """Another driver is at work on it."""


MOMENT = 1.0  # seconds in which another driver lets go of a lock that it only looked at


@contextlib.contextmanager
def alone(place: Place, name: str) -> Iterator[None]:
    """Let one driver of a study work at a time. Raises Busy if there is another."""
    path = _lock(place, name)
    path.parent.mkdir(exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=MOMENT)
    except Timeout as error:
        raise Busy(f"'{name}' is being run already in '{place.results}'; see: kfbench status") from error
    try:
        yield
    finally:
        lock.release()


def claim(place: Place, run: str, *, driver: str) -> bool:
    """Take a run's folder for the driver of a study; False: another driver, which is alive, has it.

    No lock is held for that: the folder names its driver, who holds the lock of its study. Raises OSError.
    """
    bag = place.cache / "runs" / run
    with FileLock(place.cache / "status" / ".claims.lock"):
        with contextlib.suppress(FileNotFoundError):
            owner = (bag / "driver").read_text(encoding="utf-8")
            if owner == driver:
                return True
            if owner and _is_alive(place, owner):
                return False
        bag.mkdir(exist_ok=True)
        (bag / "driver").write_text(driver, encoding="utf-8")
    return True


def _lock(place: Place, name: str) -> Path:
    return place.cache / "status" / f"{name.replace('/', '-')}.lock"


def _is_alive(place: Place, name: str) -> bool:
    """Say whether a study has a driver."""
    lock = FileLock(_lock(place, name))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    lock.release()
    return False
