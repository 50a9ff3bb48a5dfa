"""Where runs are made: an engine moves a run's order and files to a worker, and its reports and files back."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from kfbench.errors import KfbenchError, near

if TYPE_CHECKING:
    from kfbench.studies.carry import Files, Order, Outcome, Word
    from kfbench.studies.engines.local import Local
    from kfbench.studies.engines.ray import Ray
    from kfbench.studies.engines.slurm import Slurm
    from kfbench.studies.place import Place

ENGINES = ("local", "ray", "slurm")


class Engine(Protocol):
    """What the driver asks of an engine. Runs go by the names of their orders; `bags` holds a folder for each."""

    pause: float  # seconds between two looks
    chains: bool  # a run may be handed over while its teachers are still being made

    @property
    def slots(self) -> int: ...  # runs at once
    def start(self, order: "Order", files: "Files") -> None: ...
    def events(self) -> list[tuple[str, dict[str, Any]]]: ...
    def answer(self, name: str, word: "Word") -> None: ...
    def look(self, name: str) -> "Outcome | None": ...
    def close(self) -> None: ...


def make(place: "Place", bags: Path) -> Engine:
    """Return the engine that a place names. Raises KfbenchError if it or what it needs is not there."""
    return _named(place.on)(place, bags)


def require(place: "Place") -> None:
    """Raise KfbenchError for a place whose engine could not be made, as far as it can be told with nothing started."""
    _named(place.on).require(place)


def _named(name: str) -> "type[Local | Ray | Slurm]":
    try:
        if name == "local":
            from kfbench.studies.engines.local import Local

            return Local
        if name == "ray":
            from kfbench.studies.engines.ray import Ray

            return Ray
        if name == "slurm":
            from kfbench.studies.engines.slurm import Slurm

            return Slurm
    except ImportError as error:
        raise KfbenchError(f"--on {name} needs '{error.name}'; type: pip install 'kfbench[{name}]'") from error
    raise KfbenchError(f"no engine '{name}'; {near(name, ENGINES)}")
