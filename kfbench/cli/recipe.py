"""The fields of a training recipe, as `kfbench list recipe` and docs/recipe.md show them."""

import ast
import inspect
import re
from typing import Any

from kfbench import spec
from kfbench.cli.fields import fields

KINDS = {"images": spec.Recipe, "games": spec.GameRecipe}
BOUNDS = {"Gt": "above", "Ge": "from", "Le": "to", "Lt": "below"}


def rows() -> list[dict[str, Any]]:
    """Return {"kind", "name", "values", "default", "about"} of every field, as users type them."""
    found = []
    for kind, made in KINDS.items():
        source = inspect.getsource(made)
        for node in ast.parse(source).body:
            assert isinstance(node, ast.ClassDef)
            for field in fields(node, source):
                shown = {"values": _values(field.annotation), "default": _default(field.name, field.default or "")}
                found.append({"kind": kind, "name": field.name, **shown, "about": field.note})
    return found


def _values(annotation: str) -> str:
    """Return what a field takes: "whole number above 0, or all"."""
    if annotation == "NumberOrAll":
        return "whole number above 0, or all"
    if "Literal" in annotation:
        return ", ".join(re.findall(r"'([^']*)'", annotation))
    kinds = {"tuple": "numbers", "bool": "true or false", "int": "whole number", "float": "number", "str": "name"}
    kind = next(word for name, word in kinds.items() if re.search(rf"\b{name}\b", annotation))
    bounds = [f"{BOUNDS[name]} {value}" for name, value in re.findall(r"\b(Gt|Ge|Le|Lt)\(([^)]*)\)", annotation)]
    return " ".join([kind, *bounds])


def _default(name: str, written: str) -> str:
    if written == "OWN":
        return ", ".join(f"{values[name]} ({algorithm})" for algorithm, values in spec.ALGORITHMS.items())
    return shown(ast.literal_eval(written))


def shown(value: Any) -> str:
    """Return a field's value as a list shows it, in a form that can be typed."""
    if value is None:
        return "all"  # the only fields without a value are counts
    return str(value).lower() if isinstance(value, bool) else spec.typed(value)
