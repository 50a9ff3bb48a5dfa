"""MobileNetV2 for small images, of half width: the small student of the distillation literature.

Source: Sandler, Howard, Zhu, Zhmoginov, Chen, CVPR 2018, arXiv 1801.04381, table 2, in the form that distillation
    papers compare on: RepDistiller's `MobileNetV2` (Tian, Krishnan, Isola, ICLR 2020, arXiv 1910.10699): expansion 6,
    width 0.5, strides 2, 1, 1, 2, 2, 1, 2, 1 from stem to last stage, 1,280 maps before the head.
Differs: nothing known; ReLU where the paper has ReLU6, no dropout, and an expansion layer in the first block, as there.
    The output of a stage has no activation (a linear bottleneck): what is read or mixed there is the sum itself.
"""

from torch import Tensor, nn

from kfbench.networks.family import Family
from kfbench.networks.network import Network
from kfbench.networks.parts import Parts, he_normal

FAMILY = Family(about="MobileNetV2 of half width for small images (Sandler 2018, Tian 2020)", examples=("mobilenetv2",))
EXPANSION, WIDTH, LAST = 6, 0.5, 1280
STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, maps at full width, blocks, stride of the first."""


class Block(nn.Module):
    """1x1 convolution to the expanded maps, 3x3 of each map alone, 1x1 back; added to the input where shapes agree."""

    def __init__(self, before: int, after: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = before * expansion
        self.conv1 = nn.Conv2d(before, inner, 1, bias=False)
        self.norm1, self.relu1 = nn.BatchNorm2d(inner), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, groups=inner, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(inner), nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(inner, after, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(after)
        self.is_added = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, before, H, W] to [B, after, H/stride, W/stride]."""
        inner = self.relu2(self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x))))))
        new: Tensor = self.norm3(self.conv3(inner))
        return x + new if self.is_added else new


class MobileNetV2(nn.Module):
    """A stem of stride 2, seven stages of inverted residuals, a 1x1 convolution, global average, a linear head."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        before = int(32 * WIDTH)
        self.conv = nn.Conv2d(channels, before, 3, 2, padding=1, bias=False)
        self.norm, self.relu = nn.BatchNorm2d(before), nn.ReLU(inplace=True)
        self.stages = nn.Sequential()
        for expansion, maps, count, stride in STAGES:
            stage, after = nn.Sequential(), int(maps * WIDTH)
            for number in range(count):
                stage.add_module(str(number), Block(before, after, stride if number == 0 else 1, expansion))
                before = after
            stage.add_module("out", nn.Identity())
            self.stages.append(stage)
        self.last_conv = nn.Conv2d(before, LAST, 1, bias=False)
        self.last_norm, self.last_relu = nn.BatchNorm2d(LAST), nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        he_normal(self)
        self.head = nn.Linear(LAST, outputs)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, C, H, W] to logits [B, K]."""
        x = self.stages(self.relu(self.norm(self.conv(x))))
        x = self.last_relu(self.last_norm(self.last_conv(x)))  # [B, 1280, H/16, W/16]
        logits: Tensor = self.head(self.pool(x).flatten(1))
        return logits


def make(name: str, parts: Parts, *, shape: tuple[int, int, int], outputs: int) -> Network:
    """Make `mobilenetv2`. Its layers are the last at each resolution, the very last being what the head reads."""
    body = MobileNetV2(shape[0], outputs)
    layers = (*(f"body.stages.{stage}.out" for stage in (1, 2, 4)), "body.last_relu")
    return Network(body, name=name, shape=shape, outputs=outputs, layers=layers, heads=("body.head",))
