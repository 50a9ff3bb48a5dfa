"""DenseNet and DenseNet-BC for small images.

Source: Huang, Liu, van der Maaten, Weinberger, CVPR 2017, arXiv 1608.06993, section 3 and table 2; dropout 0.2 after
    each convolution but the first, section 4.2 (the paper has it where images are not augmented); the recomputation of
    joined maps is Pleiss et al. 2017, arXiv 1707.06990.
Differs: nothing known. The stem has 16 channels, or twice the growth with bc, as the paper says (the authors' later
    code has twice the growth for both).
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from kfbench.networks.family import Family
from kfbench.networks.network import Network
from kfbench.networks.parts import Parts, he_normal, require_depth, require_size

FAMILY = Family(
    about="DenseNet, depth 3n+4, or 6n+4 with bc (Huang 2017)",
    pattern=r"densenet-(?P<bc>bc-)?(?P<depth>[1-9]\d*)-(?P<growth>[1-9]\d*)(?P<dropout>-dropout)?",
    form="densenet-[bc-]DEPTH-GROWTH[-dropout]",
    examples=(
        "densenet-40-12",
        "densenet-100-12",
        "densenet-100-24",
        "densenet-bc-100-12",
        "densenet-bc-250-24",
        "densenet-bc-190-40",
    ),
)

COMPRESSION = 0.5  # theta of DenseNet-BC: the share of maps that a transition keeps
DROPOUT = 0.2
RECOMPUTE_ABOVE = 64 * 2**20  # bytes of joined maps an image; densenet-100-24 keeps 226 MB an image, recomputing 21 MB


@contextmanager
def statistics_kept(norm: nn.BatchNorm2d, training: bool) -> Iterator[None]:
    """Normalise as in the first pass, in its mode, without counting the batch in the running statistics once more."""
    mode, norm.training = norm.training, training
    momentum, norm.momentum = norm.momentum, 0.0
    count, norm.num_batches_tracked = norm.num_batches_tracked, None
    try:
        yield
    finally:
        norm.training, norm.momentum, norm.num_batches_tracked = mode, momentum, count


class DenseLayer(nn.Module):
    """BatchNorm, ReLU, convolution over all maps so far; twice (1x1 to four times the growth, then 3x3) with bc."""

    def __init__(self, before: int, growth: int, *, bc: bool, dropout: float, recomputes: bool) -> None:
        super().__init__()
        self.recomputes = recomputes
        self.norm1, self.relu1 = nn.BatchNorm2d(before), nn.ReLU(inplace=True)
        if bc:
            self.conv1 = nn.Conv2d(before, 4 * growth, 1, bias=False)
            self.narrow = nn.Sequential(
                nn.Dropout(dropout),
                nn.BatchNorm2d(4 * growth),
                nn.ReLU(inplace=True),
                nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
            )
        else:
            self.conv1 = nn.Conv2d(before, growth, 3, padding=1, bias=False)
            self.narrow = nn.Sequential()
        self.drop = nn.Dropout(dropout)

    def join(self, *maps: Tensor) -> Tensor:
        """Map all maps so far, each [B, any, H, W], to [B, growth or 4*growth, H, W]."""
        joined: Tensor = self.conv1(self.relu1(self.norm1(torch.cat(maps, 1))))
        return joined

    def contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Return what surrounds the first computation of `join`, and its repetition in the backward pass."""
        return nullcontext(), statistics_kept(self.norm1, self.norm1.training)

    def is_changed(self) -> bool:
        """Say whether hooks or other weights change `join` in this pass alone: its repetition would miss them."""
        modules = self.norm1, self.relu1, self.conv1
        hooked = any(module._forward_hooks or module._forward_pre_hooks for module in modules)
        return hooked or not isinstance(self.conv1.weight, nn.Parameter)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Map all maps so far, each [B, any, H, W], to the next `growth` ones [B, growth, H, W]."""
        if self.recomputes and torch.is_grad_enabled() and not torch.compiler.is_compiling() and not self.is_changed():
            x = checkpoint(self.join, *maps, use_reentrant=False, preserve_rng_state=False, context_fn=self.contexts)
        else:
            x = self.join(*maps)
        new: Tensor = self.drop(self.narrow(x))
        return new


class DenseBlock(nn.ModuleList):
    """Layers of which each reads what all before it put out."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, before, H, W] to [B, before + layers*growth, H, W]."""
        maps = [x]
        for layer in self:
            maps.append(layer(maps))
        return torch.cat(maps, 1)


