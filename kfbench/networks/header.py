"""What a file of ours says of itself, without its weights and without torch."""

import json
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from kfbench.errors import KfbenchError


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_shape(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 3 and all(map(_is_count, value))


def _are_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_text, value))


KEYS: dict[str, tuple[Callable[[Any], bool], str]] = {  # what is read of a description: its type, and that in words
    **dict.fromkeys(("network", "task"), (_is_text, "a name in quotes")),
    **dict.fromkeys(("from", "part"), (lambda value: value is None or _is_text(value), "a name in quotes")),
    "shape": (_is_shape, "[channels, height, width]"),
    "outputs": (_is_count, "a whole number above 0"),
    "resized": (lambda value: value in ("stretched", "cropped"), '"stretched" or "cropped"'),
    "classes": (_are_names, 'names, as ["cat", "dog"]'),
}


def checked(told: Any, where: str) -> dict[str, Any]:
    """Return a description if it is an object whose values have the types that are read; `where` names it in errors."""
    if not isinstance(told, dict):
        raise KfbenchError(f'{where} is not a JSON object, as {{"network": NAME, …}}')
    for key, (fits, wanted) in KEYS.items():
        if key in told and not fits(told[key]):
            raise KfbenchError(f'{where} says "{key}": {json.dumps(told[key]):.60}; it must be {wanted}')
    for key in told.keys() - KEYS.keys():
        if meant := get_close_matches(key, KEYS.keys() - told.keys(), n=1, cutoff=0.8):
            raise KfbenchError(f'{where} has a "{key}", which nothing reads; did you mean "{meant[0]}"?')
    names, outputs = told.get("classes"), told.get("outputs")
    if names and outputs and len(names) != outputs:
        raise KfbenchError(f"{where} names {len(names)} classes for {outputs} outputs; name one for each")
    return told


def require(path: Path) -> None:
    """Raise KfbenchError if there is no file of weights, ours or others'."""
    if not path.is_file():
        raise KfbenchError(f"no weights '{path}'; give a .safetensors file, as kfbench export writes, or a .pth file")


def read(path: Path) -> dict[str, Any]:
    """Return the description in a safetensors file that `weights.save` wrote; empty for any other file."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            noted = json.loads(file.read(length))["__metadata__"]["kfbench"] if length < 100_000_000 else "{}"
        return checked(json.loads(noted), f"'{path}'")
    except (OSError, ValueError, KeyError, TypeError, KfbenchError):
        return {}
