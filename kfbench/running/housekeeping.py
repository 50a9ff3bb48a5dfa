"""What a results folder may lose: `clean` takes what can be made again, `delete` one run. Imports no torch."""

import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kfbench.errors import KfbenchError, near
from kfbench.running import files, records, status
from kfbench.running.files import record_files
from kfbench.running.records import RunRecord

ABOUT = {  # what lies in a results folder, and in its teacher store, beside records and weights
    "checkpoints": "of runs that were stopped or failed; without them they begin anew",
    "memory": "what teachers said to fixed views; it is computed again",
    "logs": "of studies' runs, and curves for TensorBoard and W&B",
    "status": "what kfbench status knows of runs that stopped or failed",
    "leftovers": "files of processes that were killed while they wrote",
}
LONG = 86_400.0  # seconds of silence until a process elsewhere is gone: clocks differ, an evaluation may be long
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

    What is of no kind (a study's database, for one) is left alone, and what SLURM's jobs may be at: see `jobs`.
    """
    chosen = list(kinds) or list(ABOUT)
    for kind in chosen:
        if kind not in ABOUT:
            raise KfbenchError(f"nothing to clean called '{kind}'; {near(kind, ABOUT)}")
    if not results.is_dir():
        raise KfbenchError(f"no folder '{results}'; give the one to clean with --results")
    _require_rest(results)
    found, bags = list[Pile](), jobs(results)
    for kind in chosen:
        every = {path for folder in files.both(results) for path in _places(folder, kind)}
        others = [path for pile in found for path in pile.paths]
        paths = tuple(
            path for path in sorted(every) if not _is_in_use(path, kind, bags) and not {path, *path.parents} & {*others}
        )
        found.append(Pile(kind, ABOUT[kind], paths, sum(map(size_of, paths))))
    return found


def jobs(results: Path) -> list[Path]:
    """Return the folders of runs that SLURM has or had when their driver died; the study's next driver finds them."""
    return sorted(path.parent for path in (files.cache(results) / "runs").glob("*/job"))


def _is_in_use(path: Path, kind: str, bags: list[Path]) -> bool:
    """Say whether a job may need a file: its folder, its log, what teachers said."""
    in_bag = any(bag == path or bag in path.parents for bag in bags)
    return in_bag or (kind == "memory" and bool(bags)) or (kind == "logs" and path.stem in {bag.name for bag in bags})


def _require_rest(results: Path) -> None:
    """Raise KfbenchError if a run goes on, or one on another machine may."""
    for row in status.read(results, silent=LONG):
        if row.get("lost") or (row.get("state") != "running" and row.get("over") is not False):
            continue
        what, who = row.get("label") or f"study {row['study']}", row.get("driver") or row
        if status.is_alive(who["pid"], who["node"], row["updated"]):
            raise KfbenchError(f"{what} is running with its results in '{results}'; wait for it, or stop it first")
        silent = status.spoken(time.time() - row["updated"])
        raise KfbenchError(
            f"{what} may still be running on '{who['node']}', silent for {silent}; if it is not, delete '{row['file']}'"
        )


def _places(folder: Path, kind: str) -> Iterator[Path]:
    cache = files.cache(folder)
    if kind == "checkpoints":
        yield from sorted((folder / files.CHECKPOINTS).glob("*"))
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
    beside = [path, path.with_suffix(".safetensors"), files.checkpoint(folder, record.key)]
    beside += [status.place(folder) / f"{record.key}.json"]
    digests = _digests(record)
    pupils = tuple(
        other
        for other in _all(results)
        if other.key != record.key
        and (
            digests & {*other.identity.get("teachers", ())} or any(_is(name, record) for name in other.spec["teachers"])
        )
    )
    return Doomed(record, tuple(each for each in beside if each.is_file()), pupils)


def _all(results: Path) -> Iterator[RunRecord]:
    for folder in files.both(results):
        for path in record_files(folder) if folder.is_dir() else ():
            try:
                yield records.read(path)
            except KfbenchError:
                continue  # a damaged one depends on nothing that could be told


def _digests(record: RunRecord) -> set[str]:
    """Return what a run's weights are called in the identities of those that it taught."""
    from kfbench.running import identity  # only here: it imports torch

    weights = record.provenance.get("weights")
    return {weights, identity.of_teacher(weights, record.spec["recipe"]["network"])} if weights else set()


def _is(name: str, record: RunRecord) -> bool:
    kind, _, key = name.partition(":")
    return kind == "run" and bool(key) and record.key.startswith(key)
