"""Names that tell runs of one method apart: by what of their specs differs. Imports no torch, and no numpy."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from kfbench import registry
from kfbench.spec import YOUNGER

Spec = Mapping[str, Any]  # a record's, as plain values


def differing(spec: Spec, rivals: Sequence[Spec], parts: Sequence[str]) -> list[str]:
    """Return in which of these parts of a spec it differs from others of its method: "teachers a, b", "lr=0.1", ….

    Settings at their defaults are not told.
    """
    words = []
    for part in parts:
        mine = spec[part]
        if isinstance(mine, dict):
            usual, younger = (
                _known(spec["method"], spec["recipe"].get("optimizer", "")) if part == "settings" else ({}, YOUNGER)
            )
            each = [younger | rival[part] for rival in rivals]
            names = sorted({name for values in each for name in values})
            varies = [name for name in names if len({json.dumps(values.get(name)) for values in each}) > 1]
            mine = younger | mine
            words += [
                f"{name}={_plain(mine[name])}" for name in varies if name in mine and mine[name] != usual.get(name)
            ]
        elif any(rival[part] != mine for rival in rivals):
            words.append(f"teachers {', '.join(mine) or 'none'}")
    return words


def but_seed(spec: Spec) -> str:
    """Return what is the same of all specs that differ in their seed only."""
    return json.dumps({name: value for name, value in spec.items() if name != "seed"}, sort_keys=True)


def _known(method: str, optimizer: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a method's, or variant's, default settings that are literals in its file, and what older specs leave out.

    Nothing if the file is gone.
    """
    stem, variant = registry.split(method)
    if stem not in registry.files("methods"):
        return {}, {}
    described = registry.describe("methods", stem)
    attributes = described.get("attributes", {})
    own = attributes.get("by_optimizer", {}).get(optimizer, {})
    own = {**own, **(attributes.get("variants", {}).get(variant, {}) if variant else {})}
    return {**described.get("settings", {}), **own}, attributes.get("younger", {})


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
