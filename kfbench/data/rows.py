"""A data set as a source gives it: rows of images by split, the order they are packed in, shares held out of them."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kfbench.errors import KfbenchError


def sha256_of(pixels: np.ndarray) -> bytes:
    """Return the sha256 of an image's pixels [C, H, W] uint8."""
    return hashlib.sha256(np.ascontiguousarray(pixels).data).digest()


class Rows(NamedTuple):
    """A split as a source gives it: all rows, or some."""

    images: Tensor  # [N, C, H, W] uint8; may be a file's
    labels: Tensor  # [N] int64
    chosen: Tensor | None = None  # [M] the rows that the split has; None: all

    def rows(self) -> Tensor:
        """Return the rows [M] of the split."""
        return torch.arange(len(self.labels)) if self.chosen is None else self.chosen

    def of_class(self, number: int, digests: Sequence[bytes] | None = None) -> Tensor:
        """Return the rows of a class, sorted by their digests; None: by the sha256 of their pixels."""
        every = self.rows()
        rows: list[int] = every[self.labels[every] == number].tolist()
        found = {row: sha256_of(self.images[row].numpy()) if digests is None else digests[row] for row in rows}
        return torch.tensor(sorted(rows, key=found.__getitem__), dtype=torch.int64)


class Raw(NamedTuple):
    """A data set as a source gives it."""

    train: Rows
    test: Rows
    classes: tuple[str, ...]
    val: Rows | None = None  # None: the harness draws one from train

    def splits(self) -> dict[str, Rows]:
        """Return the splits there are by name."""
        return {"train": self.train, "test": self.test} | ({} if self.val is None else {"val": self.val})


def in_order(rows: Rows, classes: int) -> Tensor:
    """Return the rows of a split sorted by class, then by the sha256 of the pixels."""
    return torch.cat([rows.of_class(number) for number in range(classes)])


def hold_out(
    rows: Rows, classes: Sequence[str], shares: Sequence[float], *, digests: Sequence[bytes] | None = None
) -> list[Rows]:
    """Take shares of every class out of a split, by the sha256 of the pixels: equal images stay together, mostly.

    `digests` are those of all images, where not the images are to say it but what they were made of.

    Returns what is left and then each share's part, of at least one image a class. Raises KfbenchError for a class with
    too few.
    """
    parts: list[list[Tensor]] = [[] for _ in range(len(shares) + 1)]
    for number, name in enumerate(classes):
        ordered = rows.of_class(number, digests)
        counts = [max(1, round(share * len(ordered))) for share in shares]
        left = len(ordered) - sum(counts)
        if left < 1:
            raise KfbenchError(
                f"class '{name}' has {len(ordered)} image(s), too few to hold out {sum(counts)}; give it more, or "
                "leave it out"
            )
        sizes = ordered.split([*counts, left])  # type: ignore[no-untyped-call]
        for part, taken in zip((*parts[1:], parts[0]), sizes, strict=True):
            part.append(taken)
    return [Rows(rows.images, rows.labels, torch.cat(part)) for part in parts]


def require_rows(named: str, rows: int, *, has_val: bool) -> None:
    """Raise KfbenchError if a class has too few training images; without `has_val` one of them validates."""
    if rows < (1 if has_val else 2):
        least = "one is the least" if has_val else "one to train on and one to validate with are the least"
        raise KfbenchError(f"class {named} has {rows} training image(s); {least}: give it more, or leave it out")
