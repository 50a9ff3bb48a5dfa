"""What a results folder may lose: `clean` takes what can be made again, `delete` one thing. Imports no torch."""

import contextlib
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kfbench.errors import KfbenchError, near
from kfbench.folders import data_folder, packed
from kfbench.networks import header
from kfbench.running import files, records, status, teacher_names
from kfbench.running.files import record_files
from kfbench.running.records import RunRecord
from kfbench.spec import RunSpec

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
    """What is to be deleted: a run, a teacher or a data set, its files, and the recorded runs that learned from it."""

    name: str  # of a run, and of a teacher that was trained here, its key
    about: str
    paths: tuple[Path, ...]  # files and folders
    pupils: tuple[RunRecord, ...]


def doomed(results: Path, key: str) -> Doomed:
    """Return what deleting the run, or teacher, with this key would take. Raises KfbenchError if there is none."""
    return _run(results, *records.locate(results, key))


def _run(results: Path, folder: Path, record: RunRecord) -> Doomed:
    path = next(path for path in record_files(folder) if path.stem == record.key)
    beside = [path, path.with_suffix(".safetensors"), files.checkpoint(folder, record.key)]
    beside += [status.place(folder) / f"{record.key}.json"]
    weights, spec = record.provenance.get("weights"), record.spec
    digests = _digests(weights, spec["recipe"]["network"]) if weights else set()
    pupils = _pupils(results, digests, lambda name: _is(name, record))
    return Doomed(
        record.key,
        f"{spec['method']} on {spec['task']}, seed {spec['seed']}: {record.status}  [{record.key}]",
        tuple(each for each in beside if each.is_file()),
        tuple(other for other in pupils if other.key != record.key),
    )


def doomed_teacher(results: Path, name: str) -> Doomed:
    """Return what deleting a teacher of the store would take: `imported:NAME`, one that was trained here, or its key.

    Raises KfbenchError with the nearest name if there is none, or if several are called so.
    """
    store = files.store(results)
    plain = name.removeprefix("imported:")
    weights = {path.stem: path for path in sorted(files.imported(results).glob("*.safetensors"))}
    if plain in weights:
        return _imported(results, weights[plain])
    trained = [] if plain != name else _trained(store, name)
    if len(trained) == 1:
        return _run(results, store, trained[0])
    if trained:
        keys = ", ".join(record.key for record in trained)
        raise KfbenchError(f"{len(trained)} teachers in '{store}' are called '{name}'; give the key of one: {keys}")
    there = [f"imported:{each}" for each in weights]
    if plain == name:
        there += [_called(record) for record in _read(store)]
    raise KfbenchError(f"no teacher '{name}' in '{store}'; {near(name, dict.fromkeys(there))}")


def _imported(results: Path, path: Path) -> Doomed:
    about, name = header.read(path), f"imported:{path.stem}"
    digests = _digests(about["digest"], about["network"]) if {"digest", "network"} <= about.keys() else set()
    told = f"{about.get('network', 'unreadable')} on {about.get('task', 'nothing known')}"
    return Doomed(name, f"{name}: {told}", (path,), _pupils(results, digests, name.__eq__))


def _trained(store: Path, name: str) -> list[RunRecord]:
    """Return the teachers of the store with such a key, or else such a name."""
    there = list(_read(store))
    if found := [record for record in there if re.fullmatch("[0-9a-f]+", name) and record.key.startswith(name)]:
        return found
    if found := [record for record in there if _called(record) == name]:
        return found
    with contextlib.suppress(KfbenchError):
        wanted = teacher_names.read(name, budget=RunSpec.budget)
        if wanted.kind == "trained":
            return [record for record in there if record.spec == wanted.spec().to_json()]
    return []


def _called(record: RunRecord) -> str:
    return f"{record.spec['task']}/{record.spec['recipe']['network']}@{record.spec['budget']}"


def doomed_data(results: Path, name: str) -> Doomed:
    """Return what deleting a packed data set would take, and the runs of this results folder that learned from it.

    Raises KfbenchError with the nearest name if it is not packed, or if runs go on.
    """
    if name not in packed():
        raise KfbenchError(f"no data set '{name}' in '{data_folder()}'; {near(name, packed())}")
    if results.is_dir():
        _require_rest(results)
    from kfbench.data import packs  # torch

    folder = data_folder() / name
    try:
        pack = packs.open_pack(folder)
    except KfbenchError:  # damaged: nobody can tell whose data it was but by its name
        runs = tuple(record for record in _all(results) if name in record.spec["task"].split("/"))
        return Doomed(name, f"{name}: damaged", (folder,), runs)
    about = f"{name}: {pack.counts['train']:,} training and {pack.counts['test']:,} test images, from {pack.source}"
    runs = tuple(record for record in _all(results) if pack.checksum in _data(record) or _has_random(record, name))
    return Doomed(name, about, (folder,), runs)


def _data(record: RunRecord) -> set[str]:
    """Return the checksums of the data that a run trained on."""
    return {record.identity["data"], *record.identity.get("stages", {}).values()}


def _has_random(record: RunRecord, name: str) -> bool:
    """Say whether a run's teacher is an untrained network made for a data set's images, which are then looked at."""
    asked = (each.partition("@")[0].partition(":") for each in record.spec["teachers"])
    return any(kind == "random" and name in rest.split("/") for kind, _, rest in asked)


def _pupils(results: Path, digests: set[str], is_named: Callable[[str], bool]) -> tuple[RunRecord, ...]:
    """Return the recorded runs with a teacher of such a digest or name."""
    return tuple(
        record
        for record in _all(results)
        if digests & {*record.identity.get("teachers", ())} or any(map(is_named, record.spec["teachers"]))
    )


def _all(results: Path) -> Iterator[RunRecord]:
    for folder in files.both(results):
        yield from _read(folder)


def _read(folder: Path) -> Iterator[RunRecord]:
    for path in record_files(folder) if folder.is_dir() else ():
        try:
            yield records.read(path)
        except KfbenchError:
            continue  # a damaged one depends on nothing that could be told


def _digests(weights: str, network: str) -> set[str]:
    """Return what weights of a network are called in the identities of the runs that they taught."""
    from kfbench.running import identity  # only here: it imports torch

    return {weights, identity.of_teacher(weights, network)}


def _is(name: str, record: RunRecord) -> bool:
    kind, _, key = name.partition(":")
    return kind == "run" and bool(key) and record.key.startswith(key)
