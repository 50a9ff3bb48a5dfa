"""Images in NumPy's archives, as MedMNIST and Keras publish them: `train_images`, `train_labels`, … in a .npz.

Images are uint8 [N, H, W], [N, H, W, C] or [N, C, H, W], labels numbers or words [N] or [N, 1]. An array `classes` may
name the classes that are numbers; else these are called by them.
"""

import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from kfbench.data.entries import SPLITS, Entry, require_distinct
from kfbench.errors import KfbenchError

Arrays = dict[str, np.ndarray]
IMAGES, LABELS, NAMES = ("images", "x", "data"), ("labels", "y", "targets"), ("classes", "class_names")
PLAIN = "name them train_images, train_labels, test_images, test_labels (and val_images, val_labels)"


def entries(path: Path) -> Iterator[Entry]:
    """Yield the images of a .npz file; its arrays stay in memory.

    Raises KfbenchError for one that is damaged or holds objects, arrays whose names or shapes say nothing, numbers of
    another kind than uint8, and images without a class or with several.
    """
    arrays = _read(path)
    names: list[str] = next((arrays[name].ravel().astype(str).tolist() for name in NAMES if name in arrays), [])
    require_distinct(path, names)
    for split, images, labels in _pairs(path, arrays):
        for row, label in enumerate(labels.tolist()):
            where = f"{path}: {split or 'image'} {row}"
            if names and not (isinstance(label, int) and 0 <= label < len(names)):
                raise KfbenchError(f"'{where}' has label {label}, and 'classes' names {len(names)}")
            called = names[label] if names else str(label)
            yield Entry(split, called, str(row), where, partial(_png, images, row))


def _read(path: Path) -> Arrays:
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no .npz archive")
        with path.open("rb") as file:
            held = np.load(file)
            return {name.lower(): held[name] for name in held.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, KeyError, AttributeError) as error:
        said, remedy = str(error), "save them anew with numpy.savez"
        if "allow_pickle" in said:
            said, remedy = "it holds objects, which are not opened", "save plain ones: labels.astype(str)"
        raise KfbenchError(f"'{path}' cannot be read as arrays ({said}); {remedy}") from error


def _pairs(path: Path, arrays: Arrays) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield each split with its images [N, C, H, W] and labels [N]."""
    found: dict[tuple[str, str], str] = {}
    for name in arrays:
        parts = re.split(r"[_/]", name)
        split = next((SPLITS[part] for part in parts if part in SPLITS), "")
        kind = next((kind for kind, known in (("images", IMAGES), ("labels", LABELS)) if {*known} & {*parts}), "")
        if kind and found.setdefault((split, kind), name) != name:
            raise KfbenchError(f"'{path}' holds '{found[split, kind]}' and '{name}'; leave one of them out")
    splits = sorted({split for split, _ in found})
    for split in splits:
        both = [found.get((split, kind)) for kind in ("images", "labels")]
        if None in both:
            raise KfbenchError(f"'{path}' holds the arrays {', '.join(arrays)}; {PLAIN}")
        images, labels = (arrays[str(name)] for name in both)
        yield split, _placed(path, str(both[0]), images), _flat(path, str(both[1]), labels, len(images))
    if not splits:
        raise KfbenchError(f"'{path}' holds the arrays {', '.join(arrays) or 'none'}; {PLAIN}")


def _placed(path: Path, name: str, images: np.ndarray) -> np.ndarray:
    """Return images [N, C, H, W]."""
    if images.dtype != np.uint8:
        raise KfbenchError(
            f"'{name}' of '{path}' is {images.dtype}; images are uint8, 0 to 255: "
            "of 0 to 1, (255 * x).round().astype('uint8')"
        )
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and images.shape[3] in (1, 3):
        return images.transpose(0, 3, 1, 2)
    if images.ndim == 4 and images.shape[1] in (1, 3):
        return images
    raise KfbenchError(
        f"'{name}' of '{path}' is {list(images.shape)}; images are [N, H, W], with 1 or 3 channels or none"
    )


def _flat(path: Path, name: str, labels: np.ndarray, count: int) -> np.ndarray:
    """Return labels [N]."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (count,) or labels.dtype.kind not in "iuU":
        raise KfbenchError(
            f"'{name}' of '{path}' is {labels.dtype} {list(labels.shape)}; labels are a class an image: [{count}], "
            "whole numbers or words; of one-hot rows, x.argmax(1)"
        )
    if labels.dtype.kind == "i" and labels.min(initial=0) < 0:
        raise KfbenchError(f"'{name}' of '{path}' has a class {labels.min()}; leave such images out")
    return labels


def _png(images: np.ndarray, row: int) -> bytes:
    """Return an image [C, H, W] as a file, which holds the same pixels."""
    from PIL import Image

    pixels = images[row]
    buffer = io.BytesIO()
    plain = pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0))
    Image.fromarray(plain).save(buffer, "png", compress_level=0)
    return buffer.getvalue()
