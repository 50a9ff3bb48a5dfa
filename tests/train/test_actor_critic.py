"""The actor-critic loop: what a rollout holds, who is told what, stages on other games, the student that is kept."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from playing import Elsewhere, Recorder, equal, make_setup, trained
from torch import Tensor, nn

from kfbench.errors import Diverged, KfbenchError
from kfbench.games.emulators import Arcade, Step
from kfbench.methods import Batch, Method
from kfbench.running import resolve
from kfbench.train.actor import Actor
from kfbench.train.actor_critic import ActorCritic


def test_rows_come_back_with_what_was_said_when_acting() -> None:
    trained(ActorCritic(make_setup(Recorder()), threads=1))


STEPS = 330


def test_returns_stop_at_lost_lives_and_bootstrap_at_the_limit() -> None:
    """The advantages of a rollout against a slow loop over what an identical arcade gives for the same actions."""
    setup = make_setup(game="riverraid", episode_frames=1200, rollout=STEPS, frames=4 * 4 * STEPS, minibatches=1)
    loop = ActorCritic(setup, threads=1)
    loop._begin(0)
    found = loop._play(0)
    network = setup.student.eval()
    arcade = Arcade("riverraid", 4, seed=0, name="train 0", episode_frames=1200)
    arcade.reset()
    rewards, stops, bonus = np.zeros((STEPS, 4)), np.zeros((STEPS, 4), bool), np.zeros((STEPS, 4))
    for t, action in enumerate(found.actions.view(STEPS, 4)):
        step = arcade.step(action)
        rewards[t] = np.clip(step.rewards.numpy(), -1, 1)
        stops[t] = (step.ended | step.truncated).numpy()
        for n in np.flatnonzero(step.truncated.numpy()):
            assert step.last is not None
            with torch.no_grad():
                bonus[t, n] = 0.99 * float(network(step.last[n : n + 1]).value)
    assert bonus.any() and (stops & (bonus == 0)).any() and (rewards != 0).any()
    with torch.no_grad():
        value = found.output.value.view(STEPS, 4).numpy()
        after = network(loop._actor.observation).value.numpy()
    for n in range(4):
        running, following = 0.0, after[n]
        for t in reversed(range(STEPS)):
            on = 0.0 if stops[t, n] else 1.0
            error = rewards[t, n] + bonus[t, n] + 0.99 * on * following - value[t, n]
            running = error + 0.99 * 0.95 * on * running
            assert float(found.advantages.view(STEPS, 4)[t, n]) == pytest.approx(running, abs=1e-4)
            following = value[t, n]


@dataclass(frozen=True)
class Listener(Method):
    """Collects what `observe` is told."""

    def observe(self, student: nn.Module, scores: Sequence[float]) -> None:
        """Keep them."""
        HEARD.extend(scores)


HEARD: list[float] = []


def test_training_episodes_are_told_with_raw_returns() -> None:
    HEARD.clear()
    setup = make_setup(Listener(), "riverraid", frames=4 * 4 * 120 * 2, rollout=120, episode_frames=400)
    loop = ActorCritic(setup, threads=1)
    trained(loop)
    assert HEARD and list(loop.recent) == HEARD and loop.episodes == len(HEARD)
    assert all(score % 10 == 0 for score in HEARD) and max(HEARD) > 100  # River Raid's points: not clipped
    assert loop.status()["return"] == pytest.approx(sum(HEARD) / len(HEARD))


@pytest.mark.parametrize("algorithm", ["a2c", "ppo"])
def test_threads_change_nothing_and_the_rate_falls_to_zero(algorithm: str) -> None:
    extra = {"minibatches": 1} if algorithm == "a2c" else {}
    loops = [ActorCritic(make_setup(algorithm=algorithm, **extra), threads=threads) for threads in (1, 2)]
    weights = [trained(loop) for loop in loops]
    assert equal(*weights)
    assert not equal(weights[0], make_setup(algorithm=algorithm, **extra).student.state_dict())
    drop = {"seconds", "frames_per_second"}
    rows = [[{k: v for k, v in row.items() if k not in drop} for row in loop.curve] for loop in loops]
    assert rows[0] == rows[1] and [row["frames"] for row in rows[0]] == [0, 384, 768]
    assert rows[0][1]["lr"] == pytest.approx(loops[0].recipe.lr / 2) and rows[0][-1]["lr"] == 0


def test_teachers_are_asked_once_an_observation_and_not_after_the_cut() -> None:
    setup = make_setup("kf", teachers=2)
    counted = [0, 0]
    for teacher in setup.teachers:

        def count(_m: nn.Module, args: tuple[Tensor, ...], index: int = teacher.index) -> None:
            counted[index] += 1

        teacher.network.body.trunk.conv1.register_forward_pre_hook(count)  # type: ignore[union-attr, operator]
    loop = ActorCritic(setup, threads=1)
    trained(loop)
    _, before, end = loop.stages[1]  # the stage after the cut
    assert setup.method.stages[1].name == "alone" and 0 < before < end == loop.total
    assert counted == [before * 8 + 1] * 2  # a rollout's 8 observations, and the one behind the last
    assert "share/student" in loop.curve[-1]


def test_exported_student_is_equal_without_teachers() -> None:
    setup = make_setup("kf", teachers=1)
    loop = ActorCritic(setup, threads=1)
    trained(loop)
    kept = setup.method.export(setup.student)
    seen = loop._actor.observation
    setup.student.eval()
    with torch.no_grad():
        said, extras = setup.method.act(setup.student, setup.teachers, Batch(seen, setup.rng), 1.0)
        again = kept.eval()(seen)
    assert not extras and torch.equal(said.logits, again.logits) and torch.equal(said.value, again.value)


@pytest.mark.parametrize("lost_life_ends", [True, False])
def test_a_life_lost_as_the_clock_stops_an_episode_ends_a_return_only_where_lost_lives_do(lost_life_ends: bool) -> None:
    setup = make_setup(minibatches=1, lost_life_ends=lost_life_ends)
    over, ended, cut = (torch.tensor(each).bool() for each in ([1, 1, 1, 0], [1, 0, 1, 1], [1, 1, 0, 0]))
    arcade = Arcade("road_runner", 4, seed=0, name="x")
    player = Actor(setup, arcade, "road_runner")
    with torch.no_grad():
        images = arcade.observation
        step = Step(images, torch.zeros(4), ended, cut, images, ())
        rewards, goes_on = player._followed(step, over, 0.0)
        value = setup.student(images).value
    stands = cut & ~ended if lost_life_ends else cut
    torch.testing.assert_close(rewards, 0.99 * stands * value)
    assert goes_on.tolist() == [False, False, False, not lost_life_ends]
    arcade.close()


def test_a_stage_may_be_another_game() -> None:
    loop = ActorCritic(make_setup(Elsewhere(), full_actions=True), threads=1)
    games = []
    for _ in loop:
        games.append(loop._actor.game)
    assert games == ["pong"] * 3 + ["road_runner"] * 3
    assert loop.frames == loop.recipe.frames
    with pytest.raises(KfbenchError, match="18 outputs, but 'pong' has 6 actions; --set-recipe full_actions=true"):
        trained(ActorCritic(make_setup(Elsewhere()), threads=1))


def test_bad_input_is_told_in_one_line() -> None:
    with pytest.raises(KfbenchError, match="3 minibatches do not divide a rollout of 32 rows"):
        ActorCritic(make_setup(minibatches=3))
    with pytest.raises(KfbenchError, match="4 environments cannot keep 5 threads busy"):
        next(iter(ActorCritic(make_setup(), threads=5)))
    setup = make_setup()
    with torch.no_grad():
        next(setup.student.parameters()).fill_(float("nan"))
    with pytest.raises(Diverged, match="'policy'.*step 0"):
        trained(ActorCritic(setup, threads=1))
    with pytest.raises(KfbenchError, match="no game 'krul'"):
        resolve.resolve("scratch", "atari/krul")


@pytest.mark.slow
def test_it_learns_krull() -> None:
    """PPO from scratch, 40,000 agent steps: well above random play (1,598 points) and above what it started from."""
    setup = make_setup(
        game="krull",
        frames=160_000,
        environments=16,
        rollout=128,
        minibatches=8,
        evaluations=1,
        evaluation_environments=8,
        evaluation_frames=18_000,
    )
    loop = ActorCritic(setup)
    trained(loop)
    before, after = (row["val_return"] for row in loop.curve)
    assert after > 2_400 and after > before + 400
