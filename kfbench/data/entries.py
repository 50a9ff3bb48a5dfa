"""What lies in a user's folder or archive: images with their split and class, before any is decoded.

Two layouts: `train/<class>/…` and `test/<class>/…` (`val/` too), at the top or one folder below; or `<class>/…` alone.
`training_set`, `test-images`, `seg_train` and the like are splits where two different ones stand side by side; a lone
`training_set` is refused: as a class it would be a wrong label. A split's folder in one of its own name says nothing
new (`train/train/<class>/`, as Kaggle packs them). Names are compared in Unicode's composed form, as a Mac's archives
and Linux's folders write them differently.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from kfbench.data.listing import Listed, is_hidden, listed
from kfbench.errors import KfbenchError

SUFFIXES = (".webp", ".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")
SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLITS |= {"val": "val", "valid": "val", "validation": "val"}
LIKE_A_SPLIT = re.compile(
    rf"({'|'.join(SPLITS)}|eval|evaluation|dev)([ _-]?(set|data|images|split))?"  # dev and eval: which, nobody can tell
)
PART_OF = re.compile(rf"(?P<whole>.*[ _-])?(?P<split>{'|'.join(SPLITS)})([ _-]?(set|data|images|split))?")


def split_of(name: str) -> str:
    """Return the split that a file of many images, or a table, is called by; "" none, or two.

    Its first word or its last says it: `train_0`, `test-labels`, `cells_val2`, `train-00000-of-00002`.
    """
    plain = re.sub(r"-\d+-of-\d+.*", "", name.lower())  # the hub's number of a shard, and its hash
    words = [word for word in re.split("[^a-z]+", plain) if word not in ("", "partial")]
    found = {SPLITS[word] for word in (words[:1] + words[-1:]) if word in SPLITS}
    return found.pop() if len(found) == 1 else ""


def require_distinct(path: Path, names: Sequence[str]) -> None:
    """Raise KfbenchError if two classes of a file have one name: they would become one."""
    if len({*names}) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise KfbenchError(f"two classes of '{path}' are called '{twice}'; rename one")


class NoClassFolders(KfbenchError):
    """What was given holds no images in class folders."""


class _File(NamedTuple):
    """What is listed, and its folders and name."""

    file: Listed
    parts: tuple[str, ...]


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
    by: Literal["folder", "table", "file"] = "folder"  # what names an image's class: a file that holds it, too


def find(paths: Sequence[Path], room: Path) -> Found:
    """List folders and archives, as one; `room` is a folder to unpack in.

    Raises KfbenchError for a path that is not there or no sound archive, one without images, an image in two paths, and
    folders of which nobody can tell whether they are classes.
    """
    found = Found([], set(), [])
    places: dict[tuple[str, str, str], str] = {}
    for path, files, layout in _laid_out(paths, room):
        before = len(found.entries)
        _sort(path, files, layout, found)
        if len(found.entries) == before:
            raise NoClassFolders(_nothing(path, files, layout))
        _require_no_classes_beside(path, files, layout)
        for entry in found.entries[before:]:
            place = (entry.split, entry.label, entry.file)
            if place in places:
                both = f"'{places[place]}' and '{entry.where}'"
                raise KfbenchError(f"{'/'.join(filter(None, place))} is in both {both}; leave one of them out")
            places[place] = entry.where
    found.entries.sort(key=lambda entry: (entry.split, entry.label, entry.file))
    return found


def _require_no_classes_beside(path: Path, files: list[_File], layout: "_Layout") -> None:
    """Raise KfbenchError if images lie beside a lone split's folder, in folders that are none: it may be a class.

    Where a second split shows what the first is, such folders are left out: Kaggle's images to be labelled.
    """
    if not layout.has_splits:
        return
    folders = [parts[layout.top : -1] for parts in _pictures(files)]
    depths = [_depth(inner, layout.splits) for inner in folders]
    named = {inner[depth] for inner, depth in zip(folders, depths, strict=True) if depth is not None}
    beside = sorted({inner[0] for inner, depth in zip(folders, depths, strict=True) if inner and depth is None})
    if beside and len({layout.splits[name.lower()] for name in named}) == 1:
        told = ", ".join(f"'{name}'" for name in beside[:2]) + (", …" if len(beside) > 2 else "")
        raise KfbenchError(
            f"folder '{min(named)}' in '{path}' was taken for a split, and images lie in {told} beside it; rename it "
            "if it is a class, else give the folder that holds the class folders alone"
        )


class _Layout(NamedTuple):
    """How a path's folders are read."""

    splits: dict[str, str]  # folder name, small -> split
    top: int  # folders around all images
    has_splits: bool
    whole: str  # the split that the path is itself: pets/train, test.zip; "" none


