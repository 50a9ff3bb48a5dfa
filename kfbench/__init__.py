"""kfbench: a reproducibility benchmark suite for knowledge-transfer methods.

    import kfbench

    record = kfbench.run("kf", "cifar100")        what `kfbench run` does; the record is a pydantic model
    kfbench.runs("results")                       a pandas frame, a row a run
    kfbench.curves("results")                     a long frame for seaborn
    network = kfbench.load(record.key)            the network that was kept, in evaluation mode
    kfbench.predict(record.key, "photos/")        what it says of images: a frame, a row an image
    kfbench.study("reports/quick")                every run a study lacks, then its report
    kfbench.report("reports/quick")               tables, plots, a page, from the records alone
    kfbench.rank("cifar10", [...])                which teacher promises most

Importing it is quick: torch and pandas come with the first call that needs them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kfbench.errors import KfbenchError, KfbenchWarning
from kfbench.version import __version__

if TYPE_CHECKING:
    from kfbench.library import curves, load, predict, rank, report, run, runs, study
    from kfbench.running.records import RunRecord

__all__ = [
    "KfbenchError",
    "KfbenchWarning",
    "RunRecord",
    "__version__",
    "curves",
    "load",
    "predict",
    "rank",
    "report",
    "run",
    "runs",
    "study",
]

_HOMES = {"RunRecord": "kfbench.running.records"}  # of what does not come from the library


def __getattr__(name: str) -> Any:
    if name.startswith("_") or name not in __all__:
        raise AttributeError(f"module 'kfbench' has no attribute '{name}'")
    return getattr(import_module(_HOMES.get(name, "kfbench.library")), name)


def __dir__() -> list[str]:
    return sorted(__all__)
