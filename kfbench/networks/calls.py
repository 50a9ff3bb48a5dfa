"""What is seen of another library's network in one forward pass: which modules are called, and what they put out."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

MOST_LAYERS = 6  # the deepest are kept; more would only repeat stems


class Call(NamedTuple):
    """A module's one call in a forward pass; `version` tells whether its output was changed in place afterwards."""

    name: str
    module: nn.Module
    output: Tensor
    version: int


@contextmanager
def _noting(body: nn.Module) -> Iterator[list[tuple[str, nn.Module, Any]]]:
    """Fill a list of (name, module, output) in the order in which calls end; the hooks are gone after the block."""
    ended: list[tuple[str, nn.Module, Any]] = []

    def note(name: str, module: nn.Module, _taken: Any, output: Any) -> None:
        ended.append((name, module, (output, output._version) if isinstance(output, Tensor) else None))

    handles = [module.register_forward_hook(partial(note, name)) for name, module in body.named_modules() if name]
    try:
        yield ended
    finally:
        for handle in handles:
            handle.remove()


def seen(body: nn.Module, shape: tuple[int, int, int]) -> list[Call]:
    """Return the calls of modules that put out a tensor and are called once, in the order in which they end."""
    device = next(body.parameters()).device
    body.eval()
    with torch.no_grad(), _noting(body) as ended:
        body(torch.zeros(1, *shape, device=device))
    body.train()
    names = [name for name, _, _ in ended]
    return [Call(name, module, *put) for name, module, put in ended if put is not None and names.count(name) == 1]


def at_each_resolution(calls: list[Call], heads: tuple[str, ...], shape: tuple[int, int, int]) -> list[int]:
    """Choose the last module at each resolution that is not inside a branch, shallow to deep, down to a vector."""
    over = {name for head in heads for name in above(head)}
    ended = {call.name: call for call in calls}
    first_head = min(index for index, call in enumerate(calls) if call.name in heads)
    chosen: list[int] = []
    least = -1  # resolution of what was chosen last, going up from the head
    for index in range(first_head - 1, -1, -1):
        call = calls[index]
        size = resolution(call.output, shape)
        if size is None or size <= least or call.name in over or isinstance(call.module, nn.Dropout):
            continue
        around = [ended[name] for name in above(call.name) if name in ended and name not in over]
        if all(isinstance(one.module, nn.Sequential) or resolution(one.output, shape) == size for one in around):
            chosen.append(innermost(calls, index))
            least = size
    return chosen[:MOST_LAYERS][::-1]


def above(name: str) -> list[str]:
    """Return the names of the modules that contain the named one: "a", "a.b" for "a.b.c"."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def resolution(output: Tensor, shape: tuple[int, int, int]) -> int | None:
    """Return the height of maps [1, C, h, w], 0 for a vector (also as 1x1 maps), None for tokens and channels last."""
    if output.ndim == 2 or output.shape[2:] == (1, 1):
        return 0
    if output.ndim != 4:
        return None
    return output.shape[2] if is_like(output.shape[2:], shape) else None


def is_like(size: tuple[int, ...], shape: tuple[int, int, int]) -> bool:
    """Say whether maps of a height and width have an image's proportions [C, H, W], within a pixel of rounding."""
    return abs(size[0] * shape[2] - size[1] * shape[1]) <= max(shape[1:])


def innermost(calls: list[Call], index: int) -> int:
    """Follow a container that only hands on what its last module put out, so that an activation is found as such."""
    while index > 0:
        outer, inner = calls[index], calls[index - 1]
        hands_on = inner.output is outer.output and inner.version == outer.version
        if not (hands_on and inner.name.startswith(f"{outer.name}.")):
            break
        index -= 1
    return index
