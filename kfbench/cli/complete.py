"""What the shell offers after Tab: names read from files, in a moment, without torch."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import typer

from kfbench.cli import listing
from kfbench.errors import KfbenchError
from kfbench.folders import at_home
from kfbench.games import reference
from kfbench.ranking.names import SCORES

Offers = list[tuple[str, str]]  # what may be typed, and a word about it
DEVICES = {"auto": "a GPU if there is one", "cpu": "", "cuda": "NVIDIA", "mps": "Apple"}
LOGS = {"tensorboard": "", "wandb": "Weights & Biases", "trackio": "Hugging Face"}
ORIGINS = ("best:", "random:", "run:", "imported:", "file:", "hf:", "torchvision:", "timm:")


def methods(incomplete: str) -> Offers:
    """Return methods and their variants."""
    return _begin(incomplete, _named("methods"))


def tasks(incomplete: str) -> Offers:
    """Return tasks and their variants."""
    games = [(f"atari/{line.split()[0]}", "") for line in reference.TABLE.strip().splitlines()]
    return _begin(incomplete, [*_named("tasks"), *(games if incomplete.startswith("atari/") else [])])


def checked(incomplete: str) -> Offers:
    """Return methods and tasks, as `kfbench check` takes them."""
    return _begin(incomplete, [*_named("methods"), *_named("tasks")])


def networks(incomplete: str) -> Offers:
    """Return the networks that are given as examples."""
    rows = listing.listing("networks", Path())["networks"]
    return _begin(incomplete, [(name, row["about"]) for row in rows for name in row["examples"]])


def teachers(incomplete: str) -> Offers:
    """Return tasks and other origins for the last of a list by commas."""
    before, comma, last = incomplete.rpartition(",")
    begun = [*((origin, "a teacher's origin") for origin in ORIGINS), *_named("tasks")]
    return [(before + comma + name, about) for name, about in _begin(last, begun)]


def budgets(incomplete: str) -> Offers:
    """Return the budgets."""
    return _begin(incomplete, list(listing.BUDGETS.items()))


def scores(incomplete: str) -> Offers:
    """Return the scores that teachers are ranked by."""
    return _begin(incomplete, list(SCORES.items()))


def devices(incomplete: str) -> Offers:
    """Return the kinds of device."""
    return _begin(incomplete, list(DEVICES.items()))


def logs(incomplete: str) -> Offers:
    """Return the kinds of log."""
    return _begin(incomplete, list(LOGS.items()))


def piles(incomplete: str) -> Offers:
    """Return what `kfbench clean` deletes."""
    from kfbench.running.housekeeping import ABOUT

    return _begin(incomplete, list(ABOUT.items()))


def sections(incomplete: str) -> Offers:
    """Return what `kfbench list` lists."""
    return _begin(incomplete, [(name, "") for name in listing.SECTIONS])


def keys(ctx: typer.Context, incomplete: str) -> Offers:
    """Return keys of records, each with what it is; `--results` is heeded if it stands before."""
    folder = at_home(str(ctx.params.get("results") or "results"))
    return list(dict(_keys(folder, incomplete)).items())


def _keys(folder: Path, incomplete: str) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob(f"{incomplete}*.json")):
        if len(path.stem) == 12:
            place = path.relative_to(folder).parts[:-1]
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                yield path.stem, f"{' '.join(place)}, seed {json.loads(path.read_bytes())['spec']['seed']}"


def studies(incomplete: str) -> Offers:
    """Return folders that hold a study."""
    return _begin(incomplete, [(str(path.parent), "") for path in sorted(Path("reports").glob("*/study.toml"))])


def _named(section: str) -> Offers:
    """Return the names and variants of methods or tasks."""
    with contextlib.suppress(KfbenchError, OSError):
        rows = listing.listing(section, Path())[section]
        return [
            (name, row["about"])
            for row in rows
            for name in (row["name"], *(f"{row['name']}/{variant}" for variant in row.get("variants", ())))
        ]
    return []


def _begin(incomplete: str, offers: Offers) -> Offers:
    return [(name, about) for name, about in offers if name.startswith(incomplete)]
