"""Many images are decoded into one file, on all cores: they need not fit into memory together. Long work is shown."""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from kfbench import machine
from kfbench.data.packs import require_room
from kfbench.errors import KfbenchError

T = TypeVar("T")
TOGETHER = 256  # images that are decoded before they are written


def fill(file: Path, count: int, read: Callable[[int], np.ndarray], named: Callable[[int], str], quiet: bool) -> Tensor:
    """Decode `count` images [C, H, W] into a file and return it, uint8 [N, C, H, W]: C is 1 if all are grey, else 3.

    `read` returns an image by its number, from several threads; `named` says what an error calls it. Raises
    KfbenchError for images that cannot be read, naming the first and counting the others, and for one of another size.
    """

    def attempt(number: int) -> np.ndarray | KfbenchError:
        try:
            return read(number)
        except Exception as error:  # Pillow and zipfile raise a dozen kinds for damaged bytes
            why = " ".join(str(error).split()) or type(error).__name__
            fault = KfbenchError(f"'{named(number)}' cannot be read ({why}); mend or remove it")
            fault.__cause__ = error
            return fault

    parts = [range(start, min(start + TOGETHER, count)) for start in range(0, count, TOGETHER)]
    shape: tuple[int, ...] = ()
    all_grey, faults = True, []
    # written, not mapped: a disk that is full is an error then, and no signal that ends the process
    with warnings.catch_warnings(), ThreadPoolExecutor(machine.cores()) as threads, file.open("wb") as out:
        warnings.simplefilter("ignore")  # Pillow's, of what it mends by itself
        for part in tracked(parts, "reading images", quiet=quiet):
            for number, image in zip(part, threads.map(attempt, part), strict=True):
                if isinstance(image, KfbenchError):
                    faults.append(image)
                    continue
                if not shape:
                    shape = (3, *image.shape[1:])
                    require_room(count * math.prod(shape))
                if image.shape[1:] != shape[1:]:
                    first, this = ("×".join(map(str, sides)) for sides in (shape[1:], image.shape[1:]))
                    raise KfbenchError(
                        f"'{named(number)}' is {this}, others are {first} (H×W); resize all of them: --size HxW"
                    )
                all_grey &= len(image) == 1
                out.write(np.ascontiguousarray(np.broadcast_to(image, shape)).data)
    if faults:
        others = f"; {len(faults) - 1:,} more cannot be read" if len(faults) > 1 else ""
        raise KfbenchError(f"{faults[0]}{others}") from faults[0]
    whole = mapped(file, (count, *shape))
    return whole[:, :1] if all_grey else whole


def tracked(parts: Sequence[T], doing: str, *, quiet: bool) -> Iterable[T]:
    """Return the parts of some work so that, on a terminal, a bar shows how many of them are done."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    if quiet or not console.is_terminal:  # on a pipe a bar is an empty line, of Rich before 14.3 even a disabled one
        return parts
    return track(parts, doing, console=console, transient=True)


@contextmanager
def spinner(doing: str, *, quiet: bool) -> Iterator[None]:
    """Show on a terminal, while it lasts, what is being done."""
    from rich.console import Console

    console = Console(stderr=True)
    with console.status(doing) if console.is_terminal and not quiet else nullcontext():
        yield


def mapped(file: Path, shape: tuple[int, ...]) -> Tensor:
    """Return the bytes of a file as a tensor uint8, which is not to be written to."""
    return torch.from_numpy(np.memmap(file, np.uint8, "r+", shape=shape))
