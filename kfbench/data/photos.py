"""What is published of photographs that researchers fine-tune on: torchvision's classes, and two official layouts.

Training and validation images of a data set that publishes both are one split here, of which runs hold their own
validation images out, as for every other task.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from kfbench.data.rows import Rows

BANNER = 20  # rows at the foot of FGVC-Aircraft's images, with their author; its README says to remove them


class Pictures(Protocol):
    """Images with their labels: a data set of torchvision, or a list."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, index: int, /) -> Any:
        """An image, or the path of one, and its label."""


class Opened(NamedTuple):
    """A published data set: its images; without a test split one is cut."""

    train: Pictures
    test: Pictures
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Photos:
    """How a published data set is had."""

    open: Callable[[Path, bool], Opened]  # below a folder, its files downloaded first or not
    counts: tuple[int, int]  # training and test images
    files: str  # what is published, as a user types it
    folder: str = ""  # where torchvision wants those files, below the folder
    side: int = 224
    can_download: bool = True
    cut: "Callable[[Rows, tuple[str, ...]], tuple[Rows, Rows]] | None" = None  # makes train and test of one split


def _flowers(root: Path, fetch: bool) -> Opened:
    from torch.utils.data import ConcatDataset
    from torchvision.datasets import Flowers102

    train, val, test = (Flowers102(root, split=split, download=fetch) for split in ("train", "val", "test"))
    return Opened(ConcatDataset([train, val]), test, tuple(Flowers102.classes))


def _pets(root: Path, fetch: bool) -> Opened:
    from torchvision.datasets import OxfordIIITPet

    train, test = (OxfordIIITPet(root, split=split, download=fetch) for split in ("trainval", "test"))
    return Opened(train, test, tuple(train.classes))


def _textures(root: Path, fetch: bool) -> Opened:
    from torch.utils.data import ConcatDataset
    from torchvision.datasets import DTD

    train, val, test = (DTD(root, split=split, download=fetch) for split in ("train", "val", "test"))
    return Opened(ConcatDataset([train, val]), test, tuple(train.classes))


def _eurosat(root: Path, fetch: bool) -> Opened:
    from torchvision.datasets import EuroSAT

    whole = EuroSAT(root, download=fetch)
    return Opened(whole, (), tuple(whole.classes))


def _aircraft(root: Path, fetch: bool) -> Opened:
    from torchvision.datasets import FGVCAircraft

    train, test = (
        FGVCAircraft(root, split=split, download=fetch, transform=_without_banner) for split in ("trainval", "test")
    )
    return Opened(train, test, tuple(train.classes))


def _without_banner(image: Any) -> Any:
    return image.crop((0, 0, image.width, image.height - BANNER))


def _cars(root: Path, fetch: bool) -> Opened:
    from torchvision.datasets import StanfordCars

    train, test = (StanfordCars(root, split=split, download=fetch) for split in ("train", "test"))
    return Opened(train, test, tuple(train.classes))


def _food(root: Path, fetch: bool) -> Opened:
    from torchvision.datasets import Food101

    train, test = (Food101(root, split=split, download=fetch) for split in ("train", "test"))
    return Opened(train, test, tuple(train.classes))


def _caltech(root: Path, fetch: bool) -> Opened:
    from torchvision.datasets import Caltech101

    if not fetch and not (root / "caltech101" / "101_ObjectCategories").is_dir():
        raise ValueError("no folder caltech101/101_ObjectCategories")  # torchvision would make one
    whole = Caltech101(root, download=fetch)
    return Opened(whole, (), tuple(whole.categories))


