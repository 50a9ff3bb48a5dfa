"""Returns and advantages of a rollout: n-step and generalised. All tensors are [T, N].

Each row t has what the student acted on: `values` V(s_t), the reward r_t that followed, and `goes_on` (1 or 0): whether
the return runs on past it. `after` [N] is the value of the observation behind the last row.
"""

import torch
from torch import Tensor


def generalised_advantages(
    rewards: Tensor, values: Tensor, goes_on: Tensor, after: Tensor, *, gamma: float, trace: float
) -> Tensor:
    """Return A_t = sum_k (gamma · trace)^k d_{t+k}, d_t = r_t + gamma V(s_{t+1}) - V(s_t), [T, N]; return = A + V.

    `trace` 1 gives n-step returns to the rollout's end, as A3C has them, minus the value; 0 gives d_t.
    Source: Schulman et al. 2016, arXiv 1506.02438, equation 16.
    """
    following = torch.cat((values[1:], after[None]))  # [T, N]
    errors = rewards + gamma * goes_on * following - values
    advantages = torch.empty_like(values)
    running = torch.zeros_like(after)
    for t in reversed(range(len(values))):
        running = errors[t] + gamma * trace * goes_on[t] * running
        advantages[t] = running
    return advantages
