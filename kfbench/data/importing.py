"""`kfbench data import`: class folders, in archives or not, become a pack; so do images whose classes a table names.

Paths hold `train/<class>/<image>` and `test/<class>/<image>`, or parts of them: archives may be halves. `val/` is the
validation split if it is there. What is missing can be held out of what is there, a share of every class. Class names
in alphabetical order are the labels. Images are decoded into a file in the data folder, not into memory.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from kfbench.data import arrays, hub, labels, parquet
from kfbench.data.decode import Form, decode, formed
from kfbench.data.entries import Entry, Found, NoClassFolders, find, numbered
from kfbench.data.filling import fill, spinner
from kfbench.data.named import copy_of, require_own
from kfbench.data.packs import Pack, workplace, write
from kfbench.data.rows import Raw, Rows, hold_out, require_rows, sha256_of
from kfbench.data.soundness import require_sound
from kfbench.data.sources import class_order
from kfbench.errors import KfbenchError


def import_images(
    name: str,
    paths: Sequence[Path],
    *,
    form: Form | None = None,
    test: float | None = None,
    val: float | None = None,
    rgb: bool = False,
    tables: Sequence[Path] = (),
    column: str = "",
    quiet: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> Pack:
    """Pack the images that lie in folders, archives and files of many, or that tables name, or are on the hub.

    `form` gives them one size, else all must be alike. `test` and `val` are shares of every class to hold out where the
    paths have no such split; without `val` the harness draws its own from train. `rgb` gives grey images three equal
    channels. `tables` name the classes of images that lie anywhere; `column` is that of the classes in those, or in
    Parquet files. `say` takes news: files left out, images in two splits or classes.

    An older pack of that name stays if anything fails. Raises KfbenchError for a name that is no folder's name, and,
    naming the file, for a corrupt archive or image, an image in two paths, a class with too few images, classes that
    differ between splits or by case only, images of different sizes, and data that are not what a well-known name says.
    """
    require_own(name)
    source = "import of " + ", ".join(
        sorted(str(path) if hub.is_meant(path) else path.resolve().name for path in paths)
    )
    paths = [hub.fetch(path.as_posix().removeprefix(hub.PREFIX)) if hub.is_meant(path) else path for path in paths]
    with workplace(name) as place:
        with spinner("looking for images", quiet=quiet):
            found = numbered(_found(name, paths, place, tables, column))
        require_sound(paths, found, {"test": test, "val": val})
        if found.by == "file":  # else no Parquet file is read, and a tree of images is not to be walked again
            for line in parquet.lacking(file for path in paths for file in parquet.files(path)):
                say(f"note: {line}")
        if found.others:
            told = found.others[0] + (f" and {len(found.others) - 1:,} more" if len(found.others) > 1 else "")
            why = "not in the table" if tables else "no image in a class folder"
            say(f"left out, {why}: {told}")
        classes = class_order(name, list({label for _, label in found.folders}))
        number = {label: row for row, label in enumerate(classes)}
        numbers = torch.tensor([number[entry.label] for entry in found.entries])
        # of images before they are resized: as they are, and as colour
        digests: list[list[bytes]] = [[]] * len(numbers)

        def read(row: int) -> np.ndarray:
            whole = decode(found.entries[row].read())
            forms = (np.broadcast_to(whole, (channels, *whole.shape[1:])) for channels in sorted({len(whole), 3}))
            digests[row] = [sha256_of(each) for each in forms]
            return whole if form is None else formed(whole, form)

        images = fill(
            place / "images",
            len(numbers),
            read,
            lambda row: found.entries[row].where,
            quiet,
        )
        originals = [each[0] if images.shape[1] == 1 else each[-1] for each in digests]
        images = images.expand(-1, 3, -1, -1) if rgb else images
        rows = {
            split: Rows(images, numbers, torch.tensor(chosen))
            for split in ("train", "val", "test")
            if (chosen := [row for row, entry in enumerate(found.entries) if (entry.split or "train") == split])
        }
        shares = {split: share for split, share in (("test", test), ("val", val)) if share is not None}
        if shares:
            rows["train"], *held = hold_out(rows["train"], classes, list(shares.values()), digests=originals)
            rows |= dict(zip(shares, held, strict=True))
        trained = numbers[rows["train"].rows()].bincount(minlength=len(classes)).tolist()
        for label, count in zip(classes, trained, strict=True):
            require_rows(f"'{label}'", count, has_val="val" in rows)
        for line in _twice(rows, numbers, originals, found):
            say(f"note: {line}")
        with spinner("packing", quiet=quiet):
            return write(
                name,
                Raw(rows["train"], rows["test"], classes, rows.get("val")),
                source=source,
                resized=form.way if form else "",
            )


def _found(name: str, paths: Sequence[Path], place: Path, tables: Sequence[Path], column: str) -> Found:
    if tables:
        return _not_tests_alone(labels.find(paths, place, tables, column), tables)
    holding = [_held(path, place, column) for path in paths]
    if any(held is not None for held in holding):
        if any(held is None for held in holding):
            raise KfbenchError("some of the paths are Parquet files or arrays and some are not; import one kind")
        entries = [entry for held in holding for entry in held or ()]
        found = Found(entries, {(entry.split, entry.label) for entry in entries}, [], by="file")
        return _not_tests_alone(found, paths)
    if column:
        raise KfbenchError("--label names a column of a table: give --labels FILE, or Parquet files")
    try:
        return find(paths, place)
    except NoClassFolders as error:
        files = copy_of(name)
        raise KfbenchError(f"{error}{files and f'; as published {name} is {files}'}") from error


def _not_tests_alone(found: Found, files: Sequence[Path]) -> Found:
    """Refuse tables and files of images that all are of the test or validation split, by what they or a column say."""
    splits = {split for split, _ in found.folders}
    if splits and not splits & {"", "train"}:
        named = ", ".join(f"'{file}'" for file in files)
        raise KfbenchError(
            f"{named}: all of it is of the split {' and '.join(sorted(splits))}, by its name or a column; give the "
            "images to train on too, or call the file otherwise"
        )
    return found


def _held(path: Path, place: Path, column: str) -> Iterator[Entry] | None:
    """Return the images of files that hold many, with their classes; None if a path is no such file."""
    if path.suffix.lower() == ".npz":
        return arrays.entries(path)
    files = parquet.files(path)
    return (entry for file in files for entry in parquet.entries(file, place, column)) if files else None


def _twice(rows: dict[str, Rows], labels: torch.Tensor, digests: list[bytes], found: Found) -> Iterator[str]:
    """Say which images are in two splits, or may come to be as `val` is drawn, and which are in two classes."""
    held = {split: [digests[row] for row in part.rows().tolist()] for split, part in rows.items()}
    called = {"train": "training", "val": "validation", "test": "test"}
    for split, other in (("test", "train"), ("val", "train"), ("test", "val")):
        there = {*held.get(other, ())}
        if same := sum(digest in there for digest in held.get(split, ())):
            yield f"{same:,} of {len(held[split]):,} {called[split]} images are also {called[other]} images"
    if "val" not in held and (more := len(held["train"]) - len({*held["train"]})):
        yield (
            f"{more:,} training image(s) are there more than once, and images to validate on are drawn from them; "
            "remove the copies, or give a val folder"
        )
    first: dict[bytes, int] = {}
    odd = [row for row, digest in enumerate(digests) if labels[first.setdefault(digest, row)] != labels[row]]
    if odd:
        one, other = (found.entries[row].where for row in (first[digests[odd[0]]], odd[0]))
        yield f"{len(odd):,} image(s) are in another class, too: '{one}' and '{other}' are the same"
