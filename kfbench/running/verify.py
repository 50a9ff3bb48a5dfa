"""Rerun a recorded run and compare: equal to the bit, equal within its interval, or different and where."""

import contextlib
import math
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.special import stdtrit

from kfbench import registry
from kfbench.errors import KfbenchError
from kfbench.running import execute, records
from kfbench.running.files import store, walk, write_bytes
from kfbench.running.records import RunRecord
from kfbench.train.loop import Watcher

OTHERS = {  # parts of an identity with which it is another run, whatever it scores
    "data": "the data",
    "stages": "the data of a stage",
    "teachers": "the teachers' weights",
    "method_file": "the lines of the method's file, or of one that it imports,",
    "network_file": "the lines of the network's file, or of one that it imports,",
    "task_file": "the lines of a task's file, or of one that it imports,",  # a stage's too, its task's name before it
}
Word = Literal["bit-equal", "equal within its interval", "different"]
TIMES = ("seconds", "images_per_second", "frames_per_second", "rate")  # of a curve's row: no two runs agree on these


@dataclass(frozen=True)
class Comparison:
    """What a rerun gave."""

    word: Word
    where: tuple[str, ...]  # numbers that differ, the first of each kind
    told: str


def again(record: RunRecord, folder: Path, *, results: Path, device: str, watcher: Watcher | None = None) -> RunRecord:
    """Run a record's spec anew in a place of its own, with the same teachers.

    `folder` holds the record: the results, or their teacher store. Weights that are missing there are put back if the
    new ones are bit-equal to what the record kept.
    """
    import torch

    threads = record.provenance.get("threads")
    if isinstance(threads, int):
        torch.set_num_threads(threads)  # bits depend on it
    with tempfile.TemporaryDirectory(prefix="kfbench-verify-") as temporary, _called(temporary, results):
        fresh = Path(temporary)
        if folder == store(results):
            new = execute.teacher(record.run_spec(), results=fresh, device=device, watcher=watcher)
            place = store(fresh)
        else:
            _lay_out(record, results, fresh)
            new = execute.run(
                record.run_spec(),
                results=fresh,
                device=device,
                compiled=record.provenance.get("compiled", False),
                remember=record.provenance.get("remembers", True),
                watcher=watcher,
            )
            place = fresh
        ours, theirs = (
            records.path_of(where, each.key, record.spec).with_suffix(".safetensors")
            for where, each in ((folder, record), (place, new))
        )
        if new.provenance.get("weights") == record.provenance.get("weights") and theirs.is_file() and not ours.exists():
            write_bytes(ours, theirs.read_bytes())
        return new


@contextlib.contextmanager
def _called(temporary: str, results: Path) -> Iterator[None]:
    """Let errors name the folder that the user knows."""
    try:
        yield
    except KfbenchError as error:
        error.args = (str(error).replace(temporary, str(results)),)
        raise


def _lay_out(record: RunRecord, results: Path, fresh: Path) -> None:
    """Copy a run's teachers to another results folder: the store, and students that serve as teachers (run:KEY)."""
    if store(results).is_dir():
        shutil.copytree(store(results), store(fresh))
    for path in walk(results):
        if path.suffix == ".safetensors" and f"run:{path.stem}" in record.spec["teachers"]:
            for each in (path, path.with_suffix(".json")):
                target = fresh / each.relative_to(results)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(each, target)


def compare(old: RunRecord, new: RunRecord, siblings: list[RunRecord]) -> Comparison:
    """Compare a record with its rerun; siblings are finished runs of the same spec with other seeds."""
    differ = differences(old, new)
    if old.key != new.key:
        changed = [
            name for name in {**old.identity, **new.identity} if old.identity.get(name) != new.identity.get(name)
        ]
        differ = (f"identity: {', '.join(changed)}", *differ)
        if others := [OTHERS[kind] for name in changed if (kind := name.rpartition(" ")[2]) in OTHERS]:
            return Comparison("different", differ, f"{' and '.join(others)} are not those of the record")
    if not differ:
        return Comparison("bit-equal", (), "every score and every point of the curve is equal to the bit")
    metric = registry.kind_of(old.spec["task"]).metric
    if any(metric not in each.scores.get("last", {}) for each in (old, new)):
        return Comparison("different", differ, "one of the two has no score")
    gap = abs(new.scores["last"][metric] - old.scores["last"][metric])
    reach = _reach([r.scores["last"][metric] for r in siblings if metric in r.scores.get("last", {})])
    told = f"{metric} differs by {gap:.4g}"
    if math.isnan(reach):
        return Comparison(
            "different", differ, f"{told}; fewer than 2 other seeds are recorded to say how much is usual"
        )
    told += f"; a run of another seed differs by up to {reach:.4g} (95 %)"
    return Comparison("equal within its interval" if gap <= reach else "different", differ, told)


def _reach(scores: list[float]) -> float:
    """Return Student's 95 % prediction interval for the difference of two seeds, half its width; NaN below 2 scores."""
    if len(scores) < 2:
        return math.nan
    return float(stdtrit(len(scores) - 1, 0.975) * np.std(scores, ddof=1) * math.sqrt(2))


def differences(old: RunRecord, new: RunRecord) -> tuple[str, ...]:
    """Return where the numbers differ: each score, and for each column of the curve the first step."""
    places = []
    for which in sorted({*old.scores, *new.scores}):
        for name in sorted({*old.scores.get(which, {}), *new.scores.get(which, {})}):
            one, other = old.scores.get(which, {}).get(name), new.scores.get(which, {}).get(name)
            if not _same(one, other):
                places.append(f"score {which}.{name}: {one} before, {other} now")
    if len(old.curve) != len(new.curve):
        places.append(f"curve: {len(old.curve)} points before, {len(new.curve)} now")
    seen: set[str] = set()
    for before, now in zip(old.curve, new.curve, strict=False):
        for name in sorted({*before, *now}):
            if name not in TIMES and name not in seen and not _same(before.get(name), now.get(name)):
                seen.add(name)
                step = before.get("step", now.get("step"))
                places.append(f"curve {name} from step {step:.0f}: {before.get(name)} before, {now.get(name)} now")
    return tuple(places)


def _same(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return one == other or (math.isnan(one) and math.isnan(other))


def siblings(record: RunRecord, results: Path) -> list[RunRecord]:
    """Return finished records of other seeds whose numbers nothing else decides: the same spec, data and teachers."""

    def unseeded(of: RunRecord) -> dict[str, Any]:
        return {**of.identity, "spec": {**of.spec, "seed": None}}

    others = [r for r in records.records(results) if unseeded(r) == unseeded(record) and r.key != record.key]
    return [r for r in others if r.status == "done"]
