"""Packs: data sets on disk, one folder each in `$KFBENCH_DATA`, the same bits whatever source they came from.

A pack is `<name>/pack.json` (classes, shape, counts, checksums, source), `train.safetensors` and `test.safetensors`
(`images` uint8 [N, C, H, W], `labels` int64 [N]). Rows are sorted by class, then by the sha256 of their pixels, so a
data set has one checksum whichever archive or half it came from. A pack is made beside its place and renamed into it:
an older good one stays until the new one is whole.
"""

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from kfbench.errors import KfbenchError

SplitName = Literal["train", "test"]

# sha256 of data sets as they were published, each computed from the real images: see `Pack.checksum`.
PINNED = {
    "cifar10": "e22d72e6c3a9e787b129751fd47acc828b7c93fbb55c04091c3313ebb55ba045",
    "cifar100": "c037e46417dc0b57cb47d2b5f48a78322deed81bf8cb016d635a5c67dc3ce937",
    "digits": "3ffd1713719db35da8ddfbbdcab7737c9c706bd9dd359e85bae0cb27cfd78053",
    "fashion-mnist": "62e9b20da5c8ecb00e8cc10ad79faca78a65d6c843070513d505aef743db4cca",
    "mnist-5k": "293ece95d1354d6dd9afee0f08ab3beb45d9342804e52ec64999975c02752571",
}


AGAIN = "make it again: kfbench data import {name} PATH…, or delete its folder and: kfbench data download {name}"


class Rows(NamedTuple):
    """A split as a source gives it."""

    images: Tensor  # [N, C, H, W] uint8
    labels: Tensor  # [N] int64


class Raw(NamedTuple):
    """A data set as a source gives it."""

    train: Rows
    test: Rows
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Pack:
    """A packed data set; nothing but `pack.json` has been read."""

    folder: Path
    classes: tuple[str, ...]
    shape: tuple[int, int, int]  # C, H, W
    counts: dict[str, int]  # split -> images
    checksums: dict[str, str]  # split -> sha256 of its images and labels
    source: str  # where it came from, in words

    @property
    def name(self) -> str:
        """Name of the data set, which is its folder's."""
        return self.folder.name

    @property
    def checksum(self) -> str:
        """The sha256 of class names and both splits."""
        text = json.dumps([self.classes, self.checksums["train"], self.checksums["test"]])
        return hashlib.sha256(text.encode()).hexdigest()

    def read(self, split: SplitName) -> tuple[Tensor, Tensor]:
        """Return images [N, C, H, W] uint8 and labels [N] int64, mapped from the file, after checking their sha256."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self.folder / f"{split}.safetensors"
        try:
            tensors = load_file(path)
            images, labels = tensors["images"], tensors["labels"]
        except (OSError, SafetensorError, KeyError) as error:
            raise KfbenchError(f"'{path}' cannot be read ({error}); {AGAIN.format(name=self.name)}") from error
        if _checksum(images, labels) != self.checksums[split]:
            raise KfbenchError(
                f"'{path}' is damaged: its checksum is not the recorded one; {AGAIN.format(name=self.name)}"
            )
        return images, labels


def data_folder() -> Path:
    """Return where packs lie: $KFBENCH_DATA, else ~/.cache/kfbench."""
    return Path(os.environ.get("KFBENCH_DATA") or "~/.cache/kfbench").expanduser()


def packed() -> list[str]:
    """Return the names of all data sets in the data folder."""
    return sorted(path.parent.name for path in data_folder().glob("[!.]*/pack.json"))


def open_pack(folder: Path) -> Pack:
    """Return the pack in a folder. Raises KfbenchError if it is none, or not what its name says."""
    try:
        values = json.loads((folder / "pack.json").read_text())
        values |= {"classes": tuple(values["classes"]), "shape": tuple(values["shape"])}
        pack = Pack(folder=folder, **values)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise KfbenchError(
            f"'{folder / 'pack.json'}' is not a pack ({error}); {AGAIN.format(name=folder.name)}"
        ) from error
    _refuse_false_name(pack)
    return pack


def _refuse_false_name(pack: Pack) -> None:
    pinned = PINNED.get(pack.name)
    if pinned is not None and pack.checksum != pinned:
        train, test = pack.counts["train"], pack.counts["test"]
        raise KfbenchError(
            f"these {train:,} training and {test:,} test images (sha256 {pack.checksum[:12]}…) are not data set "
            f"'{pack.name}' ({pinned[:12]}…); to use them all the same, import them under another name"
        )


def write(name: str, raw: Raw, *, source: str) -> Pack:
    """Pack a data set in place of an older pack of that name. Raises KfbenchError if it is not what its name says."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    root = data_folder()
    try:
        root.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=root, prefix=f".{name}-"))
    except OSError as error:
        raise _not_writable(error) from error
    try:
        splits = {"train": in_order(raw.train), "test": in_order(raw.test)}
        checksums = {split: _checksum(*rows) for split, rows in splits.items()}
        counts = {split: len(rows.labels) for split, rows in splits.items()}
        shape = tuple(raw.train.images.shape[1:])
        pack = Pack(root / name, raw.classes, shape, counts, checksums, source)  # type: ignore[arg-type]
        _refuse_false_name(pack)
        for split, rows in splits.items():
            save_file({"images": rows.images, "labels": rows.labels}, made / f"{split}.safetensors")
        values = {"classes": raw.classes, "shape": shape, "counts": counts, "checksums": checksums, "source": source}
        (made / "pack.json").write_text(json.dumps(values, indent=1) + "\n")
        made.chmod(0o755)
        _replace(made, root / name)
    except (OSError, SafetensorError) as error:
        raise _not_writable(error) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return pack


def _not_writable(error: Exception) -> KfbenchError:
    return KfbenchError(f"cannot write to the data folder '{data_folder()}' ({error}); set KFBENCH_DATA to another")


def _replace(made: Path, place: Path) -> None:
    """Rename a finished folder into its place; an older one is put back if that fails."""
    if not place.exists():
        try:
            made.rename(place)
        except OSError:
            if not (place / "pack.json").is_file():  # else another process has just made the same
                raise
        return
    older = made.with_name(made.name + "-older")
    place.rename(older)
    try:
        made.rename(place)
    except OSError:
        older.rename(place)
        raise
    shutil.rmtree(older, ignore_errors=True)


def in_order(rows: Rows) -> Rows:
    """Sort rows by class, then by the sha256 of the pixels."""
    images, labels = rows.images.contiguous(), rows.labels.long()
    digests = [hashlib.sha256(image).digest() for image in images.numpy()]
    classes = labels.tolist()
    places = torch.tensor(sorted(range(len(classes)), key=lambda row: (classes[row], digests[row])))
    return Rows(images.index_select(0, places), labels.index_select(0, places))


def _checksum(images: Tensor, labels: Tensor) -> str:
    found = hashlib.sha256(json.dumps(list(images.shape)).encode())
    found.update(images.contiguous().numpy().data)
    found.update(labels.contiguous().numpy().data)
    return found.hexdigest()
