"""Layers of modules, paths through them and the evolution of paths: the student of PathNet.

Source: Fernando et al. 2017, arXiv 1701.08734; see `methods/pathnet.py` for what is the paper's and what is not.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kfbench.networks.network import Output, floats
from kfbench.tasks import Task


@dataclass(frozen=True)
class Convolution:
    """What a module of a layer is: a convolution of this kernel, stride and padding, and a ReLU."""

    kernel: int
    stride: int
    padding: int


LAYERS: dict[str, tuple[Convolution | int, ...]] = {  # a number: units of a linear layer; 0: as many as `width`
    "convolution": (Convolution(3, 2, 1),) * 3,
    "linear": (0, 0, 0),
    "atari": (Convolution(8, 4, 0), Convolution(4, 2, 0), Convolution(3, 1, 0), 256),
}


class Path(nn.Module):
    """A path of modules that ends in a head: what is kept."""

    mean: Tensor
    std: Tensor

    def __init__(self, layers: Sequence[Sequence[nn.Module]], head: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleList(modules) for modules in layers)
        self.head = head
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, images: Tensor) -> Output:
        """Map images [B, C, H, W] (float in 0..1, or uint8) to an Output."""
        layers = [list(cast(nn.ModuleList, modules)) for modules in self.layers]
        return follow((floats(images) - self.mean) / self.std, layers, cast(nn.ModuleDict, self.head))


def follow(
    x: Tensor, layers: Sequence[Sequence[nn.Module]], head: nn.ModuleDict, frozen: frozenset[int] = frozenset()
) -> Output:
    """Map inputs [B, C, H, W] along a path: at each layer the sum of its modules' outputs, after their ReLUs.

    Modules whose `id` is in `frozen` get no gradient.
    """
    for modules in layers:
        held = [id(module) in frozen for module in modules]
        weights = [cast(Tensor, module.weight) for module in modules]
        biases = [cast(Tensor, module.bias) for module in modules]
        weight = torch.cat([w.detach() if h else w for w, h in zip(weights, held, strict=True)])  # one call for all
        bias = torch.cat([b.detach() if h else b for b, h in zip(biases, held, strict=True)])
        first = modules[0]
        if isinstance(first, nn.Conv2d):
            y = F.conv2d(x, weight, bias, first.stride, first.padding)
        else:
            y = F.linear(x.flatten(1), weight, bias)
        y = F.relu(y)
        x = y.reshape(len(y), len(modules), -1, *y.shape[2:]).sum(1)
    x = x.flatten(1)
    return Output(head["logits"](x), head["value"](x).squeeze(1) if "value" in head else None)


class Modules(nn.Module):
    """All modules, the heads of all tasks, and the evolution of paths: a population [P, L, N] of module numbers."""

    mean: Tensor
    std: Tensor
    total: Tensor

    def __init__(
        self,
        task: Task,
        form: str,
        heads: dict[str, int],
        modules: int,
        active: int,
        width: int,
        population: int,
        quota: int,
    ) -> None:
        super().__init__()
        self.acts, self.seed, self.quota, self.stage = task.acts, task.seed, quota, ""
        shape: tuple[int, ...] = task.shape
        self.layers = nn.ModuleList()
        for layer in LAYERS[form]:
            made = [module_of(layer, shape, width) for _ in range(modules)]
            self.layers.append(nn.ModuleList(each for each, _ in made))
            shape = made[0][1]
        size = math.prod(shape)
        self.heads = nn.ModuleDict()
        for name, outputs in heads.items():
            parts = {"logits": nn.Linear(size, outputs)}
            if task.acts:
                parts["value"] = nn.Linear(size, 1)
            self.heads[name.replace(".", "_")] = nn.ModuleDict(parts)
        channels = task.shape[0]
        self.register_buffer("mean", torch.tensor(task.mean or (0.5,) * channels).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(task.std or (0.25,) * channels).view(-1, 1, 1))
        self.register_buffer("total", torch.zeros(()))  # sum of what the present path scored
        # what follows stays on the CPU, and in a checkpoint through get_extra_state
        self.paths = torch.zeros(population, len(self.layers), active, dtype=torch.int64)
        self.winner = torch.zeros(len(self.layers), active, dtype=torch.int64)
        self.frozen = torch.zeros(len(self.layers), modules, dtype=torch.bool)
        self.pair, self.scores = [0, 1], [0.0, 0.0]
        self.turn, self.count, self.tournaments = 0, 0, 0

    def forward(self, images: Tensor) -> Output:
        """Map images [B, C, H, W] along the present path to the head of the present task."""
        chosen = self._along(self.paths.tolist()[self.pair[self.turn]])
        held = frozenset(
            id(module)
            for row, marks in zip(self.layers, self.frozen.tolist(), strict=True)
            for module, is_frozen in zip(cast(nn.ModuleList, row), marks, strict=True)
            if is_frozen
        )
        x = (floats(images) - self.mean) / self.std
        return follow(x, chosen, cast(nn.ModuleDict, self.heads[self.stage.replace(".", "_")]), held)

    def _along(self, path: list[list[int]]) -> list[list[nn.Module]]:
        return [[cast(nn.ModuleList, row)[m] for m in genes] for row, genes in zip(self.layers, path, strict=True)]

    def path(self, stage: str) -> Path:
        """Return the winner's path with the head of a stage; it shares memory with this module."""
        return Path(self._along(self.winner.tolist()), self.heads[stage], self.mean, self.std)

    def draw(self, rng: torch.Generator) -> None:
        """Draw a new population, and the first two of its paths to compare."""
        population, layers, active = self.paths.shape
        order = torch.rand(population, layers, self.frozen.shape[1], generator=rng).argsort(2)
        self.paths.copy_(order[:, :, :active])
        self.tournaments = 0
        self._draw_pair(rng)
        self.winner.copy_(self.paths[self.pair[0]])

    def _draw_pair(self, rng: torch.Generator) -> None:
        self.pair = torch.randperm(len(self.paths), generator=rng)[:2].tolist()
        self.turn = self.count = 0
        self.total.zero_()

    def note(self, score: Tensor) -> None:
        """Add a score [] of the present path: a batch's accuracy, or an episode's return."""
        self.total += score.to(self.total.device)
        self.count += 1

    def next_path(self, rng: torch.Generator) -> None:
        """Go on to the second path, or let the winner of both overwrite the loser and draw the next two."""
        self.scores[self.turn] = float(self.total) / self.count
        if self.turn == 0:
            self.turn, self.count = 1, 0
            self.total.zero_()
            return
        won = int(self.scores[1] > self.scores[0])
        self.winner.copy_(self.paths[self.pair[won]])
        self.paths[self.pair[1 - won]] = mutated(self.winner, self.frozen.shape[1], rng)
        self.tournaments += 1
        self._draw_pair(rng)

    def start_anew(self) -> None:
        """Freeze the winner's modules and draw fresh weights for all that are not frozen."""
        for i, genes in enumerate(self.winner.tolist()):
            self.frozen[i, genes] = True
        for i, row in enumerate(self.layers):
            for m, module in enumerate(cast(nn.ModuleList, row)):
                if not self.frozen[i, m]:
                    cast(nn.Linear, module).reset_parameters()

    def get_extra_state(self) -> Tensor:
        """Return the evolution's state as numbers, for the checkpoint."""
        numbers = torch.tensor([*self.pair, *self.scores, self.turn, self.count, self.tournaments], dtype=torch.float64)
        return torch.cat([each.flatten().double() for each in (self.paths, self.winner, self.frozen, numbers)])

    def set_extra_state(self, state: Any) -> None:
        """Take back what `get_extra_state` gave."""
        rest = cast(Tensor, state)
        for kept in (self.paths, self.winner, self.frozen):
            kept.copy_(rest[: kept.numel()].view(kept.shape))
            rest = rest[kept.numel() :]
        first, second, *scores, turn, count, tournaments = rest.tolist()
        self.pair, self.scores = [int(first), int(second)], scores
        self.turn, self.count, self.tournaments = int(turn), int(count), int(tournaments)


def module_of(layer: Convolution | int, shape: tuple[int, ...], width: int) -> tuple[nn.Module, tuple[int, ...]]:
    """Return a module for features of a shape, and the shape of what it puts out."""
    if isinstance(layer, int):
        return nn.Linear(math.prod(shape), layer or width), (layer or width,)
    height, wide = ((side + 2 * layer.padding - layer.kernel) // layer.stride + 1 for side in shape[1:])
    return nn.Conv2d(shape[0], width, layer.kernel, layer.stride, layer.padding), (width, height, wide)


def mutated(path: Tensor, modules: int, rng: torch.Generator) -> Tensor:
    """Return a copy of a path [L, N] in which each gene moved with probability 1/(L·N) by -2 to 2, modulo `modules`.

    A gene that would meet another of its layer goes on to the next free module.
    """
    moves = torch.rand(path.shape, generator=rng) < 1 / path.numel()
    steps = torch.randint(-2, 3, path.shape, generator=rng)
    made = path.clone()
    for i, n in moves.nonzero().tolist():
        others = {gene for k, gene in enumerate(made[i].tolist()) if k != n}
        gene = int(made[i, n] + steps[i, n]) % modules
        while gene in others:
            gene = (gene + 1) % modules
        made[i, n] = gene
    return made
