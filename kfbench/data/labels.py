"""Images whose classes a table names: `labels.csv` beside a folder or an archive, as Kaggle and many labs have them.

The column that names the images is found: it is the one whose values they are called by, with or without their folders
and their suffix. A column `split`, or what the table is called (`train.csv`, `test.csv`), gives the split.
"""

import csv
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from kfbench.data.entries import SPLITS, SUFFIXES, Entry, Found, split_of
from kfbench.data.listing import Listed, is_hidden, listed
from kfbench.errors import KfbenchError, near

LABELS = ("label", "labels", "class", "category", "target")  # what a column of classes is called where no one says
DELIMITERS = ",;\t|"


class _Image(NamedTuple):
    """A listed image, and how an error names it."""

    where: str
    file: Listed


class _Table(NamedTuple):
    """A table of text: the names of its columns, and its rows."""

    path: Path
    columns: list[str]
    rows: list[list[str]]


def find(paths: Sequence[Path], room: Path, tables: Sequence[Path], column: str) -> Found:
    """List the images of folders and archives that tables name; `column` is that of the classes, "": it is found.

    Raises KfbenchError for a table that cannot be read, whose columns leave a doubt, or that names images which are not
    there, are there twice, or have no class or two.
    """
    images = _images(paths, room)
    found = Found([], set(), [], by="table")
    taken: dict[str, tuple[str, str]] = {}
    for path in tables:
        for name, split, label in _rows(_read(path), images, column):
            image = _one(path, name, images)
            if not label:
                raise KfbenchError(f"'{path}' gives '{name}' no class; leave the row out")
            if split not in ("", *SPLITS.values()):
                raise KfbenchError(f"'{path}' has a split '{split}'; call it train, val or test")
            if image.where not in taken:
                found.entries.append(Entry(split, label, PurePosixPath(name).name, image.where, image.file.read))
            elif taken[image.where] != (split, label):
                raise KfbenchError(f"'{name}' has a second class or split in '{path}', '{label}'; leave one row out")
            taken[image.where] = (split, label)
    found.folders = {(entry.split, entry.label) for entry in found.entries}
    found.others = sorted({image.where for called in images.values() for image in called} - {*taken})
    return found


def _images(paths: Sequence[Path], room: Path) -> dict[str, list[_Image]]:
    """Return the images by every name that a table may call them."""
    images: dict[str, list[_Image]] = {}
    around: dict[str, list[_Image]] = {}  # by names that begin above what was given: those below it come first
    for path in paths:
        before = _before(path)
        for file in listed(path, room):
            if not file.is_folder and not is_hidden(file.name) and file.name.lower().endswith(SUFFIXES):
                image = _Image(f"{path}: {file.name}", file)
                for name in _names(file.name):
                    images.setdefault(name, []).append(image)
                for name in (f"{folder}/{_composed(file.name)}" for folder in before):
                    around.setdefault(name, []).append(image)
                    around.setdefault(_stem(name), []).append(image)
    return around | images


def _rows(table: _Table, images: dict[str, list[_Image]], column: str) -> Iterator[tuple[str, str, str]]:
    """Yield what a table calls an image, its split and its class."""
    if any(_called(cell) in images for cell in table.columns):  # no header
        numbers = [f"{number}" for number in range(1, len(table.columns) + 1)]
        table = _Table(table.path, numbers, [table.columns, *table.rows])
    file_column = _column_of_files(table, images)
    label_column = _column_of_labels(table, file_column, column)
    split_column = next((i for i, name in enumerate(table.columns) if name.lower() == "split"), None)
    whole = split_of(table.path.stem)
    for row in table.rows:
        split = whole if split_column is None else SPLITS.get(row[split_column].lower(), row[split_column])
        yield row[file_column], split, row[label_column]


def _names(name: str) -> Iterator[str]:
    """Yield what a table may call an image: with all, some or none of its folders, with its suffix or without."""
    parts = PurePosixPath(_composed(name)).parts
    for first in range(len(parts)):
        whole = "/".join(parts[first:])
        yield whole
        yield _stem(whole)