def numbered(found: Found) -> Found:
    """Return classes that a file or a table calls by numbers with zeros before: the alphabet's order is then theirs.

    Folders keep their names and so the order in which torchvision's ImageFolder has them: 0, 1, 10, 2.
    """
    names = {entry.label for entry in found.entries}
    if found.by == "folder" or not all(re.fullmatch("0|[1-9][0-9]*", name) for name in names):
        return found
    width = max(map(len, names))
    entries = [replace(entry, label=entry.label.zfill(width)) for entry in found.entries]
    return replace(found, entries=entries, folders={(split, label.zfill(width)) for split, label in found.folders})


def _laid_out(paths: Sequence[Path], room: Path) -> list[tuple[Path, list[_File], _Layout]]:
    """Read the folders of all paths together: a folder around all images of one path may be a class of another's."""
    given = [
        (path, [_File(each, _parts(each.name)) for each in listed(path, room) if not is_hidden(each.name)])
        for path in paths
    ]
    splits = _splits(given)
    laid_out = []
    for path, doubled in given:
        files = _undoubled(doubled, splits)
        pictures = _pictures(files)
        top = _wrapping(pictures, splits.__contains__)
        has_splits = any(_depth(parts[top:-1], splits) is not None for parts in pictures)
        whole = "" if has_splits else splits.get(_called(path), "")
        laid_out.append((path, files, _Layout(splits, top, has_splits, whole)))
    for path, files, layout in laid_out:
        if layout.has_splits:
            continue
        alike = [files for _, files, other in laid_out if (other.has_splits, other.whole) == (False, layout.whole)]
        common = _wrapping([parts for files in alike for parts in _pictures(files)], splits.__contains__)
        if common < layout.top:
            around = _pictures(files)[0][common]
            raise KfbenchError(
                f"'{path}' has all its images in a folder '{around}' and another path has not, so it may be a class or "
                "not; put the class folders of all paths side by side into one folder, and give that"
            )
    return laid_out


def _splits(given: Sequence[tuple[Path, list[_File]]]) -> dict[str, str]:
    """Return the folder names that mean a split: the plain ones, and those like them if two kinds are side by side.

    `seg_train` and `seg_test` are of one whole, `steam_train` and `blood_test` are not.
    """
    like: dict[str, dict[str, str]] = {}
    for path, files in given:
        for name in {_called(path), *_tops(files)}:
            if match := PART_OF.fullmatch(name):
                like.setdefault(match["whole"] or "", {})[name] = SPLITS[match["split"]]
    return SPLITS | {
        name: split for names in like.values() if {"train"} < {*names.values()} for name, split in names.items()
    }


def _undoubled(files: list[_File], splits: Mapping[str, str]) -> list[_File]:
    """Take a split's folder out that holds all the images of one with its name, in class folders."""
    pictures = _pictures(files)
    outer = {
        parts[: depth + 1]
        for parts in pictures
        for depth, part in enumerate(parts[:-3])
        if part.lower() in splits and parts[depth + 1] == part
    }
    outer = {
        begin
        for begin in outer
        if all(
            parts[len(begin)] == begin[-1] and len(parts) > len(begin) + 2
            for parts in pictures
            if parts[: len(begin)] == begin
        )
    }
    plain = []
    for each, parts in files:
        begin = next((begin for begin in outer if parts[: len(begin) + 1] == (*begin, begin[-1])), None)
        plain.append(_File(each, parts if begin is None else begin + parts[len(begin) + 1 :]))
    return plain


