"""Threads of one process share torch's random state and settings: each run is as it is alone."""

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import playing
import pytest
import torch
import tuning

from kfbench import library, seeding
from kfbench.running import records
from kfbench.spec import RunSpec
from kfbench.train.actor_critic import ActorCritic
from kfbench.train.loop import Loop, Watcher
from kfbench.train.supervised import Supervised

TINY: dict[str, Any] = {"budget": "smoke", "network": "mlp-8-dropout", "train_size": 60, "progress": False}


def test_runs_in_threads_are_made_one_after_another_and_are_as_each_alone(
    packed_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KFBENCH_DATA", str(packed_digits))
    meeting, seeds = threading.Barrier(2), (6, 7)

    def meet(watcher: Watcher, key: str, spec: RunSpec) -> None:
        """Wait a moment for the other run, should it be let as far as this."""
        with contextlib.suppress(threading.BrokenBarrierError):
            meeting.wait(timeout=1)

    def make(seed: int, folder: str) -> None:
        library.run("scratch", "digits", seed=seed, results=tmp_path / folder, **TINY)

    monkeypatch.setattr(Watcher, "begin", meet)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda seed: make(seed, "at once"), seeds))
    assert meeting.broken
    for seed in seeds:
        make(seed, "alone")
    made, alone = ({each.key: each for each in records.records(tmp_path / name)} for name in ("at once", "alone"))
    assert made.keys() == alone.keys() and len(made) == 2
    for key, record in made.items():
        assert record.scores == alone[key].scores
        assert [row["loss"] for row in record.curve] == [row["loss"] for row in alone[key].curve]


def test_what_sets_the_random_state_waits_for_what_draws_from_it() -> None:
    drawn = []

    def draw(number: int) -> None:
        with seeding.global_stream(number):
            drawn.append(float(torch.rand(())))

    before = torch.get_rng_state()
    with seeding.global_stream(0):
        other = threading.Thread(target=draw, args=(1,))
        other.start()
        other.join(0.2)
        assert other.is_alive() and not drawn
        own = float(torch.rand(()))
    other.join()
    assert torch.equal(torch.get_rng_state(), before)
    draw(0)
    draw(1)
    assert drawn == [drawn[0], own, drawn[0]]


@pytest.mark.parametrize(
    "make",
    [lambda: Supervised(tuning.setup("scratch")), lambda: ActorCritic(playing.make_setup(), threads=1)],
    ids=["images", "a game"],
)
def test_a_step_holds_the_random_state_that_it_has_set(
    make: Callable[[], Loop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a network that another thread loads meanwhile would set it back, and dropout would draw something else."""
    held, backward = [], torch.Tensor.backward

    def is_held() -> bool:
        is_free = seeding.STATE.acquire(blocking=False)
        if is_free:
            seeding.STATE.release()
        return not is_free

    def looked(loss: torch.Tensor) -> None:
        with ThreadPoolExecutor(1) as pool:
            held.append(pool.submit(is_held).result())
        backward(loss)

    monkeypatch.setattr(torch.Tensor, "backward", looked)
    next(iter(make()))
    assert held and all(held) and not is_held()
