"""Pictures of noise in class folders and zip archives, as a user's own images lie."""

import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

RNG = np.random.default_rng(0)


def picture(path: Path, size: tuple[int, int] = (4, 5), form: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (*size, 3), np.uint8)).save(path, form)
    return path


def folder(where: Path, *names: str, count: int = 10) -> Path:
    """Fill class folders with pictures."""
    for name in names:
        for number in range(count):
            picture(where / name / f"{number}.png")
    return where


SPLITS = ("train/a", "train/b", "test/a", "test/b")


def zip_of(where: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(where.rglob("*")):
            archive.write(file, file.relative_to(where))
    return path
