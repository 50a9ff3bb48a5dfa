"""Crops and flips of a whole batch at once: a view of an image is one number, so it can be remembered and repeated."""

from functools import lru_cache

import torch
from torch import Tensor

from kfbench.seeding import stream


def number_of_views(pad: int, flip: bool) -> int:
    """Return how many augmentations an image has: (2 pad + 1)² crops, times 2 with flips."""
    return (2 * pad + 1) ** 2 * (2 if flip else 1)


def draw_views(seed: int, epoch: int, rows: int, *, pad: int, flip: bool, views: int | None = None) -> Tensor:
    """Return the view [rows] of every training row in an epoch; the same for every method.

    With `views`, each row has that many fixed ones, and the epoch picks among them: what a teacher says to them can be
    remembered.
    """
    rng = stream(seed, "augment", epoch)
    if views is None:
        return torch.randint(number_of_views(pad, flip), (rows,), generator=rng)
    table = fixed_views(rows, views, pad=pad, flip=flip)
    return table[torch.arange(rows), torch.randint(table.shape[1], (rows,), generator=rng)]


@lru_cache(maxsize=4)
def fixed_views(rows: int, views: int, *, pad: int, flip: bool) -> Tensor:
    """Return the different views [rows, K] that each row keeps, the same for all seeds and numbers of rows.

    K is `views`, or every view there is where that is fewer: one without padding and flips. Not to be written to.
    """
    every = number_of_views(pad, flip)
    order = torch.rand(rows, every, generator=stream(0, "views", pad, int(flip)))
    return order.topk(min(views, every), dim=1).indices


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
