"""Images in Parquet files, as the Hugging Face hub keeps data sets: a column of pictures, and one of classes.

A file's split is what it or its folder is called: `train-00000-of-00002.parquet`, `cells_train.parquet`,
`test/0000.parquet`. The names of the classes lie in the file, where the hub's library wrote it; else a class is called
by its value.
"""

import json
import os
import re
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from kfbench.data.entries import SPLITS, Entry, require_distinct, split_of
from kfbench.data.labels import LABELS
from kfbench.data.listing import is_hidden
from kfbench.errors import KfbenchError, near

ROWS = 256  # that are read at once
SHARD = re.compile(r"(.*?)(\d+)-of-(\d{1,6})\b", re.IGNORECASE)  # what stands before, its number, and of how many


class _Columns(NamedTuple):
    """Where a file has its pictures and their classes."""

    image: str
    label: str
    names: list[str]  # of classes that are numbers; empty: the values are the names


def files(path: Path) -> list[Path]:
    """Return the Parquet files that a path is, or that lie below it."""
    if not path.is_dir():
        return [path] if path.suffix.lower() == ".parquet" else []
    found = []
    for folder, inner, names in os.walk(path):
        inner[:] = sorted(each for each in inner if not is_hidden(each))
        found += [Path(folder, each) for each in sorted(names) if each.lower().endswith(".parquet")]
    folders: dict[str, set[Path]] = {}
    for file in found:
        folders.setdefault(_split(file), set()).add(file.parent)
    for split, several in folders.items():
        if len(several) > 1:
            one, other = sorted(several)[:2]
            what = f"'{split}' files" if split else "files"
            raise KfbenchError(
                f"{what} lie in '{one}' and in '{other}', as if they were two data sets; give one of them"
            )
    return found


def lacking(found: Iterable[Path]) -> Iterator[str]:
    """Say of which sets of files some are not there, by the names of the others: -00000-of-00003 is one of three."""
    there: dict[tuple[Path, str, str], set[int]] = {}
    for file in found:
        if named := SHARD.match(file.name):
            there.setdefault((file.parent, named[1], named[3]), set()).add(int(named[2]))
    for (folder, before, total), numbers in there.items():
        first = int(int(total) in numbers)  # some count from 1
        if missing := sorted({*range(first, int(total) + first)} - numbers):
            one = folder / f"{before}{missing[0]:0{len(total)}}-of-{total}.parquet"
            yield f"{len(missing):,} of {int(total):,} Parquet files of a set are not there, as '{one}'"


def entries(path: Path, room: Path, column: str) -> Iterator[Entry]:
    """Yield the images of a Parquet file, which are laid into a file below `room`.

    `column` is that of the classes; "": one that is called as such, or the only one beside the pictures. Raises
    KfbenchError for a file that is no Parquet, without pictures or classes, and for an image without a class.
    """
    split = _split(path)
    blob = Path(tempfile.mkdtemp(dir=room), "images")
    row = end = 0
    with blob.open("wb") as out:
        for picture, label in _rows(path, column):
            where = f"{path}: row {row}"
            if not picture:
                raise KfbenchError(f"'{where}' has no picture in the file; have it written with its images")
            if label is None:
                raise KfbenchError(
                    f"'{where}' has no class, as test images whose labels are kept secret, or several; "
                    "leave the row out, or its file where all of it is so"
                )
            out.write(picture)
            yield Entry(split, label, str(row), where, partial(_slice, blob, end, len(picture)))
            row, end = row + 1, end + len(picture)


def _rows(path: Path, asked: str) -> Iterator[tuple[bytes | None, str | None]]:
    """Yield the picture and the class of every row, as far as there are any."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise KfbenchError(f"'{path}' needs pyarrow: pip install 'kfbench[parquet]'") from error
    try:
        with ParquetFile(path) as file:
            columns = _columns(path, file.schema_arrow, asked)
            for batch in file.iter_batches(ROWS, columns=[columns.image, columns.label]):
                pictures, labels = (batch.column(name).to_pylist() for name in (columns.image, columns.label))
                for picture, value in zip(pictures, labels, strict=True):
                    yield picture.get("bytes") if isinstance(picture, dict) else picture, _class(value, columns.names)
    except (ArrowException, OSError, ValueError) as error:
        raise KfbenchError(f"'{path}' is no sound Parquet file ({error}); fetch it again") from error


def _columns(path: Path, schema: Any, asked: str) -> _Columns:
    about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features: dict[str, Any] = about.get("info", {}).get("features", {})

    def are(kind: str) -> list[str]:
        return [name for name in schema.names if (features.get(name) or {}).get("_type") == kind]

    images = are("Image") or [field.name for field in schema if _holds_bytes(field.type)]
    if len(images) != 1:
        told = f"several columns of pictures ({', '.join(images)})" if images else "no column of pictures"
        raise KfbenchError(f"'{path}' has {told}; one is taken, of an image file's bytes")
    others = [name for name in schema.names if name not in images]
    if asked and asked not in others:
        raise KfbenchError(f"'{path}' has no column '{asked}'; {near(asked, others)}")
    labels = [asked] if asked else are("ClassLabel") or [name for name in others if name.lower() in LABELS]
    labels = labels or (others if len(others) == 1 else [])
    if len(labels) != 1:
        if not others:
            raise KfbenchError(f"'{path}' has no column beside its pictures; add one of their classes")
        raise KfbenchError(f"'{path}' has the columns {', '.join(others)}; say which holds the classes: --label NAME")
    names = (features.get(labels[0]) or {}).get("names") or []
    require_distinct(path, names)
    return _Columns(images[0], labels[0], names)


def _holds_bytes(kind: Any) -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        return any(field.name == "bytes" for field in kind)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _class(value: Any, names: list[str]) -> str | None:
    """Return what a class is called; None for what is none: secret (-1), several, a measure."""
    if names:
        return unicodedata.normalize("NFC", names[value]) if value in range(len(names)) else None
    return unicodedata.normalize("NFC", str(value)) if isinstance(value, int | str) else None


def _split(path: Path) -> str:
    """Return the split that a file is called by, or its folder; "" none."""
    folder = path.absolute().parent.name.lower()  # not resolved: the hub's cache is links
    return split_of(path.stem) or SPLITS.get(folder.removeprefix("partial-"), "")


def _slice(blob: Path, start: int, size: int) -> bytes:
    with blob.open("rb") as file:
        file.seek(start)
        return file.read(size)
