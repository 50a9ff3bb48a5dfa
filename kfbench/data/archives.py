"""`kfbench data import`: class folders in zip archives or directories become a pack.

Each path holds `train/<class>/<image>` and `test/<class>/<image>`, or a part of them, at its top or one folder below:
archives may be halves. Class names in alphabetical order are the labels.
"""

import io
import os
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from kfbench.data.packs import Pack, Raw, Rows, write
from kfbench.data.sources import class_order
from kfbench.errors import KfbenchError, near

IMAGES = {".webp", ".png", ".jpg", ".jpeg"}
SPLITS = ("train", "test")


@dataclass(frozen=True)
class Entry:
    """One image before it is decoded."""

    split: str
    label: str
    file: str  # name below the class folder
    where: str  # as an error names it
    read: Callable[[], bytes]


def import_folders(
    name: str, paths: Sequence[Path], *, size: tuple[int, int] | None = None, quiet: bool = True
) -> Pack:
    """Pack the images that lie in zip archives and folders; `size` (H, W) resizes them, else all must be alike.

    An older pack of that name stays if anything fails. Raises KfbenchError for a name that is no folder's name, and,
    naming the file, for a corrupt archive or image, an image in two paths, a class without images, classes that differ
    between train and test, images of different sizes, and data that are not what a well-known name says.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name):
        raise KfbenchError(f"'{name}' cannot name a data set; use small letters, digits, '-', '_' and '.'")
    entries: dict[tuple[str, str, str], Entry] = {}
    folders: set[tuple[str, str]] = set()
    for path in paths:
        for split, label, entry in _listed(path):
            folders.add((split, label))
            if entry is None:
                continue
            place = (split, label, entry.file)
            if place in entries:
                raise KfbenchError(f"{'/'.join(place)} is in both '{entries[place].where}' and '{entry.where}'")
            entries[place] = entry
    _check_classes(paths, folders, entries)
    classes = class_order(name, list({label for _, label in folders}))
    ordered = [entries[place] for place in sorted(entries)]
    pixels = _decoded(ordered, size=size, quiet=quiet)
    number = {label: row for row, label in enumerate(classes)}
    rows = {}
    for split in SPLITS:
        chosen = [row for row, entry in enumerate(ordered) if entry.split == split]
        images = torch.from_numpy(np.stack([pixels[row] for row in chosen]))
        rows[split] = Rows(images, torch.tensor([number[ordered[row].label] for row in chosen]))
    source = "import of " + ", ".join(sorted(path.name for path in paths))
    return write(name, Raw(rows["train"], rows["test"], classes), source=source)


def _listed(path: Path) -> Iterator[tuple[str, str, Entry | None]]:
    """Yield (split, class, image) of an archive or folder; image None for a class folder itself."""
    if path.is_dir():
        listed: Iterable[tuple[str, bool, Callable[[], bytes]]] = (
            (file.relative_to(path).as_posix(), file.is_dir(), file.read_bytes) for file in sorted(path.rglob("*"))
        )
    elif path.is_file():
        listed = _in_zip(path)
    else:
        raise KfbenchError(f"no file or folder '{path}'")
    found = False
    for name, is_folder, read in listed:
        parts = PurePosixPath(name).parts
        depth = next((depth for depth, part in enumerate(parts[:2]) if part in SPLITS), None)
        if depth is None or any(part.startswith((".", "__MACOSX")) for part in parts):
            continue
        split, rest = parts[depth], parts[depth + 1 :]
        if is_folder and len(rest) == 1:
            yield split, rest[0], None
        elif not is_folder and len(rest) >= 2 and PurePosixPath(name).suffix.lower() in IMAGES:
            found = True
            yield split, rest[0], Entry(split, rest[0], "/".join(rest[1:]), f"{path}: {name}", read)
    if not found:
        raise KfbenchError(
            f"'{path}' holds no images; they must lie in train/<class>/ and test/<class>/ (webp, png, jpg)"
        )


def _in_zip(path: Path) -> Iterator[tuple[str, bool, Callable[[], bytes]]]:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise KfbenchError(f"'{path}' is no sound zip archive ({error}); fetch or make it again") from error
    for info in archive.infolist():
        yield info.filename, info.is_dir(), partial(archive.read, info)


def _check_classes(
    paths: Sequence[Path], folders: set[tuple[str, str]], entries: dict[tuple[str, str, str], Entry]
) -> None:
    named = ", ".join(f"'{path}'" for path in paths)
    train, test = ({label for part, label in folders if part == split} for split in SPLITS)
    for split, labels in (("train", train), ("test", test)):
        if not labels:
            raise KfbenchError(f"no {split}/<class>/ folders in {named}; give the archive or folder with them as well")
    if train != test:
        odd = sorted(train ^ test)
        has, lacks, others = ("train", "test", test) if odd[0] in train else ("test", "train", train)
        raise KfbenchError(f"class '{odd[0]}' is in {has}/ and not in {lacks}/ of {named}; {near(odd[0], others)}")
    full = {(split, label) for split, label, _ in entries}
    empty = sorted(folders - full)
    if empty:
        raise KfbenchError(f"class folder '{'/'.join(empty[0])}' in {named} holds no images; fill it or remove it")


def _decoded(entries: list[Entry], *, size: tuple[int, int] | None, quiet: bool) -> list[np.ndarray]:
    """Decode all images to uint8 [C, H, W] of one shape: C is 1 if every image is grey, else 3."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    hidden = quiet or not console.is_terminal  # on a pipe a bar is an empty line
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        decoded = threads.map(lambda entry: _decode(entry, size), entries)
        shown = track(decoded, "reading images", len(entries), console=console, transient=True, disable=hidden)
        pixels = list(shown)
    for entry, image in zip(entries, pixels, strict=True):
        if image.shape[1:] != pixels[0].shape[1:]:
            first, this = ("×".join(str(side) for side in found.shape[1:]) for found in (pixels[0], image))
            raise KfbenchError(f"'{entry.where}' is {this}, others are {first} (H×W); resize all of them: --size HxW")
    channels = max(len(image) for image in pixels)
    return [image if len(image) == channels else image.repeat(channels, axis=0) for image in pixels]


def _decode(entry: Entry, size: tuple[int, int] | None) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(entry.read())) as opened:
            image = opened.convert("L" if opened.mode in ("1", "L", "LA", "I;16") else "RGB")
    except Exception as error:  # Pillow and zipfile raise a dozen kinds for damaged bytes
        why = "no image that Pillow knows" if isinstance(error, UnidentifiedImageError) else error
        raise KfbenchError(f"'{entry.where}' cannot be read ({why}); mend or remove it") from error
    if size is not None and image.size != size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.BICUBIC)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def size_of(text: str) -> tuple[int, int]:
    """Read "HxW". Raises KfbenchError if it is no size."""
    found = re.fullmatch(r"([1-9]\d{0,3})[x×]([1-9]\d{0,3})", text)
    if found is None:
        raise KfbenchError(f"size '{text}' is not HxW in pixels, as 32x32")
    return int(found[1]), int(found[2])
