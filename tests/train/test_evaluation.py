"""How games are scored: whole episodes of every environment, actions as the policy has them, the area below a curve."""

import numpy as np
import pytest
import torch
from playing import make_setup

from kfbench.games.emulators import Arcade
from kfbench.train import episodes, evaluation


def test_choose_samples_the_policy() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]])
    uniform = torch.rand(40_000, 4, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(episodes.choose(logits.expand(40_000, 4), uniform), minlength=4) / 40_000
    torch.testing.assert_close(counts, logits.softmax(1)[0], atol=0.01, rtol=0)
    assert episodes.choose(logits, None).tolist() == [2]


def test_evaluation_takes_whole_episodes_of_every_environment() -> None:
    """Short ones are not favoured: every environment gives the same number, and a capped one counts as such."""
    setup = make_setup()
    arcade = Arcade("road_runner", 3, seed=0, name="val", episode_frames=700)
    played = episodes.play(setup.student, arcade, episodes=2, greedy=False, seed=0)
    assert sorted(episode.environment for episode in played) == [0, 0, 1, 1, 2, 2]
    assert any(not episode.capped for episode in played) and any(episode.capped for episode in played)
    again = episodes.play(setup.student, arcade, episodes=2, greedy=False, seed=0)
    assert again == played
    summed = episodes.summary("road_runner", played)
    assert summed["return"] == np.mean([episode.score for episode in played])
    assert summed["human_normalised"] == pytest.approx((summed["return"] - 11.5) / (7845.0 - 11.5))
    assert summed["episodes"] == 6 and summed["episodes_capped"] == sum(episode.capped for episode in played)
    assert "human_normalised" not in episodes.summary("carnival", played)


def test_area_is_the_mean_height_of_the_curve() -> None:
    curve = [
        {"frames": 0.0, "val_return": 0.0},
        {"frames": 10.0, "val_return": 4.0},
        {"frames": 40.0, "val_return": 8.0},
    ]
    assert evaluation.area(curve) == pytest.approx((2 * 10 + 6 * 30) / 40)
