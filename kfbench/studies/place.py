"""Where and how a study's runs are made, as the user asked."""

import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock

from kfbench.errors import KfbenchError
from kfbench.folders import at_home
from kfbench.running.files import cache, write_text

SQLITE = "sqlite:///"
CHECKPOINT_MB = 500.0


def unheeded(on: str, *, memory: float, slurm: object, checkpoint_mb: float) -> tuple[str, tuple[str, ...]] | None:
    """Return an option that was given and that the engine would not heed, with the engines that do."""
    for given, option, engines in (
        (slurm, "slurm", ("slurm",)),
        (memory, "memory", ("ray", "slurm")),
        (checkpoint_mb != CHECKPOINT_MB, "checkpoint_mb", ("ray",)),
    ):
        if given and on not in engines:
            return option, engines
    return None


@dataclass(frozen=True)
class Place:
    """Where and how runs are made."""

    results: Path
    storage: str = ""  # URL of Optuna's database; empty: a SQLite file in the results folder
    on: str = "local"
    jobs: int | None = None  # runs at once; None: what the engine has room for
    device: str = ""  # empty: cuda where GPUs are asked for, else cpu
    threads: int = 1
    gpus_per_run: float = 0.0  # several runs may share one
    memory: float = 0.0  # GB a run; 0: not asked for
    checkpoint_seconds: float = 60.0
    checkpoint_mb: float = CHECKPOINT_MB  # above that a checkpoint stays where it was made, on engines that move them
    slurm: Mapping[str, str] = field(default_factory=dict)  # options of sbatch

    def __post_init__(self) -> None:
        for name, value, least in (
            ("jobs", 1 if self.jobs is None else self.jobs, 1),
            ("threads", self.threads, 1),
            ("gpus_per_run", self.gpus_per_run, 0),
            ("memory", self.memory, 0),
            ("checkpoint_seconds", self.checkpoint_seconds, 0),
            ("checkpoint_mb", self.checkpoint_mb, 0),
        ):
            if not least <= value < math.inf:
                raise KfbenchError(f"{name} cannot be {value}; give a number from {least}")
        lost = unheeded(self.on, memory=self.memory, slurm=self.slurm, checkpoint_mb=self.checkpoint_mb)
        if lost is not None:
            engines = " and ".join(f"on={name!r}" for name in lost[1])
            raise KfbenchError(f"{lost[0]} is for {engines}, and this is on={self.on!r}")

    @property
    def runs_on(self) -> str:
        """The device of a run: what was asked for, else cuda where it has GPUs."""
        return self.device or ("cuda" if self.gpus_per_run else "cpu")

    @property
    def cache(self) -> Path:
        """Where what is no result lies: `runs`, `logs`, `status`, the database."""
        folder = cache(self.results)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def url(self) -> str:
        """The URL of Optuna's database."""
        if self.storage.startswith(f"{SQLITE}~"):
            return f"{SQLITE}{at_home(self.storage.removeprefix(SQLITE)).as_posix()}"
        return self.storage or f"{SQLITE}{(self.cache / 'optuna.db').resolve().as_posix()}"

    def queue(self, name: str) -> str:
        """Return what the database calls a study or search: where others share it, with the results folder's own name.

        What is opened there has nothing under way, so one driver of a name would break another's. The folder keeps its
        name whatever node looks at it, and wherever: a search goes on from its trials.
        """
        return f"{name}-{self._own_name()}" if self.storage else name

    def _own_name(self) -> str:
        """Return six letters that the results folder was given once, and keeps."""
        path = self.cache / "name"
        with FileLock(self.cache / ".name.lock"):
            if not path.is_file():
                write_text(path, uuid.uuid4().hex[:6])
        return path.read_text(encoding="utf-8")
