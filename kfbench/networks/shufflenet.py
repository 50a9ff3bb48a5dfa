"""ShuffleNet V1 and V2 for small images: small students of the distillation literature.

Source: V1 Zhang, Zhou, Lin, Sun, CVPR 2018, arXiv 1707.01083, table 1 (three groups); V2 Ma, Zhang, Zheng, Sun, ECCV
    2018, arXiv 1807.11164, table 5 (1x). In the form that distillation papers compare on: RepDistiller's `ShuffleV1`
    and `ShuffleV2` (Tian, Krishnan, Isola, ICLR 2020, arXiv 1910.10699): a 1x1 convolution of stride 1 as the stem.
Differs: nothing known; initialisation is torch's default, as there.
"""

import torch
from torch import Tensor, nn

from kfbench.networks.family import Family
from kfbench.networks.network import Network
from kfbench.networks.parts import Parts

FAMILY = Family(
    about="ShuffleNet V1 (3 groups) and V2 (1x) for small images (Zhang 2018, Ma 2018, Tian 2020)",
    pattern=r"shufflenetv(?P<version>[12])",
    form="shufflenetv1 | shufflenetv2",
    examples=("shufflenetv1", "shufflenetv2"),
)
STEM, BLOCKS = 24, (4, 8, 4)
GROUPS, WIDTHS_1 = 3, (240, 480, 960)
WIDTHS_2, LAST_2 = (116, 232, 464), 1024


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleave the maps of `groups` groups: [B, groups*n, H, W] to the same shape."""
    batch, maps, height, width = x.shape
    return x.reshape(batch, groups, maps // groups, height, width).transpose(1, 2).flatten(1, 2)


class Unit(nn.Module):
    """V1: grouped 1x1, shuffle, 3x3 of each map alone, grouped 1x1; added to the input, or beside its average."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        new = after - before if stride == 2 else after
        inner, self.groups = new // 4, 1 if before == STEM else GROUPS
        self.conv1 = nn.Conv2d(before, inner, 1, groups=self.groups, bias=False)
        self.norm1, self.relu1 = nn.BatchNorm2d(inner), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, groups=inner, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(inner), nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(inner, new, 1, groups=GROUPS, bias=False)
        self.norm3, self.relu3 = nn.BatchNorm2d(new), nn.ReLU()
        self.pool = nn.AvgPool2d(3, stride=2, padding=1) if stride == 2 else None

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, before, H, W] to [B, after, H/stride, W/stride]."""
        inner = shuffle(self.relu1(self.norm1(self.conv1(x))), self.groups)
        new = self.norm3(self.conv3(self.relu2(self.norm2(self.conv2(inner)))))
        joined: Tensor = self.relu3(new + x if self.pool is None else torch.cat((new, self.pool(x)), 1))
        return joined


class ShuffleNetV1(nn.Module):
    """A stem, three stages of units, global average, a linear head."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, STEM, 1, bias=False)
        self.norm, self.relu = nn.BatchNorm2d(STEM), nn.ReLU()
        self.stages = nn.Sequential()
        before = STEM
        for after, count in zip(WIDTHS_1, BLOCKS, strict=True):
            rest = (Unit(after, after, 1) for _ in range(count - 1))
            self.stages.append(nn.Sequential(Unit(before, after, 2), *rest))
            before = after
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(before, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, C, H, W] to logits [B, K]."""
        logits: Tensor = self.head(self.pool(self.stages(self.relu(self.norm(self.conv(x))))).flatten(1))
        return logits


def alone(maps: int, stride: int) -> nn.Conv2d:
    """Return a 3x3 convolution of each map alone."""
    return nn.Conv2d(maps, maps, 3, stride, padding=1, groups=maps, bias=False)


def mixed(before: int, after: int) -> nn.Sequential:
    """Return a 1x1 convolution with BatchNorm and ReLU."""
    return nn.Sequential(nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())


class Down(nn.Module):
    """V2, where the maps shrink: two branches of all maps, side by side, shuffled."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        half = after // 2
        self.left = nn.Sequential(alone(before, 2), nn.BatchNorm2d(before), mixed(before, half))
        self.right = nn.Sequential(mixed(before, half), alone(half, 2), nn.BatchNorm2d(half), mixed(half, half))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, before, H, W] to [B, after, H/2, W/2]."""
        return shuffle(torch.cat((self.left(x), self.right(x)), 1), 2)


class Half(nn.Module):
    """V2: one half of the maps goes through a branch, the other stays; side by side, shuffled."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        half = maps // 2
        self.branch = nn.Sequential(mixed(half, half), alone(half, 1), nn.BatchNorm2d(half), mixed(half, half))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, maps, H, W] to the same shape."""
        kept, taken = x.chunk(2, 1)
        return shuffle(torch.cat((kept, self.branch(taken)), 1), 2)


class ShuffleNetV2(nn.Module):
    """A stem, three stages, a 1x1 convolution, global average, a linear head."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, STEM, 1, bias=False)
        self.norm, self.relu = nn.BatchNorm2d(STEM), nn.ReLU()
        self.stages = nn.Sequential()
        before = STEM
        for after, count in zip(WIDTHS_2, BLOCKS, strict=True):
            stage = nn.Sequential(Down(before, after), *(Half(after) for _ in range(count - 1)))
            stage.add_module("out", nn.Identity())
            self.stages.append(stage)
            before = after
        self.last_conv = nn.Conv2d(before, LAST_2, 1, bias=False)
        self.last_norm, self.last_relu = nn.BatchNorm2d(LAST_2), nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(LAST_2, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, C, H, W] to logits [B, K]."""
        x = self.stages(self.relu(self.norm(self.conv(x))))
        logits: Tensor = self.head(self.pool(self.last_relu(self.last_norm(self.last_conv(x)))).flatten(1))
        return logits


def make(name: str, parts: Parts, *, shape: tuple[int, int, int], outputs: int) -> Network:
    """Make `shufflenetv1` or `shufflenetv2`. The last layer is what the head reads."""
    if parts["version"] == "1":
        body: nn.Module = ShuffleNetV1(shape[0], outputs)
        layers = tuple(f"body.stages.{stage}.{count - 1}.relu3" for stage, count in enumerate(BLOCKS))
    else:
        body = ShuffleNetV2(shape[0], outputs)
        layers = ("body.stages.0.out", "body.stages.1.out", "body.last_relu")
    return Network(body, name=name, shape=shape, outputs=outputs, layers=layers, heads=("body.head",))
