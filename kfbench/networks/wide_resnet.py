"""Wide residual networks, pre-activation.

Source: Zagoruyko, Komodakis, BMVC 2016, arXiv 1605.07146, section 2 and table 1; dropout 0.3 inside the blocks,
    section 3 (the paper's rate for CIFAR; it has 0.4 for SVHN).
Differs: nothing known; the shortcut's 1x1 convolution sees the normalised input, as in the authors' code.
"""

from torch import Tensor, nn

from kfbench.networks.family import Family
from kfbench.networks.network import Network
from kfbench.networks.parts import Parts, he_normal, require_depth

FAMILY = Family(
    about="wide ResNet, depth 6n+4 (Zagoruyko 2016)",
    pattern=r"wrn-(?P<depth>[1-9]\d*)-(?P<width>[1-9]\d*)(?P<dropout>-dropout)?",
    form="wrn-DEPTH-WIDTH[-dropout]",
    examples=("wrn-16-2", "wrn-40-1", "wrn-40-2", "wrn-28-10", "wrn-28-10-dropout"),
)


class Block(nn.Module):
    """Twice BatchNorm, ReLU, 3x3 convolution, and a shortcut."""

    def __init__(self, before: int, after: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.relu1 = nn.BatchNorm2d(before), nn.ReLU()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(after), nn.ReLU(inplace=True)
        self.drop = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False) if before != after else None

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, before, H, W] to [B, after, H/stride, W/stride]."""
        active = self.relu1(self.norm1(x))
        inner: Tensor = self.conv2(self.drop(self.relu2(self.norm2(self.conv1(active)))))
        return inner + (x if self.shortcut is None else self.shortcut(active))


class WideResNet(nn.Module):
    """A stem, three stages of `n` blocks, BatchNorm and ReLU, global average, a linear head."""

    def __init__(self, channels: int, n: int, width: int, outputs: int, *, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.stages = nn.Sequential()
        before = 16
        for after, stride in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
            first = Block(before, after, stride, dropout)
            self.stages.append(nn.Sequential(first, *(Block(after, after, 1, dropout) for _ in range(n - 1))))
            before = after
        self.norm, self.relu = nn.BatchNorm2d(before), nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        he_normal(self)
        self.head = nn.Linear(before, outputs)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, C, H, W] to logits [B, K]."""
        x = self.relu(self.norm(self.stages(self.conv(x))))
        logits: Tensor = self.head(self.pool(x).flatten(1))
        return logits


def make(name: str, parts: Parts, *, shape: tuple[int, int, int], outputs: int) -> Network:
    """Make `wrn-DEPTH-WIDTH` or `wrn-DEPTH-WIDTH-dropout`, depth 6n+4."""
    n = require_depth(name, int(parts["depth"] or 0), per=6, plus=4)
    dropout = 0.3 if parts["dropout"] else 0.0
    body = WideResNet(shape[0], n, int(parts["width"] or 0), outputs, dropout=dropout)
    layers = ("body.stages.1.0.relu1", "body.stages.2.0.relu1", "body.relu")  # the ReLU that reads each stage's sum
    return Network(body, name=name, shape=shape, outputs=outputs, layers=layers, heads=("body.head",))
