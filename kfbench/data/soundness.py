"""Whether what a user gave makes a data set: its splits, its classes, its folders; each fault is a line."""

from collections.abc import Sequence
from pathlib import Path

from kfbench.data.entries import Found
from kfbench.errors import KfbenchError, near

Classes = dict[str, set[str]]  # those of each split; of "", where there are none


def require_sound(paths: Sequence[Path], found: Found, shares: dict[str, float | None]) -> None:
    """Refuse images that make no data set, and shares ("test", "val") that cannot be held out of them."""
    named = ", ".join(f"'{path}'" for path in paths)
    classes = {
        split: {label for part, label in found.folders if part == split} for split in ("", "train", "val", "test")
    }
    _require_splits(named, classes, shares, there="{}/<class>/ folders" if found.by == "folder" else "{} images")
    _require_classes(named, classes, found)
    _require_clear_folders(named, found)


def _require_splits(named: str, classes: Classes, shares: dict[str, float | None], *, there: str) -> None:
    if classes[""] and any(classes[split] for split in ("train", "val", "test")):
        raise KfbenchError(
            f"some of {named} hold train/<class>/ or test/<class>/ and some <class>/ alone; make them alike"
        )
    for split, share in shares.items():
        if share is not None and not 0 < share < 1:
            raise KfbenchError(f"--{split} {share:g} is no share of the images; give one between 0 and 1, as 0.2")
        if share is not None and classes[split]:
            raise KfbenchError(f"{named} has {there.format(split)}; leave --{split} out")
    if sum(share or 0 for share in shares.values()) >= 1:
        raise KfbenchError("--test and --val take all images together; leave some to train on")
    if not classes["train"] and not classes[""]:
        raise KfbenchError(f"no {there.format('train')} in {named}; give the archive or folder with them as well")
    if not classes["test"] and shares["test"] is None:
        raise KfbenchError(
            f"no {there.format('test')} in {named}; give the archive or folder with them as well, or hold a share of "
            "every class out: --test 0.2"
        )


def _require_classes(named: str, classes: Classes, found: Found) -> None:
    train = classes["train"] or classes[""]
    for split in ("test", "val"):
        if classes[split] and train != classes[split]:
            odd = sorted(train ^ classes[split])[0]
            has, lacks, others = ("train", split, classes[split]) if odd in train else (split, "train", train)
            raise KfbenchError(f"class '{odd}' is in {has}/ and not in {lacks}/ of {named}; {near(odd, others)}")
    cases: dict[str, str] = {}
    for label in sorted(train):
        if (other := cases.get(label.casefold())) and found.by != "file":  # there EMNIST has an a and an A
            folders = "class folders" if found.by == "folder" else "classes"
            raise KfbenchError(f"{folders} '{other}' and '{label}' of {named} differ in case only; rename one")
        cases[label.casefold()] = label
    if len(train) < 2:
        raise KfbenchError(f"{named} holds one class, '{min(train)}'; two are the least that can be told apart")


def _require_clear_folders(named: str, found: Found) -> None:
    """Refuse class folders that hold the classes again, and empty ones."""
    labels = {label for _, label in found.folders}
    inner: dict[tuple[str, str], set[str]] = {}  # a class's own folders; "": an image of it is in none
    for entry in found.entries:
        inner.setdefault((entry.split, entry.label), set()).add(entry.file.rpartition("/")[0].partition("/")[0])
    for (_, label), names in sorted(inner.items()):
        if names <= labels - {label}:
            raise KfbenchError(
                f"class folder '{label}' of {named} holds folders that are called as classes beside it, "
                f"'{min(names)}' for one; leave it out if it has them again, else rename them"
            )
    empty = sorted(found.folders - {(entry.split, entry.label) for entry in found.entries})
    if empty:
        where = "/".join(filter(None, empty[0]))
        raise KfbenchError(f"class folder '{where}' in {named} holds no images; fill it or remove it")
