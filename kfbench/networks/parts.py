"""What several families share: He's initialisation, and the refusal of images that are too small."""

import torch
from torch import Tensor, nn

from kfbench.errors import KfbenchError

Parts = dict[str, str | None]  # the named groups of a family's pattern


class WideLinear(nn.Linear):
    """A linear layer with many more inputs than rows, as behind a trunk when acting: its product has the weights first.

    For 16 rows, 2,592 inputs and 256 units it takes two thirds of `nn.Linear`'s time, for 80 rows 0.8 of it (the lower
    quartiles of 80 calls, one thread of an Intel Xeon with AVX512).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, in] to [B, out]."""
        return torch.addmm(self.bias[:, None], self.weight, x.t()).t()


def he_normal(body: nn.Module) -> None:
    """Draw each convolution of `body` from N(0, 2 / (k_h k_w C_out)), biases 0 (He 2015, arXiv 1502.01852, 2.2)."""
    for module in body.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def require_size(name: str, shape: tuple[int, int, int], least: int) -> None:
    """Raise KfbenchError unless images of `shape` [C, H, W] are at least `least` pixels high and wide."""
    if min(shape[1:]) < least:
        raise KfbenchError(
            f"network '{name}' needs images of at least {least}x{least}, not {shape[1]}x{shape[2]}; "
            "networks 'cnn-16' and 'mlp-800' take any size"
        )


def require_depth(name: str, depth: int, *, per: int, plus: int) -> int:
    """Return n for a `depth` of `per` * n + `plus` layers, n >= 1; else raise KfbenchError naming the nearest depth."""
    n = (depth - plus) // per
    if n < 1 or (depth - plus) % per:
        nearest = max(1, round((depth - plus) / per)) * per + plus
        raise KfbenchError(f"no network '{name}': its depth must be {per}n+{plus}; nearest: {nearest}")
    return n
