"""A name becomes a class: the stem of a file in `methods/` or `tasks/`, an entry point, or a file from anywhere.

The reading half (`names`, `describe`) parses files with `ast` and imports none of them, so that `kfbench list` is
instant; the loading half imports the one file that is asked for.
"""

import ast
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from kfbench.errors import KfbenchError, near, place
from kfbench.folders import at_home, data_folder, entry_points, folders, gone, hidden
from kfbench.folders import files as files
from kfbench.folders.modules import beside, make_room, module_of, without_bytecode
from kfbench.kinds import Declared, Kind
from kfbench.registry import literals
from kfbench.registry.values import validated as validated
from kfbench.spec import RunSpec, Setting

if TYPE_CHECKING:
    from kfbench.methods import Method

SINGULAR = {"methods": "method", "tasks": "task"}


def plugins(kind: str) -> dict[str, EntryPoint]:
    """Return {name: entry point} that installed packages offer in the group `kfbench.methods` or `kfbench.tasks`."""
    return {point.name: point for point in entry_points(group=f"kfbench.{kind}")}


def names(kind: str) -> list[str]:
    """Return the names of all methods or tasks, without importing any."""
    return sorted({*files(kind), *plugins(kind)})


def split(name: str) -> tuple[str, str | None]:
    """Split `kf/alone` into ("kf", "alone"), and `folder/mine.py/alone` into ("folder/mine.py", "alone")."""
    match = re.fullmatch(r"(.+\.py|[^/]*)(?:/(.*))?", name)
    stem, variant = match.groups() if match else (name, None)
    return stem, variant or None


def named(method: str) -> str:
    """Return the one name of a method whose file is given by its path, `./mine.py/alone`; others are as they are.

    That is its own name if it lies in a folder of methods, else its path from the working folder, or the whole one if
    it lies elsewhere: however it was typed, it is one run.
    """
    stem, variant = split(method)
    if not stem.endswith(".py"):
        return method
    path = Path(os.path.abspath(at_home(stem)))
    known = files("methods").get(path.stem)
    if known is not None and path.is_file() and path.samefile(known):
        stem = path.stem
    else:
        stem = (path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path).as_posix()
    return f"{stem}/{variant}" if variant else stem


def load_module(kind: str, name: str) -> ModuleType:
    """Import the file of a method or task by its name (no variant) or path. Raises KfbenchError with the nearest."""
    if name.endswith(".py"):
        require(kind, name)
        return _load_file(Path(name))
    # a report asks some ten thousand times: no folder is looked through for a module that is there
    is_here = _is_here(module := f"kfbench.{kind}.{name}")
    if is_here or name in files(kind):
        try:
            if not is_here:
                _renew(kind)
            return module_of(module)
        except KfbenchError:
            raise
        except (Exception, SystemExit) as error:
            raise _not_imported(files(kind)[name], error) from error
    require(kind, name)
    try:
        loaded = plugins(kind)[name].load()
    except (Exception, SystemExit) as error:
        where = plugins(kind)[name].value
        raise KfbenchError(f"'{where}' cannot be imported: {type(error).__name__}: {error}") from error
    return loaded if isinstance(loaded, ModuleType) else sys.modules[loaded.__module__]


def _renew(kind: str) -> None:
    """Let Python look in the folders that the user has named since the package was imported."""
    package = importlib.import_module(f"kfbench.{kind}")
    if not {*folders(kind)} <= {*package.__path__}:
        package.__path__ = folders(kind)


def _is_here(module: str) -> bool:
    known = sys.modules.get(module)
    return known is not None and known.__file__ is not None and Path(known.__file__).is_file()


def require(kind: str, name: str) -> None:
    """Raise KfbenchError with the nearest name unless there is such a method or task; nothing is imported for that.

    A method's variant is looked up where its file writes them down as a literal.
    """
    stem, variant = split(name)
    if stem.endswith(".py"):
        if not Path(stem).is_file():
            raise KfbenchError(f"no file '{stem}'; give a method's name or the path of its file")
    elif stem not in files(kind) and stem not in plugins(kind):
        rows = describe_all(kind)
        if kind == "tasks" and (data_folder() / stem / "pack.json").is_file():
            ways = [f"'{row['name']}/{name}'" for row in rows if row.get("any_dataset") is True]
            raise KfbenchError(f"no task '{stem}', but there is a data set: its task is {' or '.join(ways)}")
        if package := _package(kind, name, stem):
            raise KfbenchError(
                f"'{package}' is a folder; a {SINGULAR[kind]} is one file, which can import what it holds"
            )
        titles = {row["about"].partition(":")[0]: row["name"] for row in rows}
        raise KfbenchError(f"no {SINGULAR[kind]} '{stem}'; {near(stem, titles.values(), titles=titles)}{gone(kind)}")
    elif twin := hidden(kind, stem):
        raise KfbenchError(f"two files are called '{stem}', '{files(kind)[stem]}' and '{twin}'; rename yours")
    elif variant and kind == "methods":
        written = describe(kind, stem).get("attributes", {}).get("variants")
        if isinstance(written, dict):
            _require_variant(stem, variant, written)


def _package(kind: str, name: str, stem: str) -> Path | None:
    """Return a folder of Python files of that name or path, where a file of a method or task is looked for."""
    there = [Path(name) if kind == "methods" else None, *(Path(folder) / stem for folder in folders(kind))]
    return next((each for each in there if each and each.is_dir() and any(each.glob("*.py"))), None)


def _require_variant(method: str, variant: str, known: Iterable[str]) -> None:
    if variant not in known:
        raise KfbenchError(f"method '{method}' has no variant '{variant}'; {near(variant, known)}")


