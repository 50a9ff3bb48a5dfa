"""How long a run will take on this machine now, from a few steps of its stand-in."""

from pathlib import Path

from kfbench import registry
from kfbench.running import stand_in
from kfbench.running.status import spoken as spoken
from kfbench.spec import RunSpec
from kfbench.train.training import training_of


def seconds(spec: RunSpec, *, device: str = "cpu", tried: int = 4, results: Path | None = None) -> float:
    """Return the expected seconds of a run's training, teachers and data loading aside.

    With `results`, teachers that lie there (`imported:`, `run:`) or anywhere are taken as large as they are.

    Evaluations are in it, but for games, whose episodes have no known length. Raises KfbenchError if the data are
    missing.
    """
    task = registry.load_task(spec.task)
    training = training_of(task.kind)
    return training.seconds(
        spec, task, lambda short, rows: stand_in.setup(short, rows=rows, device=device, results=results), tried=tried
    )
