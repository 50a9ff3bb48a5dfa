"""Packs: data sets on disk, one folder each in `$KFBENCH_DATA`, the same bits whatever source they came from.

A pack is `<name>/pack.json` (classes, shape, counts, checksums, source), `train.safetensors`, `test.safetensors` and,
where the data set has a validation split of its own, `val.safetensors` (`labels` int64 [N], `images` uint8
[N, C, H, W]). Rows are sorted by class, then by the sha256 of their pixels, so a data set has one checksum whichever
archive or half it came from. A pack is made beside its place and renamed into it: an older good one stays until the new
one is whole. Images are written and read in chunks, so that they need not fit into memory.
"""

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from kfbench import machine
from kfbench.data.checksums import whole
from kfbench.data.rows import Raw, Rows, in_order
from kfbench.errors import KfbenchError, NoRoom, unwritable
from kfbench.folders import data_folder as data_folder
from kfbench.folders import folders
from kfbench.folders import packed as packed

SplitName = Literal["train", "val", "test"]
Resized = Literal["", "stretched", "cropped"]  # how images came to their size; "": they had it, or it is not known
FORGOTTEN = 24 * 3600.0  # seconds after which nobody works any more where nothing is written
CHUNK = 2**24  # bytes of images that are in memory while a pack is written

# sha256 of data sets as they were published, each computed from the real images: see `Pack.checksum`.
PINNED = {
    "cifar10": "e22d72e6c3a9e787b129751fd47acc828b7c93fbb55c04091c3313ebb55ba045",
    "cifar100": "c037e46417dc0b57cb47d2b5f48a78322deed81bf8cb016d635a5c67dc3ce937",
    "digits": "3ffd1713719db35da8ddfbbdcab7737c9c706bd9dd359e85bae0cb27cfd78053",
    "fashion-mnist": "62e9b20da5c8ecb00e8cc10ad79faca78a65d6c843070513d505aef743db4cca",
    "mnist-5k": "293ece95d1354d6dd9afee0f08ab3beb45d9342804e52ec64999975c02752571",
}

# Training and test images of published data sets whose sha256 is not known here; sources: `tasks/`.
COUNTS = {
    "emnist": (124_800, 20_800),  # letters
    "mnist": (60_000, 10_000),
    "stl10": (5000, 8000),
    "svhn": (73_257, 26_032),
}


@dataclass(frozen=True)
class Pack:
    """A packed data set; nothing but `pack.json` has been read."""

    folder: Path
    classes: tuple[str, ...]
    shape: tuple[int, int, int]  # C, H, W
    counts: dict[str, int]  # split -> images
    checksums: dict[str, str]  # split -> sha256 of its images and labels
    source: str  # where it came from, in words
    resized: Resized = ""

    @property
    def name(self) -> str:
        """Name of the data set, which is its folder's."""
        return self.folder.name

    @property
    def checksum(self) -> str:
        """The sha256 of class names and all splits."""
        return whole(self.classes, self.checksums)

    @property
    def has_val(self) -> bool:
        """Whether the data set has a validation split of its own."""
        return "val" in self.checksums

    def read(self, split: SplitName) -> tuple[Tensor, Tensor]:
        """Return images [N, C, H, W] uint8 and labels [N] int64, mapped from the file, after checking their sha256."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self.folder / f"{split}.safetensors"
        try:
            tensors = load_file(path)
            images, labels = tensors["images"], tensors["labels"]
            state = path.stat()
        except (OSError, RuntimeError, SafetensorError, KeyError) as error:  # torch raises RuntimeError
            raise KfbenchError(f"'{path}' cannot be read ({error}); {_again(self.name, self.source)}") from error
        looked = (str(path), state.st_ino, state.st_mtime_ns, state.st_size, self.checksums[split])
        if looked not in _SOUND:  # read once a process: large data sets take seconds
            if _checksum(images, labels) != self.checksums[split]:
                raise KfbenchError(
                    f"'{path}' is damaged: its checksum is not the recorded one; {_again(self.name, self.source)}"
                )
            _SOUND.add(looked)
        return images, labels

    def labels(self, split: SplitName) -> Tensor:
        """Return the labels [N] int64 alone, as they lie in the file: to count with, not to train on."""
        from safetensors import SafetensorError, safe_open

        path = self.folder / f"{split}.safetensors"
        try:
            with safe_open(path, framework="pt") as file:
                labels: Tensor = file.get_tensor("labels")
        except (OSError, SafetensorError) as error:
            raise KfbenchError(f"'{path}' cannot be read ({error}); {_again(self.name, self.source)}") from error
        return labels


_SOUND: set[tuple[str, int, int, int, str]] = set()  # files whose checksum this process has seen to be right


def open_pack(folder: Path) -> Pack:
    """Return the pack in a folder. Raises KfbenchError if it is none, or not what its name says."""
    try:
        values = json.loads((folder / "pack.json").read_bytes())
        values |= {"classes": tuple(values["classes"]), "shape": tuple(values["shape"])}
        pack = Pack(folder=folder, **values)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise KfbenchError(f"'{folder / 'pack.json'}' is not a pack ({error}); {_again(folder.name)}") from error
    _refuse_false_name(pack)
    return pack


def _again(name: str, source: str = "") -> str:
    """Say how a damaged pack is made again: a user's own images, of which no task of ours is, nobody offers."""
    published = {path.stem for path in Path(folders("tasks")[0]).glob("*.py")}
    if name.removesuffix("-64").removesuffix("-5k") in published:
        return (
            f"make it again: kfbench data import {name} PATH…, or delete its folder and: kfbench data download {name}"
        )
    origin = source and f" ({source.removeprefix('import of ')})"
    return f"import it again from its originals{origin}: kfbench data import {name} PATH…"