class Transition(nn.Module):
    """BatchNorm, ReLU, 1x1 convolution, average-pooling by two."""

    def __init__(self, before: int, after: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.relu = nn.BatchNorm2d(before), nn.ReLU()
        self.conv = nn.Conv2d(before, after, 1, bias=False)
        self.drop, self.pool = nn.Dropout(dropout), nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, before, H, W] to [B, after, H/2, W/2]."""
        pooled: Tensor = self.pool(self.drop(self.conv(self.relu(self.norm(x)))))
        return pooled


class DenseNet(nn.Module):
    """A stem, three dense blocks of `n` layers with transitions between them, global average, a linear head."""

    def __init__(
        self, shape: tuple[int, int, int], n: int, growth: int, outputs: int, *, bc: bool, dropout: float
    ) -> None:
        super().__init__()
        channels = 2 * growth if bc else 16
        self.conv = nn.Conv2d(shape[0], channels, 3, padding=1, bias=False)
        recomputes = joined_bytes(shape, n, growth, bc=bc) > RECOMPUTE_ABOVE
        self.blocks, self.transitions = nn.ModuleList(), nn.ModuleList()
        for block in range(3):
            widths = range(channels, channels + n * growth, growth)
            self.blocks.append(
                DenseBlock(DenseLayer(w, growth, bc=bc, dropout=dropout, recomputes=recomputes) for w in widths)
            )
            channels += n * growth
            if block < 2:
                after = int(channels * COMPRESSION) if bc else channels
                self.transitions.append(Transition(channels, after, dropout))
                channels = after
        self.norm, self.relu = nn.BatchNorm2d(channels), nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        he_normal(self)
        self.head = nn.Linear(channels, outputs)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, C, H, W] to logits [B, K]."""
        x = self.conv(x)
        for block, transition in zip(self.blocks, self.transitions, strict=False):
            x = transition(block(x))
        x = self.relu(self.norm(self.blocks[-1](x)))
        logits: Tensor = self.head(self.pool(x).flatten(1))
        return logits


def joined_bytes(shape: tuple[int, int, int], n: int, growth: int, *, bc: bool) -> int:
    """Return the bytes (float32) of one image's joined maps, before and after ReLU, which autograd would keep."""
    channels, maps, area = (2 * growth if bc else 16), 0, shape[1] * shape[2]
    for block in range(3):
        maps += sum(range(channels, channels + n * growth, growth)) * (area >> 2 * block)
        channels = int((channels + n * growth) * (COMPRESSION if bc else 1))
    return 2 * 4 * maps


def make(name: str, parts: Parts, *, shape: tuple[int, int, int], outputs: int) -> Network:
    """Make `densenet-DEPTH-GROWTH` (depth 3n+4) or `densenet-bc-DEPTH-GROWTH` (depth 6n+4), plain or `-dropout`."""
    bc = parts["bc"] is not None
    n = require_depth(name, int(parts["depth"] or 0), per=6 if bc else 3, plus=4)
    require_size(name, shape, 4)
    dropout = DROPOUT if parts["dropout"] else 0.0
    body = DenseNet(shape, n, int(parts["growth"] or 0), outputs, bc=bc, dropout=dropout)
    layers = ("body.transitions.0.relu", "body.transitions.1.relu", "body.relu")
    return Network(body, name=name, shape=shape, outputs=outputs, layers=layers, heads=("body.head",))