def _birds(root: Path, fetch: bool) -> Opened:
    """CUB-200-2011: images.txt, image_class_labels.txt, train_test_split.txt, classes.txt: number and word a line."""
    folder = root / "CUB_200_2011"
    files, labels, is_train, classes = (
        dict(line.split(" ", 1) for line in (folder / f"{name}.txt").read_text(encoding="utf-8").splitlines() if line)
        for name in ("images", "image_class_labels", "train_test_split", "classes")
    )
    number = {key: row for row, key in enumerate(sorted(classes, key=int))}
    listed: dict[str, list[tuple[Path, int]]] = {"1": [], "0": []}
    for key, file in files.items():
        listed[is_train[key]].append((folder / "images" / file, number[labels[key]]))
    names = (classes[key].partition(".")[2].replace("_", " ") for key in number)
    return Opened(listed["1"], listed["0"], tuple(names))


def _tiny(root: Path, fetch: bool) -> Opened:
    """Tiny ImageNet: train/WNID/images/*.JPEG; val/images with val_annotations.txt; its test images have no labels."""
    folder = root / "tiny-imagenet-200"
    wnids = sorted((folder / "wnids.txt").read_text(encoding="utf-8").split())
    number = {wnid: row for row, wnid in enumerate(wnids)}
    words = dict(
        line.split("\t", 1) for line in (folder / "words.txt").read_text(encoding="utf-8").splitlines() if "\t" in line
    )
    names = [words[wnid].partition(",")[0].strip() for wnid in wnids]
    classes = [name if names.count(name) == 1 else f"{name} ({wnid})" for name, wnid in zip(names, wnids, strict=True)]
    train = [
        (file, number[wnid]) for wnid in wnids for file in sorted((folder / "train" / wnid / "images").glob("*.JPEG"))
    ]
    rows = (
        line.split("\t")
        for line in (folder / "val" / "val_annotations.txt").read_text(encoding="utf-8").splitlines()
        if line
    )
    test = [(folder / "val" / "images" / row[0], number[row[1]]) for row in rows]
    return Opened(train, test, tuple(classes))


def _fifth(rows: "Rows", classes: tuple[str, ...]) -> "tuple[Rows, Rows]":
    from kfbench.data.rows import hold_out  # torch

    train, test = hold_out(rows, classes, [0.2])
    return train, test


def _thirty(rows: "Rows", classes: tuple[str, ...]) -> "tuple[Rows, Rows]":
    """Train on 30 images of every class, by the sha256 of the pixels, and test on the others."""
    import torch

    ordered = [rows.of_class(number) for number in range(len(classes))]
    train, test = (torch.cat(part) for part in zip(*((each[:30], each[30:]) for each in ordered), strict=True))
    return rows._replace(chosen=train), rows._replace(chosen=test)


PHOTOS: dict[str, Photos] = {
    "flowers102": Photos(_flowers, (2040, 6149), "102flowers.tgz imagelabels.mat setid.mat", "flowers-102"),
    "oxford-pets": Photos(_pets, (3680, 3669), "images.tar.gz annotations.tar.gz", "oxford-iiit-pet"),
    "dtd": Photos(_textures, (3760, 1880), "dtd-r1.0.1.tar.gz", "dtd"),
    "eurosat": Photos(_eurosat, (21_600, 5400), "EuroSAT.zip", "eurosat", side=64, cut=_fifth),
    "aircraft": Photos(_aircraft, (6667, 3333), "fgvc-aircraft-2013b.tar.gz"),
    "cars": Photos(
        _cars,
        (8144, 8041),
        "cars_train.tgz cars_test.tgz car_devkit.tgz cars_test_annos_withlabels.mat",
        "stanford_cars",
        can_download=False,
    ),
    "cub200": Photos(_birds, (5994, 5794), "CUB_200_2011.tgz", can_download=False),
    "food101": Photos(_food, (75_750, 25_250), "food-101.tar.gz"),
    "caltech101": Photos(_caltech, (3030, 5647), "caltech-101.zip", "caltech101", cut=_thirty),
    "tiny-imagenet": Photos(_tiny, (100_000, 10_000), "tiny-imagenet-200.zip", side=64, can_download=False),
}
