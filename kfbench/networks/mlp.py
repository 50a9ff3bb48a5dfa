"""Multi-layer perceptrons with two hidden layers.

Source: Hinton, Vinyals, Dean 2015, arXiv 1503.02531, section 3 (1200 units the teacher, 800 the student, 30 the
    smallest); dropout rates from Hinton et al. 2012, arXiv 1207.0580, section 2 (0.2 on pixels, 0.5 on hidden units).
Differs: no max-norm constraint on the teacher's weights; initialisation is torch's default, the source states none.
"""

import math

from torch import Tensor, nn

from kfbench.networks.family import Family
from kfbench.networks.network import Network
from kfbench.networks.parts import Parts

FAMILY = Family(
    about="two hidden layers (Hinton 2015)",
    pattern=r"mlp-(?P<width>[1-9]\d*)(?P<dropout>-dropout)?",
    form="mlp-WIDTH[-dropout]",
    examples=("mlp-30", "mlp-800", "mlp-1200", "mlp-1200-dropout"),
    shape=(1, 28, 28),
)


class Mlp(nn.Module):
    """Flatten, two hidden ReLU layers, a linear head."""

    def __init__(self, inputs: int, width: int, outputs: int, *, dropout: bool) -> None:
        super().__init__()
        self.fc1, self.relu1 = nn.Linear(inputs, width), nn.ReLU()
        self.fc2, self.relu2 = nn.Linear(width, width), nn.ReLU()
        self.drop_pixels = nn.Dropout(0.2 if dropout else 0.0)
        self.drop1, self.drop2 = (nn.Dropout(0.5 if dropout else 0.0) for _ in range(2))
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, C, H, W] to logits [B, K]."""
        x = self.drop_pixels(x.flatten(1))  # [B, C*H*W]
        x = self.drop1(self.relu1(self.fc1(x)))  # [B, width]
        x = self.drop2(self.relu2(self.fc2(x)))
        logits: Tensor = self.head(x)
        return logits


def make(name: str, parts: Parts, *, shape: tuple[int, int, int], outputs: int) -> Network:
    """Make `mlp-WIDTH` or `mlp-WIDTH-dropout`."""
    width = int(parts["width"] or 0)
    body = Mlp(math.prod(shape), width, outputs, dropout=parts["dropout"] is not None)
    layers = ("body.relu1", "body.relu2")
    return Network(body, name=name, shape=shape, outputs=outputs, layers=layers, heads=("body.head",))
