"""Returns and advantages of a rollout: n-step, generalised and V-trace. All tensors are [T, N].

Each row t has what the student acted on: `values` V(s_t), the reward r_t that followed, and `goes_on` (1 or 0): whether
the return runs on past it. `after` [N] is the value of the observation behind the last row.
"""

import torch
from torch import Tensor


def generalised_advantages(
    rewards: Tensor, goes_on: Tensor, after: Tensor, values: Tensor, *, gamma: float, trace: float
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


def vtrace(
    rewards: Tensor, goes_on: Tensor, after: Tensor, values: Tensor, ratios: Tensor, *, gamma: float, trace: float
) -> tuple[Tensor, Tensor]:
    """Return targets v_t of the value and advantages of the policy, [T, N] each, where another policy acted.

    `ratios` are pi(a_t|s_t) / pi_acting(a_t|s_t), `values` and pi the learner's present ones. With c = min(1, ratio),
        v_t = V(s_t) + d_t + gamma · trace · c_t (v_{t+1} - V(s_{t+1})),
        d_t = c_t (r_t + gamma V(s_{t+1}) - V(s_t)),
        A_t = c_t (r_t + gamma v_{t+1} - V(s_t)).
    With ratios of 1 and `trace` 1 these are n-step returns and their advantages.
    Source: Espeholt et al. 2018, "IMPALA", arXiv 1802.01561, section 4.1, both truncation levels 1 as there.
    Differs: the value behind the last row is the acting student's, from a rollout earlier.
    """
    truncated = ratios.clamp(max=1)
    following = torch.cat((values[1:], after[None]))  # V(s_{t+1})
    errors = truncated * (rewards + gamma * goes_on * following - values)
    above = torch.empty_like(values)  # v_t - V(s_t)
    running = torch.zeros_like(after)
    for t in reversed(range(len(values))):
        running = errors[t] + gamma * trace * goes_on[t] * truncated[t] * running
        above[t] = running
    targets = values + above
    behind = torch.cat((targets[1:], after[None]))  # v_{t+1}
    return targets, truncated * (rewards + gamma * goes_on * behind - values)
