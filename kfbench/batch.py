"""What one optimiser step sees: the rows of a batch, and the door to what teachers said to them before."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from kfbench.networks.network import Network, Output

Parts = dict[str, Tensor]  # {name: tensor}: the parts of a loss, or what `act` remembers of its rows
Entry = tuple[str, ...]  # an answer of a teacher: ("output",), or (position, layer)


class Answering(Protocol):
    """What a memory has to know of a teacher: `kfbench.teachers.Teacher` is one."""

    network: Network
    name: str
    digest: str  # of its weights
    index: int  # place among the run's teachers


class Past(Protocol):
    """What teachers said to a batch's rows in earlier epochs and runs; `train/memory.py` keeps it."""

    @property
    def taken(self) -> Tensor:
        """The images [B, C, H, W] that it is good for: the batch's own, not what a method makes of them."""

    def recall(self, teacher: Answering, entries: Sequence[Entry]) -> dict[Entry, Tensor]:
        """Return {entry: the teacher's answers [B, …], fp32}; nothing if an entry is too large to be kept."""


class Trajectory(NamedTuple):
    """What followed on each step of a rollout, as V-trace needs it: T steps of N environments."""

    rewards: Tensor  # [T, N], with the value behind where only the limit of frames stopped an episode
    goes_on: Tensor  # [T, N], 1, or 0 where a return stops
    after: Tensor  # [N], value of the observation behind the last step, when acting


@dataclass
class Batch:
    """The rows of one optimiser step, on the device; B rows.

    In games the rows come from the rollout: `images` are observations, and `actions`, `returns`, `advantages`, the
    acting-time `output` and `extras` (whatever `act` returned for these rows) are filled, `labels` is not.
    """

    images: Tensor  # [B, C, H, W], float in 0..1 and not normalised, or uint8
    rng: torch.Generator  # the method's own stream, the CPU's; `seeding.uniform` draws by it on the images' device
    labels: Tensor | None = None  # [B] int64
    index: Tensor | None = None  # [B] int64, rows of the training split, 0..train_size-1
    view: Tensor | None = None  # [B] int64, which augmentation of the image this is
    actions: Tensor | None = None  # [B] int64
    returns: Tensor | None = None  # [B]
    advantages: Tensor | None = None  # [B]
    output: Output | None = None  # what the student said when it acted
    trajectory: Trajectory | None = None  # of a whole rollout in order (row t·N + n); None for a part of one
    extras: Parts = field(default_factory=dict)  # {name: [B, …]}
    age: Tensor | None = None  # [B] int64, agent steps since the row's episode began; when acting only
    counts: Tensor | None = None  # [B], 1, or 0 for rows that a game's own loss leaves out; None: all count
    memo: dict[Any, Any] = field(default_factory=dict)  # answers of teachers to this batch, so none is asked twice
    past: Past | None = None  # what teachers said to these rows in earlier epochs and runs, where that is remembered
