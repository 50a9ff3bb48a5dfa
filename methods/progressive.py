"""Progressive networks: a new column beside frozen ones, which it reads at every layer through learned adapters.

Source: Rusu et al. 2016, "Progressive Neural Networks", arXiv 1606.04671, section 2 and supplement:
    h_i = sigma(W_i h_{i-1} + U_i sigma(V_i [a_k h_{i-1}^k for all earlier columns k])),
    V a 1×1 convolution to as many maps as the column itself has at layer i-1, sigma a ReLU, each a_k a learned scalar
    that starts at 1, 0.1 or 0.01 by chance. Its columns have the network `pnn`. The control with random columns is
    `random:TASK`.
Differs: a column's layers are the network's named ones, which hold several convolutions in deep networks; U is a 3×3
convolution after pooling to the next layer's size, linear into vectors; what enters the heads has no sigma outside.
Earlier columns are ordinary networks without laterals among themselves. Where a named layer is not an activation,
laterals are added after it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kfbench import seeding
from kfbench.errors import KfbenchError
from kfbench.methods import Batch, Method, Output, Parts
from kfbench.networks import taps
from kfbench.networks.network import Network
from kfbench.tasks import Task
from kfbench.teachers import Teacher, fit
from kfbench.transfer import maps

SCALES = (1.0, 0.1, 0.01)  # where a starts; supplement


@dataclass(frozen=True)
class Progressive(Method):
    """No settings: every teacher is a column."""

    teachers = (1, None)
    needs = "features"
    above_floor = "lateral convolutions at every layer, forward and backward"
    keeps_teachers = True

    def make_student(self, task: Task, teachers: Sequence[Teacher], rng: torch.Generator) -> "Column":
        """Return the task's network, the new column, with its adapters."""
        network = task.make_network()
        with seeding.global_generator(rng):
            return Column(network, [teacher.network for teacher in teachers])

    def act(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, progress: float
    ) -> tuple[Output, Parts]:
        """What the new column says, and the features it read, to learn from the same ones."""
        assert isinstance(student, Column)
        features = ask(student, teachers, batch)
        output: Output = student(batch.images, features)
        return output, features

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """The task's loss of the new column."""
        assert isinstance(student, Column)
        output: Output = student(batch.images, batch.extras or ask(student, teachers, batch))
        return output, task.loss(output, batch)

    def metrics(self, student: nn.Module) -> dict[str, float]:
        """`scale/LAYER/k`: what the features of column k are multiplied by on their way into a layer or a head."""
        adapters = cast(Column, student).adapters.items()
        return {
            f"scale/{above.replace('/', '.')}/{k}": float(a)
            for above, adapter in adapters
            for k, a in enumerate(cast(Adapter, adapter).scale.detach())
        }

    def export(self, student: nn.Module) -> "Columns":
        """All columns."""
        return Columns(cast(Column, student))


def ask(student: "Column", teachers: Sequence[Teacher], batch: Batch) -> Parts:
    """Return what the new column reads of the others, {"k/layer": [B, …]}."""
    return {
        f"{k}/{layer}": features
        for k, (teacher, asked) in enumerate(zip(teachers, student.asked, strict=True))
        for layer, features in teacher.features(batch, asked).items()
    }


