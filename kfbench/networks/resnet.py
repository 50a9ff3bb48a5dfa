"""CIFAR ResNets, and the x4 widths of the distillation literature.

Source: He, Zhang, Ren, Sun, CVPR 2016, arXiv 1512.03385, section 4.2; the form that distillation papers compare on is
    Tian, Krishnan, Isola, ICLR 2020, arXiv 1910.10699 (RepDistiller), with `resnet8x4` and `resnet32x4`.
Differs: shortcuts where the shape changes are 1x1 convolutions (option B, as in RepDistiller; He's CIFAR nets have
    option A, 2,752 parameters fewer); widths other than 1 and 4 are ours (stages of 16, 32 and 64 times the width).
"""

from torch import Tensor, nn

from kfbench.networks.family import Family
from kfbench.networks.network import Network
from kfbench.networks.parts import Parts, he_normal, require_depth

FAMILY = Family(
    about="CIFAR ResNet, depth 6n+2 (He 2016)",
    pattern=r"resnet(?!(?:18|34|50|101|152)$)(?P<depth>[1-9]\d*)(x(?P<width>[1-9]\d*))?",
    form="resnetDEPTH[xWIDTH]",
    examples=(
        "resnet8",
        "resnet14",
        "resnet20",
        "resnet32",
        "resnet44",
        "resnet56",
        "resnet110",
        "resnet8x4",
        "resnet32x4",
    ),
)


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut; the last ReLU comes after the sum."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.norm1, self.relu1 = nn.BatchNorm2d(after), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(after), nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, before, H, W] to [B, after, H/stride, W/stride]."""
        inner = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
        summed: Tensor = self.relu2(inner + self.shortcut(x))
        return summed


class ResNet(nn.Module):
    """A stem, three stages of `n` blocks, global average, a linear head."""

    def __init__(self, channels: int, n: int, width: int, outputs: int) -> None:
        super().__init__()
        stem = 16 if width == 1 else 8 * width  # 32 for x4, as RepDistiller has it
        self.conv = nn.Conv2d(channels, stem, 3, padding=1, bias=False)
        self.norm, self.relu = nn.BatchNorm2d(stem), nn.ReLU()
        self.stages = nn.Sequential()
        before = stem
        for after, stride in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
            first = Block(before, after, stride)
            self.stages.append(nn.Sequential(first, *(Block(after, after, 1) for _ in range(n - 1))))
            before = after
        self.pool = nn.AdaptiveAvgPool2d(1)
        he_normal(self)
        self.head = nn.Linear(before, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, C, H, W] to logits [B, K]."""
        x = self.stages(self.relu(self.norm(self.conv(x))))
        logits: Tensor = self.head(self.pool(x).flatten(1))
        return logits


def make(name: str, parts: Parts, *, shape: tuple[int, int, int], outputs: int) -> Network:
    """Make `resnetDEPTH` or `resnetDEPTHxWIDTH`, depth 6n+2."""
    n = require_depth(name, int(parts["depth"] or 0), per=6, plus=2)
    body = ResNet(shape[0], n, int(parts["width"] or 1), outputs)
    layers = tuple(f"body.stages.{stage}.{n - 1}.relu2" for stage in range(3))
    return Network(body, name=name, shape=shape, outputs=outputs, layers=layers, heads=("body.head",))
