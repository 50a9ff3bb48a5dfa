"""Actor-critics for Atari: a convolutional trunk, a policy head and a value head.

Source: `a3c` Mnih et al., ICML 2016, arXiv 1602.01783, supplement (the trunk of arXiv 1312.5602); `nature` Mnih et al.,
    Nature 518, 2015; `impala` Espeholt et al., ICML 2018, arXiv 1802.01561, figure 3 right (the 15-layer ResNet), and
    the authors' code; `pnn` Rusu et al. 2016, arXiv 1606.04671 (one column).
Differs: no LSTM, and in `impala` no last action and reward as inputs: the suite's agents see frames only. `nature` was
    made for Q-values and has our two heads. Initialisation is the source's where it is known: U(-1/sqrt(fan_in), +) for
    `a3c` and `nature` (torch's default is that of Torch7); a truncated normal of deviation 1/sqrt(fan_in), biases 0
    (Sonnet's default) for `impala`; `pnn` states none and has torch's. It is orthogonal in none of the sources.
"""

import math

from torch import Tensor, nn

from kfbench.networks.family import Family
from kfbench.networks.network import Network, Output
from kfbench.networks.parts import Parts, WideLinear, require_size

FAMILY = Family(
    about="Atari actor-critics (Mnih 2016, Mnih 2015, Espeholt 2018, Rusu 2016)",
    pattern=r"(?P<trunk>a3c|nature|impala|pnn)",
    form="a3c | nature | impala | pnn",
    examples=("a3c", "nature", "impala", "pnn"),
    shape=(4, 84, 84),
)

Convolution = tuple[int, tuple[int, int], int]  # maps, kernel, stride
CONVOLUTIONS: dict[str, tuple[Convolution, ...]] = {
    "a3c": ((16, (8, 8), 4), (32, (4, 4), 2)),
    "nature": ((32, (8, 8), 4), (64, (4, 4), 2), (64, (3, 3), 1)),
    "pnn": ((12, (8, 8), 4), (12, (4, 4), 2), (12, (3, 4), 1)),
}
UNITS = {"a3c": 256, "nature": 512, "pnn": 256}


class ActorCritic(nn.Module):
    """A trunk that ends in a vector, and two linear heads on it."""

    def __init__(self, trunk: nn.Sequential, units: int, actions: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.value = nn.Linear(units, 1)
        self.policy = nn.Linear(units, actions)

    def forward(self, x: Tensor) -> Output:
        """Map observations [B, C, H, W] to action preferences [B, A] and values [B]."""
        x = self.trunk(x)  # [B, units]
        return Output(self.policy(x), self.value(x).squeeze(1))


def plain_trunk(shape: tuple[int, int, int], convolutions: tuple[Convolution, ...], units: int) -> nn.Sequential:
    """Return convolutions without padding and a fully connected layer, a ReLU after each."""
    before, height, width = shape
    trunk = nn.Sequential()
    for number, (maps, kernel, stride) in enumerate(convolutions, 1):
        trunk.add_module(f"conv{number}", nn.Conv2d(before, maps, kernel, stride))
        trunk.add_module(f"relu{number}", nn.ReLU())
        before, height, width = maps, (height - kernel[0]) // stride + 1, (width - kernel[1]) // stride + 1
    trunk.add_module("flat", nn.Flatten())
    trunk.add_module("fc", WideLinear(before * height * width, units))
    trunk.add_module("relu", nn.ReLU())
    return trunk


class Residual(nn.Module):
    """Twice ReLU and 3x3 convolution, added to the input."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.ReLU(), nn.Conv2d(maps, maps, 3, padding=1), nn.ReLU(), nn.Conv2d(maps, maps, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, maps, H, W] to the same shape."""
        summed: Tensor = x + self.inner(x)
        return summed


def impala_trunk(shape: tuple[int, int, int]) -> nn.Sequential:
    """Return three sections (convolution, max-pooling by two, two residual blocks) and a layer of 256 units.

    A section ends in `out`, where its sum can be read or mixed: the identity, for IMPALA has no activation there, but a
    ReLU after the last.
    """
    before, height, width = shape
    trunk = nn.Sequential()
    for number, maps in enumerate((16, 32, 32), 1):
        section = nn.Sequential()
        section.add_module("conv", nn.Conv2d(before, maps, 3, padding=1))
        section.add_module("pool", nn.MaxPool2d(3, 2, padding=1))
        section.add_module("residual1", Residual(maps))
        section.add_module("residual2", Residual(maps))
        section.add_module("out", nn.ReLU() if number == 3 else nn.Identity())
        trunk.add_module(f"section{number}", section)
        before, height, width = maps, (height + 1) // 2, (width + 1) // 2
    trunk.add_module("flat", nn.Flatten())
    trunk.add_module("fc", WideLinear(before * height * width, 256))
    trunk.add_module("relu", nn.ReLU())
    return trunk


def truncated_normal(part: nn.Module) -> None:
    """Draw weights from a normal of deviation 1/sqrt(fan_in) cut at two deviations, biases 0, as Sonnet does."""
    for module in part.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            deviation = 1 / math.sqrt(module.weight[0].numel())
            nn.init.trunc_normal_(module.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def least_size(convolutions: tuple[Convolution, ...]) -> int:
    """Return the height and width, in pixels, from which all convolutions have at least one position."""
    least = 1
    for _, kernel, stride in reversed(convolutions):
        least = (least - 1) * stride + max(kernel)
    return least


def make(name: str, parts: Parts, *, shape: tuple[int, int, int], outputs: int) -> Network:
    """Make `a3c`, `nature`, `impala` or `pnn`."""
    if name == "impala":
        trunk = impala_trunk(shape)
        truncated_normal(trunk)  # before the heads are made: their number of outputs must not move the trunk's draws
        body = ActorCritic(trunk, 256, outputs)
        truncated_normal(body.value)
        truncated_normal(body.policy)
        layers = [f"body.trunk.section{number}.out" for number in (1, 2, 3)]
    else:
        convolutions = CONVOLUTIONS[name]
        require_size(name, shape, least_size(convolutions))
        body = ActorCritic(plain_trunk(shape, convolutions, UNITS[name]), UNITS[name], outputs)
        layers = [f"body.trunk.relu{number}" for number in range(1, len(convolutions) + 1)]
    heads = ("body.policy", "body.value")
    return Network(body, name=name, shape=shape, outputs=outputs, layers=(*layers, "body.trunk.relu"), heads=heads)