class Column(nn.Module):
    """The new column with its adapters; it is given the features of the frozen ones."""

    def __init__(self, network: Network, others: Sequence[Network]) -> None:
        super().__init__()
        self.network = network
        self.others = list(others)  # a list: they are no part of the student's own state and are not trained
        own = taps.shapes(network, network.layers) | taps.shapes(network, network.heads)
        links = [taps.match(network.layers, other.layers) for other in others]
        self.asked = [sorted({name for (name,) in link.values()}) for link in links]
        shapes = [taps.shapes(other, asked) for other, asked in zip(others, self.asked, strict=True)]
        below = dict(zip(network.layers[1:], network.layers, strict=False))
        below |= {head: network.layers[-1] for head in network.heads}
        self.reads = {above: [(k, link[layer][0]) for k, link in enumerate(links)] for above, layer in below.items()}
        self.adapters = nn.ModuleDict()
        for above, layer in below.items():
            taken = [shapes[k][name] for k, name in self.reads[above]]
            adapter = Adapter(taken, own[layer], own[above], flat=above not in network.heads)
            self.adapters[above.replace(".", "/")] = adapter

    def forward(self, images: Tensor, features: Parts) -> Output:
        """Map images [B, C, H, W] and the other columns' features {"k/layer": [B, …]} to an Output."""
        modules = dict(self.network.named_modules())
        handles = []
        for above in self.reads:
            position: taps.Position = "pre" if isinstance(modules[above], taps.ACTIVATIONS) else "post"
            handles += taps.rewrite(self.network, {above: self._lateral(above, features)}, position)
        try:
            output: Output = self.network(images)
            return output
        finally:  # hooks that stayed would point to this column from every copy of it
            for handle in handles:
                handle.remove()

    def _lateral(self, above: str, features: Parts) -> Callable[[Tensor], Tensor]:
        taken = [features[f"{k}/{name}"] for k, name in self.reads[above]]
        adapter = self.adapters[above.replace(".", "/")]
        return lambda own: own + adapter(taken)


class Adapter(nn.Module):
    """U sigma(V [a_k h^k]): what the features of all other columns add to a layer or a head of the new one."""

    def __init__(
        self, taken: Sequence[tuple[int, ...]], middle: tuple[int, ...], made: tuple[int, ...], *, flat: bool
    ) -> None:
        """From features of shapes `taken`, through the shape of the column's own layer below, to the shape `made`.

        With `flat` a map enters a vector flattened, else as its mean. Raises KfbenchError for vectors that enter a map.
        """
        super().__init__()
        if len(middle) == 3 and any(len(shape) == 1 for shape in taken):
            raise KfbenchError(
                "a column's vector cannot enter a map; progressive needs teachers with maps where it has"
            )
        self.size = middle[1:]
        self.made = made
        start = torch.randint(len(SCALES), (len(taken),))
        self.scale = nn.Parameter(torch.tensor(SCALES)[start])  # a
        width = sum(shape[0] for shape in taken)
        self.narrow = nn.Conv2d(width, middle[0], 1) if self.size else nn.Linear(width, middle[0])  # V
        self.flat = flat and len(made) == 1 and bool(self.size)
        before = middle[0] * self.size[0] * self.size[1] if self.flat else middle[0]
        wide = len(made) == 3
        self.widen = (
            nn.Conv2d(before, made[0], 3, padding=1, bias=False) if wide else nn.Linear(before, made[0], bias=False)
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Map the other columns' features to [B, *made]."""
        met = [meet(each, self.size) * a for each, a in zip(features, self.scale, strict=True)]
        x = F.relu(self.narrow(torch.cat(met, dim=1)))
        if len(self.made) == 3:
            return cast(Tensor, self.widen(meet(x, self.made[1:])))
        return cast(Tensor, self.widen(x.flatten(1) if self.flat or x.dim() == 2 else x.mean((2, 3))))


def meet(features: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bring maps [B, C, H, W] to a height and width, or to () by their mean; vectors stay."""
    if features.dim() == 2:
        return features
    return maps.meet(features, size) if size else features.mean((2, 3))


class Columns(nn.Module):
    """What is kept: the new column and the frozen ones that it reads."""

    def __init__(self, column: Column) -> None:
        super().__init__()
        self.column = column
        self.frozen = nn.ModuleList(column.others)

    def forward(self, images: Tensor) -> Output:
        """Map images [B, C, H, W] to the new column's Output."""
        features: Parts = {}
        for k, (other, asked) in enumerate(zip(self.frozen, self.column.asked, strict=True)):
            assert isinstance(other, Network)
            with torch.no_grad(), taps.read(other, asked, stop=True) as found:
                other(fit(images, other.shape))
            features |= {f"{k}/{layer}": value for layer, value in found.items()}
        output: Output = self.column(images, features)
        return output
