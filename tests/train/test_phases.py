"""How long a run takes: stages, and what lies before and after the cut, are weighed by their shares of the budget."""

import time
from pathlib import Path

import pytest

from kfbench import registry
from kfbench.data import images
from kfbench.running import announce, estimate, resolve
from kfbench.spec import Recipe
from kfbench.train.actor_critic import ActorCritic
from kfbench.train.loop import phases
from kfbench.train.supervised import Supervised, steps

LOW = ["digits/low/mlp-30"]


def test_phases_are_stages_and_what_lies_beside_a_cut() -> None:
    made = registry.load_method
    assert phases(made("scratch"), 7) == [(0, 7)]
    assert phases(made("lp_ft", {"probe": 0.25}), 1000) == [(0, 250), (250, 1000)]
    assert phases(made("kf", {"cut": 0.15, "dep_end": 0.1}), 200_000) == [(0, 30_000), (30_000, 200_000)]
    assert phases(made("lp_ft", {"probe": 0.25}), 1) == [(0, 1)]  # too short for both


@pytest.mark.parametrize(
    ("method", "settings", "dear"), [("lp_ft", {"probe": 0.25}, 0.75), ("kf", {"cut": 0.25, "dep_end": 0.2}, 0.75)]
)
def test_every_phase_counts_by_its_share(
    method: str, settings: dict[str, float], dear: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock on which a step of the first quarter takes a second, and one after it three."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(Supervised, "_step", lambda loop: now.append(now.pop() + (1 if loop.position < 250 else 3)))
    monkeypatch.setattr(Supervised, "status", lambda loop: {})
    recipe = {"epochs": 40, "evaluations": 1, "network": "mlp-30"}
    spec = resolve.resolve(method, "digits/high", budget="smoke", teachers=LOW, recipe=recipe, settings=settings)
    rows, held = images.counts(registry.load_task("digits/high"))
    told = Recipe.of(spec)
    looks = held / min(told.batch_size, rows) / 3
    assert estimate.seconds(spec, tried=2) == pytest.approx((steps(told, rows) + looks) * (1 - dear + 3 * dear))


def test_rollouts_count_by_their_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def advance(loop: ActorCritic) -> None:
        now.append(now.pop() + (3 if loop.position < loop.total / 4 else 1))
        loop.position += 1

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(ActorCritic, "advance", advance)
    settings, teachers = {"cut": 0.25, "dep_end": 0.2}, ["random:atari/pong"]
    spec = resolve.resolve("kf", "atari/pong", budget="smoke", teachers=teachers, settings=settings)
    total = ActorCritic(estimate.stand_in.setup(spec)).total
    assert estimate.seconds(spec) == pytest.approx(1.5 * total, rel=0.05)


def test_a_rate_that_diverges_has_an_estimate() -> None:
    spec = resolve.resolve(
        "lp_ft", "digits/high", budget="smoke", teachers=LOW, recipe={"lr": 1e30, "network": "mlp-30"}
    )
    assert estimate.seconds(spec, tried=2) > 0


def test_no_more_is_measured_than_a_run_has_and_a_slow_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of one step: one more of it would take as long again, without a word."""
    steps_taken, said = list[int](), list[str]()

    def slow(loop: Supervised) -> None:
        time.sleep(0.2)
        steps_taken.append(loop.position)

    monkeypatch.setattr(Supervised, "_step", slow)
    monkeypatch.setattr(Supervised, "status", lambda loop: {})
    monkeypatch.setattr(announce, "PATIENCE", 0.1)
    recipe = {"epochs": 1, "evaluations": 1, "batch_size": 64, "train_size": 64, "network": "mlp-30"}
    spec = resolve.resolve("scratch", "digits", budget="smoke", recipe=recipe)
    announce.announce(spec, results=Path("nowhere"), device="cpu", say=said.append, force=True)
    assert len(steps_taken) == 1
    assert said[0].startswith("measuring a few steps") and said[1].startswith("scratch on digits, mlp-30")
