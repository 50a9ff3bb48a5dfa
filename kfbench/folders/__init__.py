"""Where methods, tasks, networks and data lie: the wheel, beside it in a checkout, the user's folders, packages."""

import importlib.metadata
import os
import sys
from functools import lru_cache
from importlib.metadata import EntryPoint
from pathlib import Path

from kfbench.errors import KfbenchError

PACKAGE = Path(__file__).resolve().parents[1]


def at_home(path: str, *, instead: str = "write the whole path") -> Path:
    """Return a path whose first part may be ~.

    Raises KfbenchError where there is no home, as in some containers; `instead` is what a user can do but set one.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise KfbenchError(f"this account has no home folder for '{path}'; {instead}, or set HOME") from error


def data_folder() -> Path:
    """Return where packs lie: $KFBENCH_DATA, else ~/.cache/kfbench. Raises KfbenchError where there is no home."""
    path = os.environ.get("KFBENCH_DATA") or "~/.cache/kfbench"
    return at_home(path, instead="name a folder with KFBENCH_DATA")


def packed() -> list[str]:
    """Return the names of all data sets in the data folder."""
    return sorted(path.parent.name for path in data_folder().glob("[!.]*/pack.json"))


def folders(kind: str) -> list[str]:
    """Return the folders with "methods", "tasks" or "networks": ours, then the user's in $KFBENCH_METHODS and so on."""
    inside, beside = PACKAGE / kind, PACKAGE.parent / kind
    ours = [str(folder) for folder in (inside, beside) if folder.is_dir()][:1]
    theirs = os.environ.get(f"KFBENCH_{kind.upper()}", "").split(os.pathsep)
    return ours + [str(at_home(folder).resolve()) for folder in theirs if folder]


def files(kind: str) -> dict[str, Path]:
    """Return {name: file} of every file of a kind in our folder and the user's; the first folder wins a name."""
    by_name: dict[str, Path] = {}
    for folder in folders(kind):
        for path in sorted(Path(folder).glob("*.py")):
            if not path.name.startswith("_"):
                by_name.setdefault(path.stem, path)
    return by_name


def hidden(kind: str, name: str) -> Path | None:
    """Return a file of that name in one of the user's folders which `files` passes over for an earlier one."""
    taken = files(kind).get(name)
    there = [Path(folder) / f"{name}.py" for folder in folders(kind)]
    return next((path for path in there if taken and path.is_file() and not path.samefile(taken)), None)


def gone(kind: str) -> str:
    """Say which folders the user has named for methods, tasks or networks that are not there; "" if all are."""
    missing = [folder for folder in folders(kind)[1:] if not Path(folder).is_dir()]
    return f" ($KFBENCH_{kind.upper()} names '{missing[0]}', which is no folder)" if missing else ""


def entry_points(group: str) -> tuple[EntryPoint, ...]:
    """Return what installed packages offer in a group, as `kfbench.methods`."""
    return _installed(tuple(sys.path)).get(group, ())


@lru_cache(maxsize=4)
def _installed(_path: tuple[str, ...]) -> dict[str, tuple[EntryPoint, ...]]:
    """Every file of entry points is read for that: 10 to 20 ms, and a study's plan asks a thousand times."""
    points = importlib.metadata.entry_points()
    return {group: tuple(points.select(group=group)) for group in points.groups if group.startswith("kfbench.")}
