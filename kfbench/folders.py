"""Where methods, tasks, networks and data lie: the wheel, beside it in a checkout, the user's folders, packages.

And how files become modules, with the modules of one's own that they import: those beside them, as `_losses.py` beside
`mine.py`, and other methods, tasks or networks of one's own. What a file imports is read by `ast`, so that a run's key
is made of the lines of all of them.
"""

import ast
import importlib
import importlib.metadata
import importlib.util
import os
import re
import sys
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from kfbench.errors import KfbenchError

PACKAGE = Path(__file__).resolve().parent
State = tuple[tuple[str, int | None], ...]  # files, and when each was written
_loaded: dict[str, State] = {}  # of modules of methods, tasks and networks, and of what they import beside them


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


class _Place(NamedTuple):
    """Where a file's imports are looked for: a folder, the package that this is to Python, and how deep below it."""

    root: Path
    package: str = ""
    inner: tuple[str, ...] = ()


def beside(path: Path, package: str = "") -> dict[str, Path]:
    """Return {module: file} of the modules of one's own that a file imports, and they in turn. Nothing is imported.

    `package` is the one that the file is a module of. A name that Python's library or an installed package has is that.
    """
    return {name: file for name, (file, _) in _followed(path, _Place(path.parent, package)).items()}


def _followed(path: Path, place: _Place) -> dict[str, tuple[Path, _Place]]:
    found: dict[str, tuple[Path, _Place]] = {}
    seen, todo = {path}, [(path, place)]
    while todo:
        file, place = todo.pop()
        for level, name in _imports(file, _written(file)):
            start, parts = _start(place, level, name)
            for n in range(1, len(parts) + 1):
                there = _file(start.root, parts[:n])
                if there is None or there in seen or (not start.package and _is_installed(parts[0])):
                    continue
                its = start._replace(inner=parts[: n if there.name == "__init__.py" else n - 1])
                found[".".join(part for part in (start.package, *parts[:n]) if part)] = (there, its)
                seen.add(there)
                todo.append((there, its))
    return found


def _start(place: _Place, level: int, name: str) -> tuple[_Place, tuple[str, ...]]:
    """Return where a name that is imported is looked for, and its parts below that folder; none if it is not one's own.

    It is `level` packages above the module that imports it; 0 where its whole name is written.
    """
    parts = tuple(name.split("."))
    if level:
        up = len(place.inner) - level + 1
        return place, (*place.inner[:up], *parts) if up >= 0 else ()
    if package := re.match(r"kfbench\.(methods|tasks|networks)\.", name):
        ours, *theirs = folders(package[1])
        having = next((each for each in (ours, *theirs) if _file(Path(each), parts[2:3])), ours)
        return _Place(Path(having), package[0][:-1]), () if having == ours else parts[2:]
    return place._replace(package="", inner=()), () if parts[0] in sys.stdlib_module_names else parts


def _file(root: Path, parts: tuple[str, ...]) -> Path | None:
    base = os.path.join(root, *parts)  # not of pathlib: a report asks some thousand times
    return next((Path(each) for each in (f"{base}.py", f"{base}{os.sep}__init__.py") if os.path.isfile(each)), None)


@lru_cache(maxsize=256)
def _imports(path: Path, _changed: int | None) -> tuple[tuple[int, str], ...]:
    """Return (level, name) of all that a file imports, in its functions too: `from .a import b` is (1, "a.b")."""
    found: dict[tuple[int, str], None] = {}
    with suppress(OSError, SyntaxError, ValueError):  # told when it is imported
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                found |= {(0, each.name): None for each in node.names}
            elif isinstance(node, ast.ImportFrom):
                found |= {(node.level, f"{node.module or ''}.{each.name}".lstrip(".")): None for each in node.names}
    return tuple(found)


def _homes(module: str) -> list[Path]:
    """Return the folders in which Python has, or finds, a module."""
    with suppress(ValueError):  # one that was made by hand
        if spec := importlib.util.find_spec(module):
            places = spec.submodule_search_locations or filter(None, [spec.origin])
            return [Path(each).parent.resolve() for each in places]
    return []


def _is_installed(module: str) -> bool:
    return any(home.name in ("site-packages", "dist-packages") for home in _homes(module))


def module_of(name: str) -> ModuleType:
    """Import a module by its whole name: anew if its file, or one beside it, has changed since, or is another.

    So a run is of the code that its key was made of. Raises what the file raises.
    """
    known = sys.modules.get(name)
    if known is not None and known.__file__ is not None:
        now = _state(name, known.__file__)
        if _loaded.setdefault(name, now) == now and now[0][1] is not None:
            return known
        _forget(name, known.__file__)
        importlib.invalidate_caches()
    package = name.rpartition(".")[0]
    if package.startswith("kfbench.") and (spec := importlib.util.find_spec(name)) and spec.origin:
        make_room(Path(spec.origin), package)
    found = importlib.import_module(name)
    _loaded[name] = _state(name, found.__file__ or "")
    return found


def _forget(name: str, file: str) -> None:
    sys.modules.pop(name, None)
    package, _, child = name.rpartition(".")
    if package in sys.modules:
        vars(sys.modules[package]).pop(child, None)  # else `from . import child` is the module of before
    without_bytecode(file)


def make_room(path: Path, package: str = "") -> None:
    """Let Python find what a file imports beside it, as it is on disk now: its folder is the last that is looked in.

    Raises KfbenchError where another module is called so already.
    """
    found = _followed(path, _Place(path.parent, package))
    for name, (file, place) in found.items():
        now = _written_all(file, place)
        if _loaded.setdefault(name, now) != now:
            _forget(name, str(file))
            _loaded[name] = now
        if not place.package and str(place.root) not in sys.path:
            sys.path.append(str(place.root))
    importlib.invalidate_caches()
    for name, (file, place) in found.items():
        depth = place.package.count(".") + 1 if place.package else 0
        first = ".".join(name.split(".")[: depth + 1])
        if (homes := _homes(first)) and place.root.resolve() not in homes:
            raise KfbenchError(f"'{file}' is imported as '{first}', but there is one in '{homes[0]}' too; rename yours")


def _state(name: str, file: str) -> State:
    """Return when a module's file was written; of one's own those beside it, too."""
    path, package = Path(file), name.rpartition(".")[0]
    is_own = package.startswith("kfbench.") and file and str(path.parent) in folders(package.rpartition(".")[2])[1:]
    return _written_all(path, _Place(path.parent, package)) if is_own else ((file, _written(path)),)


def _written_all(path: Path, place: _Place) -> State:
    every = [path, *(file for file, _ in _followed(path, place).values())]
    return tuple((str(file), _written(file)) for file in every)


def without_bytecode(file: str) -> None:
    """Let a file be compiled again: Python takes bytecode of the same second and length for that of the file."""
    with suppress(OSError, NotImplementedError):
        os.remove(importlib.util.cache_from_source(file))


def _written(file: Path) -> int | None:
    """Return when a file was written; None if it is gone."""
    try:
        return os.stat(file).st_mtime_ns
    except OSError:
        return None
