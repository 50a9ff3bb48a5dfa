"""What a run's key is a digest of: its spec, and whatever else decides the numbers. No data are read for it."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kfbench import registry
from kfbench.kinds import Declared
from kfbench.methods import Method
from kfbench.spec import RunSpec

HARNESS = 1  # raise it when a change of the harness changes numbers: older records then no longer count as this run


def of(spec: RunSpec, teachers: Sequence[str]) -> dict[str, Any]:
    """Return a run's identity; `teachers` are the digests of its teachers' weights.

    Raises KfbenchError if the data are not on this machine.
    """
    method = registry.recorded_method(spec.method, spec.settings)
    file, others = method_file(spec), stage_tasks(method, spec)
    return {
        "spec": spec.to_json(),
        "data": registry.load_task(spec.task).checksum(),
        "teachers": list(teachers),
        "method_revision": method.revision,
        "harness_revision": HARNESS,
        **({} if file is None else {"method_file": file}),
        **({"stages": {name: other.checksum() for name, other in others.items()}} if others else {}),
    }


def method_file(spec: RunSpec) -> str | None:
    """Return the sha256 of a method that is run from its file, `--method path/to/mine.py`; None for others."""
    stem, _ = registry.split(spec.method)
    return hashlib.sha256(Path(stem).read_bytes()).hexdigest() if stem.endswith(".py") else None


def stage_tasks(method: Method, spec: RunSpec) -> dict[str, Declared]:
    """Return {name: task} of what else a run trains on in one of its stages, where that has data of its own."""
    if not registry.kind_of(spec.task).stages_have_data:
        return {}
    names = {stage.task for stage in method.stages if stage.task is not None} - {spec.task}
    return {name: registry.load_task(name) for name in sorted(names)}
