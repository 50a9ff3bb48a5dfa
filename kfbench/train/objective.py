"""A task's own loss: cross-entropy on images; policy, value and entropy in games, by A2C or PPO."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kfbench.batch import Batch
from kfbench.networks.network import Output
from kfbench.spec import GameRecipe
from kfbench.train.returns import vtrace


@dataclass(frozen=True)
class CrossEntropy:
    """The supervised task's own loss, the mean over the batch in nats."""

    smoothing: float = 0.0

    def __call__(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Return {"cross-entropy": []}."""
        assert batch.labels is not None
        return {"cross-entropy": F.cross_entropy(output.logits.float(), batch.labels, label_smoothing=self.smoothing)}


@dataclass(frozen=True)
class Objective:
    """The parts of a game's loss, each weighted and a mean over the batch.

    a2c:  policy = -mean(A log pi(a|s)),  value = c_v mean((R - V(s))²),  entropy = -c_e mean(H(pi(.|s)))
    ppo:  policy = -mean(min(r A', clip(r, 1 - c, 1 + c) A')), r = pi(a|s) / pi_acting(a|s), A' = A standardised over
          the batch; value and entropy as in a2c.

    Means and spreads are over the rows that count (`batch.counts`).
    With the recipe's correction `vtrace`, A and R of a2c are those of `returns.vtrace`, by the present outputs.

    Source: Mnih et al. 2016, arXiv 1602.01783; Schulman et al. 2017, arXiv 1707.06347.
    Differs: ppo's value is not clipped, its weight is 0.5 for Schulman's 1 (OpenAI baselines: 0.5 of half the square,
    which is 0.25 here), and `clip` does not shrink with the learning rate.
    """

    recipe: GameRecipe

    def __call__(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Return {"policy", "value", "entropy"}, each []."""
        assert batch.actions is not None and batch.advantages is not None and batch.returns is not None
        assert output.value is not None
        logged = F.log_softmax(output.logits.float(), dim=1)  # [B, A]
        chosen = logged.gather(1, batch.actions[:, None]).squeeze(1)  # [B]
        returns, advantages, values = batch.returns, batch.advantages, output.value.float()
        if self.recipe.correction == "vtrace":
            returns, advantages = self._corrected(values.detach(), chosen.detach(), batch)
        plain = self.recipe.algorithm == "a2c"
        policy = -_mean(advantages * chosen, batch) if plain else self._clipped(chosen, batch)
        return {
            "policy": policy,
            "value": self.recipe.value * _mean((returns - values).square(), batch),
            "entropy": self.recipe.entropy * _mean((logged.exp() * logged).sum(1), batch),
        }

    def _corrected(self, values: Tensor, chosen: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return V-trace's targets and advantages, [T·N] each."""
        assert batch.trajectory is not None
        shape = batch.trajectory.rewards.shape
        ratios = (chosen - _acting(batch)).exp().view(shape)
        gamma, trace = self.recipe.gamma, self.recipe.trace
        targets, advantages = vtrace(*batch.trajectory, values.view(shape), ratios, gamma=gamma, trace=trace)
        return targets.flatten(), advantages.flatten()

    def _clipped(self, chosen: Tensor, batch: Batch) -> Tensor:
        assert batch.advantages is not None
        ratio = (chosen - _acting(batch)).exp()
        spread, centre = _std_mean(batch.advantages, batch)
        advantages = (batch.advantages - centre) / (spread + 1e-8)
        clip = self.recipe.clip
        return -_mean(torch.min(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages), batch)


def _acting(batch: Batch) -> Tensor:
    """Return log pi_acting(a|s), [B]."""
    assert batch.output is not None and batch.actions is not None
    logged = F.log_softmax(batch.output.logits.float(), dim=1)
    return logged.gather(1, batch.actions[:, None]).squeeze(1)


def _mean(rows: Tensor, batch: Batch) -> Tensor:
    """Return the mean of rows [B] over those that count, []; 0 if none does."""
    if batch.counts is None:
        return rows.mean()
    return (rows * batch.counts).sum() / batch.counts.sum().clamp(min=1)


def _std_mean(rows: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return standard deviation and mean, [] each, of the rows [B] that count."""
    if batch.counts is None:
        return torch.std_mean(rows, correction=0)
    centre = _mean(rows, batch)
    return _mean((rows - centre).square(), batch).sqrt(), centre
