"""RunRecord: what a run leaves; one JSON file a run, written atomically, read without torch."""

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kfbench import registry
from kfbench.errors import KfbenchError, KfbenchWarning, unwritable
from kfbench.running.files import both, record_files, write_text
from kfbench.spec import RunSpec, digest

FORMAT = 1  # raise it when a field changes its meaning; new fields alone do not


class RunRecord(BaseModel):
    """What a run left. Scores are in the task's unit: `error` in % for images, `return` in game points.

    Fields of a newer version are kept as they are, and told when the file is read.
    """

    model_config = ConfigDict(extra="allow")

    key: str = Field(description="First 12 hex digits of the sha256 of `identity`.")
    spec: dict[str, Any] = Field(description="Method, task, teachers, seed, budget, recipe and settings, in full.")
    identity: dict[str, Any] = Field(
        description="What decides the numbers: the spec, the data's checksum, digests of the teachers' weights, "
        "revisions of method and harness, own files of method, network and tasks."
    )
    status: Literal["done", "failed"]
    scores: dict[str, dict[str, float]] = Field(
        default_factory=dict,
        description="On the test split: `last`, the weights after the last step, and `best`, those best on validation. "
        "On the validation split: `val`, after the last step.",
    )
    curve: list[dict[str, float]] = Field(
        default_factory=list, description="One row an evaluation: step, progress in 0..1, seconds, losses, scores."
    )
    cost: dict[str, float] = Field(
        default_factory=dict,
        description="seconds of training, teacher_seconds, steps; of the network kept: parameters, multiply_adds an "
        "input, latency_ms at batch 1.",
    )
    provenance: dict[str, Any] = Field(
        default_factory=dict,
        description="When it was made (UTC), commit, versions, device, threads, data checksum, teachers, weights' "
        "digest.",
    )
    error: str | None = Field(default=None, description="What went wrong in a line, if the run failed.")
    traceback: str | None = None
    format: int = FORMAT

    def run_spec(self) -> RunSpec:
        """Return the spec as an object."""
        return registry.read_spec(self.spec)


def path_of(results: Path, key: str, spec: RunSpec | Mapping[str, Any]) -> Path:
    """Return where a record lies: results/<task>/<method>/<key>.json; a file from anywhere goes by its stem.

    The spec may be as a record has it: its task need not be known here.
    """
    method, task = (spec.method, spec.task) if isinstance(spec, RunSpec) else (spec["method"], spec["task"])
    stem, variant = registry.split(method)
    return results / task / Path(stem).name.removesuffix(".py") / (variant or "") / f"{key}.json"


def is_finished(path: Path) -> bool:
    """Say whether a file is the record of a run that came to its end; a damaged one is not."""
    try:
        return path.is_file() and read(path).status == "done"
    except KfbenchError:
        return False


def write(results: Path, record: RunRecord) -> Path:
    """Write a record in place of an older one with its key, never half; a failed one never in place of a finished one.

    Raises KfbenchError if it cannot be written.
    """
    path = path_of(results, record.key, record.spec)
    if record.status == "failed" and is_finished(path):
        return path
    try:
        write_text(path, json.dumps(record.model_dump(), indent=1) + "\n")
    except OSError as error:
        line = f"cannot write '{path}' ({error.strerror}); make room, or give --results elsewhere"
        raise unwritable(error, line) from error
    return path


def read(path: Path) -> RunRecord:
    """Read a record. Raises KfbenchError if the file is no record, or its key fits neither its content nor its name."""
    try:
        record = RunRecord.model_validate(json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise KfbenchError(
            f"'{path}' is not a run record ({_what(error)}); delete it, or restore it with git"
        ) from error
    if digest(record.identity) != record.key or record.identity.get("spec") != record.spec:
        raise KfbenchError(f"'{path}' was changed by hand: its key does not fit its content; rerun it instead")
    if path.stem != record.key:
        raise KfbenchError(f"'{path}' was renamed: it is record '{record.key}'; call it {record.key}.json")
    if record.format > FORMAT or record.model_extra:
        newer = ", ".join(record.model_extra or {}) or f"format {record.format}"
        warnings.warn(
            f"'{path}' is from a newer kfbench ({newer}); what is new is not read", KfbenchWarning, stacklevel=2
        )
    return record


def _what(error: Exception) -> str:
    """Return what is wrong with a file's values in a line."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    return f"'{'.'.join(map(str, first['loc']))}': {first['msg'].lower()}"


def cut(made: Iterable[RunRecord], which: str = "last") -> str:
    """Say how many episodes of runs' test scores the limit of frames cut off: "2 of 4 episodes cut at 18,000 frames".

    "" if none, and for scores that are not of episodes.
    """
    scored = [(record, record.scores.get(which, {})) for record in made]
    found = [
        (scores, record.spec["recipe"]["evaluation_frames"]) for record, scores in scored if "episodes_capped" in scores
    ]
    capped, episodes = (sum(scores[name] for scores, _ in found) for name in ("episodes_capped", "episodes"))
    limits = " or ".join(f"{limit:,}" for limit in sorted({limit for _, limit in found}))
    return f"{capped:.0f} of {episodes:.0f} episodes cut at {limits} frames" if capped else ""


def records(results: Path) -> Iterator[RunRecord]:
    """Yield every record below a folder, in order of path; those of its teacher store are not among them."""
    for path in record_files(results):
        yield read(path)


def locate(results: Path, key: str) -> tuple[Path, RunRecord]:
    """Return the record whose key begins with `key`, a run's or else a teacher's, and the folder of its kind.

    `run:KEY`, as a teacher is named, is KEY. Raises KfbenchError if none or several do.
    """
    key = key.removeprefix("run:")
    paths: list[Path] = []
    for folder in both(results):
        paths = [path for path in record_files(folder) if key and path.stem.startswith(key)]
        if len(paths) == 1:
            return folder, read(paths[0])
        if paths:
            break
    there = "no run" if not paths else f"{len(paths)} runs"
    raise KfbenchError(f"{there} in '{results}' with a key that begins with '{key}'; kfbench list runs shows all")
