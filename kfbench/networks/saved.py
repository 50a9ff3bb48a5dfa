"""Files of weights as people have them: safetensors, or what torch.save wrote; read as data, nothing is ever executed.

What wraps the weights is taken off: the dict they are nested in beside an optimiser or an epoch, and the `module.` and
`_orig_mod.` that DistributedDataParallel, AveragedModel and torch.compile put before names.
"""

import json
import pickle
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kfbench.errors import KfbenchError, near
from kfbench.networks import header

WRAPPERS = ("module", "_orig_mod")
COUNTERS = ("n_averaged",)  # AveragedModel's own, beside the weights


class Damaged(KfbenchError):
    """A file of weights that is not whole; `what` tells it without the remedy, which is another for a stored one."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}; copy it again")
        self.what = what


@dataclass(frozen=True)
class Saved:
    """The weights of a file by the names they have there, in the order of the file."""

    tensors: dict[str, Tensor]
    is_ordered: bool  # False for safetensors, which sort what they hold: the order of the layers is lost
    about: dict[str, Any] | None  # what a file of ours says of itself; None for any other
    classes: tuple[str, ...] | None = None  # that any other file states, in the order of the outputs; None: it does not


def read(path: Path, part: str = "") -> Saved:
    """Read a file of weights, whatever its name ends in; `part` chooses among several sets of weights in it.

    Raises KfbenchError if the file is missing, damaged, holds anything but plain data, or no one set of weights.
    """
    header.require(path)
    if _is_pickle(path):
        content = _unpickled(path)
        return Saved(_chosen(path, content, part), True, None, _classes(content))
    tensors, about = _safetensors(path)
    return Saved(_chosen(path, tensors, part) if about is None or part else tensors, False, about)


def _is_pickle(path: Path) -> bool:
    """Say whether a file begins as torch.save's do: a zip archive, or before torch 1.6 a pickle.

    A safetensors file has a length of eight bytes first, which may be any, and then JSON.
    """
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:] == b"{":
        return False
    return start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"))


def _safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    try:
        with safe_open(path, framework="pt") as file:
            noted = (file.metadata() or {}).get("kfbench")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
        about = None if noted is None else header.checked(json.loads(noted), f"'{path}'")
    except (SafetensorError, OSError, ValueError) as error:
        what = "not" if path.suffix == ".safetensors" else "neither what torch.save writes nor"
        raise Damaged(f"'{path}' is {what} a whole safetensors file ({error})") from error
    return tensors, about


def _unpickled(path: Path) -> Any:
    """Return what torch.save wrote, if it is tensors and plain values; the names of classes in it are never looked up.

    Besides torch's own list, a Namespace (RepDistiller saves its options so) and numpy's numbers are plain values.
    """
    number: Any = np.float64(0).__reduce__()[0]
    numbers: list[Any] = [(number, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    kinds: set[Any] = {type(np.dtype(code)) for code in "?bhilqBHILQefd"}
    _refuse_other_archives(path)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([Namespace, *numbers, np.dtype, *kinds]):
            warnings.simplefilter("ignore")
            _require_whole(path)
            with path.open("rb") as file:  # torch.load takes a path that ends in .safetensors for what it is called
                return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise KfbenchError(
            f"'{path}' holds more than weights and plain values ({_reason(error)}), which would have to be executed; "
            "such pickles are refused: save model.state_dict() alone"
        ) from error
    except Exception as error:
        if "TorchScript" in str(error):
            raise KfbenchError(f"'{path}' is a TorchScript program, which is not run; save its state_dict()") from error
        # a damaged archive fails in as many ways as there are bytes
        raise Damaged(f"'{path}' is not a whole file of torch.save ({_reason(error)})") from error


def _refuse_other_archives(path: Path) -> None:
    """Raise KfbenchError for a sound zip archive that is not torch.save's, with what to give in its place."""
    try:
        with zipfile.ZipFile(path) as archive:
            files = {name.rpartition("/")[2] for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError, ValueError):
        return  # a pickle alone, or damaged
    if files & {"archive_format", "serialized_exported_program.json"}:
        raise KfbenchError(
            f"'{path}' is a program of torch.export, which is not run: give weights, as kfbench export KEY "
            "NAME.safetensors writes them, or the state_dict()"
        )
    if "data.pkl" not in files:
        raise KfbenchError(f"'{path}' is a zip archive, and not one of torch.save; save model.state_dict() with it")


