"""bf16 on a CPU without instructions for it: the same numbers by fp32 kernels."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from kfbench.train import precision

CPU = torch.device("cpu")


@pytest.fixture
def emulated() -> Iterator[None]:
    """Take the processor for one without bf16, whatever it is, and leave no kernels behind."""
    library = precision._emulate.__wrapped__()
    yield
    library._destroy()


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def rounded(value: Tensor) -> Tensor:
    return value.bfloat16().float()


class Products(TorchDispatchMode):
    """Notes the type of what the kernels of matrix products are given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.dtype] = []

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if operator.overloadpacket.__name__ in ("mm", "bmm", "addmm", "baddbmm"):
            self.seen += [value.dtype for value in args if isinstance(value, Tensor)]
        return operator(*args, **(kwargs or {}))


PRODUCTS: dict[str, tuple[Callable[..., Tensor], list[Tensor]]] = {
    "conv2d": (lambda x, w, b: F.conv2d(x, w, b, padding=1), [drawn(2, 3, 8, 8), drawn(4, 3, 3, 3), drawn(4)]),
    "conv2d, same": (lambda x, w: F.conv2d(x, w, padding="same"), [drawn(2, 3, 8, 8), drawn(4, 3, 3, 3)]),
    "conv_transpose2d": (F.conv_transpose2d, [drawn(2, 3, 8, 8), drawn(3, 4, 3, 3)]),
    "linear": (F.linear, [drawn(5, 40), drawn(7, 40), drawn(7)]),
    "matmul": (torch.matmul, [drawn(2, 5, 40), drawn(40, 3)]),
    "einsum": (lambda x, y: torch.einsum("bij,bjk->bik", x, y), [drawn(2, 5, 40), drawn(2, 40, 3)]),
    "attention": (F.scaled_dot_product_attention, [drawn(1, 2, 6, 8), drawn(1, 2, 7, 8), drawn(2, 1, 7, 8)]),
}


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.usefixtures("emulated")
def test_factors_are_rounded_sums_are_not(name: str) -> None:
    product, factors = PRODUCTS[name]
    for factor in factors:
        factor.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        made = product(*factors)
    plain = [rounded(factor.detach()).requires_grad_() for factor in factors]
    wanted = product(*plain)
    assert made.dtype == torch.bfloat16
    torch.testing.assert_close(made, wanted.bfloat16(), rtol=0.01, atol=1e-6)
    asked = drawn(*made.shape)
    found = torch.autograd.grad(made, factors, asked.bfloat16())
    for gradient, right in zip(found, torch.autograd.grad(wanted, plain, rounded(asked)), strict=True):
        assert gradient.dtype == torch.float32
        assert float((gradient - right).norm() / right.norm()) < 0.01


@pytest.mark.usefixtures("emulated")
def test_layers_that_multiply_inside_torch_are_reached_too() -> None:
    """`nn.MultiheadAttention` calls its products below Python; no kernel of them may get bf16, nor one going back."""
    attention, x = nn.MultiheadAttention(16, 2), drawn(5, 2, 16)
    with Products() as kernels:
        with torch.autocast("cpu", torch.bfloat16):
            made, _ = attention(x, x, x)
        made.float().sum().backward()
    assert made.dtype == torch.bfloat16 and attention.in_proj_weight.grad is not None
    assert len(kernels.seen) > 4 and set(kernels.seen) == {torch.float32}


@pytest.mark.usefixtures("emulated")
def test_float64_stays_as_it_is() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.matmul(drawn(2, 3).double(), drawn(3, 2).double()).dtype == torch.float64


def test_a_step_in_bf16_is_about_as_fast_as_in_fp32() -> None:
    """Whatever the processor: without help it takes ten times as long where there are no instructions for bf16."""
    layers = nn.Sequential(*(nn.Conv2d(32, 32, 3, padding=1) for _ in range(3))).to(memory_format=torch.channels_last)
    images = drawn(32, 32, 16, 16).to(memory_format=torch.channels_last)

    def seconds(name: Any) -> float:
        started = time.perf_counter()
        with precision.autocast(CPU, name):
            made = layers(images)
        made.float().sum().backward()
        return time.perf_counter() - started

    taken = {name: [seconds(name) for _ in range(6)][1:] for name in ("fp32", "bf16")}
    assert min(taken["bf16"]) < 4 * min(taken["fp32"])


def test_fp32_is_left_alone() -> None:
    with precision.autocast(CPU, "fp32"):
        assert torch.mm(drawn(2, 3), drawn(3, 2)).dtype == torch.float32
