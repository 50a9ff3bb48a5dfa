"""Tests of the actor-critic loop and what it is made of: returns, objective, optimiser, bookkeeping, resume."""

import math
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from playing import Elsewhere, Recorder, copied, equal, make_setup, rollout, rows, trained
from torch import Tensor, nn

from kfbench.errors import Diverged, KfbenchError
from kfbench.games.emulators import Arcade, Step
from kfbench.methods import Batch, Method
from kfbench.networks.network import Output
from kfbench.running import resolve
from kfbench.spec import GameRecipe
from kfbench.train import episodes, evaluation
from kfbench.train.actor import Actor
from kfbench.train.actor_critic import ActorCritic
from kfbench.train.meter import Meter
from kfbench.train.objective import Objective
from kfbench.train.returns import generalised_advantages
from kfbench.train.rmsprop import RMSProp

# returns


@pytest.mark.parametrize("trace", [0.0, 0.6, 1.0])
def test_advantages_equal_the_sum_of_their_definition(trace: float) -> None:
    """Sum over k of (gamma trace)^k d_{t+k}, stopped where the return stops."""
    given, gamma = rollout(), 0.9
    rewards, values, goes_on, after = (given[name].numpy() for name in ("rewards", "values", "goes_on", "after"))
    following = np.concatenate([values[1:], after[None]])
    wanted = np.zeros_like(values)
    for t in range(7):
        for n in range(3):
            weight = 1.0
            for k in range(t, 7):
                wanted[t, n] += weight * (rewards[k, n] + gamma * goes_on[k, n] * following[k, n] - values[k, n])
                weight *= gamma * trace * goes_on[k, n]
    found = generalised_advantages(**given, gamma=gamma, trace=trace)
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-12)


def n_step_returns(given: dict[str, Tensor], gamma: float) -> np.ndarray:
    """R = r + gamma R, from the value behind the rollout, 0 where the return stops: A3C's own loop."""
    wanted = np.zeros((7, 3))
    for n in range(3):
        running = float(given["after"][n])
        for t in reversed(range(7)):
            running = float(given["rewards"][t, n]) + gamma * float(given["goes_on"][t, n]) * running
            wanted[t, n] = running
    return wanted


def test_trace_one_gives_n_step_returns() -> None:
    given = rollout(1)
    found = generalised_advantages(**given, gamma=0.9, trace=1.0) + given["values"]
    np.testing.assert_allclose(found.numpy(), n_step_returns(given, 0.9), atol=1e-12)


# objective and optimiser


def test_a2c_gradient_equals_the_formula_by_hand() -> None:
    """d/dlogits = (A (pi - e_a) + c_e pi (log pi + H)) / B;  d/dV = 2 c_v (V - R) / B."""
    logits, value, batch = rows()
    recipe = GameRecipe(algorithm="a2c", entropy=0.02, value=0.4)
    sum(Objective(recipe)(Output(logits, value), batch).values()).backward()  # type: ignore[union-attr]
    assert batch.actions is not None and batch.advantages is not None and batch.returns is not None
    x = logits.detach().double().numpy()
    pi = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    taken = np.eye(5)[batch.actions.numpy()]
    advantages = batch.advantages.double().numpy()[:, None]
    entropy = -(pi * np.log(pi)).sum(1, keepdims=True)
    wanted = (advantages * (pi - taken) + 0.02 * pi * (np.log(pi) + entropy)) / 9
    np.testing.assert_allclose(logits.grad, wanted, atol=1e-6)
    error = value.detach().double().numpy() - batch.returns.double().numpy()
    np.testing.assert_allclose(value.grad, 2 * 0.4 * error / 9, atol=1e-6)


def test_ppo_equals_the_clipped_objective_row_by_row() -> None:
    logits, value, batch = rows(1)
    parts = Objective(GameRecipe(algorithm="ppo", clip=0.2))(Output(logits, value), batch)
    assert batch.actions is not None and batch.advantages is not None and batch.output is not None
    advantages = batch.advantages.numpy()
    advantages = (advantages - advantages.mean()) / advantages.std()
    sums, cut, said = 0.0, 0, logits.tolist()
    for row, action in enumerate(batch.actions.tolist()):
        now = math.exp(said[row][action]) / sum(math.exp(x) for x in said[row])
        old = math.exp(float(batch.output.logits[row, action]))
        ratio = now / (old / sum(math.exp(float(x)) for x in batch.output.logits[row]))
        cut += not 0.8 < ratio < 1.2
        sums += min(ratio * advantages[row], max(0.8, min(1.2, ratio)) * advantages[row])
    assert cut > 2
    assert float(parts["policy"].detach()) == pytest.approx(-sums / 9, abs=1e-5)


def test_ppo_first_step_has_the_gradient_of_a2c() -> None:
    """Where the policy is still the acting one the ratio is 1, so the gradient is that of A' log pi."""
    grads = []
    for algorithm in ("a2c", "ppo"):
        logits, value, batch = rows(2)
        assert batch.advantages is not None
        batch.output = Output(logits.detach().clone())
        if algorithm == "a2c":
            spread, centre = torch.std_mean(batch.advantages, correction=0)
            batch.advantages = (batch.advantages - centre) / spread
        Objective(GameRecipe(algorithm=algorithm))(Output(logits, value), batch)["policy"].backward()  # type: ignore[arg-type]
        assert logits.grad is not None
        grads.append(logits.grad)
    torch.testing.assert_close(*grads)


