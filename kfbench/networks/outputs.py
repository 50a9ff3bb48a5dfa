"""A network's outputs in another order, where it was trained on a task's classes in another."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kfbench.networks.network import Network


def reorder(network: Network, order: Sequence[int]) -> bool:
    """Put output `order[i]` into place i: the rows of the heads are moved, no number of them changes.

    Returns False, with the network as it was, if the heads have more than a row an output, or do not decide the order
    alone.
    """
    images = torch.linspace(0, 1, 2 * math.prod(network.shape)).view(2, *network.shape)  # [2, C, H, W]
    mode = network.training
    network.eval()
    before, moved = _logits(network, images), _move(network, order)
    wanted, near = before[:, list(order)], 1e-5 * float(before.abs().max())  # sums over rows may be rounded otherwise
    done = moved and torch.allclose(_logits(network, images), wanted, rtol=1e-4, atol=near, equal_nan=True)
    if moved and not done:
        _move(network, sorted(range(len(order)), key=order.__getitem__))
    network.train(mode)
    return done


def _move(network: Network, order: Sequence[int]) -> bool:
    """Move the rows of every head; return False, and leave them, if a head has other tensors."""
    tensors = [value for name in network.heads for value in network.get_submodule(name).state_dict().values()]
    if not tensors or any(value.shape[:1] != (len(order),) for value in tensors):
        return False
    for value in tensors:
        value.copy_(value[list(order)])
    return True


def _logits(network: Network, images: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = network(images).logits
    return logits
