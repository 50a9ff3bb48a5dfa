"""What a game's update is made of, against the formulas: returns, objective, optimiser, and the first bad step."""

import math

import numpy as np
import pytest
import torch
from playing import rollout, rows
from torch import Tensor, nn

from kfbench.errors import Diverged
from kfbench.networks.network import Output
from kfbench.spec import GameRecipe
from kfbench.train.meter import Meter
from kfbench.train.objective import Objective
from kfbench.train.returns import generalised_advantages
from kfbench.train.rmsprop import RMSProp


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
