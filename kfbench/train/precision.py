"""The precision of a step: bf16 by autocast, also where the processor has no instructions for it."""

import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor

# what autocast rounds the factors of, as far as networks are made of it
ROUNDED = (
    *("conv1d", "conv1d.padding", "conv2d", "conv2d.padding", "conv3d", "conv3d.padding"),
    *("conv_transpose1d", "conv_transpose2d.input", "conv_transpose3d.input"),
    *("linear", "matmul", "mm", "bmm", "addmm", "addbmm", "baddbmm", "scaled_dot_product_attention"),
)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context of a forward pass: bf16 where it serves, or nothing at all.

    A CPU without bf16 instructions (x86 before AVX-512, most laptops) multiplies bf16 numbers ten to forty times slower
    than fp32. There the same numbers come from fp32 kernels: factors are rounded to bf16, products summed in fp32, and
    the sum is rounded, as a processor with the instructions does it. A step then takes as long as in fp32.
    """
    is_bf16 = precision == "bf16"
    if is_bf16 and device.type == "cpu" and not _has_bf16():
        _emulate()
    return torch.autocast(device.type, torch.bfloat16, enabled=is_bf16)


def _has_bf16() -> bool:
    """Return whether oneDNN multiplies bf16 here."""
    is_there = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return bool(is_there and torch.ops.mkldnn._is_mkldnn_bf16_supported())


@cache
def _emulate() -> torch.library.Library:
    """Give autocast on CPUs kernels of its own, for as long as the process lives; returns what holds them there."""
    library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Warning only once for all operators")  # that kernels were there before
        for name in ROUNDED:
            library.impl(name, _by_fp32(name), "AutocastCPU")  # type: ignore[no-untyped-call]
    return library


def _by_fp32(name: str) -> Any:
    packet, _, overload = name.partition(".")
    operator = getattr(getattr(torch.ops.aten, packet), overload or "default")

    def kernel(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast("cpu", enabled=False):
            result = operator(*map(_rounded, args), **{key: _rounded(value) for key, value in kwargs.items()})
            return result.bfloat16() if result.dtype == torch.float32 else result

    return kernel


def _rounded(value: Any) -> Any:
    """Round a tensor's values to bf16 and keep them in fp32; what is no tensor, or float64, stays."""
    is_rounded = isinstance(value, Tensor) and value.dtype in (torch.float32, torch.bfloat16, torch.float16)
    return value.bfloat16().float() if is_rounded else value