def test_rmsprop_has_epsilon_inside_the_root() -> None:
    weight = nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = RMSProp([weight], lr=0.1, alpha=0.9, epsilon=0.5)
    squares, wanted = np.ones(2), weight.detach().double().numpy().copy()
    for gradient in ([0.3, -1.0], [2.0, 0.0]):
        weight.grad = torch.tensor(gradient)
        optimizer.step()
        squares = 0.9 * squares + 0.1 * np.square(gradient)
        wanted -= 0.1 * np.array(gradient) / np.sqrt(squares + 0.5)
    np.testing.assert_allclose(weight.detach().numpy(), wanted, rtol=1e-6)


def test_an_algorithm_brings_its_own_values_and_they_can_be_changed() -> None:
    a2c, ppo = GameRecipe(algorithm="a2c"), GameRecipe()
    assert (a2c.rollout, a2c.optimizer, a2c.trace, a2c.passes) == (5, "rmsprop", 1.0, 1)
    assert (ppo.rollout, ppo.optimizer, ppo.trace, ppo.minibatches) == (128, "adam", 0.95, 8)
    assert GameRecipe(algorithm="a2c", lr=1e-3).lr == 1e-3


def test_tally_means_and_the_first_bad_step() -> None:
    meter = Meter()
    for step, value in enumerate([1.0, 3.0]):
        meter.add({"a": torch.tensor(value), "b": torch.tensor(0.0)}, step)
    assert meter.means() == {"a": 2.0, "b": 0.0}
    meter.check()
    for step, value in enumerate([math.nan, math.inf, 1.0], 2):
        meter.add({"a": torch.tensor(0.0), "b": torch.tensor(value)}, step)
    with pytest.raises(Diverged, match="'b'.*step 2"):
        meter.check()


def test_choose_samples_the_policy() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]])
    uniform = torch.rand(40_000, 4, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(episodes.choose(logits.expand(40_000, 4), uniform), minlength=4) / 40_000
    torch.testing.assert_close(counts, logits.softmax(1)[0], atol=0.01, rtol=0)
    assert episodes.choose(logits, None).tolist() == [2]


# the loop


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


@pytest.mark.parametrize("method", ["scratch", "kf"])
def test_restore_equals_straight_through(method: str) -> None:
    teachers = 1 if method == "kf" else 0
    straight = ActorCritic(make_setup(method, teachers=teachers, sticky=0.25), threads=1)
    state: dict[str, Any] = {}
    for _ in straight:
        if straight.position == 3:
            state = copied(straight.state())
    resumed = ActorCritic(make_setup(method, teachers=teachers, sticky=0.25), threads=2)
    resumed.restore(state)
    assert resumed.position == 3
    weights = trained(resumed)
    assert equal(weights, straight.setup.student.state_dict())
    assert equal(resumed.best, straight.best) and list(resumed.recent) == list(straight.recent)
    drop = ("seconds", "frames_per_second")
    for ours, theirs in zip(resumed.curve, straight.curve, strict=True):
        assert {k: v for k, v in ours.items() if k not in drop} == {k: v for k, v in theirs.items() if k not in drop}
    assert resumed.score({"last": resumed.setup.student}) == straight.score({"last": straight.setup.student})


def test_other_emulators_are_noticed_at_a_resume() -> None:
    loop = ActorCritic(make_setup(), threads=1)
    next(iter(loop))
    state = copied(loop.state())
    state["actor"]["image"][0, 0, 0] += 1
    with pytest.raises(KfbenchError, match="do not replay"):
        ActorCritic(make_setup(), threads=1).restore(state)


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


KILLED = """
    import sys
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    import torch
    torch.set_num_threads(1)
    from kfbench.train import checkpoint
    from playing import make_setup
    from kfbench.train.actor_critic import ActorCritic
    path = Path(sys.argv[1])
    loop = ActorCritic(make_setup(frames=4 * 4 * 8 * 40, evaluations=1), threads=2)
    if path.is_file():
        loop.restore(checkpoint.read(path))
        print("resumed", loop.position, flush=True)
    for _ in loop:
        checkpoint.write(path, loop.state())
        print("step", loop.position, flush=True)
    torch.save(loop.setup.student.state_dict(), path.with_suffix(".done"))
"""


@pytest.mark.slow
def test_a_killed_run_ends_with_the_bits_of_one_never_interrupted(tmp_path: Path) -> None:
    """SIGKILL at a random moment, twice."""
    code = textwrap.dedent(KILLED).format(tests=str(Path(__file__).parents[1]))
    rng = np.random.default_rng()

    def start(name: str) -> "subprocess.Popen[str]":
        return subprocess.Popen([sys.executable, "-c", code, str(tmp_path / name)], stdout=subprocess.PIPE, text=True)

    straight = start("straight.ckpt")
    straight.communicate(timeout=300)
    resumed = 0
    for _ in range(2):
        process = start("killed.ckpt")
        assert process.stdout is not None
        for line in process.stdout:
            resumed += line.startswith("resumed")
            if line.startswith("step"):
                break
        time.sleep(rng.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    last, _ = start("killed.ckpt").communicate(timeout=300)
    resumed += "resumed" in last
    assert resumed >= 2
    ours, theirs = (torch.load(tmp_path / f"{name}.done", weights_only=True) for name in ("killed", "straight"))
    assert equal(ours, theirs)


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