def _refuse_false_name(pack: Pack) -> None:
    pinned, published = PINNED.get(pack.name), COUNTS.get(pack.name)
    here = (pack.counts["train"], pack.counts["test"])
    if published is not None and here != published:
        raise KfbenchError(
            f"these {here[0]:,} training and {here[1]:,} test images are not data set '{pack.name}', which has "
            f"{published[0]:,} and {published[1]:,}; to use them all the same, import them under another name"
        )
    if pinned is not None and pack.checksum != pinned:
        raise KfbenchError(
            f"these {here[0]:,} training and {here[1]:,} test images (sha256 {pack.checksum[:12]}…) are not data set "
            f"'{pack.name}' ({pinned[:12]}…); to use them all the same, import them under another name"
        )


def write(name: str, raw: Raw, *, source: str, resized: Resized = "") -> Pack:
    """Pack a data set in place of an older pack of that name. Raises KfbenchError if it is not what its name says."""
    with workplace(name) as made:
        splits = {split: (rows, in_order(rows, len(raw.classes))) for split, rows in raw.splits().items()}
        checksums = {split: _save(made / f"{split}.safetensors", *rows) for split, rows in splits.items()}
        counts = {split: len(order) for split, (_, order) in splits.items()}
        shape = tuple(raw.train.images.shape[1:])
        pack = Pack(made.parent / name, raw.classes, shape, counts, checksums, source, resized)  # type: ignore[arg-type]
        _refuse_false_name(pack)
        values = {"classes": raw.classes, "shape": shape, "counts": counts, "checksums": checksums, "source": source}
        values |= {"resized": resized} if resized else {}
        (made / "pack.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8", newline="\n")
        made.chmod(0o755)
        with machine.alone(
            made.parent / ".locks" / f"{name}.lock"
        ):  # processes that need it at once may all be making it
            if not _is_sound(pack):
                _replace(made, made.parent / name)
    return pack


def _is_sound(pack: Pack) -> bool:
    """Say whether a pack lies in its place already, whole."""
    try:
        there = open_pack(pack.folder)
        for split in there.checksums:
            there.read(split)  # type: ignore[arg-type]
    except KfbenchError:
        return False
    return there == pack


