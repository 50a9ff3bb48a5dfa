"""Acting and evaluation: a run's emulators, how a network's outputs become actions, what whole episodes of it bring."""

import torch
from torch import Tensor, nn

from kfbench import seeding
from kfbench.games.emulators import Arcade, Episode
from kfbench.games.reference import human_normalised
from kfbench.networks.network import Output
from kfbench.spec import GameRecipe, RunSpec


def open_arcade(
    spec: RunSpec,
    game: str,
    environments: int,
    name: str,
    *,
    threads: int,
    frames: int,
    device: torch.device,
) -> Arcade:
    """Open emulators of a game as a run's recipe has them; `frames` is the longest episode, `name` seeds them."""
    recipe = GameRecipe.of(spec)
    return Arcade(
        game,
        environments,
        seed=spec.seed,
        name=name,
        threads=threads,
        sticky=recipe.sticky,
        full_actions=recipe.full_actions,
        noops=recipe.noops,
        fire=recipe.fire,
        episode_frames=frames,
        device=device,
    )


def choose(logits: Tensor, uniform: Tensor | None) -> Tensor:
    """Return actions [N]: a sample of softmax(logits [N, A]), made of uniform numbers [N, A]; None: the likeliest.

    The largest of logits plus Gumbel noise is a sample (Gumbel 1954), and the same one on every device.
    """
    logits = logits.float()
    return logits.argmax(1) if uniform is None else (logits - (-uniform.log()).log()).argmax(1)


@torch.no_grad()
def play(network: nn.Module, arcade: Arcade, *, episodes: int, greedy: bool, seed: int) -> list[Episode]:
    """Play `episodes` whole episodes in each environment, from a seeded reset, and return them, N · episodes in all.

    The first ones of each environment, not the first to end: that would favour short ones.
    """
    network.eval()
    generator = seeding.stream(seed, "evaluate", arcade.name)
    observation = arcade.reset()
    left = [episodes] * arcade.environments
    played: list[Episode] = []
    while any(left):
        output: Output = network(observation)
        uniform = None if greedy else torch.rand(output.logits.shape, generator=generator).to(arcade.device)
        step = arcade.step(choose(output.logits, uniform))
        observation = step.observation
        for episode in step.finished:
            if left[episode.environment]:
                left[episode.environment] -= 1
                played.append(episode)
    return played


def summary(game: str, episodes: list[Episode]) -> dict[str, float]:
    """Return the mean `return` in raw points, its deviation over episodes, how many, their frames, how many were cut.

    And `human_normalised`, random play 0 and the human 1, where there is a reference with no-op starts.
    """
    scores = torch.tensor([episode.score for episode in episodes], dtype=torch.float64)
    row = {
        "return": float(scores.mean()),
        "return_deviation": float(scores.std(correction=0)),
        "episodes": float(len(episodes)),
        "episode_frames": sum(episode.frames for episode in episodes) / len(episodes),
        "episodes_capped": float(sum(episode.capped for episode in episodes)),
    }
    normalised = human_normalised(game, row["return"])
    return row if normalised is None else row | {"human_normalised": normalised}
