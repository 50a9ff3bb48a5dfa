"""RMSProp with epsilon inside the root, as A3C and TensorFlow have it: torch's own adds it outside."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class RMSProp(torch.optim.Optimizer):
    """g <- a g + (1 - a) d²;  weight <- weight - lr d / sqrt(g + epsilon); g starts at 1, as TensorFlow's does.

    Source: Mnih et al. 2016, "Asynchronous Methods for Deep Reinforcement Learning", arXiv 1602.01783, equation S2; the
    start at 1 from OpenAI baselines' a2c. Without momentum or centring.
    """

    def __init__(
        self, params: Iterable[Any], *, lr: float, alpha: float = 0.99, epsilon: float = 1e-5, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "alpha": alpha, "epsilon": epsilon, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take a step with the gradients that are there."""
        for group in self.param_groups:
            weights: list[Tensor] = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            gradients: list[Tensor] = [weight.grad for weight in weights if weight.grad is not None]
            if group["weight_decay"]:
                gradients = list(torch._foreach_add(gradients, weights, alpha=group["weight_decay"]))
            for weight in weights:
                if weight not in self.state:
                    self.state[weight] = {"squares": torch.ones_like(weight, memory_format=torch.preserve_format)}
            squares = [self.state[weight]["squares"] for weight in weights]
            torch._foreach_mul_(squares, group["alpha"])
            torch._foreach_addcmul_(squares, gradients, gradients, value=1 - group["alpha"])
            roots = torch._foreach_add(squares, group["epsilon"])
            torch._foreach_sqrt_(roots)
            torch._foreach_addcdiv_(weights, gradients, roots, value=-group["lr"])
