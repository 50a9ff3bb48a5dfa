"""Curves written as they come to TensorBoard, Weights & Biases or Trackio: a small watcher each.

Each run is one run there too, called METHOD-TASK-sSEED-KEY: in `results/.cache/tensorboard`; in `results/.cache/wandb`
and the service of `wandb login`; in Trackio's own folder. Each row of the curve is written at its step.
"""

import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

from kfbench.errors import KfbenchError, near
from kfbench.running.files import cache
from kfbench.spec import RunSpec
from kfbench.train.loop import Loop, Row, Watcher

PROJECT = "kfbench"


class CurveLog(Watcher):
    """Passes on all that it is told to another watcher, and writes rows by `open`'s function until it is closed."""

    def __init__(self, results: Path, then: Watcher) -> None:
        self.folder, self.name, self.config = cache(results), "", {}  # type: tuple[Path, str, dict[str, Any]]
        self._then, self._is_open = then, False

    def open(self) -> None:
        """Start a run called `self.name`."""
        raise NotImplementedError

    def write(self, row: Row) -> None:
        """Take a row of the curve; it has a "step"."""
        raise NotImplementedError

    def close(self) -> None:
        """End the run."""
        raise NotImplementedError

    def say(self, line: str) -> None:
        self._then.say(line)

    def begin(self, key: str, spec: RunSpec) -> None:
        self._then.begin(key, spec)
        self.name = f"{spec.method}-{spec.task}-s{spec.seed}-{key}".replace("/", "-")
        self.config = {**spec.to_json(), "key": key}

    def start(self, spec: RunSpec, loop: Loop) -> None:
        try:
            with redirect_stdout(sys.stderr):  # what these packages print is no output of ours
                self.open()
        except Exception as error:
            raise KfbenchError(f"no log can be begun: {type(error).__name__}: {error}") from error
        self._is_open = True
        for row in loop.curve:  # of a run that goes on from a checkpoint
            self._try(self.write, row)
        self._then.start(spec, loop)

    def step(self, loop: Loop, row: Row | None) -> None:
        if row:
            self._try(self.write, row)
        self._then.step(loop, row)

    def stop(self) -> None:
        self._try(self.close)
        self._is_open = False
        self._then.stop()

    def _try(self, act: Callable[..., None], *given: Row) -> None:
        """Act while the log is open; a fault there ends the log, and not the run."""
        if not self._is_open:
            return
        try:
            with redirect_stdout(sys.stderr):
                act(*given)
        except Exception as error:
            self._is_open = False
            self._then.say(f"the log ends here, the run goes on: {type(error).__name__}: {error}")


class TensorBoard(CurveLog):
    """Event files, by torch's own writer: `tensorboard --logdir results/.cache/tensorboard`."""

    def open(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = self.folder / "tensorboard" / self.name
        for old in folder.glob("events.*"):  # of the same run before it was stopped
            old.unlink()
        self._writer: Any = SummaryWriter(str(folder), flush_secs=5)
        self._writer.add_text("spec", "\n".join(f"    {name}: {value}" for name, value in self.config.items()))

    def write(self, row: Row) -> None:
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(name, value, int(row["step"]))

    def close(self) -> None:
        self._writer.close()


class Wandb(CurveLog):
    """Weights & Biases: online after `wandb login`, else as $WANDB_MODE says; it takes no step a second time."""

    def open(self) -> None:
        import wandb

        folder = self.folder
        folder.mkdir(parents=True, exist_ok=True)
        identity = self.config["key"]
        self._run: Any = wandb.init(
            project=PROJECT, name=self.name, id=identity, resume="allow", config=self.config, dir=str(folder)
        )

    def write(self, row: Row) -> None:
        self._run.log({name: value for name, value in row.items() if name != "step"}, step=int(row["step"]))

    def close(self) -> None:
        self._run.finish()


class Trackio(CurveLog):
    """Trackio, on this machine: `trackio show --project kfbench`."""

    def open(self) -> None:
        import trackio

        with suppress(ValueError):  # there is no project yet
            for run in trackio.Api().runs(PROJECT):
                if run.name == self.name:  # the same run before it was stopped
                    run.delete()
        words = {"project": PROJECT, "name": self.name, "config": self.config, "embed": False}
        trackio.init(**words, auto_log_gpu=False, auto_log_cpu=False)

    def write(self, row: Row) -> None:
        import trackio

        trackio.log({name: value for name, value in row.items() if name != "step"}, step=int(row["step"]))

    def close(self) -> None:
        import trackio

        trackio.finish()


KINDS: dict[str, tuple[Callable[[Path, Watcher], CurveLog], str]] = {  # and the package that must be there
    "tensorboard": (TensorBoard, "tensorboard"),
    "wandb": (Wandb, "wandb"),
    "trackio": (Trackio, "trackio"),
}


def logging(kinds: Sequence[str], *, results: Path, then: Watcher) -> Watcher:
    """Return a watcher that writes the curves of all runs to these kinds of log and passes on to `then`.

    Raises KfbenchError for an unknown kind, or one whose package is not installed.
    """
    from importlib.util import find_spec

    watcher = then
    for kind in (part for given in kinds for part in given.split(",") if part):
        if kind not in KINDS:
            raise KfbenchError(f"no log '{kind}'; {near(kind, KINDS)}")
        make, package = KINDS[kind]
        if find_spec(package) is None:
            raise KfbenchError(f"--log {kind} needs the package '{package}'; type: pip install 'kfbench[{kind}]'")
        watcher = make(results, watcher)
    return watcher
