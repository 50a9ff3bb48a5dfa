"""Networks without weights: their layers and shapes, for neither memory nor random numbers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

DRAWS = frozenset({Tensor.normal_, Tensor.uniform_})


@contextmanager
def hollow() -> Iterator[None]:
    """What is made within has its tensors on the meta device, and initial weights are not drawn.

    Torch would draw on the meta device too, step by step in Python, and load its compiler for a normal distribution.
    """
    with torch.device("meta"), _Undrawn():
        yield


class _Undrawn(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if func in DRAWS or getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else given["tensor"]
        return func(*args, **given)
