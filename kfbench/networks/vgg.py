"""VGG for small images: batch normalisation, one linear layer.

Source: Simonyan, Zisserman, ICLR 2015, arXiv 1409.1556, table 1, in the form that distillation papers compare on: Tian,
    Krishnan, Isola, ICLR 2020, arXiv 1910.10699 (RepDistiller's `vgg8_bn` to `vgg19_bn`; `vgg8` is theirs).
Differs: nothing known; the pool before the last stage is for images of 64 pixels and more, as in RepDistiller.
"""

from torch import Tensor, nn

from kfbench.errors import KfbenchError, near
from kfbench.networks.family import Family
from kfbench.networks.network import Network
from kfbench.networks.parts import Parts, he_normal, require_size

FAMILY = Family(
    about="CIFAR VGG with batch normalisation (Simonyan 2015, Tian 2020)",
    pattern=r"vgg(?P<depth>[1-9]\d*)",
    form="vggDEPTH",
    examples=("vgg8", "vgg11", "vgg13", "vgg16", "vgg19"),
)

CONVOLUTIONS = {  # depth -> convolutions in each of the five stages
    8: (1, 1, 1, 1, 1),
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
WIDTHS = (64, 128, 256, 512, 512)


class Vgg(nn.Module):
    """Five stages of 3x3 convolutions with max-pooling between them, global average, a linear head."""

    def __init__(self, shape: tuple[int, int, int], convolutions: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        before = shape[0]
        self.stages = nn.Sequential()
        for index, (after, count) in enumerate(zip(WIDTHS, convolutions, strict=True)):
            stage = nn.Sequential()
            if index > 0 and (index < 4 or min(shape[1:]) >= 64):
                stage.add_module("pool", nn.MaxPool2d(2))
            for number in range(1, count + 1):
                stage.add_module(f"conv{number}", nn.Conv2d(before, after, 3, padding=1))
                stage.add_module(f"norm{number}", nn.BatchNorm2d(after))
                stage.add_module(f"relu{number}", nn.ReLU(inplace=number < count))
                before = after
            self.stages.append(stage)
        self.pool = nn.AdaptiveAvgPool2d(1)
        he_normal(self)
        self.head = nn.Linear(before, outputs)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, C, H, W] to logits [B, K]."""
        logits: Tensor = self.head(self.pool(self.stages(x)).flatten(1))
        return logits


def make(name: str, parts: Parts, *, shape: tuple[int, int, int], outputs: int) -> Network:
    """Make `vggDEPTH`."""
    depth = int(parts["depth"] or 0)
    if depth not in CONVOLUTIONS:
        raise KfbenchError(f"no network '{name}'; {near(name, [f'vgg{known}' for known in CONVOLUTIONS])}")
    require_size(name, shape, 8)
    body = Vgg(shape, CONVOLUTIONS[depth], outputs)
    layers = tuple(f"body.stages.{stage}.relu{count}" for stage, count in enumerate(CONVOLUTIONS[depth]))
    return Network(body, name=name, shape=shape, outputs=outputs, layers=layers, heads=("body.head",))