def _before(path: Path) -> list[str]:
    """Return what a table may have before the names below a folder: the folder's own name, or its whole path."""
    whole = path.resolve()
    names = [whole.name, *(_called(each.as_posix()) for each in (whole, path.absolute()))]
    return [_composed(name) for name in dict.fromkeys(names) if name] if path.is_dir() else []


def _stem(name: str) -> str:
    return name[: -len(PurePosixPath(name).suffix)]


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _read(path: Path) -> _Table:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            delimiter = "\t" if path.suffix.lower() == ".tsv" else max(DELIMITERS, key=first.count)
            lines = [[_plain(cell) for cell in line] for line in csv.reader(file, delimiter=delimiter) if any(line)]
    except (OSError, UnicodeError, csv.Error) as error:
        raise KfbenchError(f"'{path}' cannot be read as a table in UTF-8 ({error}); save it so") from error
    if not lines or len(lines[0]) < 2:
        raise KfbenchError(f"'{path}' is no table of two columns or more: an image and its class a row, as CSV")
    for number, line in enumerate(lines):
        if len(line) != len(lines[0]):
            raise KfbenchError(f"row {number} of '{path}' has {len(line)} cells, its first line {len(lines[0])}")
    return _Table(path, lines[0], lines[1:])


def _plain(cell: str) -> str:
    return _composed(cell.strip().replace("\\", "/"))


def _column_of_files(table: _Table, images: dict[str, list[_Image]]) -> int:
    def fits(column: int) -> tuple[int, int]:
        values = [row[column] for row in table.rows]
        return sum(_called(value) in images for value in values), len({*values})

    every = range(len(table.columns))
    files = [i for i in every if table.rows and all(row[i].lower().endswith(SUFFIXES) for row in table.rows)]
    best = max(files or every, key=fits)  # the numbers that pandas puts before may be names without suffix, of others
    if not table.rows or not fits(best)[0]:
        shown = ", ".join(table.rows[0]) if table.rows else "nothing"
        raise KfbenchError(
            f"no column of '{table.path}' names the images that were given; its first row is: {shown} (paths are read "
            "below the folder that was given)"
        )
    return best


def _column_of_labels(table: _Table, file_column: int, asked: str) -> int:
    others = {name: i for i, name in enumerate(table.columns) if i != file_column and name.lower() != "split"}
    if asked:
        if asked not in others:
            raise KfbenchError(f"'{table.path}' has no column '{asked}'; {near(asked, others)}")
        return others[asked]
    likely = [name for name in others if name.lower() in LABELS] if len(others) > 1 else [*others]
    if len(likely) != 1:
        if _are_one_hot(table, list(others.values())):
            raise KfbenchError(
                f"'{table.path}' has a column a class ({', '.join(others)}), 1 in one of them; write one column of the "
                "classes' names: in pandas, table[[…]].idxmax(axis=1)"
            )
        raise KfbenchError(
            f"'{table.path}' has the columns {', '.join(others)}; say which holds the classes: --label NAME"
        )
    return others[likely[0]]


def _are_one_hot(table: _Table, columns: list[int]) -> bool:
    """Whether each row of a table has 1 in one of some columns, and 0 in the others."""
    marks = {"0": 0, "0.0": 0, "1": 1, "1.0": 1}
    return bool(table.rows) and all(
        all(row[i] in marks for i in columns) and sum(marks[row[i]] for i in columns) == 1 for row in table.rows
    )


def _called(value: str) -> str:
    """Return a table's name of an image as `_names` has it: ./a.jpg is a.jpg."""
    return "/".join(part for part in PurePosixPath(value).parts if part not in (".", "/"))


def _one(table: Path, name: str, images: dict[str, list[_Image]]) -> _Image:
    there = images.get(_called(name), [])
    if not there:
        raise KfbenchError(
            f"'{table}' names an image '{name}' that was not given; leave the row out, or give it as well (paths are "
            "read below the folder that was given)"
        )
    if len(there) > 1:
        both = f"'{there[0].where}' and '{there[1].where}'"
        raise KfbenchError(f"'{name}' of '{table}' is {both}; give the folder alone that the table is about")
    return there[0]
