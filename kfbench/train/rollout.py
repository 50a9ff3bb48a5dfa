"""What the student saw, did and was told in a rollout, as rows to learn from."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kfbench.batch import Batch, Parts, Trajectory
from kfbench.networks.network import Output


@dataclass
class Rollout:
    """T steps of N environments as T·N rows, row t·N + n."""

    observations: Tensor  # [T·N, 4, 84, 84] uint8; floats 0..1, as when acting, if learned from as a whole
    actions: Tensor  # [T·N] int64
    returns: Tensor  # [T·N]
    advantages: Tensor  # [T·N]
    output: Output  # acting-time logits [T·N, A] and values [T·N]
    trajectory: Trajectory
    extras: Parts  # {name: [T·N, …]}
    scores: tuple[float, ...]  # raw returns of the episodes that ended in it, in order

    def batch(self, rows: Tensor | None, rng: torch.Generator) -> Batch:
        """Return some rows [B] int64 as a batch; None: all, in order."""

        def taken(whole: Tensor) -> Tensor:
            if rows is None:
                return whole
            if whole.dim() != 4:
                return whole.index_select(0, rows)
            last = whole.permute(0, 2, 3, 1)  # channels_last: whole rows of memory, ten times faster than whole[rows]
            return last.flatten(1).index_select(0, rows).view(-1, *last.shape[1:]).permute(0, 3, 1, 2)

        assert self.output.value is not None
        return Batch(
            images=brightness(taken(self.observations)),
            rng=rng,
            actions=taken(self.actions),
            returns=taken(self.returns),
            advantages=taken(self.advantages),
            output=Output(taken(self.output.logits), taken(self.output.value)),
            trajectory=self.trajectory if rows is None else None,
            extras={name: taken(whole) for name, whole in self.extras.items()},
        )


def brightness(observations: Tensor, into: Tensor | None = None) -> Tensor:
    """Return observations (uint8) as floats 0..1, once for the student and all its teachers; such floats as they are.

    `into`: where to put them, of the same shape.
    """
    if observations.dtype != torch.uint8:
        return observations
    return (observations.float() if into is None else into.copy_(observations)).div_(255)
