"""What a results folder may lose: `clean` takes what can be made again, `delete` one run. Imports no torch."""

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kfbench.errors import KfbenchError, near
from kfbench.running import records, status
from kfbench.running.files import record_files
from kfbench.running.records import RunRecord

ABOUT = {  # what lies in a results folder, and in its teacher store, beside records and weights
    "checkpoints": "of runs that were stopped or failed; without them they begin anew",
    "memory": "what teachers said to fixed views; it is computed again",
    "logs": "of studies' runs, and curves for TensorBoard and W&B",
    "status": "what kfbench status knows of runs that stopped or failed",
    "leftovers": "files of processes that were killed while they wrote",
}
LOGS = ("logs", "tensorboard", "wandb")


@dataclass(frozen=True)
class Pile:
    """Files of one kind."""

    name: str
    about: str
    paths: tuple[Path, ...]  # files and folders
    size: int  # bytes


def piles(results: Path, kinds: Iterable[str] = ()) -> list[Pile]:
    """Return what may be deleted, of these kinds or of all. Raises KfbenchError for an unknown kind, or if runs go on.

    What is of no kind (a study's database, for one) is left alone.
    """
    chosen = list(kinds) or list(ABOUT)
    for kind in chosen:
        if kind not in ABOUT:
            raise KfbenchError(f"nothing to clean called '{kind}'; {near(kind, ABOUT)}")
    if not results.is_dir():
        raise KfbenchError(f"no folder '{results}'; give the one to clean with --results")
    alive = [row for row in status.read(results) if row.get("state") == "running" or row.get("over") is False]
    alive = [row for row in alive if not row.get("lost")]
    if alive:
        what = alive[0].get("label") or f"study {alive[0]['study']}"
        raise KfbenchError(f"{what} is running with its results in '{results}'; wait for it, or stop it first")
    found = []
    for kind in chosen:
        paths = tuple(path for folder in (results, results / "teachers") for path in _places(folder, kind))
        found.append(Pile(kind, ABOUT[kind], paths, sum(map(size_of, paths))))
    return found


def _places(folder: Path, kind: str) -> Iterator[Path]:
    cache = folder / ".cache"
    if kind == "checkpoints":
        yield from sorted((folder / ".checkpoints").glob("*"))
        yield from sorted((cache / "runs").glob("*"))  # of studies
    elif kind == "logs":
        for name in LOGS:
            yield from sorted((cache / name).glob("*"))
    elif kind == "leftovers":
        probes = folder.glob(".probe-*")
        yield from sorted([*probes, *(path for path in folder.rglob(".tmp-*") if path.is_file())])
    else:
        yield from sorted((cache / kind).glob("*"))


def size_of(path: Path) -> int:
    """Return the bytes that a file takes on the disk, or all files below a folder."""
    files = [path] if not path.is_dir() else [each for each in path.rglob("*") if each.is_file()]
    return sum(_on_disk(each) for each in files if not each.is_symlink())


def _on_disk(path: Path) -> int:
    told = path.stat()
    blocks = getattr(told, "st_blocks", None)  # a memory file has holes; Windows does not say
    return told.st_size if blocks is None else min(told.st_size, 512 * blocks)


def spoken_size(size: int) -> str:
    """Return bytes as people say them: "12 kB", "3.4 MB"."""
    for unit, whole in (("GB", 1e9), ("MB", 1e6)):
        if size >= whole:
            return f"{size / whole:.1f} {unit}"
    return f"{-(-size // 1000)} kB"


def remove(paths: Iterable[Path]) -> None:
    """Delete files and folders. Raises KfbenchError for the first that cannot be."""
    for path in paths:
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise KfbenchError(f"cannot delete '{path}' ({error.strerror})") from error


@dataclass(frozen=True)
class Doomed:
    """A run that is to be deleted: its record, its files, and the runs whose teacher it was."""

    record: RunRecord
    paths: tuple[Path, ...]
    pupils: tuple[RunRecord, ...]


def doomed(results: Path, key: str) -> Doomed:
    """Return what deleting the run, or teacher, with this key would take. Raises KfbenchError if there is none."""
    folder, record = records.locate(results, key)
    path = next(path for path in record_files(folder) if path.stem == record.key)
    beside = [path, path.with_suffix(".safetensors"), folder / ".checkpoints" / f"{record.key}.ckpt"]
    beside += [status.place(folder) / f"{record.key}.json"]
    digest = record.provenance.get("weights")
    pupils = tuple(
        other
        for other in _all(results)
        if other.key != record.key
        and (digest in other.identity.get("teachers", ()) or any(_is(name, record) for name in other.spec["teachers"]))
    )
    return Doomed(record, tuple(each for each in beside if each.is_file()), pupils)


def _all(results: Path) -> Iterator[RunRecord]:
    for folder in (results, results / "teachers"):
        for path in record_files(folder) if folder.is_dir() else ():
            try:
                yield records.read(path)
            except KfbenchError:
                continue  # a damaged one depends on nothing that could be told


def _is(name: str, record: RunRecord) -> bool:
    kind, _, key = name.partition(":")
    return kind == "run" and bool(key) and record.key.startswith(key)
