"""Images in memory on the device: splits, class-balanced subsets, batches and augmentation; uint8 until the last op.

Everything random is a function of a seed and a position, so a loop that stops after step s goes on with
`batches(…, start=s)` and sees the batches it would have seen. Measured on one thread of a Xeon (CIFAR shape, batch 64,
crop and flip, result in float): see `tests/test_images.py` for the floor that is kept, 10 times torchvision's pipeline.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kfbench import sources
from kfbench.errors import KfbenchError
from kfbench.packs import Pack
from kfbench.seeding import stream

if TYPE_CHECKING:
    from kfbench.tasks import ImageTask

VAL_SHARE, VAL_MOST = 0.1, 5000  # the validation split: a tenth of the training images, at most 5,000


@dataclass(frozen=True)
class Rows:
    """What one optimiser step trains on; B rows."""

    step: int
    images: Tensor  # [B, C, H, W] uint8, augmented
    labels: Tensor  # [B] int64
    index: Tensor  # [B] int64, rows of the training split
    view: Tensor  # [B] int64, which augmentation of the image this is


@dataclass(frozen=True)
class Split:
    """Images with their labels, resident on a device."""

    images: Tensor  # [N, C, H, W] uint8
    labels: Tensor  # [N] int64, 0..K-1

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> "Split":
        """Return the split on a device; still uint8."""
        return Split(self.images.to(device), self.labels.to(device))

    def chunks(self, size: int = 500) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images [B, C, H, W] in 0..1, labels [B]) in order, not augmented, the last incomplete one too."""
        for start in range(0, len(self), size):
            yield to_float(self.images[start : start + size]), self.labels[start : start + size]


@dataclass(frozen=True)
class Images:
    """A task's data. `train` and `val` are in memory; the file of the test split is opened by `test()`, not before.

    `mean` and `std` [C] are of the rows of `train`, in units of the 0..1 range. `checksum` is that of the whole data
    set, whatever part of it the task and `train_size` take.
    """

    train: Split
    val: Split
    classes: tuple[str, ...]
    mean: Tensor
    std: Tensor
    pack: Pack
    keep: tuple[int, ...]  # class indices of the data set that the task keeps, in order
    device: torch.device = torch.device("cpu")

    @property
    def checksum(self) -> str:
        """The sha256 of the data set: classes, train and test."""
        return self.pack.checksum

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H, W of an image."""
        return self.pack.shape

    def test(self) -> Split:
        """Read the test split of the task's classes. Raises KfbenchError if its file is missing or was changed."""
        images, labels = self.pack.read("test")
        renamed = _renaming(self.keep, len(self.pack.classes))[labels]
        rows = (renamed >= 0).nonzero().squeeze(1)
        return Split(images.index_select(0, rows), renamed[rows]).to(self.device)

    def to(self, device: torch.device | str) -> "Images":
        """Return the data resident on a device, the test split included once it is asked for."""
        return replace(self, train=self.train.to(device), val=self.val.to(device), device=torch.device(device))


def load(task: "ImageTask", train_size: int | None = None, split_seed: int = 0) -> Images:
    """Load what a task trains on: `train` of `train_size` images (None: all that `val` leaves) and `val`.

    The validation split is a fixed tenth of each class, at most 5,000 images of the whole data set: it depends on
    `split_seed` only, so a class subset's is the same images as in the whole task. Training rows go round the classes,
    so every prefix is balanced (where classes last), and row i is the same image for every `train_size`.

    Raises KfbenchError if the data are missing or damaged, a kept class does not exist, or `train_size` is too large.
    """
    pack = sources.find(task.dataset)
    keep = task.keep if task.keep is not None else tuple(range(len(pack.classes)))
    if max(keep) >= len(pack.classes):
        raise KfbenchError(f"task '{task.name}': data set '{task.dataset}' has only classes 0-{len(pack.classes) - 1}")
    images, labels = pack.read("train")
    share = min(VAL_SHARE, VAL_MOST / len(labels))
    train_rows, val_rows = [], []
    for number in keep:
        rows = (labels == number).nonzero().squeeze(1)
        rows = rows[torch.randperm(len(rows), generator=stream(split_seed, "split", number))]
        held = max(1, round(share * len(rows)))
        val_rows.append(rows[:held])
        train_rows.append(rows[held:])
    chosen = _round_robin(train_rows)
    if train_size is not None and train_size > len(chosen):
        raise KfbenchError(
            f"task '{task.name}' has {len(chosen):,} training images (beside validation), not the {train_size:,} "
            f"asked for; give --train-size {len(chosen)} or less"
        )
    chosen, held_out = chosen[:train_size], torch.cat(val_rows)
    renamed = _renaming(keep, len(pack.classes))[labels]
    train = Split(images.index_select(0, chosen), renamed[chosen])
    val = Split(images.index_select(0, held_out), renamed[held_out])
    mean, std = statistics(train.images)
    return Images(train, val, tuple(pack.classes[number] for number in keep), mean, std, pack, keep)


