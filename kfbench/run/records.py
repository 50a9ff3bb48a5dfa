"""RunRecord: what a run leaves; one JSON file a run, written atomically, read without torch."""

import dataclasses
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfbench import registry
from kfbench.errors import KfbenchError
from kfbench.spec import RunSpec, digest

if TYPE_CHECKING:
    import pandas

FORMAT = 1


@dataclass
class RunRecord:
    """What a run left. `scores` are in the task's unit: `error` in % for images, `return` in game points.

    `identity` is what the key is a digest of: the spec, and whatever else decides the numbers (data checksum, hashes of
    the teachers' weights, revisions of method and harness).
    """

    key: str
    spec: dict[str, Any]
    identity: dict[str, Any]
    status: str  # "done" or "failed"
    scores: dict[str, dict[str, float]] = field(default_factory=dict)  # {"last": {"error": …}, "best": …, "val": …}
    curve: list[dict[str, float]] = field(default_factory=list)
    cost: dict[str, float] = field(default_factory=dict)  # seconds, teacher_seconds, parameters, multiply_adds, …
    provenance: dict[str, Any] = field(default_factory=dict)  # commit, versions, device, threads, data, teachers
    error: str | None = None  # one line, if failed
    traceback: str | None = None
    format: int = FORMAT

    def run_spec(self) -> RunSpec:
        """Return the spec as an object."""
        return RunSpec.from_json(self.spec)


def path_of(results: Path, key: str, spec: RunSpec) -> Path:
    """Return where a record lies: results/<task>/<method>/<key>.json; a file from anywhere goes by its stem."""
    stem, variant = registry.split(spec.method)
    return results / spec.task / Path(stem).name.removesuffix(".py") / (variant or "") / f"{key}.json"


def write(results: Path, record: RunRecord) -> Path:
    """Write a record in place of an older one with its key, never half. Raises KfbenchError if it cannot be written."""
    path = path_of(results, record.key, record.run_spec())
    try:
        write_text(path, json.dumps(dataclasses.asdict(record), indent=1) + "\n")
    except OSError as error:
        raise KfbenchError(
            f"cannot write '{path}' ({error.strerror}); make room, or give --results elsewhere"
        ) from error
    return path


def write_text(path: Path, text: str) -> None:
    """Write a file by renaming a finished one into place; folders are made as needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read(path: Path) -> RunRecord:
    """Read a record. Raises KfbenchError if the file is no record or its key does not fit its content."""
    try:
        record = RunRecord(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise KfbenchError(f"'{path}' is not a run record ({error}); delete it, or restore it with git") from error
    if digest(record.identity) != record.key or record.identity.get("spec") != record.spec:
        raise KfbenchError(f"'{path}' was changed by hand: its key does not fit its content; rerun it instead")
    return record


def records(results: Path) -> Iterator[RunRecord]:
    """Yield every record below a folder, in order of path; those of its teacher store are not among them."""
    for path in _paths(results):
        yield read(path)


def _paths(results: Path) -> list[Path]:
    found = [path for path in sorted(results.rglob("*.json")) if len(path.stem) == 12]
    return [path for path in found if "teachers" not in path.relative_to(results).parts]


def locate(results: Path, key: str) -> tuple[Path, RunRecord]:
    """Return the record whose key begins with `key`, a run's or else a teacher's, and the folder of its kind.

    Raises KfbenchError if none or several do.
    """
    paths: list[Path] = []
    for folder in (results, results / "teachers"):
        paths = [path for path in _paths(folder) if key and path.stem.startswith(key)]
        if len(paths) == 1:
            return folder, read(paths[0])
        if paths:
            break
    there = "no run" if not paths else f"{len(paths)} runs"
    raise KfbenchError(f"{there} in '{results}' with a key that begins with '{key}'; kfbench list runs shows all")


def frame(results: Path) -> "pandas.DataFrame":
    """Return one row a run: spec, settings, scores and cost, for pandas."""
    import pandas

    rows = []
    for record in records(results):
        row: dict[str, Any] = {"key": record.key, "status": record.status, **record.spec}
        recipe = row.pop("recipe")
        row |= {f"recipe.{name}": value for name, value in recipe.items()}
        row |= {f"{which}.{name}": value for which, scores in record.scores.items() for name, value in scores.items()}
        rows.append(row | {f"cost.{name}": value for name, value in record.cost.items()})
    return pandas.DataFrame(rows)
