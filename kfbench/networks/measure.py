"""What a network costs: parameters and multiply-adds."""

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode


def parameters(network: nn.Module) -> int:
    """Return the number of parameters, a shared one counted once."""
    return sum(parameter.numel() for parameter in network.parameters())


def multiply_adds(network: nn.Module, shape: tuple[int, int, int]) -> int:
    """Return the multiply-adds of convolutions and matrix products for one image of `shape` [C, H, W], in eval mode.

    Nothing is computed and the network is left as it was: shapes alone go through it (torch's meta device).
    """
    hollow = {name: tensor.to("meta") for name, tensor in (*network.named_parameters(), *network.named_buffers())}
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            functional_call(network, hollow, (torch.empty(1, *shape, device="meta"),))
    finally:
        for module, mode in modes.items():
            module.training = mode
    return int(counter.get_total_flops()) // 2  # torch counts a multiply-add as two
