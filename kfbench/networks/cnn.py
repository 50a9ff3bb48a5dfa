"""The suite's small convolutional network: any image, seconds on a CPU.

Source: none; four plain blocks of the VGG kind, widths doubling, for budgets and tests that need a cheap network.
Differs: nothing known.
"""

from itertools import pairwise

from torch import Tensor, nn

from kfbench.networks.family import Family
from kfbench.networks.network import Network
from kfbench.networks.parts import Parts, he_normal

FAMILY = Family(
    about="four convolutions, the suite's small network",
    pattern=r"cnn-(?P<width>[1-9]\d*)",
    form="cnn-WIDTH",
    examples=("cnn-16", "cnn-32"),
)


class Cnn(nn.Module):
    """Four blocks of convolution 3x3, BatchNorm, ReLU; max-pooling between them; global average; a linear head."""

    def __init__(self, shape: tuple[int, int, int], width: int, outputs: int) -> None:
        super().__init__()
        channels, height, wide = shape
        self.blocks = nn.Sequential()
        for index, (before, after) in enumerate(pairwise((channels, width, 2 * width, 4 * width, 8 * width))):
            pools = index > 0 and min(height, wide) >= 4  # a map smaller than 2x2 says nothing of where
            if pools:
                height, wide = height // 2, wide // 2
            block = nn.Sequential()
            block.add_module("pool", nn.MaxPool2d(2) if pools else nn.Identity())
            block.add_module("conv", nn.Conv2d(before, after, 3, padding=1, bias=False))
            block.add_module("norm", nn.BatchNorm2d(after))
            block.add_module("relu", nn.ReLU())
            self.blocks.append(block)
        self.pool = nn.AdaptiveAvgPool2d(1)
        he_normal(self)
        self.head = nn.Linear(8 * width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, C, H, W] to logits [B, K]."""
        x = self.pool(self.blocks(x)).flatten(1)  # [B, 8*width]
        logits: Tensor = self.head(x)
        return logits


def make(name: str, parts: Parts, *, shape: tuple[int, int, int], outputs: int) -> Network:
    """Make `cnn-WIDTH`."""
    body = Cnn(shape, int(parts["width"] or 0), outputs)
    layers = tuple(f"body.blocks.{index}.relu" for index in range(4))
    return Network(body, name=name, shape=shape, outputs=outputs, layers=layers, heads=("body.head",))
