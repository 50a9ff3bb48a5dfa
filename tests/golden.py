"""Tensors that every machine makes alike, and the numbers by which a loss and its gradients are compared with others'.

The constants of `tests/methods/` were computed beforehand, on these tensors, with the public code that each test names.
"""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

CLOSE = 2e-5  # relative: float32, summed in another order


def wave(*shape: int, step: float = 1.0) -> Tensor:
    """A chirp in -1..1, another for each step; its rows are not alike."""
    k = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return ((0.7 * k + 0.0131 * k.square()) * step).sin().float().view(shape)


def fill(module: nn.Module) -> nn.Module:
    """Give each parameter its own wave, of the size that keeps features' size; norms' weights are near 1."""
    for number, weight in enumerate(module.parameters(), 1):
        one = wave(*weight.shape, step=0.3 + 0.1 * number)
        weight.data = 1 + 0.2 * one if weight.dim() == 1 else one * (2 / weight[0].numel()) ** 0.5
    return module


def leaf(tensor: Tensor) -> Tensor:
    """The tensor as one whose gradient is kept."""
    return tensor.clone().requires_grad_()


def numbers(loss: Tensor, *leaves: Tensor) -> list[float]:
    """The loss, and of the gradient of each leaf its sum of sizes and its product with a wave."""
    slopes = torch.autograd.grad(loss, leaves, retain_graph=True)
    return [float(loss.detach()), *(number for slope in slopes for number in _of(slope))]


def _of(slope: Tensor) -> Iterator[float]:
    slope = slope.double()
    yield float(slope.abs().sum())
    yield float((slope * wave(*slope.shape, step=0.61)).sum())


def same(found: list[float], told: list[float]) -> None:
    """Assert that numbers agree; the product with a wave may cancel, so it is held to the size of its gradient."""
    assert found[0] == pytest.approx(told[0], rel=CLOSE)
    assert len(found) == len(told)
    for place in range(1, len(told), 2):
        size = abs(told[place])
        assert found[place] == pytest.approx(told[place], rel=CLOSE)
        assert found[place + 1] == pytest.approx(told[place + 1], rel=CLOSE, abs=CLOSE * size)
