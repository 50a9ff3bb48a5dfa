"""What `kfbench list` knows, read from files as text: no torch, no import of a method or task."""

import contextlib
import dataclasses
import json
import operator
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kfbench import registry
from kfbench.cli import recipe
from kfbench.data import checksums
from kfbench.errors import KfbenchError, near
from kfbench.folders import data_folder, folders, hidden
from kfbench.reporting import naming
from kfbench.reporting.lines import folded
from kfbench.running import budgets
from kfbench.running.files import imported, record_files, store
from kfbench.spec import digest

BUDGETS = {
    "smoke": "seconds on a CPU: shows that everything works, measures nothing",
    "small": "at most 4 minutes on 2 CPU cores, teachers aside: the default",
    "standard": "minutes on a GPU",
    "paper": "the recipe of the task's source",
}
SECTIONS = ("methods", "tasks", "networks", "teachers", "budgets", "recipe", "runs")
PARTS = ("recipe", "settings", "teachers")  # of a spec, that may tell runs of one heading apart
NAME = 31  # the widest column of names
ASKED_FOR = ("recipe", "runs")  # sections that are listed by their names only


class Chosen(NamedTuple):
    """Which runs are listed: those on one of the tasks by one of the methods, of these the newest; empty: all."""

    tasks: Sequence[str] = ()
    methods: Sequence[str] = ()
    newest: int | None = None


def listing(what: str, results: Path, chosen: Chosen | None = None) -> dict[str, list[dict[str, Any]]]:
    """Return {section: rows}; without `what` all but those `ASKED_FOR`.

    Raises KfbenchError for an unknown section, or if runs are chosen of which there is none.
    """
    if what and what not in SECTIONS:
        raise KfbenchError(f"nothing to list as '{what}'; {near(what, SECTIONS)}")
    chosen = chosen or Chosen()
    if what != "runs" and any(chosen):
        raise KfbenchError(f"--task, --method and --newest choose runs, not {what or 'all'}: kfbench list runs")
    made: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "methods": _methods,
        "tasks": _tasks,
        "networks": _networks,
        "teachers": lambda: _dated(_told_apart(records(store(results))) + _imported(results)),
        "budgets": lambda: [{"name": name, "about": about} for name, about in BUDGETS.items()],
        "recipe": recipe.rows,
        "runs": lambda: _choose(_told_apart(records(results)), chosen, results),
    }
    return {name: made[name]() for name in ([what] if what else SECTIONS) if what or name not in ASKED_FOR}


def _choose(rows: list[dict[str, Any]], chosen: Chosen, results: Path) -> list[dict[str, Any]]:
    """Return the chosen runs, and what is damaged: nobody can tell of which it was."""
    for field, names in (("task", chosen.tasks), ("method", chosen.methods)):
        there = {row[field] for row in rows if field in row}
        for name in names:
            if not any(_is_of(each, name) for each in there):
                raise KfbenchError(f"no run of {field} '{name}' in '{results}'; {near(name, there)}")
        if names:
            rows = [row for row in rows if field not in row or any(_is_of(row[field], name) for name in names)]
    if chosen.newest is None:
        return rows
    dates = sorted((row["made"], row["name"]) for row in rows if "made" in row)
    kept = {name for _, name in dates[-chosen.newest :]}
    return [row for row in rows if row["name"] in kept or "made" not in row]


def _is_of(recorded: str, name: str) -> bool:
    """Say whether a recorded task or method is of a name: `kf/alone` is of `kf`."""
    return recorded == name or recorded.startswith(f"{name}/")


def _methods() -> list[dict[str, Any]]:
    rows = []
    for row in _described("methods"):
        attributes = row.pop("attributes", {})
        row["variants"] = sorted(_literal(attributes, "variants", {}))
        row["kinds"] = list(_literal(attributes, "kinds", ("images", "games")))
        row["teachers"] = list(_literal(attributes, "teachers", (0, 0)))
        rows.append(row)
    return rows


def _described(kind: str) -> Iterator[dict[str, Any]]:
    """Yield what each file says; of two files of one name, that neither can be run."""
    several = len(folders(kind)) > 1  # else there is nothing to look for
    for row in registry.describe_all(kind):
        twin = hidden(kind, row["name"]) if several else None
        yield row | ({"about": f"two files are called so, '{row['file']}' and '{twin}'; rename yours"} if twin else {})


def _literal(attributes: dict[str, Any], name: str, default: Any) -> Any:
    """Return a class attribute as its file writes it; empty where that is another thing, or not written out."""
    value = attributes.get(name, default)
    return value if isinstance(value, type(default)) else type(default)()


