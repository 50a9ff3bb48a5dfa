"""Crops and flips of a whole batch at once: a view of an image is one number, so it can be remembered and repeated."""

import torch
from torch import Tensor

from kfbench.seeding import stream


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
