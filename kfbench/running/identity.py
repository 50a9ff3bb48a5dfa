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
    """Return {"method_file", "network_file", "task_file", …: sha256} of those that are the user's own.

    Such a file lies in no commit of ours: a path, a folder such as `$KFBENCH_METHODS`, another package. Who edits it
    has another run. For ours there are revisions. A stage's task that is not the run's own has "NAME task_file".
    """
    own = {kind: path for kind, path in _files(spec).items() if not _is_ours(path)}
    return {f"{kind}_file": hashlib.sha256(path.read_bytes()).hexdigest() for kind, path in own.items()}


def of_teacher(weights: str, network: str) -> str:
    """Return a teacher's digest: that of its weights, and of its network's file where that is the user's own.

    Who edits the network's code has another teacher, though it has the same weights.
    """
    own = own_network(network)
    return weights if own is None else digest({"weights": weights, "network_file": own}, length=64)


def own_network(network: str) -> str | None:
    """Return the sha256 of a network's file where that is the user's own, as `own_files` has it; None of others."""
    path = family.file_of(network)
    if path is None or not path.is_file() or _is_ours(path):
        return None
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is_ours(path: Path) -> bool:
    return path.resolve().parent in [Path(folders(kind)[0]).resolve() for kind in ("methods", "networks", "tasks")]


def code(spec: RunSpec) -> dict[str, str]:
    """Return {name: digest} of the files that define a run's method, network and tasks, whoever's they are.

    Docstrings, comments and layout do not count.
    """
    paths = _files(spec).values()
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


def _files(spec: RunSpec) -> dict[str, Path]:
    """Return {"method", "network", "task", …: file} of what defines them; a library's network has none."""
    found = {"method": _file("methods", registry.split(spec.method)[0]), "network": family.file_of(spec.recipe.network)}
    stages = registry.recorded_method(spec.method, spec.settings).stages
    others = {stage.task for stage in stages if stage.task is not None} - {spec.task}
    for name in (spec.task, *sorted(others)):
        called = "task" if name == spec.task else f"{name} task"
        found[called] = _file("tasks", name.partition("/")[0])
    return {kind: path for kind, path in found.items() if path is not None and path.is_file()}


def _file(kind: str, stem: str) -> Path | None:
    """Return the file of a method or task."""
    if stem.endswith(".py"):
        return Path(stem)
    there = registry.files(kind).get(stem)
    if there is not None or stem not in registry.plugins(kind):
        return there
    found = importlib.util.find_spec(registry.plugins(kind)[stem].module)
    return Path(found.origin) if found and found.origin else None


def stage_tasks(method: Method, spec: RunSpec) -> dict[str, Declared]:
    """Return {name: task} of what else a run trains on in one of its stages, where that has data of its own."""
    if not registry.kind_of(spec.task).stages_have_data:
        return {}
    names = {stage.task for stage in method.stages if stage.task is not None} - {spec.task}
    return {name: registry.load_task(name) for name in sorted(names)}
