"""Feature maps of two networks side by side: which layers are compared, how sizes meet, what joins their widths."""

from collections.abc import Iterable
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from kfbench.batch import Batch
from kfbench.errors import KfbenchError
from kfbench.networks import taps
from kfbench.networks.network import Network, Output
from kfbench.networks.parts import he_normal
from kfbench.networks.taps import Position
from kfbench.teachers import Teacher

BATCH = (
    64  # images in a batch of RepDistiller and of the papers that were compared on it: what sums over a batch hold for
)


class Pair(NamedTuple):
    """A student's and a teacher's layer, linked by relative depth, and the shapes (C, H, W) of their maps."""

    own: str
    theirs: str
    taken: tuple[int, ...]
    wanted: tuple[int, ...]


def pairs(network: Network, teacher: Teacher, *, position: Position = "post", smallest: int = 1) -> list[Pair]:
    """Return the linked layers of which both have maps of `smallest` rows and columns or more, from shallow to deep.

    Raises KfbenchError if there are none.
    """
    own = taps.shapes(network, network.layers, position)
    theirs = teacher.shapes(teacher.network.layers, position)
    links = taps.match(network.layers, teacher.network.layers)
    found = [Pair(name, other, own[name], theirs[other]) for name, (other,) in links.items()]
    found = [pair for pair in found if _are_maps(pair.taken, pair.wanted, smallest)]
    if not found:
        size = f", {smallest} x {smallest} or larger" if smallest > 1 else ""
        raise KfbenchError(
            f"networks '{network.name}' and '{teacher.network.name}' have no layers with maps to compare{size}; use "
            f"convolutional ones{', or a lower --set smallest=' if smallest > 1 else ''}"
        )
    return found


def last(network: Network, teacher: Teacher) -> Pair:
    """Return the last layers of both. Raises KfbenchError if they have no maps."""
    own, theirs = network.layers[-1], teacher.network.layers[-1]
    pair = Pair(own, theirs, taps.shapes(network, [own])[own], teacher.shapes([theirs])[theirs])
    if not _are_maps(pair.taken, pair.wanted, 1):
        raise KfbenchError(
            f"the last features of '{network.name}' or '{teacher.network.name}' are no maps; use convolutional networks"
        )
    return pair


def _are_maps(taken: tuple[int, ...], wanted: tuple[int, ...], smallest: int) -> bool:
    return len(taken) == len(wanted) == 3 and min(*taken[1:], *wanted[1:]) >= smallest


def read(
    network: Network,
    teacher: Teacher,
    batch: Batch,
    *,
    position: Position = "post",
    of_teacher: Position | None = None,
    smallest: int = 1,
) -> tuple[Output, list[tuple[Tensor, Tensor]]]:
    """Return the network's output for a batch, and the maps of `pairs`, the student's and the teacher's.

    `of_teacher` is the position in the teacher's layers where it is another.
    """
    links = taps.match(network.layers, teacher.network.layers)
    with taps.read(network, list(links), position) as own:
        output: Output = network(batch.images)
    theirs = teacher.features(batch, _ordered(teacher, links.values()), of_teacher or position)
    couples = [(own[name], theirs[other]) for name, (other,) in links.items()]
    return output, [(one, other) for one, other in couples if _are_maps(one.shape[1:], other.shape[1:], smallest)]


def _ordered(teacher: Teacher, wanted: Iterable[tuple[str, ...]]) -> list[str]:
    named = {name for names in wanted for name in names}
    return [name for name in teacher.network.layers if name in named]


def shrink(own: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """Bring two maps [B, C, H, W] to one height and width: the larger is average-pooled."""
    size = (min(own.shape[2], theirs.shape[2]), min(own.shape[3], theirs.shape[3]))
    return to_size(own, size), to_size(theirs, size)


def to_size(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring maps [B, C, H, W] to a height and width: average pooling down, repetition up; those that fit stay."""
    # a pooling that changes nothing costs as much as a convolution
    return maps if tuple(maps.shape[2:]) == size else F.adaptive_avg_pool2d(maps, size)


def meet(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bring maps [B, C, H, W] to a height and width: average pooling down, interpolation up; those that fit stay."""
    if maps.shape[2] >= size[0] and maps.shape[3] >= size[1]:
        return to_size(maps, (size[0], size[1]))
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)


def connector(before: int, after: int) -> nn.Sequential:
    """Return a 1x1 convolution and BatchNorm from `before` to `after` channels.

    Source: Heo et al. 2019, arXiv 1811.03233 and 1904.01866 (bhheo/AB_distillation, clovaai/overhaul-distillation).
    """
    made = nn.Sequential(nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after))
    he_normal(made)
    return made