def _require_whole(path: Path) -> None:
    """Raise ValueError if a zip archive's content is not that of its checksums: torch.load does not look at them."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        has_sums = any(each.CRC for each in archive.infolist())  # torch can be told to leave them out
        if has_sums and (bad := archive.testzip()):
            raise ValueError(f"'{bad}' in it differs from its checksum")


def _reason(error: Exception) -> str:
    """Return what torch says of a refused file in a line: its advice to execute it all the same is left out."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "Unsupported" in line or "GLOBAL" in line]
    line = (telling or lines or [type(error).__name__])[0].removeprefix("WeightsUnpickler error: ")
    return line.partition(" Please use")[0].partition(". ")[0].strip().rstrip(".")


def _chosen(path: Path, content: Any, part: str) -> dict[str, Tensor]:
    """Return the one set of weights in a file's content, unwrapped."""
    sets = _sets(content)
    if not sets:
        raise KfbenchError(f"'{path}' holds no weights: a state_dict, or a dict with one in it, is wanted")
    asked = part
    if asked in sets and asked:
        sets, asked = {asked: sets[asked]}, ""
    if len(sets) > 1:
        there = ", ".join(f"'{name}'" for name in sets)
        raise KfbenchError(
            f"'{path}' holds several sets of weights: {there}; say which: --part {next(iter(sets))}"
            if not part
            else f"no part '{part}' in '{path}'; {near(part, sets)}"
        )
    tensors = _unwrapped(next(iter(sets.values())))
    if asked:
        inner = {
            name.removeprefix(f"{asked}."): value for name, value in tensors.items() if name.startswith(f"{asked}.")
        }
        if not inner:
            known = {*sets, *(name.partition(".")[0] for name in tensors)} - {""}
            raise KfbenchError(f"no part '{part}' in '{path}'; {near(part, known)}")
        return _unwrapped(inner)
    first = {name.partition(".")[0] for name in tensors}
    if first == {"student", "teacher"}:  # as mdistiller saves a distiller
        raise KfbenchError(f"'{path}' holds a student and a teacher; say which: --part student or --part teacher")
    return tensors


def _classes(content: Any) -> tuple[str, ...] | None:
    """Return the names of classes that lie beside the weights: a list `classes`, or torchvision's `class_to_idx`."""
    told = content if isinstance(content, Mapping) else {}
    names, numbers = told.get("classes"), told.get("class_to_idx")
    if isinstance(numbers, Mapping) and [*range(len(numbers))] == sorted(filter(_is_number, numbers.values())):
        names = sorted(numbers, key=numbers.__getitem__)
    if isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names):
        return tuple(names)
    return None


def _is_number(value: Any) -> bool:
    return type(value) is int


def _sets(content: Any) -> dict[str, dict[str, Tensor]]:
    """Return {key: weights} of the dicts of tensors in a file's content; the key is "" for the content itself."""
    if not isinstance(content, Mapping):
        return {}
    if _is_weights(content):
        return {"": dict(content)}
    return {str(key): dict(value) for key, value in content.items() if _is_weights(value)}


def _is_weights(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and any(isinstance(each, Tensor) and each.dim() > 0 for each in value.values())
        and all(isinstance(name, str) and isinstance(each, Tensor) for name, each in value.items())
    )


def _unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take wrappers' names off: `module.` where all names begin so, `_orig_mod.` wherever it stands."""
    named = {name: value for name, value in tensors.items() if name not in COUNTERS}
    named = {".".join(part for part in name.split(".") if part != WRAPPERS[1]): each for name, each in named.items()}
    while named and all(name.startswith(f"{WRAPPERS[0]}.") for name in named):
        named = {name.removeprefix(f"{WRAPPERS[0]}."): value for name, value in named.items()}
    return named
