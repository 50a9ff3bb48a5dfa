"""What `kfbench list` knows, read from files as text: no torch, no import of a method or task."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kfbench import registry
from kfbench.cli import recipe
from kfbench.errors import KfbenchError, near
from kfbench.running.files import record_files
from kfbench.spec import digest

BUDGETS = {
    "smoke": "seconds on a CPU: shows that everything works, measures nothing",
    "small": "at most 4 minutes on 2 CPU cores, teachers aside: the default",
    "standard": "minutes on a GPU",
    "paper": "the recipe of the task's source",
}
SECTIONS = ("methods", "tasks", "networks", "teachers", "budgets", "recipe", "runs")
ASKED_FOR = ("recipe", "runs")  # sections that are listed by their names only


def listing(what: str, results: Path) -> dict[str, list[dict[str, Any]]]:
    """Return {section: rows}; without `what` all but those `ASKED_FOR`. Raises KfbenchError for an unknown section."""
    if what and what not in SECTIONS:
        raise KfbenchError(f"nothing to list as '{what}'; {near(what, SECTIONS)}")
    made: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "methods": _methods,
        "tasks": _tasks,
        "networks": _networks,
        "teachers": lambda: records(results / "teachers") + _imported(results),
        "budgets": lambda: [{"name": name, "about": about} for name, about in BUDGETS.items()],
        "recipe": recipe.rows,
        "runs": lambda: records(results),
    }
    return {name: made[name]() for name in ([what] if what else SECTIONS) if what or name not in ASKED_FOR}


def _methods() -> list[dict[str, Any]]:
    rows = []
    for row in registry.describe_all("methods"):
        attributes = row.pop("attributes", {})
        row["variants"] = sorted(attributes.get("variants", {}))
        row["kinds"] = list(attributes.get("kinds", ("images", "games")))
        row["teachers"] = list(attributes.get("teachers", (0, 0)))
        rows.append(row)
    return rows


def _tasks() -> list[dict[str, Any]]:
    rows = []
    for row in registry.describe_all("tasks"):
        kept = {key: row.get(key) for key in ("name", "about", "file", "shape", "classes", "sources")}
        variants = row.get("variants")
        rows.append({**kept, "variants": sorted(variants) if isinstance(variants, dict) else []})
    return rows


def _networks() -> list[dict[str, Any]]:
    from kfbench.networks.family import families

    return [{"name": family.form, "about": family.about, "examples": list(family.examples)} for family in families()]


def records(folder: Path) -> list[dict[str, Any]]:
    """Return a row for each record in a results folder, but its teachers'; one that cannot be read is "damaged"."""
    rows = []
    for path in record_files(folder):
        try:
            record = json.loads(path.read_bytes())
            if digest(record["identity"]) != record["key"]:
                raise ValueError("changed by hand: its key does not fit its content")
            spec = record["spec"]
            score = record["scores"].get("last", {})
            rows.append(
                {
                    "name": record["key"],
                    "method": spec["method"],
                    "task": spec["task"],
                    "network": spec["recipe"]["network"],
                    "budget": spec["budget"],
                    "seed": spec["seed"],
                    "status": record["status"],
                    # the kind's metric would mean importing the task; a third kind's comes first in its scores
                    "score": score.get("error", score.get("return", next(iter(score.values()), None))),
                    "error": record.get("error"),
                }
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            why = f"misses {error}" if isinstance(error, KeyError) else str(error)
            rows.append({"name": path.stem, "status": "damaged", "file": str(path), "why": why})
    return rows


def _imported(results: Path) -> list[dict[str, Any]]:
    """Return the teachers that others trained; their score is on validation images, and said to be."""
    from kfbench.networks import header

    rows = []
    for path in sorted((results / "teachers" / "imported").glob("*.safetensors")):
        about = header.read(path)
        known = {key: about.get(key, "") for key in ("task", "network", "digest", "file")}
        status = "done" if about else "unreadable"
        rows.append({"name": f"imported:{path.stem}", **known, "status": status, "val_score": about.get("val_error")})
    return rows


def text(found: dict[str, list[dict[str, Any]]]) -> str:
    """Return a listing as aligned lines."""
    lines: list[str] = []
    for section, rows in found.items():
        lines += [section.upper()] if len(found) > 1 else []
        cells = [_cells(section, row) for row in rows if row.get("status") != "damaged"] or [("(none yet)",)]
        widths = [max(len(cell[i]) for cell in cells if len(cell) > i) for i in range(max(map(len, cells)))]
        lines += ["  " + "  ".join(c.ljust(w) for c, w in zip(cell, widths, strict=False)).rstrip() for cell in cells]
        lines += [f"  damaged: {row['file']}: {row['why']}" for row in rows if row.get("status") == "damaged"]
        lines.append("")
    return "\n".join(lines[:-1])


def _cells(section: str, row: dict[str, Any]) -> tuple[str, ...]:
    if section in ("teachers", "runs"):
        score, on_val = row.get("score"), row.get("val_score")
        shown = "" if score is None else f"{score:.2f}"
        shown = shown if on_val is None else f"{on_val:.2f} (val)"
        words = (row.get(name, "") for name in ("method", "task", "network", "budget", "seed", "status"))
        return (row["name"], *(str(word) for word in words), shown)
    if section == "recipe":
        return (row["kind"], row["name"], row["values"], row["default"], row["about"])
    name = row["name"]
    variants = ", ".join(f"{name}/{variant}" for variant in row.get("variants", ()))
    about = row["about"] + (f"  [{variants}]" if variants else "")
    return (name, about)
