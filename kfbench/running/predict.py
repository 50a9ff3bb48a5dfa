"""What a kept network says of images that lie anywhere: read a part at a time, each brought to the network's size."""

import contextlib
import os
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kfbench import machine, registry
from kfbench.data import images, sources
from kfbench.data.decode import Form, decode, formed, grey
from kfbench.data.entries import SUFFIXES, is_picture
from kfbench.data.filling import spinner, tracked
from kfbench.data.listing import Listed, is_hidden, is_system, listed
from kfbench.data.unpacking import is_tar
from kfbench.errors import KfbenchError
from kfbench.kinds import Declared
from kfbench.running import teacher_store
from kfbench.running.device import torch_device
from kfbench.tasks import ImageTask
from kfbench.teachers import Teacher

BATCH = 64  # images that go through the network together


@dataclass
class Predictions:
    """What a network says of images, in the order in which they were found, and what could not be asked."""

    classes: tuple[str, ...]  # by the output's place; their numbers where the network's file names none
    size: tuple[int, int]  # H, W that the network takes
    resized: str  # how images of another size came to it: "stretched", "cropped"
    files: list[str] = field(default_factory=list)
    probabilities: Tensor = field(default_factory=lambda: torch.zeros(0))  # [N, K] float32, each row sums to 1
    faults: list[str] = field(default_factory=list)  # images that cannot be read, with the reason
    left_out: list[str] = field(default_factory=list)  # files that are no images
    # images whose name, or a folder's above, begins with a dot; of a folder on the disk the folder alone
    hidden: list[str] = field(default_factory=list)
    fitted: int = 0  # images that had another size

    def rows(self, *, whole: bool = False) -> list[dict[str, str | float]]:
        """Return a row an image: file, class, probability; with `whole` also each class's, under its name."""
        found: list[dict[str, str | float]] = []
        for file, row in zip(self.files, self.probabilities.tolist(), strict=True):
            best = max(range(len(row)), key=row.__getitem__)
            others = {f"p({name})": value for name, value in zip(self.classes, row, strict=True)} if whole else {}
            found.append({"file": file, "class": self.classes[best], "probability": row[best], **others})
        return found

    def notes(self) -> list[str]:
        """Return what is to be told beside rows and faults, in lines."""
        told = []
        if self.fitted:
            height, width = self.size
            how = "stretched to" if self.resized == "stretched" else "resized, and the middle cut out, at"
            told.append(f"{self.fitted:,} of {len(self.files):,} images had another size: {how} {height}×{width}")
        if self.left_out:
            told.append(f"left out, no images: {_and_more(self.left_out)}")
        if self.hidden:
            told.append(f"left out, hidden by a dot before a name: {_and_more(self.hidden)}")
        return told


def _and_more(lines: Sequence[str]) -> str:
    """Return the first of some lines, and how many more there are."""
    return lines[0] + (f" and {len(lines) - 1:,} more" if len(lines) > 1 else "")


def predict(
    name: str,
    paths: Sequence[Path],
    *,
    results: Path,
    resized: str = "",
    device: str = "cpu",
    quiet: bool = True,
) -> Predictions:
    """Ask the network of a run (how its key begins) or a teacher (as a run names it) what images show.

    `paths` are images, or folders and zip or tar archives of them, whatever folders they lie in there. `resized` says
    how they come to the network's size, "stretched" or "cropped" (the middle); "": as the data were on which it was
    trained, where that is known, else cropped. Grey images become colour for a network of colour, and the other way.

    Images that cannot be read are in `Predictions.faults`, the others are asked all the same. Raises KfbenchError if
    there is no such network, or no image among the paths, or none that can be read, or the network is a game's.
    """
    place = torch_device(device)
    teacher = teacher_store.alone(name, results)
    task = _task(teacher)
    if task is not None and not isinstance(task, ImageTask):
        raise KfbenchError(f"'{name}' plays '{task.name}'; kfbench play KEY films it: predict is for images")
    network = teacher.network.to(place).eval()
    channels, height, width = network.shape
    if channels not in (1, 3):
        raise KfbenchError(f"'{name}' takes images of {channels} channels; kfbench.load gives the network itself")
    named = teacher.classes or tuple(str(number) for number in range(network.outputs))
    found = Predictions(named, (height, width), resized or teacher.resized or _of_data(task) or "cropped")
    answers = []
    with tempfile.TemporaryDirectory() as room:
        with spinner("looking for images", quiet=quiet):
            pictures = list(dict(_pictures(paths, Path(room), found)).items())  # paths may overlap
        if not pictures:
            where = ", ".join(f"'{path}'" for path in paths)
            raise KfbenchError(f"no image in {where}; give images, or folders or archives of them")
        for batch in _batches(pictures, found, channels=channels, quiet=quiet):
            with torch.inference_mode():
                answers.append(network(images.to_float(batch.to(place))).logits.float().softmax(1).cpu())
    if not answers:
        raise KfbenchError(_and_more(found.faults))
    found.probabilities = torch.cat(answers)
    return found


