"""What lies in a user's folder or zip archive: images with their split and class, before any is decoded.

Two layouts: `train/<class>/…` and `test/<class>/…` (`val/` too), at the top or one folder below; or `<class>/…` alone.
Names are compared in Unicode's composed form, as a Mac's archives and Linux's folders write them differently.
"""

import io
import os
import unicodedata
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from kfbench.data.decode import BYTES
from kfbench.errors import KfbenchError

SUFFIXES = (".webp", ".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")
PIECE = 2**20  # bytes that are unpacked at once
SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLITS |= {"val": "val", "valid": "val", "validation": "val"}


class Listed(NamedTuple):
    """A file or folder; `read` gives a file's content."""

    name: str  # with slashes, below what was given
    is_folder: bool
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Entry:
    """One image before it is decoded."""

    split: str  # "train", "val", "test"; "" where the layout has none
    label: str
    file: str  # name below the class folder
    where: str  # as an error names it
    read: Callable[[], bytes]


@dataclass
class Found:
    """What some folders and archives hold."""

    entries: list[Entry]
    folders: set[tuple[str, str]]  # (split, class), with images or without
    others: list[str]  # files that are no images or lie in no class folder


def find(paths: Sequence[Path]) -> Found:
    """List folders and archives, as one.

    Raises KfbenchError for a path that is not there or no sound archive, one without images, and an image in two paths.
    """
    found = Found([], set(), [])
    places: dict[tuple[str, str, str], str] = {}
    for path in paths:
        before = len(found.entries)
        _sort(path, [each for each in _listed(path) if not _is_hidden(each.name)], found)
        if len(found.entries) == before:
            raise KfbenchError(
                f"'{path}' holds no images in class folders; they must lie in train/<class>/ and test/<class>/, or in "
                f"<class>/ ({', '.join(suffix[1:] for suffix in SUFFIXES[:4])}, …)"
            )
        for entry in found.entries[before:]:
            place = (entry.split, entry.label, entry.file)
            if place in places:
                both = f"'{places[place]}' and '{entry.where}'"
                raise KfbenchError(f"{'/'.join(filter(None, place))} is in both {both}; leave one of them out")
            places[place] = entry.where
    found.entries.sort(key=lambda entry: (entry.split, entry.label, entry.file))
    return found


def _sort(path: Path, listed: list[Listed], found: Found) -> None:
    """Give every file of a path its split and class."""
    named = [(each, _parts(each.name)) for each in listed]
    pictures = [parts for each, parts in named if not each.is_folder and _is_picture(each.name)]
    top = _wrapping(pictures)
    has_splits = any(_depth(parts[top:-1]) is not None for parts in pictures)
    whole = SPLITS.get(path.stem.lower(), "")  # the path may be a split itself: pets/train, test.zip
    for each, parts in named:
        inner = parts[top:]
        depth = _depth(inner if each.is_folder else inner[:-1]) if has_splits else None
        split = SPLITS[inner[depth].lower()] if depth is not None else whole
        rest = inner if depth is None else inner[depth + 1 :]
        placed = depth is not None or not has_splits
        if each.is_folder:
            if placed and len(rest) == 1:
                found.folders.add((split, rest[0]))
        elif placed and len(rest) >= 2 and _is_picture(each.name):
            found.folders.add((split, rest[0]))
            found.entries.append(Entry(split, rest[0], "/".join(rest[1:]), f"{path}: {each.name}", each.read))
        else:
            found.others.append(f"{path}: {each.name}")


def _parts(name: str) -> tuple[str, ...]:
    return PurePosixPath(unicodedata.normalize("NFC", name)).parts


def _is_hidden(name: str) -> bool:
    """Whether a file or a folder above it is a system's own: .DS_Store, __MACOSX, Thumbs.db."""
    parts = PurePosixPath(name).parts
    return any(part.startswith((".", "__MACOSX")) for part in parts) or parts[-1:] in (("Thumbs.db",), ("desktop.ini",))


def _is_picture(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def _depth(folders: tuple[str, ...]) -> int | None:
    """Return where a split's folder is: first or second."""
    return next((depth for depth, part in enumerate(folders[:2]) if part.lower() in SPLITS), None)


def _wrapping(pictures: list[tuple[str, ...]]) -> int:
    """Return how many folders hold all the pictures, and say nothing of split or class."""
    depth = 0
    while pictures and all(len(parts) > depth + 2 for parts in pictures):
        tops = {parts[depth] for parts in pictures}
        if len(tops) > 1 or next(iter(tops)).lower() in SPLITS:
            break
        depth += 1
    return depth


def _listed(path: Path) -> Iterator[Listed]:
    if path.is_dir():
        yield from _in_folder(path, "", ())
    elif path.is_file():
        yield from _in_zip(path)
    else:
        raise KfbenchError(f"no file or folder '{path}'")


def _in_folder(folder: Path, before: str, above: tuple[tuple[int, int], ...]) -> Iterator[Listed]:
    """Walk a folder, links too, but for one that leads back to a folder above it."""
    try:
        state = folder.stat()
        children = sorted(os.scandir(folder), key=lambda child: child.name)
    except OSError as error:
        raise KfbenchError(f"cannot look into the folder '{folder}' ({error.strerror})") from error
    here = (state.st_dev, state.st_ino)
    if here in above:
        return
    for child in children:
        name, file = before + child.name, folder / child.name
        if child.is_dir():
            yield Listed(name, True, bytes)
            if not _is_hidden(child.name):
                yield from _in_folder(file, f"{name}/", (*above, here))
        else:
            yield Listed(name, False, partial(_bounded, partial(_opened, file)))


def _opened(file: Path) -> IO[bytes]:
    return file.open("rb")


def _in_zip(path: Path) -> Iterator[Listed]:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise KfbenchError(f"'{path}' is no sound zip archive ({error}); fetch or make it again") from error
    for info in archive.infolist():
        yield Listed(_decoded_name(info), info.is_dir(), partial(_bounded, partial(archive.open, info)))


def _decoded_name(info: zipfile.ZipInfo) -> str:
    """Return a member's name; many programs write UTF-8 without the flag that says so."""
    if info.flag_bits & 0x800:
        return info.filename
    try:
        return info.filename.encode("cp437").decode()
    except UnicodeError:
        return info.filename


def _bounded(opened: Callable[[], IO[bytes]]) -> bytes:
    """Read a file to its end in pieces. Raises ValueError once it goes past BYTES, whatever its header says."""
    content = io.BytesIO()
    with opened() as stream:
        while piece := stream.read(PIECE):
            content.write(piece)
            if content.tell() > BYTES:
                raise ValueError(f"it unpacks to more than the {BYTES >> 20} MiB that an image file may have")
    return content.getvalue()
