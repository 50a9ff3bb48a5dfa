"""Values as a user types them become a dataclass of settings or of a recipe, or a line that says which does not fit."""

import math
import re
from dataclasses import fields
from functools import lru_cache
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

from kfbench.errors import KfbenchError, near

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")


def validated(made: type[T], values: dict[str, Any], *, of: str, word: str) -> T:
    """Build a dataclass from values that may be strings. Raises KfbenchError that names the field that does not fit."""
    from pydantic import ValidationError

    known = {field.name for field in fields(made)}  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise KfbenchError(f"{of} has no {word} '{name}'; {near(str(name), known)}")
    kinds = _kinds(made)  # type: ignore[arg-type]
    typed_in = {}
    for name, value in values.items():
        try:
            typed_in[name] = _read(value, kinds[name])
        except TypeError as error:
            raise KfbenchError(f"{word} '{name}' of {of} cannot be {value!r}: {error}") from error
    try:
        valid: T = _adapter(made).validate_python(typed_in)  # type: ignore[arg-type]
        return valid
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if not where:  # fields that do not go together
            raise KfbenchError(f"{of}: {first['msg'].removeprefix('Value error, ')}") from error
        if first["type"] == "missing":
            raise KfbenchError(f"{word} '{where}' of {of} has no default; its class gives it one") from error
        raise KfbenchError(f"{word} '{where}' of {of} cannot be {first['input']!r}: {first['msg'].lower()}") from error


def _read(value: Any, kind: Any) -> Any:
    """Return what a string stands for where pydantic does not know: "none", and numbers joined by commas or slashes.

    Raises TypeError for true or false where a number is asked for, which to pydantic are 1 and 0, and for infinity.
    """
    kinds = {kind, *get_args(kind)}
    if isinstance(value, bool) and kinds & {int, float} and bool not in kinds:
        raise TypeError("it should be a number")
    if float in kinds and isinstance(value, str | float) and not _is_finite(value):
        raise TypeError("it should be a finite number")
    if isinstance(value, str) and value.lower() == "none" and NoneType in get_args(kind):
        return None
    if isinstance(value, str) and get_origin(kind) is tuple:
        return re.split("[,/]", value)
    return value


def _is_finite(value: str | float) -> bool:
    try:
        return math.isfinite(float(value))
    except ValueError:  # no number: pydantic says what it should be
        return True


@lru_cache(maxsize=128)
def _kinds(made: type[Any]) -> dict[str, Any]:
    return get_type_hints(made)


@lru_cache(maxsize=128)
def _adapter(made: type[Any]) -> "TypeAdapter[Any]":
    from pydantic import TypeAdapter

    return TypeAdapter(made)
