"""What a run's key is a digest of: its spec, and whatever else decides the numbers. No data are read for it."""

import ast
import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from kfbench import registry
from kfbench.folders import folders
from kfbench.folders.modules import beside
from kfbench.kinds import Declared
from kfbench.methods import Method
from kfbench.networks import family
from kfbench.spec import RunSpec, digest

HARNESS = 1  # raise it when a change of the harness changes numbers: older records then no longer count as this run


def of(spec: RunSpec, teachers: Sequence[str]) -> dict[str, Any]:
    """Return a run's identity; `teachers` are the digests of its teachers' weights.

    Raises KfbenchError if the data are not on this machine.
    """
    method = registry.recorded_method(spec.method, spec.settings)
    others = stage_tasks(method, spec)
    return {
        "spec": spec.to_json(),
        "data": registry.load_task(spec.task).checksum(),
        "teachers": list(teachers),
        "method_revision": method.revision,
        "harness_revision": HARNESS,
        **own_files(spec),
        **({"stages": {name: other.checksum() for name, other in others.items()}} if others else {}),
    }


def own_files(spec: RunSpec) -> dict[str, str]:
    """Return {"method_file", "network_file", "task_file", …: digest} of those that are the user's own.

    Such a file lies in no commit of ours: a path, a folder such as `$KFBENCH_METHODS`, another package. Who edits it,
    or a module of theirs that it imports, has another run. For ours there are revisions. A stage's task that is not the
    run's own has "NAME task_file".
    """
    own = {kind: files for kind, files in _files(spec).items() if not _is_ours(files[""])}
    return {f"{kind}_file": _lines(files) for kind, files in own.items()}


def _lines(files: Mapping[str, Path]) -> str:
    """Return the sha256 of a file, or of that of each where it imports others."""
    found = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    return found[""] if len(found) == 1 else digest(found, length=64)


def of_teacher(weights: str, network: str) -> str:
    """Return a teacher's digest: that of its weights, and of its network's file where that is the user's own.

    Who edits the network's code has another teacher, though it has the same weights.
    """
    own = own_network(network)
    return weights if own is None else digest({"weights": weights, "network_file": own}, length=64)


def own_network(network: str) -> str | None:
    """Return the digest of a network's file where that is the user's own, as `own_files` has it; None of others."""
    files = _network(network)
    return _lines(files) if files and not _is_ours(files[""]) else None


def _is_ours(path: Path) -> bool:
    return path.resolve().parent in [Path(folders(kind)[0]).resolve() for kind in ("methods", "networks", "tasks")]


def code(spec: RunSpec) -> dict[str, str]:
    """Return {name: digest} of the files that define a run's method, network and tasks, whoever's they are.

    Docstrings, comments and layout do not count.
    """
    paths = [path for files in _files(spec).values() for path in files.values()]
    return {f"{path.parent.name}/{path.name}": _essence(path, path.stat().st_mtime_ns) for path in paths}


def changed(spec: RunSpec, before: Mapping[str, str]) -> list[str]:
    """Return the names of files of `code` that are not as they were before."""
    return [name for name, now in code(spec).items() if before.get(name, now) != now]


@lru_cache(maxsize=256)
def _essence(path: Path, _changed: int) -> str:
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            del node.body[0]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:12]


def _files(spec: RunSpec) -> dict[str, dict[str, Path]]:
    """Return {"method", "network", "task", …: files} of what defines them; a library's network has none.

    They are {"": its file, module: file} with the modules of one's own that it imports, but for a package's.
    """
    found = {
        "method": _of("methods", registry.split(spec.method)[0]),
        "network": _network(spec.recipe.network),
    }
    stages = registry.recorded_method(spec.method, spec.settings).stages
    others = {stage.task for stage in stages if stage.task is not None} - {spec.task}
    for name in (spec.task, *sorted(others)):
        called = "task" if name == spec.task else f"{name} task"
        found[called] = _of("tasks", name.partition("/")[0])
    return {kind: files for kind, files in found.items() if files and files[""].is_file()}


def _of(kind: str, stem: str) -> dict[str, Path]:
    """Return the files of a method or task."""
    if stem.endswith(".py"):
        return _with_others(Path(stem))
    if path := registry.files(kind).get(stem):
        return _with_others(path, f"kfbench.{kind}")
    if stem not in registry.plugins(kind):
        return {}
    found = importlib.util.find_spec(registry.plugins(kind)[stem].module)
    return {"": Path(found.origin)} if found and found.origin else {}


def _network(name: str) -> dict[str, Path]:
    path = family.file_of(name)
    if path is None or not path.is_file():
        return {}
    return _with_others(path, "kfbench.networks") if path in registry.files("networks").values() else {"": path}


def _with_others(path: Path, package: str = "") -> dict[str, Path]:
    return {"": path, **beside(path, package)} if path.is_file() else {}


def stage_tasks(method: Method, spec: RunSpec) -> dict[str, Declared]:
    """Return {name: task} of what else a run trains on in one of its stages, where that has data of its own."""
    if not registry.kind_of(spec.task).stages_have_data:
        return {}
    names = {stage.task for stage in method.stages if stage.task is not None} - {spec.task}
    return {name: registry.load_task(name) for name in sorted(names)}
