"""Named layers of any module, by hooks: read what they put out (or take in), or rewrite it. No network is edited."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from kfbench.errors import KfbenchError, near
from kfbench.networks.network import Network

Position = Literal["post", "pre"]
# Identity stands where a source has no activation: what it takes in is what it puts out
ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Tanh, nn.Sigmoid, nn.Identity)


class _Enough(Exception):
    """Every layer that was asked for has been read: the rest of the forward pass is not needed."""


def layer(module: nn.Module, name: str, position: Position) -> nn.Module:
    """Return a named layer. Raises KfbenchError if there is none, or if it has no pre-activation to speak of."""
    try:
        found = module.get_submodule(name)
    except AttributeError as error:
        there = [known for known, _ in module.named_modules() if known]
        raise KfbenchError(f"no layer '{name}' in {_called(module)}; {near(name, there)}") from error
    if position == "pre" and not isinstance(found, ACTIVATIONS):
        kind = type(found).__name__
        raise KfbenchError(f"layer '{name}' of {_called(module)} is a {kind}, not an activation; use position=post")
    return found


def _called(module: nn.Module) -> str:
    return f"network '{module.name}'" if isinstance(module, Network) else type(module).__name__


def _hook(target: nn.Module, position: Position, function: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
    if position == "post":

        def after(_module: nn.Module, _taken: Any, put: Tensor) -> Tensor | None:
            return function(put)

        return target.register_forward_hook(after)

    def before(_module: nn.Module, taken: tuple[Tensor, ...]) -> tuple[Tensor] | None:
        made = function(taken[0])
        return None if made is None else (made,)

    return target.register_forward_pre_hook(before)


@contextmanager
def read(
    module: nn.Module, layers: Sequence[str], position: Position = "post", *, stop: bool = False
) -> Iterator[dict[str, Tensor]]:
    """Fill a dict {layer: features [B, …]} during a forward pass in the block; the hooks are gone after it.

    With `stop` the pass ends as soon as the last of the layers has been read.
    """
    found: dict[str, Tensor] = {}
    wanted = set(layers)

    def keep(name: str) -> Callable[[Tensor], None]:
        def note(features: Tensor) -> None:
            found[name] = features
            if stop and len(found) == len(wanted):
                raise _Enough

        return note

    handles = [_hook(layer(module, name, position), position, keep(name)) for name in wanted]
    try:
        yield found
    except _Enough:
        pass
    finally:
        for handle in handles:
            handle.remove()


def rewrite(
    module: nn.Module, functions: Mapping[str, Callable[[Tensor], Tensor | None]], position: Position = "post"
) -> list[RemovableHandle]:
    """Let functions replace the features of named layers (None: leave them); remove the handles to undo it."""
    return [_hook(layer(module, name, position), position, function) for name, function in functions.items()]


def shapes(network: Network, layers: Sequence[str], position: Position = "post") -> dict[str, tuple[int, ...]]:
    """Return {layer: shape of its features without the batch}, in order of depth, by one pass over a blank image."""
    was_training = network.training
    device = network.mean.device
    with torch.no_grad(), read(network.eval(), layers, position) as found:
        network(torch.zeros(1, *network.shape, device=device))
    network.train(was_training)
    return {name: tuple(features.shape[1:]) for name, features in found.items()}


def match(students: Sequence[str], teachers: Sequence[str], *, most: int = 1) -> dict[str, tuple[str, ...]]:
    """Link each student layer with the teacher layers nearest in relative depth (at most `most`), shallow to deep.

    Depth is position in the list: layer i of n stands at (i + 1) / n.
    """
    links = {}
    for i, name in enumerate(students):
        depth = (i + 1) / len(students)
        near_first = sorted(range(len(teachers)), key=lambda j: (abs((j + 1) / len(teachers) - depth), -j))
        links[name] = tuple(teachers[j] for j in sorted(near_first[:most]))
    return links