def _tasks() -> list[dict[str, Any]]:
    rows = []
    for row in _described("tasks"):
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
            if path.stem != record["key"]:
                raise ValueError(f"renamed: call it {record['key']}.json")
            rows.append(
                {
                    "name": record["key"],
                    "method": spec["method"],
                    "task": spec["task"],
                    "network": spec["recipe"]["network"],
                    "budget": spec["budget"],
                    "seed": operator.index(spec["seed"]),
                    "teachers": spec["teachers"],
                    "recipe": spec["recipe"],
                    "settings": spec["settings"],
                    "data": record["identity"].get("data", ""),
                    "made": record.get("provenance", {}).get("made", ""),
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
    for path in sorted(imported(results).glob("*.safetensors")):
        about = header.read(path)
        known = {key: about.get(key, "") for key in ("task", "network", "digest", "file", "data")}
        status = "done" if about else "unreadable"
        rows.append({"name": f"imported:{path.stem}", **known, "status": status, "val_score": about.get("val_error")})
    return rows


def _dated(teachers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mark teachers whose data set is here, but has been imported anew with other images since."""
    now: dict[str, str] = {}
    with contextlib.suppress(KfbenchError):  # this account has no data folder
        for row in teachers:
            if row.get("data"):
                here = now.setdefault(row["task"], checksums.of_pack(data_folder() / _dataset(row["task"])))
                row["is_of_older_data"] = here not in ("", row["data"])
    return teachers


def _dataset(task: str) -> str:
    """Return the data set of a task, as its file says it; nothing is imported."""
    stem, *parts = task.split("/")
    told = registry.describe("tasks", stem) if stem in registry.files("tasks") else {}
    if told.get("any_dataset") is True and parts:
        return parts[0]
    variants = told.get("variants")
    own = variants.get(parts[0]) if isinstance(variants, dict) and parts else None
    return str((own.get("dataset") if isinstance(own, dict) else "") or told.get("dataset") or stem)


def text(found: dict[str, list[dict[str, Any]]]) -> str:
    """Return a listing as lines that fit the terminal, or 80 columns."""
    lines: list[str] = []
    for section, rows in found.items():
        lines += [section.upper()] if len(found) > 1 else []
        known = [row for row in rows if row.get("status") != "damaged"]
        told = _runs([row for row in known if "recipe" in row])
        told += _columns([_cells(section, row) for row in known if "recipe" not in row])
        lines += told or ["  (none yet)"]
        lines += [f"  damaged: {row['file']}: {row['why']}" for row in rows if row.get("status") == "damaged"]
        lines.append("")
    return "\n".join(lines[:-1])


def _cells(section: str, row: dict[str, Any]) -> tuple[str, str]:
    if section == "recipe":
        return f"{row['kind']:<6}  {row['name']}", f"{row['about']} ({row['values']}; default {row['default']})"
    if section == "teachers":  # others trained it: nothing is known of how
        return row["name"], f"{row['task']}  {row['network']}  {_outcome(row)}"
    variants = ", ".join(f"{row['name']}/{variant}" for variant in row.get("variants", ()))
    return row["name"], row["about"] + (f" [{variants}]" if variants else "")


def _columns(cells: list[tuple[str, str]]) -> list[str]:
    """Return names and what is said of each beside them, folded; below a name that is too long for its column."""
    wide = max((len(name) for name, _ in cells if len(name) <= NAME), default=0)
    lines = []
    for name, about in cells:
        said = folded(about, indent=wide + 4)
        if len(name) > wide:
            lines.append(f"  {name}")
        else:
            said[0] = f"  {name:<{wide}}  {said[0].lstrip()}"
        lines += said
    return lines


def _runs(rows: list[dict[str, Any]]) -> list[str]:
    """Return runs under what all but their seeds have in common, and in what those of one name differ."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(_heading(row) + naming.but_seed(_spec(row)), []).append(row)
    lines = []
    for group in groups.values():
        name, apart = _heading(group[0]), group[0]["differs"]
        lines += folded(f"{name}{': ' if apart else ''}{', '.join(apart)}", indent=4, first=2)
        seeds = [row["seed"] for row in group]
        for row in sorted(group, key=lambda row: (row["seed"], row["made"])):
            made = f"  made {row['made'] or 'earlier'}" if seeds.count(row["seed"]) > 1 else ""  # of other data or code
            lines.append(f"    {row['name']}  seed {row['seed']:<4} {_outcome(row):>8}{made}")
    return lines


def _told_apart(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return runs with that in which each `differs` from others of its heading, whichever of them are then shown."""
    groups: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row in rows:
        if "recipe" in row:
            groups.setdefault(_heading(row), {}).setdefault(naming.but_seed(_spec(row)), []).append(row)
    for of_heading in groups.values():
        rivals = [_spec(first) for first, *_ in of_heading.values()]
        usual = _usual(next(iter(of_heading.values()))[0])
        for rival, alike in zip(rivals, of_heading.values(), strict=True):
            differs = naming.differing(rival, [*rivals, *({**rival, "recipe": each} for each in usual)], PARTS)
            for row in alike:
                row["differs"] = differs
    return rows


def _usual(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the recipe of a run's budget with its network; none where only its data would tell, which need torch."""
    from kfbench.tasks import GAMES

    with contextlib.suppress(KfbenchError):  # a task or budget of another version
        stem = row["task"].partition("/")[0]
        if "shape" not in registry.describe("tasks", stem) and registry.kind_of(stem) is not GAMES:
            return []
        made = budgets.recipe(registry.load_task(row["task"]), row["budget"], {"network": row["network"]})
        return [json.loads(json.dumps(dataclasses.asdict(made)))]
    return []


def _spec(row: dict[str, Any]) -> dict[str, Any]:
    """Return what tells a run from others of its heading."""
    return {part: row[part] for part in ("method", *PARTS)}


def _heading(row: dict[str, Any]) -> str:
    return f"{row['method']} on {row['task']}, {row['network']}, {row['budget']}"


def _outcome(row: dict[str, Any]) -> str:
    if row["status"] != "done":
        return str(row["status"])
    score, on_val = row.get("score"), row.get("val_score")
    told = f"{on_val:.2f} (val)" if on_val is not None else "" if score is None else f"{score:.2f}"
    return f"{told}  of older data" if row.get("is_of_older_data") else told
