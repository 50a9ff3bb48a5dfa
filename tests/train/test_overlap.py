"""Tests of acting beside learning: the lag of one rollout, V-trace's correction of it, resume."""

from typing import Any

import numpy as np
import pytest
import torch
from playing import Elsewhere, Recorder, copied, equal, make_setup, rollout, rows, trained
from torch import Tensor

from kfbench import registry
from kfbench.errors import Diverged, KfbenchError
from kfbench.methods import Trajectory
from kfbench.networks.network import Output
from kfbench.running import resolve
from kfbench.spec import GameRecipe, digest
from kfbench.train.actor_critic import ActorCritic
from kfbench.train.objective import Objective
from kfbench.train.returns import generalised_advantages, vtrace

A2C: dict[str, Any] = {"algorithm": "a2c", "minibatches": 1}


@pytest.mark.parametrize("trace", [0.7, 1.0])
def test_vtrace_equals_the_sum_of_its_definition(trace: float) -> None:
    """v_s = V_s + sum over t of gamma^(t-s) (product of c_i, i < t) d_t: IMPALA, equation 1."""
    given, gamma = rollout(), 0.9
    ratios = torch.rand(7, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2
    rewards, values, goes_on, after = (given[name].numpy() for name in ("rewards", "values", "goes_on", "after"))
    kept = np.minimum(1, ratios.numpy())
    following = np.concatenate([values[1:], after[None]])
    targets, advantages = np.zeros((7, 3)), np.zeros((7, 3))
    for n in range(3):
        for s in range(7):
            targets[s, n], weight = values[s, n], 1.0
            for t in range(s, 7):
                error = kept[t, n] * (rewards[t, n] + gamma * goes_on[t, n] * following[t, n] - values[t, n])
                targets[s, n] += weight * error
                weight *= gamma * goes_on[t, n] * trace * kept[t, n]
        for s in range(7):
            behind = targets[s + 1, n] if s < 6 else after[n]
            advantages[s, n] = kept[s, n] * (rewards[s, n] + gamma * goes_on[s, n] * behind - values[s, n])
    found = vtrace(**given, ratios=ratios, gamma=gamma, trace=trace)
    np.testing.assert_allclose(found[0].numpy(), targets, atol=1e-12)
    np.testing.assert_allclose(found[1].numpy(), advantages, atol=1e-12)


def test_vtrace_of_the_acting_policy_gives_n_step_returns() -> None:
    given = rollout(2)
    targets, advantages = vtrace(**given, ratios=torch.ones(7, 3), gamma=0.9, trace=1.0)
    plain = generalised_advantages(**given, gamma=0.9, trace=1.0)
    torch.testing.assert_close(advantages, plain)
    torch.testing.assert_close(targets, plain + given["values"])


def test_a_corrected_loss_has_the_gradient_of_the_formula() -> None:
    """-(A log pi(a)) and (v - V)² with v and A held fixed, whatever returns came with the rows."""
    logits, value, batch = rows(count=21)
    given = {name: each.float() for name, each in rollout().items()}
    batch.trajectory = Trajectory(given["rewards"], given["goes_on"], given["after"])
    parts = Objective(GameRecipe(algorithm="a2c", correction="vtrace", value=0.4))(Output(logits, value), batch)
    assert batch.actions is not None and batch.output is not None
    taken = batch.actions[:, None]
    now, old = (torch.log_softmax(each, 1).gather(1, taken).squeeze(1) for each in (logits, batch.output.logits))
    ratios = (now - old).detach().exp().view(7, 3)
    targets, advantages = vtrace(*batch.trajectory, value.detach().view(7, 3), ratios, gamma=0.99, trace=1.0)
    wanted = torch.autograd.grad(-(advantages.flatten() * now).mean(), logits, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(parts["policy"], logits, retain_graph=True), wanted)
    wanted = torch.autograd.grad(0.4 * (targets.flatten() - value).square().mean(), value)
    torch.testing.assert_close(torch.autograd.grad(parts["value"], value), wanted)


def lagged(method: str, teachers: int, **recipe: Any) -> dict[str, Tensor]:
    """Return the weights of a run in which two loops without threads take turns, the player's weights a rollout old."""
    learner, player = (ActorCritic(make_setup(method, teachers=teachers, **recipe), threads=1) for _ in range(2))
    learner._begin(0)
    player._begin(0)
    waiting = player._play(0)
    for number in range(learner.total):
        player.setup.student.load_state_dict(learner.setup.student.state_dict())
        following = player._play(number + 1) if number + 1 < learner.total else waiting
        learner._learn(waiting, number / learner.total)
        learner.position, waiting = number + 1, following
    return dict(learner.setup.student.state_dict())


@pytest.mark.parametrize(
    ("method", "teachers", "recipe"),
    [("scratch", 0, {}), ("scratch", 0, {**A2C, "correction": "vtrace"}), ("kf", 1, A2C)],
    ids=["ppo", "a2c with vtrace", "kf"],
)
def test_a_rollout_is_played_by_weights_from_before_the_learners_present_steps(
    method: str, teachers: int, recipe: dict[str, Any]
) -> None:
    setup = [make_setup(method, teachers=teachers, overlap=overlap, **recipe) for overlap in (1, 1, 0)]
    ours, again, classic = (trained(ActorCritic(each, threads=n)) for each, n in zip(setup, (1, 2, 1), strict=True))
    assert equal(ours, again) and not equal(ours, classic)
    if method == "scratch":  # kf's second stage starts without anything played ahead
        assert equal(ours, lagged(method, teachers, **recipe))


def test_the_correction_does_something_and_nothing_without_a_lag() -> None:
    far = []
    for overlap in (0, 1):
        loops = [
            ActorCritic(
                make_setup(optimizer="adam", lr=0.01, epsilon=1e-3, overlap=overlap, correction=correction, **A2C),
                threads=1,
            )
            for correction in ("none", "vtrace")
        ]
        plain, corrected = (trained(loop) for loop in loops)
        far.append(max(float((plain[name] - corrected[name]).abs().max()) for name in plain))
    assert far[0] < far[1] / 100, far


# pathnet: not for its numbers, which a run refuses, but as the one that remembers more than tensors
@pytest.mark.parametrize("method", ["scratch", "kf", "pathnet"])
@pytest.mark.parametrize("stop", [1, 2])
def test_what_was_played_ahead_is_played_again_at_a_resume(method: str, stop: int) -> None:
    def loop(threads: int) -> ActorCritic:
        setup = make_setup(method, teachers=int(method == "kf"), overlap=1, sticky=0.25, episode_frames=60)
        return ActorCritic(setup, threads=threads)

    straight = loop(1)
    state: dict[str, Any] = {}
    for _ in straight:
        if straight.position == stop:
            state = copied(straight.state())
    assert bool(state["acting"]) == (method != "kf" or stop != 2) and straight.episodes > 0
    resumed = loop(2)
    resumed.restore(state)
    assert equal(trained(resumed), straight.setup.student.state_dict())
    assert list(resumed.recent) == list(straight.recent) and resumed.episodes == straight.episodes


def test_rows_belong_together_beside_learning_and_a_stage_starts_without_lag() -> None:
    trained(ActorCritic(make_setup(Recorder(), overlap=1), threads=1))
    loop = ActorCritic(make_setup(Elsewhere(), full_actions=True, overlap=1), threads=1)
    ahead = []
    for _ in loop:
        ahead.append((loop._actor.game, loop._ahead is not None))
    games = ["pong"] * 3 + ["road_runner"] * 3
    assert ahead == list(zip(games, [True, True, False] * 2, strict=True))


def test_what_goes_wrong_on_either_side_is_told() -> None:
    setup = make_setup(overlap=1)
    with torch.no_grad():
        next(setup.student.parameters()).fill_(float("nan"))
    with pytest.raises(Diverged, match="'policy'.*step 0"):
        trained(ActorCritic(setup, threads=1))
    loop = ActorCritic(make_setup(overlap=1), threads=1)
    next(iter(loop))
    loop._actor.arcade.actions = 3
    loop._ahead = None
    with pytest.raises(KfbenchError, match="outputs, but 'road_runner' has 3 actions"):
        trained(loop)


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"correction": "vtrace"}, "correction=vtrace needs algorithm=a2c, passes=1 and minibatches=1: one pass"),
        ({"overlap": 2}, "'overlap' .* cannot be 2"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(recipe: dict[str, Any], said: str) -> None:
    with pytest.raises(KfbenchError, match=said):
        resolve.resolve("scratch", "atari/pong", recipe=recipe)


def test_a_method_that_cannot_be_played_ahead_is_refused() -> None:
    """PathNet goes on to another path by the scores of a rollout: what was played ahead would be of the one before."""
    said = "method 'pathnet' cannot play ahead of its learning; use --set-recipe overlap=0"
    with pytest.raises(KfbenchError, match=said):
        resolve.resolve("pathnet", "atari/pong", recipe={"overlap": "1"})
    assert resolve.resolve("pathnet", "atari/pong", recipe={"overlap": "0"})


def test_specs_without_a_lag_are_as_they_were_before_there_was_one() -> None:
    plain = resolve.resolve("scratch", "atari/krull")
    assert digest(plain.to_json()) == "ef4090814880" and not {"overlap", "correction"} & set(plain.to_json()["recipe"])
    lagging = resolve.resolve("scratch", "atari/krull", recipe={"overlap": "1"})
    assert lagging.to_json()["recipe"]["overlap"] == 1 and digest(lagging.to_json()) != digest(plain.to_json())
    assert registry.read_spec(lagging.to_json()) == lagging and registry.read_spec(plain.to_json()) == plain
