"""The weights of a layer's candidates in a mix: learned or scheduled, the student's own first, summing to 1 a layer."""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kfbench.transfer import losses


class Shares(nn.Module):
    """Mixing weights p = softmax(w_j) over {the student's own layer, linked teacher layers} of every mixed layer j.

    Learned: p_0 starts at `initial` and never falls below `floor`. Otherwise p_0 is what the schedule says, and the
    softmax divides the rest among the teachers' layers.
    """

    scheduled: Tensor

    def __init__(
        self, candidates: Mapping[str, int], *, initial: float, floor: float = 0.0, learned: bool = True
    ) -> None:
        super().__init__()
        self.learned, self.floor = learned, floor
        self.logits = nn.ParameterDict()
        for key, others in candidates.items():
            start = torch.zeros(1 + others)
            start[0] = math.log(max(1e-6, initial - floor) / max(1e-6, 1 - initial) * max(1, others))
            self.logits[key] = nn.Parameter(start, requires_grad=learned)
        self.order = {key: j for j, key in enumerate(candidates)}
        self.register_buffer("scheduled", torch.full((len(candidates),), initial))

    def note(self, schedule: Sequence[float] | None) -> None:
        """Keep each layer's scheduled share p_0 of the present step; None where shares are learned."""
        for slot, share in zip(self.scheduled.unbind(), schedule or (), strict=False):
            slot.fill_(share)

    def forward(self, key: str, schedule: Sequence[float] | None = None) -> Tensor:
        """Return the weights of a layer's candidates, [1 + candidates]; by a schedule, else as `note` was told last."""
        logits = self.logits[key]
        if not self.learned:
            share = self.scheduled[self.order[key]]
            if schedule is not None:
                share = torch.full_like(share, schedule[self.order[key]])
            return torch.cat([share.view(1), F.softmax(logits[1:], dim=0) * (1 - share)])
        weights = F.softmax(logits, dim=0)
        if self.floor:
            weights = weights * (1 - self.floor)
            weights = torch.cat([weights[:1] + self.floor, weights[1:]])
        return weights

    def dependency(self) -> Tensor:
        """Return L_dep = -mean_j log p_0^j."""
        if self.floor:
            return -torch.stack([self(key)[0].log() for key in self.logits]).mean()
        return losses.dependency(list(self.logits.values()))