@contextlib.contextmanager
def workplace(name: str) -> Iterator[Path]:
    """Make a folder beside a pack's place to make it in; it goes at the end.

    Raises KfbenchError if the data folder cannot be written to, then or within, or a file elsewhere cannot be read.
    """
    root, made = data_folder(), None
    try:
        root.mkdir(parents=True, exist_ok=True)
        _sweep(root, name)
        made = Path(tempfile.mkdtemp(dir=root, prefix=f".{name}-"))
        yield made
    except OSError as error:
        if error.filename is not None and not _lies_in(Path(os.fsdecode(error.filename)), root):
            raise KfbenchError(
                f"'{os.fsdecode(error.filename)}' cannot be read ({error.strerror}); mend or remove it"
            ) from error
        line = f"cannot write to the data folder '{root}' ({error}); set KFBENCH_DATA to another"
        raise unwritable(error, line) from error
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)


def _sweep(root: Path, name: str) -> None:
    """Delete what imports of a name left that were killed: nothing has been written there for a day.

    Killed between two renames, an import has left the older pack as the only one: that stays.
    """
    theirs = re.compile(rf"\.{re.escape(name)}-[a-z0-9_]{{8}}(-older)?")  # as `tempfile` names them
    for folder in [path for path in root.iterdir() if theirs.fullmatch(path.name)]:
        with contextlib.suppress(OSError):
            latest = max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
            is_only = folder.name.endswith("-older") and not (root / name).exists()
            if time.time() - latest > FORGOTTEN and not is_only:
                shutil.rmtree(folder)


def _lies_in(path: Path, root: Path) -> bool:
    """Whether a path is a folder, lies in it or is one above it, links aside: those hold what is written there."""
    path, root = (Path(os.path.abspath(each)) for each in (path, root))
    return path.is_relative_to(root) or root.is_relative_to(path)


def require_room(size: int) -> None:
    """Raise NoRoom if the data folder has no room for `size` bytes twice: decoded, and in the pack."""
    free = machine.free(data_folder())
    if free < 2 * size:
        raise NoRoom(
            f"the images need {2 * size / 1e6:,.1f} MB in the data folder '{data_folder()}' while they are packed, and "
            f"{free / 1e6:,.1f} MB are free; free some, or set KFBENCH_DATA to another folder"
        )


def _replace(made: Path, place: Path) -> None:
    """Rename a finished folder into its place; an older one is put back if that fails."""
    if not place.exists():
        try:
            made.rename(place)
        except OSError:
            if not (place / "pack.json").is_file():  # else another process has just made the same
                raise
        return
    older = made.with_name(made.name + "-older")
    place.rename(older)
    try:
        made.rename(place)
    except OSError:
        older.rename(place)
        raise
    shutil.rmtree(older, ignore_errors=True)


def _chunks(images: Tensor, order: Tensor) -> Iterator[Tensor]:
    each = max(1, CHUNK // max(1, images[0].numel()))
    for rows in order.split(each):  # type: ignore[no-untyped-call]
        yield images.index_select(0, rows).contiguous()


def _save(path: Path, rows: Rows, order: Tensor) -> str:
    """Write the rows of a split in an order as safetensors, a chunk at a time; return their checksum."""
    labels = rows.labels.long()[order].contiguous()
    shape = [len(order), *rows.images.shape[1:]]
    first, size = 8 * len(labels), math.prod(shape)
    about = {
        "labels": {"dtype": "I64", "shape": [len(labels)], "data_offsets": [0, first]},
        "images": {"dtype": "U8", "shape": shape, "data_offsets": [first, first + size]},
    }
    header = json.dumps(about, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    found = _begun(shape)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header + labels.numpy().tobytes())
        for chunk in _chunks(rows.images, order):
            file.write(chunk.numpy().data)
            found.update(chunk.numpy().data)
    found.update(labels.numpy().data)
    return found.hexdigest()


def _begun(shape: Sequence[int]) -> "hashlib._Hash":
    return hashlib.sha256(json.dumps(list(shape)).encode())


def _checksum(images: Tensor, labels: Tensor) -> str:
    found = _begun(images.shape)
    found.update(images.contiguous().numpy().data)
    found.update(labels.contiguous().numpy().data)
    return found.hexdigest()
