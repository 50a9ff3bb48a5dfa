"""Files of a results folder: where they lie, records found by their names, text written whole.

No pydantic, which lists do without.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from kfbench import machine
from kfbench.errors import KfbenchError

EXPORTS = {".safetensors": "weights", ".pt2": "a program"}  # endings, and what is written under them
TABLES = {".csv": "a table"}
FILMS = {".gif": "an image that moves", ".mp4": "a film"}
STORE, CHECKPOINTS, CACHE = "teachers", ".checkpoints", ".cache"  # what a results folder has beside its records
MEMORY = f"{CACHE}/memory"  # of teachers' answers


def store(results: Path) -> Path:
    """Return the folder of a results folder's teachers, which is laid out as one itself."""
    return results / STORE


def both(results: Path) -> tuple[Path, Path]:
    """Return a results folder and its teacher store."""
    return results, store(results)


def imported(results: Path) -> Path:
    """Return the folder of teachers that others trained."""
    return store(results) / "imported"


def cache(results: Path) -> Path:
    """Return the folder of what is no result: `status`, `locks`, `memory`, `logs`, studies' `runs` and database."""
    return results / CACHE


def checkpoint(results: Path, key: str) -> Path:
    """Return where the checkpoint of a run lies."""
    return results / CHECKPOINTS / f"{key}.ckpt"


def require_ending(path: Path, endings: Mapping[str, str]) -> None:
    """Raise KfbenchError unless a path has one of these endings."""
    if path.suffix.lower() not in endings:
        known = " or ".join(f"{ending} ({what})" for ending, what in endings.items())
        raise KfbenchError(f"'{path}' must end in {known}")


def write_text(path: Path, text: str) -> None:
    """Write a file as `write_bytes` does, with the same bytes anywhere."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file by renaming a finished one into place; folders are made as needed."""
    with machine.replacing(path) as half:
        half.write_bytes(content)


def require_folder(results: Path) -> None:
    """Raise KfbenchError unless there is such a folder: else a full page would give way to an empty one."""
    if not results.is_dir():
        raise KfbenchError(f"no folder '{results}'; name the one with the records with --results")


def record_files(results: Path) -> list[Path]:
    """Return what may be records: no teachers, and nothing of `.cache` and its like; none where there is no folder.

    Raises KfbenchError if it is a file.
    """
    if results.is_file():
        raise KfbenchError(f"'{results}' is no folder; give the folder of records with --results")
    found = (path for path in walk(results) if path.suffix == ".json" and len(path.stem) == 12)
    return sorted(path for path in found if path.relative_to(results).parts[0] != STORE)


def walk(results: Path) -> Iterator[Path]:
    """Yield the files of a results folder, those of folders that are links too, but nothing that is hidden.

    A folder that is reached twice is looked into once, so a link to what it lies in ends.
    """
    seen = set()
    for place, inner, names in os.walk(results, followlinks=True):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        if (real := os.path.realpath(place)) in seen:
            inner.clear()
            continue
        seen.add(real)
        yield from (Path(place, name) for name in names if not name.startswith("."))
