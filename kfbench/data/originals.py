"""Small published data sets in their authors' own files, as torchvision reads them: downloaded, or the user's copy.

A copy is what most researchers have: an archive from the authors' page, a folder where torchvision keeps the data set,
or its files loose. torchvision checks the md5 of those of CIFAR, SVHN and STL-10 before it opens them.
"""

import gzip
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, NamedTuple

from kfbench.data.listing import is_hidden
from kfbench.data.unpacking import TARS, unpack
from kfbench.errors import KfbenchError

if TYPE_CHECKING:
    from kfbench.data.packs import Pack
    from kfbench.data.rows import Raw

DIGITS = tuple("0123456789")
FIRST = [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]  # MNIST's training labels begin so
FASHION = ("T-shirt-top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


class Original(NamedTuple):
    """What a data set is published as."""

    typed: str  # as a user types it
    folder: str  # where torchvision wants the files, unpacked
    files: tuple[str, ...]


def _idx(before: str, *splits: str) -> tuple[str, ...]:
    return tuple(f"{before}{split}-{kind}-ubyte" for split in splits for kind in ("images-idx3", "labels-idx1"))


_MNIST = _idx("", "train", "t10k")
ORIGINALS = {
    "mnist": Original("*-ubyte.gz", "MNIST/raw", _MNIST),
    "fashion-mnist": Original("*-ubyte.gz", "FashionMNIST/raw", _MNIST),
    "emnist": Original("gzip.zip", "EMNIST/raw", _idx("emnist-letters-", "train", "test")),
    "svhn": Original("train_32x32.mat test_32x32.mat", "", ("train_32x32.mat", "test_32x32.mat")),
    "cifar10": Original(
        "cifar-10-python.tar.gz",
        "cifar-10-batches-py",
        (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"),
    ),
    "cifar100": Original("cifar-100-python.tar.gz", "cifar-100-python", ("train", "test", "meta")),
    "stl10": Original(
        "stl10_binary.tar.gz",
        "stl10_binary",
        ("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin", "class_names.txt"),
    ),
}


def import_originals(name: str, paths: Sequence[Path], *, quiet: bool = True) -> "Pack | None":
    """Pack a published data set from the user's copy of its files; None if none of them is there.

    `paths` are archives, loose files, gzipped or not, or a folder somewhere in which they lie. Raises KfbenchError if
    some are missing or there twice, or they are not what was published.
    """
    from kfbench.data.filling import spinner  # torch

    with spinner("packing", quiet=quiet):
        return _packed(name, paths)


def _packed(name: str, paths: Sequence[Path]) -> "Pack | None":
    from kfbench.data.packs import workplace, write  # torch

    told = ORIGINALS[name]
    source = "import of " + ", ".join(sorted(path.resolve().name for path in paths))
    if len(paths) == 1 and paths[0].is_dir():
        for root in (paths[0], *paths[0].resolve().parents[:2]):  # as torchvision has it, or a folder in it
            if all((root / told.folder / file).is_file() for file in told.files):
                return write(name, _read(name, root, paths), source=source)
    wanted = [file for path in paths for file in _wanted(path, told)]
    if not wanted:
        return None
    with workplace(name) as place:
        folder = place / told.folder
        for file in wanted:
            _lay_out(file, folder, told)
        missing = [file for file in told.files if not (folder / file).is_file()]
        if len(missing) == len(told.files):
            return None
        if missing:
            raise KfbenchError(f"{_quoted(paths)} lacks {', '.join(missing)} of '{name}'; give {told.typed}")
        return write(name, _read(name, place, paths), source=source)


def _wanted(path: Path, told: Original) -> Iterator[Path]:
    """Yield what may be, or hold, the files of a data set: an archive that is given, else what has their names."""
    if not path.is_dir():
        if _meant(path.name, told) or path.name.lower().endswith((".zip", *TARS)):
            yield path
        return
    for folder, inner, files in os.walk(path):
        inner[:] = sorted(each for each in inner if not is_hidden(each))
        for each in sorted(files):
            is_unzipped = each.endswith(".gz") and each.removesuffix(".gz") in files  # torchvision keeps both
            if (_meant(each, told) and not is_unzipped) or each in told.typed.split():
                yield Path(folder, each)


def _meant(name: str, told: Original) -> str:
    """Return which of the files a path's last part is: `train-images.idx3-ubyte.gz` is one, too; "" none."""
    plain = PurePath(name).name.removesuffix(".gz").replace(".idx", "-idx")
    return plain if plain in told.files else ""


def _lay_out(path: Path, folder: Path, told: Original) -> None:
    """Bring the files that are wanted of an archive, or one of them, into a folder, unzipped."""
    laid: dict[str, str] = {}

    def place(name: str) -> str:
        if (file := _meant(name, told)) and (file in laid or (folder / file).exists()):
            raise KfbenchError(f"'{file}' is there twice, once in '{path}'; give the folder or archive of one")
        if file:
            laid[file] = ".gz" * name.endswith(".gz")
        return file and file + laid[file]

    unpack(path, folder, place=place)
    for file, suffix in laid.items():
        if suffix:
            try:
                with gzip.open(folder / (file + suffix)) as zipped, (folder / file).open("wb") as plain:
                    shutil.copyfileobj(zipped, plain)
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise KfbenchError(f"'{file}.gz' of '{path}' is damaged ({error}); fetch it again") from error


def _read(name: str, root: Path, paths: Sequence[Path]) -> "Raw":
    try:
        raw = open_originals(name, root, fetch=False)
        if name == "mnist" and raw.train.labels[: len(FIRST)].tolist() != FIRST:
            raise ValueError("the first labels are others: Fashion-MNIST and KMNIST have files of the same names")
        return raw
    except (OSError, RuntimeError, ValueError, KeyError, AssertionError, EOFError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        said = "the md5 of a file is another" if "download=True" in said else said  # torchvision's advice is for code
        typed = ORIGINALS[name].typed
        raise KfbenchError(
            f"{_quoted(paths)} does not hold '{name}' as published ({said}); give {typed} as it was fetched"
        ) from error


def _quoted(paths: Sequence[Path]) -> str:
    return ", ".join(f"'{path}'" for path in paths)


def open_originals(name: str, root: Path, *, fetch: bool) -> "Raw":
    """Read a data set with torchvision's own class from a folder, its files downloaded there first if `fetch`."""
    import torch
    from torchvision import datasets as tv

    from kfbench.data.rows import Raw, Rows

    if name in ("cifar10", "cifar100"):
        kind = tv.CIFAR10 if name == "cifar10" else tv.CIFAR100
        parts = [kind(root, train=train, download=fetch) for train in (True, False)]
        rows = [Rows(torch.from_numpy(part.data).permute(0, 3, 1, 2), torch.tensor(part.targets)) for part in parts]
        return Raw(rows[0], rows[1], tuple(parts[0].classes))
    if name in ("svhn", "stl10"):
        kind = tv.SVHN if name == "svhn" else type("Labelled", (tv.STL10,), {"train_list": tv.STL10.train_list[:2]})
        parts = [kind(root, split=split, download=fetch) for split in ("train", "test")]
        rows = [Rows(torch.from_numpy(part.data), torch.from_numpy(part.labels).long()) for part in parts]
        return Raw(rows[0], rows[1], DIGITS if name == "svhn" else tuple(parts[0].classes))
    if name == "emnist":
        parts = [tv.EMNIST(root, split="letters", train=train, download=fetch) for train in (True, False)]
        # EMNIST's images lie on their side, and its letters are counted from 1.
        rows = [Rows(part.data.transpose(1, 2)[:, None], part.targets - 1) for part in parts]
        return Raw(rows[0], rows[1], tuple("abcdefghijklmnopqrstuvwxyz"))
    kind = tv.MNIST if name == "mnist" else tv.FashionMNIST
    parts = [kind(root, train=train, download=fetch) for train in (True, False)]
    rows = [Rows(part.data[:, None], part.targets) for part in parts]
    return Raw(rows[0], rows[1], DIGITS if name == "mnist" else FASHION)
