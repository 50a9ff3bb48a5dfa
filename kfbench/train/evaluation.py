"""Evaluation in games: a network plays whole episodes alone, in emulators of their own."""

import torch
from torch import Tensor, nn

from kfbench.games import emulators
from kfbench.games.emulators import Arcade
from kfbench.spec import GameRecipe, RunSpec
from kfbench.train import episodes
from kfbench.train.loop import Row


class Evaluation:
    """Plays validation and test episodes of a run; each split has emulators and seeds of its own."""

    def __init__(self, spec: RunSpec, *, device: torch.device, threads: int) -> None:
        self.spec, self.recipe, self.device, self.threads = spec, GameRecipe.of(spec), device, threads
        self.game = emulators.rom(spec.task.partition("/")[2])
        self._places: dict[str, Arcade] = {}

    def validate(self, network: nn.Module) -> Row:
        """Return the summary of a network's validation episodes."""
        return self._play(network, "val", self.recipe.evaluation_episodes)

    def test(self, networks: dict[str, nn.Module]) -> dict[str, Row]:
        """Return the summary of each network's test episodes; networks that are equal play once."""
        scores: dict[str, Row] = {}
        for name, network in networks.items():
            same = [other for other in scores if _equal(networks[other], network)]
            scores[name] = scores[same[0]] if same else self._play(network, "test", self.recipe.test_episodes)
        return scores

    def _play(self, network: nn.Module, split: str, each: int) -> Row:
        """Return the summary of `each` whole episodes in each environment of a split."""
        recipe, spec = self.recipe, self.spec
        if split not in self._places:
            count = recipe.evaluation_environments
            self._places[split] = episodes.open_arcade(
                spec,
                self.game,
                count,
                split,
                threads=min(self.threads, count),
                frames=recipe.evaluation_frames,
                device=self.device,
            )
        played = episodes.play(network, self._places[split], episodes=each, greedy=recipe.greedy, seed=spec.seed)
        return episodes.summary(self.game, played)


def area(curve: list[Row]) -> float:
    """Return the area under the validation return over frames, by the frames: the curve's mean height, in points."""
    frames = torch.tensor([row["frames"] for row in curve], dtype=torch.float64)
    returns = torch.tensor([row["val_return"] for row in curve], dtype=torch.float64)
    return float(torch.trapezoid(returns, frames) / (frames[-1] - frames[0])) if len(curve) > 1 else float(returns[-1])


def _equal(one: nn.Module, other: nn.Module) -> bool:
    """Say whether two networks have the same weights, bit for bit."""
    ours: dict[str, Tensor] = one.state_dict()
    theirs: dict[str, Tensor] = other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