def _load_file(path: Path) -> ModuleType:
    """Import a file from anywhere, once as long as it is as it was, and what it imports beside it."""
    every = (path, *beside(path).values())
    return _loaded_file(path.absolute(), tuple(each.stat().st_mtime_ns for each in every))


@lru_cache(maxsize=64)
def _loaded_file(path: Path, _written: tuple[int, ...]) -> ModuleType:
    make_room(path)
    spec = importlib.util.spec_from_file_location(f"kfbench_file_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    without_bytecode(str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise _not_imported(path, error) from error
    return module


def _not_imported(path: Path, error: BaseException) -> KfbenchError:
    instead = "; by a path, write it without the dots" if "no known parent package" in str(error) else ""
    return KfbenchError(f"'{path}' cannot be imported: {type(error).__name__}: {error}{instead}{place(error, path)}")


def method_class(name: str) -> "type[Method]":
    """Return the one subclass of Method that the file of a method, `name` or `name/variant`, defines."""
    from kfbench.methods import Method, misfit

    module = load_module("methods", split(name)[0])
    classes = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Method) and value.__module__ == module.__name__
    ]
    if len(classes) != 1:
        raise KfbenchError(
            f"'{module.__file__}' defines {len(classes)} subclasses of Method; a method file has exactly one"
        )
    if said := misfit(classes[0]):  # type: ignore[arg-type]
        raise KfbenchError(f"class '{classes[0].__name__}' in '{module.__file__}': {said}")
    return classes[0]


def load_method(name: str, settings: Mapping[str, Setting] | None = None, *, optimizer: str = "") -> "Method":
    """Make a method from `name` or `name/variant` and the settings that differ from its defaults.

    Some of these are others with the optimizer of a run's recipe (`by_optimizer`); what a variant sets comes first.
    Raises KfbenchError for an unknown method, variant or setting, or a value of the wrong type or range.
    """
    stem, variant = split(name)
    made = method_class(stem)
    if variant is not None:
        _require_variant(stem, variant, made.variants)
    chosen = {**made.by_optimizer.get(optimizer, {}), **made.variants.get(variant or "", {}), **(settings or {})}
    return validated(made, chosen, of=f"method '{name}'", word="setting")


def recorded_method(name: str, settings: Mapping[str, Setting]) -> "Method":
    """Make a method from the settings of a spec, which leaves out what is as it was before there was that setting."""
    return load_method(name, {**method_class(name).younger, **settings})


def load_task(name: str) -> Declared:
    """Return the declaration of a task, `name` or `name/variant`. Raises KfbenchError with the nearest name."""
    stem, _, variant = name.partition("/")
    return _declared(stem).at(stem, variant)


def _declared(stem: str) -> Declared:
    module = load_module("tasks", stem)
    declared = getattr(module, "TASK", None)
    if not isinstance(declared, Declared):
        raise KfbenchError(f"'{module.__file__}' has no TASK = ImageTask(…) or GameTask(…)")
    return declared


def kind_of(task: str) -> Kind:
    """Return a task's kind; its variant may be one that is not on this machine. No torch."""
    return _declared(task.partition("/")[0]).kind


def normalised(task: str, score: float) -> float | None:
    """Return a task's score on the scale that tasks share; None if it has none. No torch."""
    return _declared(task.partition("/")[0]).normalised(task, score)


def kinds() -> dict[str, Kind]:
    """Return {name: kind} of all tasks."""
    return {kind.name: kind for kind in map(kind_of, names("tasks"))}


def read_spec(values: dict[str, Any]) -> RunSpec:
    """Build a spec from what `RunSpec.to_json` gave. Raises KfbenchError if its task, or a field, is not known here."""
    try:
        return RunSpec.from_json(values, kind_of(values["task"]).recipe)
    except (TypeError, KeyError) as error:
        what = f"{values.get('method')} on {values.get('task')}"
        raise KfbenchError(f"a run of {what} is written down by another version of kfbench: {error}") from error


def describe(kind: str, name: str) -> dict[str, Any]:
    """Return a file's first docstring line and its literals, by `ast`: nothing is imported.

    For a method: its class attributes, settings with their defaults, variants. For a task: the arguments of `TASK`.
    """
    return _told(kind, name, files(kind).get(name))


def describe_all(kind: str) -> list[dict[str, Any]]:
    """Return what `describe` says of each name, in their order; folders and packages are looked through once."""
    found, offered = files(kind), plugins(kind)
    return [_told(kind, name, found.get(name)) for name in sorted({*found, *offered})]


def _told(kind: str, name: str, path: Path | None) -> dict[str, Any]:
    if path is None:
        return {"name": name, "about": f"from the package '{plugins(kind)[name].value}'", "file": None}
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        return {"name": name, "about": f"cannot be read: {error}", "file": str(path)}
    about = (ast.get_docstring(tree) or "no docstring, whose first line stands here").partition("\n")[0]
    found = literals.of_method(tree) if kind == "methods" else literals.of_task(tree)
    return {"name": name, "about": about, "file": str(path), **found}


def line_of(task: str, words: Iterable[str], variant: str = "") -> str:
    """Return " (mine.py:12)": where a task's file writes the first of these arguments of TASK, or one of its variants.

    Else where TASK stands; "" if no file of ours or the user's has it.
    """
    path = files("tasks").get(task)
    if path is None:
        return ""
    lines = literals.lines_of_task(ast.parse(path.read_bytes()))
    wanted = [f"/{variant}", "variants", ""] if variant else [*words, ""]
    line = next((lines[word] for word in wanted if word in lines), None)
    return "" if line is None else f" ({path.name}:{line})"