def _tops(files: list[_File]) -> set[str]:
    """Return the names, in small letters, of the first folders that say something."""
    pictures = _pictures(files)
    top = _wrapping(pictures, LIKE_A_SPLIT.fullmatch)
    return {parts[top].lower() for parts in pictures if len(parts) > top + 1}


def _nothing(path: Path, files: list[_File], layout: _Layout) -> str:
    if layout.has_splits:
        inner = next(
            inner for parts in _pictures(files) if _depth(inner := parts[layout.top : -1], layout.splits) is not None
        )
        split = next(part for part in inner if part.lower() in layout.splits)
        return (
            f"folder '{split}' in '{path}' was taken for a split, and no class folders are in it; rename it if it is a "
            "class, else lay the images in train/<class>/ and test/<class>/"
        )
    return (
        f"'{path}' holds no images in class folders; they must lie in train/<class>/ and test/<class>/, or in "
        f"<class>/ ({', '.join(suffix[1:] for suffix in SUFFIXES[:4])}, …)"
    )


def _sort(path: Path, files: list[_File], layout: _Layout, found: Found) -> None:
    """Give every file of a path its split and class."""
    splits, top, has_splits, whole = layout
    around = next((parts[:top] for parts in _pictures(files)), ())
    for each, parts in files:
        inner = parts[top:]
        depth = _depth(inner if each.is_folder else inner[:-1], splits) if has_splits else None
        split = splits[inner[depth].lower()] if depth is not None else whole
        rest = inner if depth is None else inner[depth + 1 :]
        placed = depth is not None or not has_splits
        is_image = len(rest) >= 2 and is_picture(each.name)
        if each.is_folder:
            if placed and len(rest) == 1 and parts[:top] == around:  # else it stands beside what holds the images
                found.folders.add((split, rest[0]))
        elif depth is None and not whole and is_image and LIKE_A_SPLIT.fullmatch(rest[0].lower()):
            raise KfbenchError(
                f"folder '{rest[0]}' in '{path}' looks like a split, not a class; rename it to train, val or test, or "
                "to what its class is called"
            )
        elif placed and is_image:
            found.folders.add((split, rest[0]))
            found.entries.append(Entry(split, rest[0], "/".join(rest[1:]), f"{path}: {each.name}", each.read))
        else:
            found.others.append(f"{path}: {each.name}")


def _called(path: Path) -> str:
    """Return what a folder or archive is called, in small letters, without what says its kind."""
    return path.stem.lower().removesuffix(".tar")


def _parts(name: str) -> tuple[str, ...]:
    return PurePosixPath(unicodedata.normalize("NFC", name)).parts


def is_picture(name: str) -> bool:
    """Say whether a file is called as images are."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def _pictures(files: list[_File]) -> list[tuple[str, ...]]:
    return [parts for each, parts in files if not each.is_folder and is_picture(each.name)]


def _depth(folders: tuple[str, ...], splits: Mapping[str, str]) -> int | None:
    """Return where a split's folder is: first or second."""
    return next((depth for depth, part in enumerate(folders[:2]) if part.lower() in splits), None)


def _wrapping(pictures: list[tuple[str, ...]], is_split: Callable[[str], object]) -> int:
    """Return how many folders hold all the pictures, and say nothing of split or class."""
    depth = 0
    while pictures and all(len(parts) > depth + 2 for parts in pictures):
        tops = {parts[depth] for parts in pictures}
        if len(tops) > 1 or is_split(next(iter(tops)).lower()):
            break
        depth += 1
    return depth
