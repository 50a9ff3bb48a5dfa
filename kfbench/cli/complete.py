"""What the shell offers after Tab: names read from files, in a moment, without torch."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import typer

from kfbench import registry
from kfbench.cli import listing
from kfbench.errors import KfbenchError
from kfbench.folders import at_home, packed
from kfbench.games import reference
from kfbench.ranking.names import SCORES
from kfbench.running import files

Offers = list[tuple[str, str]]  # what may be typed, and a word about it
DEVICES = {"auto": "a GPU if there is one", "cpu": "", "cuda": "NVIDIA", "mps": "Apple"}
LOGS = {"tensorboard": "", "wandb": "Weights & Biases", "trackio": "Hugging Face"}
ORIGINS = ("best:", "random:", "run:", "imported:", "file:", "hf:", "torchvision:", "timm:")


def methods(incomplete: str) -> Offers:
    """Return methods and their variants."""
    return _begin(incomplete, _named("methods"))


def methods_by_commas(incomplete: str) -> Offers:
    """Return methods and their variants for the last of a list by commas."""
    return _last(incomplete, _named("methods"))


def tasks(incomplete: str) -> Offers:
    """Return tasks and their variants, and those of one's own data."""
    games = [(f"atari/{game}", "") for game in reference.REFERENCES]
    return _begin(incomplete, [*_named("tasks"), *_own(), *(games if incomplete.startswith("atari/") else [])])


def tasks_by_commas(incomplete: str) -> Offers:
    """Return what `tasks` does for the last of a list by commas."""
    before, comma, last = incomplete.rpartition(",")
    return [(before + comma + name, about) for name, about in tasks(last)]


def checked(incomplete: str) -> Offers:
    """Return methods, tasks and networks, as `kfbench check` takes them."""
    return [*_begin(incomplete, [*_named("methods"), *_named("tasks")]), *networks(incomplete)]


def networks(incomplete: str) -> Offers:
    """Return the networks that are given as examples."""
    rows = listing.listing("networks", Path())["networks"]
    return _begin(incomplete, [(name, row["about"]) for row in rows for name in row["examples"]])


def teachers(incomplete: str) -> Offers:
    """Return tasks and other origins for the last of a list by commas."""
    return _last(incomplete, [*((origin, "a teacher's origin") for origin in ORIGINS), *_named("tasks"), *_own()])


def downloads(incomplete: str) -> Offers:
    """Return the data sets that `kfbench data download` takes."""
    from kfbench.data import named

    return _begin(incomplete, [(name, "") for name in named.downloads()])


def imports(incomplete: str) -> Offers:
    """Return the data sets that others published, and one's own to be packed anew."""
    from kfbench.data import named

    return _begin(incomplete, [(name, "") for name in sorted({*named.imports(), *_own_data()})])


def packs(incomplete: str) -> Offers:
    """Return the data sets that are packed here."""
    with contextlib.suppress(KfbenchError, OSError):
        return _begin(incomplete, [(name, "") for name in packed()])
    return []


def store(ctx: typer.Context, incomplete: str) -> Offers:
    """Return the teachers of the store, those that were trained here by their keys; `--results` is heeded."""
    results = at_home(str(ctx.params.get("results") or "results"))
    imported = [(f"imported:{path.stem}", "") for path in sorted(files.imported(results).glob("*.safetensors"))]
    return [*_begin(incomplete, imported), *dict(_keys(files.store(results), incomplete)).items()]


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


def compared(ctx: typer.Context, incomplete: str) -> Offers:
    """Return what `kfbench compare` takes: methods if `--task` stands before, else keys."""
    return methods(incomplete) if ctx.params.get("task") else keys(ctx, incomplete)


def keys(ctx: typer.Context, incomplete: str) -> Offers:
    """Return keys of records, each with what it is; `--results` is heeded if it stands before."""
    folder = at_home(str(ctx.params.get("results") or "results"))
    return list(dict(_keys(folder, incomplete)).items())


def _keys(folder: Path, incomplete: str) -> Iterator[tuple[str, str]]:
    for path in sorted(files.walk(folder)):
        if path.suffix == ".json" and len(path.stem) == 12 and path.stem.startswith(incomplete):
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


def _own() -> Offers:
    """Return the tasks of data sets of one's own that are packed."""
    with contextlib.suppress(KfbenchError, OSError):
        takers = [row["name"] for row in registry.describe_all("tasks") if row.get("any_dataset") is True]
        return [(f"{task}/{name}", "your own images") for task in takers for name in _own_data()]
    return []


def _own_data() -> list[str]:
    """Return the data sets that are packed and no task's own; `named` knows, but takes numpy along."""
    tasks = registry.names("tasks")
    return [name for name in packed() if name.removesuffix("-64") not in tasks]


def _last(incomplete: str, offers: Offers) -> Offers:
    """Return what goes on with the last of a list by commas."""
    before, comma, last = incomplete.rpartition(",")
    return [(before + comma + name, about) for name, about in _begin(last, offers)]


def _begin(incomplete: str, offers: Offers) -> Offers:
    return [(name, about) for name, about in offers if name.startswith(incomplete)]
