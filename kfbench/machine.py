"""What this machine is: its processor, its cores, the room on its disks; files made whole; whose turn it is there."""

import contextlib
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

MOMENT = 0.5  # seconds after which one is told that another process is within


def processor(device: str = "cpu") -> str:
    """Return the name of the processor, as far as the system tells it, or of the GPU (`cuda:0`).

    Linux's name is followed by family and model: on rented machines `AMD EPYC` may be any of five generations.
    """
    if device.startswith("cuda"):
        import torch  # who asks for a GPU's name has it already

        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0].splitlines()  # of the first core
    except OSError:
        lines = []
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = told.get("model name") or platform.processor() or platform.machine()
    which = [f"{key.removeprefix('cpu ')} {told[key]}" for key in ("cpu family", "model") if told.get(key)]
    return f"{name} ({', '.join(which)})" if which else name


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def write_at(file: IO[bytes], data: Any, start: int) -> int:
    """Write bytes at a place of an unbuffered file and return how many: `os.pwrite`, which Windows has not."""
    file.seek(start)
    return file.write(data)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give an empty file beside a path to write to, and rename it into place at the end; if that fails it goes.

    An older file stays until then. Folders are made as needed. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # with an ending, which torch's writer wants; not the path's own, by which a half could be taken for a whole
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".tmp-", suffix=".half")
    os.close(handle)
    half = Path(name)
    try:
        yield half
        os.chmod(half, 0o644)
        os.replace(half, path)
    finally:
        half.unlink(missing_ok=True)


def free(folder: Path) -> int:
    """Return the free bytes of the disk on which a folder lies. Raises OSError if it is not there."""
    return shutil.disk_usage(folder).free


@contextlib.contextmanager
def alone(path: Path, *, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Let one process at a time go on, by a lock on a file; `waiting` is called once where another is within.

    Where the filesystem has no locks, as some of clusters, or none can be written, nobody waits.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    with contextlib.suppress(NotImplementedError, OSError):  # the first is filelock's word for such a filesystem
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=MOMENT)
        except Timeout:
            waiting()
            lock.acquire()
    try:
        yield
    finally:
        lock.release()