def _renaming(keep: tuple[int, ...], classes: int) -> Tensor:
    """Return a table [classes] from the data set's labels to the task's; -1 where a class is not kept."""
    table = torch.full((classes,), -1)
    table[list(keep)] = torch.arange(len(keep))
    return table


def _round_robin(rows: list[Tensor]) -> Tensor:
    """Interleave the classes' rows: the first of every class, the second of every class, …"""
    rank = torch.cat([torch.arange(len(part)) for part in rows])
    return torch.cat(rows)[rank.argsort(stable=True)]


def statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation [C] of images [N, C, H, W], in units of the 0..1 range.

    From exact counts of the 256 values, so no float copy is made and threads do not change a bit.
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for channel in images.cpu().unbind(1):
        share = torch.zeros(256, dtype=torch.int64)
        for start in range(0, len(channel), 4096):
            share += torch.bincount(channel[start : start + 4096].flatten(), minlength=256)
        weight = share.double() / share.sum()
        centre = (weight * values).sum()
        mean.append(centre)
        std.append((weight * (values - centre) ** 2).sum().sqrt().clamp(min=1 / 255))  # a blank channel has none
    return torch.stack(mean).float(), torch.stack(std).float()


def to_float(images: Tensor) -> Tensor:
    """Turn uint8 images into float ones in 0..1: the one copy in float, of a batch."""
    return images.float().div_(255)


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Return how many optimiser steps a pass takes: an incomplete last batch is dropped, unless it is the only one."""
    return max(1, rows // batch_size)


def order(seed: int, epoch: int, rows: int) -> Tensor:
    """Return the order [rows] in which an epoch sees the training rows; the same for every method."""
    return torch.randperm(rows, generator=stream(seed, "data", epoch))


def number_of_views(pad: int, flip: bool) -> int:
    """Return how many augmentations an image has: (2 pad + 1)² crops, times 2 with flips."""
    return (2 * pad + 1) ** 2 * (2 if flip else 1)


def draw_views(seed: int, epoch: int, rows: int, *, pad: int, flip: bool, views: int | None = None) -> Tensor:
    """Return the view [rows] of every training row in an epoch; the same for every method.

    With `views`, each row has that many fixed views, the same for all seeds (drawn with replacement), and the epoch
    picks among them: then a memory of a teacher's answers by (row, view) is exact and small.
    """
    every, rng = number_of_views(pad, flip), stream(seed, "augment", epoch)
    if views is None:
        return torch.randint(every, (rows,), generator=rng)
    table = torch.randint(every, (rows, views), generator=stream(0, "views", pad, int(flip), views))
    return table[torch.arange(rows), torch.randint(views, (rows,), generator=rng)]


def augment(images: Tensor, view: Tensor, *, pad: int, flip: bool) -> Tensor:
    """Flip and crop images [B, C, H, W] (uint8), each by its own view [B], from a border of zeros `pad` wide.

    A view is ((dy · (2 pad + 1)) + dx) · 2 + mirrored with flips, dy · (2 pad + 1) + dx without: the corner of the crop
    in the padded image. Mirroring comes first. Without padding and flips the images are returned as they are.
    """
    if pad == 0 and not flip:
        return images
    batch, channels, height, width = images.shape
    side, kinds = 2 * pad + 1, 2 if flip else 1
    high, wide = height + 2 * pad, width + 2 * pad
    padded = images.new_zeros(kinds, batch, channels, high, wide)
    inner = padded[..., pad : pad + height, pad : pad + width]
    inner[0] = images
    if flip:
        inner[1] = images.flip(3)
    area = channels * high * wide
    corner, mirrored = view // kinds, view % kinds
    rows = torch.arange(batch, device=view.device)
    start = (mirrored * batch + rows) * area + corner // side * wide + corner % side  # [B]
    # Every crop is one window into the flat memory: a copy of whole runs, 7 times faster than an index for each pixel.
    last = kinds * batch * area - ((channels - 1) * high * wide + (height - 1) * wide + width)
    windows = padded.as_strided((last + 1, channels, height, width), (1, high * wide, wide, 1))
    return windows.index_select(0, start)  # [B, C, H, W]


def batches(
    split: Split,
    *,
    batch_size: int,
    seed: int,
    pad: int = 0,
    flip: bool = False,
    views: int | None = None,
    start: int = 0,
    stop: int | None = None,
) -> Iterator[Rows]:
    """Yield the rows of steps `start` to `stop` (None: for ever), epoch after epoch, on the split's device."""
    device, rows = split.images.device, len(split)
    per_epoch, size = steps_per_epoch(rows, batch_size), min(batch_size, rows)
    epoch, step = -1, start
    while stop is None or step < stop:
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            queue = order(seed, epoch, rows).to(device)
            drawn = draw_views(seed, epoch, rows, pad=pad, flip=flip, views=views).to(device)
        first = step % per_epoch * size
        index = queue[first : first + size]
        view = drawn.index_select(0, index)
        # index_select, not images[index]: 35 times faster for uint8 on a CPU
        images = augment(split.images.index_select(0, index), view, pad=pad, flip=flip)
        yield Rows(step, images, split.labels.index_select(0, index), index, view)
        step += 1
