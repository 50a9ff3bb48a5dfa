"""Crops and flips of a whole batch at once: a view of an image is one number, so it can be remembered and repeated.

Two kinds of crop: a window moved by whole pixels over the image with a border (`pad`, as CIFAR's recipes have it), or a
part of the image of random area, aspect and place, resized to the whole (`crop`, as ImageNet's have it).
"""

import math
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kfbench.seeding import stream

# A resized crop is drawn from a lattice: how many areas, aspects and, in each direction, places there are.
AREAS, ASPECTS, PLACES = 64, 17, 32
ASPECT = 4 / 3  # the most that a resized crop stretches or squeezes: torchvision's and Inception's range


def number_of_views(pad: int, flip: bool, crop: float = 0.0) -> int:
    """Return how many augmentations an image has: (2 pad + 1)² crops, or the lattice's; times 2 with flips."""
    return (len(_sides(crop)) * PLACES**2 if crop else (2 * pad + 1) ** 2) * (2 if flip else 1)


def draw_views(
    seed: int, epoch: int, rows: int, *, pad: int, flip: bool, crop: float = 0.0, views: int | None = None
) -> Tensor:
    """Return the view [rows] of every training row in an epoch; the same for every method.

    With `views`, each row has that many fixed ones, and the epoch picks among them: what a teacher says to them can be
    remembered.
    """
    rng = stream(seed, "augment", epoch)
    if views is None:
        return torch.randint(number_of_views(pad, flip, crop), (rows,), generator=rng)
    table = fixed_views(rows, views, pad=pad, flip=flip, crop=crop)
    return table[torch.arange(rows), torch.randint(table.shape[1], (rows,), generator=rng)]


@lru_cache(maxsize=4)
def fixed_views(rows: int, views: int, *, pad: int, flip: bool, crop: float = 0.0) -> Tensor:
    """Return the different views [rows, K] that each row keeps, the same for all seeds and numbers of rows.

    K is `views`, or every view there is where that is fewer: one without padding and flips. Resized crops are so many
    that two of a row's are hardly ever the same, and it does no harm. Not to be written to.
    """
    every = number_of_views(pad, flip, crop)
    if crop:
        return torch.randint(every, (rows, views), generator=stream(0, "views", "crop", int(flip)))
    order = torch.rand(rows, every, generator=stream(0, "views", pad, int(flip)))
    return order.topk(min(views, every), dim=1).indices


def augment(images: Tensor, view: Tensor, *, pad: int, flip: bool, crop: float = 0.0) -> Tensor:
    """Flip and crop images [B, C, H, W] (uint8), each by its own view [B].

    With `pad`, from a border of zeros that wide: a view is ((dy · (2 pad + 1)) + dx) · 2 + mirrored with flips,
    dy · (2 pad + 1) + dx without, the corner of the crop in the padded image. Mirroring comes first. With `crop`, see
    `resized`. Without any of it the images are returned as they are.
    """
    if crop:
        return resized(images, view, flip=flip, crop=crop)
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


class Boxes(NamedTuple):
    """Parts of images, in shares of their height and width; all [B]."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    mirrored: Tensor  # bool


def boxes(view: Tensor, *, flip: bool, crop: float) -> Boxes:
    """Return the part of the image that each view [B] shows.

    The area is uniform in crop..1, the aspect log-uniform in 3/4..4/3, of the boxes that fit; the place is uniform.
    That is torchvision's RandomResizedCrop on a lattice. Aspects are relative to the image's own, as what comes out has
    the image's shape.
    """
    kinds = 2 if flip else 1
    rest, mirrored = view // kinds, view % kinds == 1
    rest, column = rest // PLACES, rest % PLACES
    rest, row = rest // PLACES, rest % PLACES
    height, width = _sides_on(view.device, crop)[rest].unbind(1)
    top, left = (place / (PLACES - 1) * (1 - side) for place, side in ((row, height), (column, width)))
    return Boxes(top, left, height, width, mirrored)


@lru_cache(maxsize=4)
def _sides(crop: float) -> Tensor:
    """Return the height and width [S, 2] of every box that a resized crop may have, in shares of the image's."""
    area = crop + (1 - crop) * (torch.arange(AREAS) + 0.5) / AREAS
    stretch = (math.log(ASPECT) * (2 * (torch.arange(ASPECTS) + 0.5) / ASPECTS - 1)).exp()  # the middle one is 1
    sides = torch.stack([(area[:, None] / stretch).sqrt(), (area[:, None] * stretch).sqrt()], dim=2).flatten(0, 1)
    return sides[(sides <= 1).all(1)]


@lru_cache(maxsize=4)
def _sides_on(device: torch.device, crop: float) -> Tensor:
    """Return `_sides` on a device, where they stay: a GPU would wait for the copy in every step."""
    return _sides(crop).to(device)


def resized(images: Tensor, view: Tensor, *, flip: bool, crop: float) -> Tensor:
    """Return a part of each image [B, C, H, W] (uint8), bilinearly resized to the whole, mirrored or not."""
    box = boxes(view, flip=flip, crop=crop)
    across = torch.where(box.mirrored, -box.width, box.width)
    zero = torch.zeros_like(across)
    shown = torch.stack(  # [B, 2, 3]: from places in what comes out to places in the image, both in -1..1
        [
            torch.stack([across, zero, 2 * box.left + box.width - 1], dim=1),
            torch.stack([zero, box.height, 2 * box.top + box.height - 1], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(shown.float(), list(images.shape), align_corners=False)
    found = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return found.round_().to(torch.uint8)
