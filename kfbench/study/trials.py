"""A run as a trial of a queue: its progress is told there, its record is left there, a pruner may stop it."""

import time
from pathlib import Path

from optuna.trial import Trial

from kfbench.errors import Diverged, KfbenchError
from kfbench.run import execute, records
from kfbench.run.records import RunRecord
from kfbench.spec import RunSpec, digest
from kfbench.study import queue
from kfbench.train.loop import Loop, Watcher

TELL = 5.0  # seconds between signs of progress


class Pruned(KfbenchError):
    """The pruner wants to see no more of this run."""


class TrialWatcher(Watcher):
    """Passes a run's progress on to its trial; with `prunes` its validation score too, where it may be told to stop."""

    def __init__(self, trial: Trial, spec: RunSpec, *, prunes: bool = False) -> None:
        self._trial, self._spec = trial, spec
        self._prunes = prunes
        self._is_own = False
        self._told = 0.0

    def start(self, spec: RunSpec, loop: Loop) -> None:
        """Tell the run of the trial from a teacher that is trained for it on the way."""
        self._is_own = spec == self._spec

    def step(self, loop: Loop, row: dict[str, float] | None) -> None:
        """Tell the queue now and then how far the run is."""
        if time.monotonic() - self._told > TELL:
            self._told = time.monotonic()
            self._trial.set_user_attr("progress", round(loop.position / loop.total, 4))
        value = None if row is None else goodness(row)
        if value is not None and self._prunes and self._is_own:
            self._trial.report(value, loop.position)
            if self._trial.should_prune():
                raise Pruned(f"pruned at step {loop.position:,} of {loop.total:,}")


def goodness(values: dict[str, float]) -> float | None:
    """Return what a curve's row, or `scores["val"]`, says of validation: accuracy in %, or return; None: nothing."""
    for name in ("val_error", "error"):
        if name in values:
            return 100 - values[name]
    return values.get("val_return", values.get("return"))


def name_of(spec: RunSpec) -> str:
    """Return a run's name in the queue: a digest of its spec."""
    return digest(spec.to_json())


def run_one(
    spec: RunSpec, trial: Trial, *, results: Path, device: str, prunes: bool = False, force: bool = False
) -> RunRecord:
    """Make one run for a trial and leave its record there. Raises queue.Stopped after a signal, Pruned when told to."""
    try:
        watcher = TrialWatcher(trial, spec, prunes=prunes)
        record = execute.run(spec, results=results, device=device, watcher=watcher, force=force)
    except execute.Interrupted as error:
        raise queue.Stopped(str(error)) from error
    except Exception as error:
        left = _failed(spec, results) if not isinstance(error, KfbenchError) or isinstance(error, Diverged) else None
        if left is not None:
            trial.set_user_attr("record", left.model_dump())
        raise
    trial.set_user_attr("record", record.model_dump())
    return record


def _failed(spec: RunSpec, results: Path) -> RunRecord | None:
    """Return the record that a failed run has just left."""
    found = [records.read(path) for path in records.path_of(results, "", spec).parent.glob("*.json")]
    return next((record for record in found if record.spec == spec.to_json() and record.status == "failed"), None)
