"""`kfbench data import`: class folders in zip archives or directories become a pack.

Paths hold `train/<class>/<image>` and `test/<class>/<image>`, or parts of them: archives may be halves. `val/` is the
validation split if it is there. What is missing can be held out of what is there, a share of every class. Class names
in alphabetical order are the labels. Images are decoded into a file in the data folder, not into memory.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from kfbench.data.decode import Form, decode, formed
from kfbench.data.entries import Found, find
from kfbench.data.filling import fill
from kfbench.data.named import require_own
from kfbench.data.packs import Pack, Raw, Rows, hold_out, not_writable, require_rows, sha256_of, workplace, write
from kfbench.data.sources import class_order
from kfbench.errors import KfbenchError, near


def import_folders(
    name: str,
    paths: Sequence[Path],
    *,
    form: Form | None = None,
    test: float | None = None,
    val: float | None = None,
    rgb: bool = False,
    quiet: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> Pack:
    """Pack the images that lie in zip archives and folders.

    `form` gives them one size, else all must be alike. `test` and `val` are shares of every class to hold out where the
    paths have no such split; without `val` the harness draws its own from train. `rgb` gives grey images three equal
    channels. `say` takes news: files left out, images in two splits or classes.

    An older pack of that name stays if anything fails. Raises KfbenchError for a name that is no folder's name, and,
    naming the file, for a corrupt archive or image, an image in two paths, a class with too few images, classes that
    differ between splits or by case only, images of different sizes, and data that are not what a well-known name says.
    """
    require_own(name)
    found = find(paths)
    check(paths, found, {"test": test, "val": val})
    if found.others:
        told = found.others[0] + (f" and {len(found.others) - 1:,} more" if len(found.others) > 1 else "")
        say(f"left out, no image in a class folder: {told}")
    classes = class_order(name, list({label for _, label in found.folders}))
    number = {label: row for row, label in enumerate(classes)}
    labels = torch.tensor([number[entry.label] for entry in found.entries])
    place = workplace(name)
    digests: list[list[bytes]] = [[]] * len(labels)  # of images before they are resized: as they are, and as colour

    def read(row: int) -> np.ndarray:
        whole = decode(found.entries[row].read())
        forms = (np.broadcast_to(whole, (channels, *whole.shape[1:])) for channels in sorted({len(whole), 3}))
        digests[row] = [sha256_of(each) for each in forms]
        return whole if form is None else formed(whole, form)

    try:
        images = fill(
            place / "images",
            len(labels),
            read,
            lambda row: found.entries[row].where,
            quiet,
        )
        images = images.expand(-1, 3, -1, -1) if rgb else images
        rows = {
            split: Rows(images, labels, torch.tensor(chosen))
            for split in ("train", "val", "test")
            if (chosen := [row for row, entry in enumerate(found.entries) if (entry.split or "train") == split])
        }
        shares = {split: share for split, share in (("test", test), ("val", val)) if share is not None}
        originals = [each[0] if images.shape[1] == 1 else each[-1] for each in digests]
        if shares:
            rows["train"], *held = hold_out(rows["train"], classes, list(shares.values()), digests=originals)
            rows |= dict(zip(shares, held, strict=True))
        trained = labels[rows["train"].rows()].bincount(minlength=len(classes)).tolist()
        for label, count in zip(classes, trained, strict=True):
            require_rows(f"'{label}'", count, has_val="val" in rows)
        for line in _twice(rows, labels, originals, found):
            say(f"note: {line}")
        source = "import of " + ", ".join(sorted(path.resolve().name for path in paths))
        return write(name, Raw(rows["train"], rows["test"], classes, rows.get("val")), source=source)
    except OSError as error:
        raise not_writable(error) from error
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _twice(rows: dict[str, Rows], labels: torch.Tensor, digests: list[bytes], found: Found) -> Iterator[str]:
    """Say which images are in two splits, and which in two classes."""
    train = {digests[row] for row in rows["train"].rows().tolist()}
    for split, word in (("test", "test"), ("val", "validation")):
        there = rows[split].rows().tolist() if split in rows else []
        if same := sum(digests[row] in train for row in there):
            yield f"{same:,} of {len(there):,} {word} images are also training images"
    first: dict[bytes, int] = {}
    odd = [row for row, digest in enumerate(digests) if labels[first.setdefault(digest, row)] != labels[row]]
    if odd:
        one, other = (found.entries[row].where for row in (first[digests[odd[0]]], odd[0]))
        yield f"{len(odd):,} image(s) are in another class, too: '{one}' and '{other}' are the same"


def check(paths: Sequence[Path], found: Found, shares: dict[str, float | None]) -> None:
    """Refuse class folders that make no data set, and shares that cannot be held out."""
    named = ", ".join(f"'{path}'" for path in paths)
    splits = {
        split: {label for part, label in found.folders if part == split} for split in ("", "train", "val", "test")
    }
    if splits[""] and any(splits[split] for split in ("train", "val", "test")):
        raise KfbenchError(
            f"some of {named} hold train/<class>/ or test/<class>/ and some <class>/ alone; make them alike"
        )
    for split, share in shares.items():
        if share is not None and not 0 < share < 1:
            raise KfbenchError(f"--{split} {share:g} is no share of the images; give one between 0 and 1, as 0.2")
        if share is not None and splits[split]:
            raise KfbenchError(f"{named} has {split}/<class>/ folders; leave --{split} out")
    if sum(share or 0 for share in shares.values()) >= 1:
        raise KfbenchError("--test and --val take all images together; leave some to train on")
    train = splits["train"] or splits[""]
    if not train:
        raise KfbenchError(f"no train/<class>/ folders in {named}; give the archive or folder with them as well")
    if not splits["test"] and shares["test"] is None:
        raise KfbenchError(
            f"no test/<class>/ folders in {named}; give the archive or folder with them as well, or hold a share of "
            "every class out: --test 0.2"
        )
    for split in ("test", "val"):
        if splits[split] and train != splits[split]:
            odd = sorted(train ^ splits[split])[0]
            has, lacks, others = ("train", split, splits[split]) if odd in train else (split, "train", train)
            raise KfbenchError(f"class '{odd}' is in {has}/ and not in {lacks}/ of {named}; {near(odd, others)}")
    cases: dict[str, str] = {}
    for label in sorted(train):
        if other := cases.get(label.casefold()):
            raise KfbenchError(f"class folders '{other}' and '{label}' of {named} differ in case only; rename one")
        cases[label.casefold()] = label
    inner: dict[tuple[str, str], set[str]] = {}  # a class's own folders; "": an image of it is in none
    for entry in found.entries:
        inner.setdefault((entry.split, entry.label), set()).add(entry.file.rpartition("/")[0].partition("/")[0])
    for (_, label), names in sorted(inner.items()):
        if names <= train - {label}:
            raise KfbenchError(
                f"class folder '{label}' of {named} holds folders that are called as classes beside it, "
                f"'{min(names)}' for one; leave it out if it has them again, else rename them"
            )
    empty = sorted(found.folders - {(entry.split, entry.label) for entry in found.entries})
    if empty:
        where = "/".join(filter(None, empty[0]))
        raise KfbenchError(f"class folder '{where}' in {named} holds no images; fill it or remove it")
    if len(train) < 2:
        raise KfbenchError(f"{named} holds one class, '{min(train)}'; two are the least that can be told apart")
