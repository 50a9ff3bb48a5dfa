"""ResNets of four stages, made for ImageNet, with a stem for small images.

Source: He, Zhang, Ren, Sun, CVPR 2016, arXiv 1512.03385, table 1; the form for 32x32 pixels that distillation papers
    compare on is RepDistiller's `ResNet50` (Tian, Krishnan, Isola, ICLR 2020, arXiv 1910.10699) and mdistiller's
    `ResNet18`: a 3x3 convolution of stride 1 and no pooling in the stem.
Differs: nothing known; the stride of a bottleneck is in its 3x3 convolution, as there.
"""

from torch import Tensor, nn

from kfbench.networks.family import Family
from kfbench.networks.network import Network
from kfbench.networks.parts import Parts, he_normal
from kfbench.networks.resnet import Block

FAMILY = Family(
    about="ResNet of four stages with a stem for small images (He 2016, Tian 2020)",
    pattern=r"resnet(?P<depth>18|34|50|101|152)",
    form="resnet18 | 34 | 50 | 101 | 152",
    examples=("resnet18", "resnet34", "resnet50"),
)
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class Bottleneck(nn.Module):
    """Convolutions 1x1, 3x3, 1x1 to four times the maps, and a shortcut; the last ReLU comes after the sum."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        inner = after // 4
        self.conv1 = nn.Conv2d(before, inner, 1, bias=False)
        self.norm1, self.relu1 = nn.BatchNorm2d(inner), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(inner), nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(inner, after, 1, bias=False)
        self.norm3, self.relu3 = nn.BatchNorm2d(after), nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, before, H, W] to [B, after, H/stride, W/stride]."""
        inner = self.relu2(self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x))))))
        summed: Tensor = self.relu3(self.norm3(self.conv3(inner)) + self.shortcut(x))
        return summed


class ResNet(nn.Module):
    """A stem of 64 maps, four stages of 64, 128, 256 and 512 maps or four times as many, global average, a head."""

    def __init__(self, channels: int, depth: int, outputs: int) -> None:
        super().__init__()
        block, times = (Block, 1) if depth < 50 else (Bottleneck, 4)
        self.conv = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        self.norm, self.relu = nn.BatchNorm2d(64), nn.ReLU()
        self.stages = nn.Sequential()
        before = 64
        for after, stride, count in zip((64, 128, 256, 512), (1, 2, 2, 2), BLOCKS[depth], strict=True):
            maps = times * after
            first = block(before, maps, stride)
            self.stages.append(nn.Sequential(first, *(block(maps, maps, 1) for _ in range(count - 1))))
            before = maps
        self.pool = nn.AdaptiveAvgPool2d(1)
        he_normal(self)
        self.head = nn.Linear(before, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, C, H, W] to logits [B, K]."""
        x = self.stages(self.relu(self.norm(self.conv(x))))
        logits: Tensor = self.head(self.pool(x).flatten(1))
        return logits


def make(name: str, parts: Parts, *, shape: tuple[int, int, int], outputs: int) -> Network:
    """Make `resnet18`, `resnet34`, `resnet50`, `resnet101` or `resnet152`."""
    depth = int(parts["depth"] or 0)
    body = ResNet(shape[0], depth, outputs)
    last = "relu2" if depth < 50 else "relu3"
    layers = tuple(f"body.stages.{stage}.{count - 1}.{last}" for stage, count in enumerate(BLOCKS[depth]))
    return Network(body, name=name, shape=shape, outputs=outputs, layers=layers, heads=("body.head",))
