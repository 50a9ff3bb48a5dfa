"""Atari 2600 games through ale-py, which carries their ROMs: `atari/pong`, `atari/krull`; the return in raw points.

Source: Bellemare et al. 2013, "The Arcade Learning Environment", arXiv 1207.4708. Default teachers are the source games
    of Rusu et al. 2016, "Progressive Neural Networks", arXiv 1606.04671: Pong, River Raid, Seaquest.
"""

from kfbench.tasks import GameTask

TASK = GameTask(
    sources=("atari/pong", "atari/riverraid", "atari/seaquest"),
    budgets={
        "smoke": {
            "frames": 8_192,
            "rollout": 32,
            "minibatches": 2,
            "environments": 4,
            "evaluations": 1,
            "evaluation_environments": 2,
            "test_episodes": 1,
            "evaluation_frames": 2_000,
        },
        "small": {"frames": 320_000},
        "standard": {
            "frames": 10_000_000,
            "evaluations": 20,
            "evaluation_environments": 16,
            "test_episodes": 4,
            "evaluation_frames": 108_000,
        },
        # frames of Rusu et al. 2016; the rest is A2C's, whose settings OpenAI baselines chose for Atari
        "paper": {
            "algorithm": "a2c",
            "frames": 160_000_000,
            "evaluations": 40,
            "evaluation_environments": 16,
            "test_episodes": 4,
            "evaluation_frames": 108_000,
        },
    },
)