def _task(teacher: Teacher) -> Declared | None:
    """Return the task that a teacher was trained on, if it is known here."""
    with contextlib.suppress(KfbenchError):
        return None if teacher.task is None else registry.load_task(teacher.task)
    return None


def _of_data(task: ImageTask | None) -> str:
    """Return how a task's images came to their size, where its data set is on this machine."""
    with contextlib.suppress(KfbenchError):
        return "" if task is None else sources.find(task.dataset).resized
    return ""


def _batches(
    pictures: Sequence[tuple[str, Listed]], found: Predictions, *, channels: int, quiet: bool
) -> Iterator[Tensor]:
    """Yield the pixels [B, C, H, W] uint8 of images that can be read; note those, and what cannot, in `found`."""
    form = Form(*found.size, crop=found.resized == "cropped")
    read = partial(_read, form=form, channels=channels)
    parts = [pictures[start : start + BATCH] for start in range(0, len(pictures), BATCH)]
    with warnings.catch_warnings(), ThreadPoolExecutor(machine.cores()) as threads:
        warnings.simplefilter("ignore")  # Pillow's, of what it mends by itself
        for part in tracked(parts, "reading images", quiet=quiet):
            taken = []
            for (file, _), answer in zip(part, threads.map(read, part), strict=True):
                if isinstance(answer, str):
                    found.faults.append(f"'{file}' cannot be read ({answer})")
                    continue
                pixels, had_size = answer
                found.fitted += not had_size
                found.files.append(file)
                taken.append(pixels)
            if taken:
                yield torch.from_numpy(np.stack(taken))


def _pictures(paths: Sequence[Path], room: Path, found: Predictions) -> Iterator[tuple[str, Listed]]:
    """Yield the images below paths, by name, with what they are called: the path given, and the name in it."""
    for path in paths:
        if path.is_file() and is_picture(path.name):
            yield _spelled(str(path)), Listed(path.name, False, path.read_bytes)
            continue
        if path.is_file() and path.suffix.lower() != ".zip" and not (zipfile.is_zipfile(path) or is_tar(path)):
            raise KfbenchError(
                f"'{path}' is no image ({', '.join(suffix[1:] for suffix in SUFFIXES)}), and no zip or tar archive"
            )
        for each in sorted(listed(path, room), key=lambda each: each.name):
            name = _spelled(f"{path}/{each.name}")
            if is_system(each.name):
                continue
            if each.is_folder:
                if is_hidden(each.name) and not each.name.endswith("/"):  # of archives all files are listed
                    found.hidden.append(f"{name}/")
                continue
            if not is_hidden(each.name):
                if is_picture(each.name):
                    yield name, each
                else:
                    found.left_out.append(name)
            elif is_picture(each.name):
                found.hidden.append(name)


def _spelled(name: str) -> str:
    """Return a file's name as text that any file takes: bytes that are no UTF-8 as \\xe9."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _read(picture: tuple[str, Listed], *, form: Form, channels: int) -> tuple[np.ndarray, bool] | str:
    """Return the pixels [C, H, W] uint8 of an image and whether it had that size; the reason if it cannot be read."""
    try:
        whole = decode(picture[1].read())
    except Exception as error:  # Pillow and zipfile raise a dozen kinds for damaged bytes
        return " ".join(str(error).split()) or type(error).__name__
    if channels == 1 and len(whole) == 3:
        whole = grey(whole)
    size = (form.height, form.width)
    return np.broadcast_to(formed(whole, form), (channels, *size)), whole.shape[1:] == size
