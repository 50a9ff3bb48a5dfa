"""Published photographs become packs of 224 or 64 pixels, from a download or the user's copy of the files.

Each image's middle square is resized to the data set's side; `NAME-64` is made of a pack at 224. Counts are checked
against the publication.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from kfbench.data.decode import Form, decode, pixels
from kfbench.data.filling import fill, mapped, spinner
from kfbench.data.named import SMALL, require_paths
from kfbench.data.packs import Pack, SplitName, data_folder, open_pack, require_room, workplace, write
from kfbench.data.photos import PHOTOS, Photos
from kfbench.data.rows import Raw, Rows
from kfbench.data.unpacking import unpack
from kfbench.errors import KfbenchError


def pack(name: str, root: Path, *, fetch: bool = False, quiet: bool = True) -> Pack:
    """Pack a published data set whose files lie below a folder, or are downloaded there.

    Raises KfbenchError if they do not, if an image cannot be read, or if there are more or fewer than were published.
    """
    told = PHOTOS[name]
    try:
        opened = told.open(root, fetch)
    except (OSError, RuntimeError, ValueError, KeyError, IndexError, AttributeError) as error:
        if fetch and isinstance(error, OSError | RuntimeError):
            raise  # the network's: the download says what to do
        said = " ".join(str(error).split())
        raise KfbenchError(
            f"'{root}' does not hold '{name}' as published ({said}); give {told.files}, or another name for pictures "
            "of your own"
        ) from error
    count = len(opened.train) + len(opened.test)
    labels = torch.zeros(count, dtype=torch.int64)
    form = Form(told.side, told.side, crop=True)
    every = [(part, row) for part in (opened.train, opened.test) for row in range(len(part))]

    def read(number: int) -> np.ndarray:
        part, row = every[number]
        image, label = part[row]
        labels[number] = int(label)
        return decode(image.read_bytes(), form) if isinstance(image, Path) else pixels(image, form)

    with workplace(name) as place:
        images = fill(place / "images", count, read, lambda number: f"{name}: image {number}", quiet)
        images = images.expand(-1, 3, -1, -1)
        split = [Rows(images, labels, torch.arange(count)[: len(opened.train)])]
        split.append(Rows(images, labels, torch.arange(count)[len(opened.train) :]))
        train, test = told.cut(split[0], opened.classes) if told.cut else split
        here = (len(train.rows()), len(test.rows()))
        if here != told.counts:
            raise KfbenchError(
                f"these {here[0]:,} training and {here[1]:,} test images are not '{name}', which has "
                f"{told.counts[0]:,} and {told.counts[1]:,}; give {told.files}, or import them under another name"
            )
        source = "torchvision" if fetch else "import of its files"
        with spinner("packing", quiet=quiet):
            return write(name, Raw(train, test, opened.classes), source=source, resized=form.way)


def import_published(name: str, paths: Sequence[Path], *, quiet: bool = True) -> Pack:
    """Pack a published data set from the user's copy: its archives and lists, or a folder where they lie unpacked.

    Raises KfbenchError as `pack` does.
    """
    told = PHOTOS[name]
    require_paths(name, paths)
    if len(paths) == 1 and paths[0].is_dir():
        above = [paths[0], *paths[0].resolve().parents[:2]]  # the root as torchvision has it, or a folder in it
        held = (root for root in above if _opens(told, root))
        return pack(name, next(held, paths[0]), quiet=quiet)
    with workplace(name) as place:
        with spinner("unpacking", quiet=quiet):
            for path in paths:
                unpack(path, place / told.folder)
        return pack(name, place, quiet=quiet)


def _opens(told: Photos, root: Path) -> bool:
    try:
        return bool(len(told.open(root, False).train))
    except (OSError, RuntimeError, ValueError, KeyError, IndexError, AttributeError):
        return False


def smaller(name: str) -> Pack:
    """Pack a data set at 64 pixels from its pack at 224: bilinear, with antialiasing."""
    side = int(SMALL[1:])
    source = open_pack(data_folder() / name.removesuffix(SMALL))
    names: tuple[SplitName, ...] = ("train", "test")
    splits = {split: source.read(split) for split in names}
    with workplace(name) as place:
        require_room(sum(len(labels) * 3 * side**2 for _, labels in splits.values()))
        made = {}
        for split, (images, labels) in splits.items():
            with (place / split).open("wb") as file:
                for part in images.split(256):  # type: ignore[no-untyped-call]
                    size = (side, side)
                    small = F.interpolate(part.float(), size, mode="bilinear", align_corners=False, antialias=True)
                    file.write(small.round_().clamp_(0, 255).to(torch.uint8).contiguous().numpy().data)
            made[split] = Rows(mapped(place / split, (len(labels), 3, side, side)), labels)
        raw = Raw(made["train"], made["test"], source.classes)
        return write(name, raw, source=f"'{source.name}', made smaller", resized=source.resized)
