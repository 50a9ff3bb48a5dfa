"""What `kfbench bench` times: methods of images over their floors, contenders in games by CPU and clock."""

from importlib import import_module

import pytest
import torch

from kfbench.bench import after_cut, games, images, turns
from kfbench.errors import KfbenchError


def test_all_methods_are_timed() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = images.measure(
        images.methods(), task="digits", network="cnn-4", teacher="cnn-8", batch_size=16, precision="fp32", repeats=2
    )
    torch.set_num_threads(threads)
    found = {row["method"]: row for row in rows}
    assert list(found) == images.methods()
    assert all(row["step_ms"] > 0 and row["floor_ms"] > 0 for row in rows)
    assert found["ca_mkd"]["floor_ms"] > found["scratch"]["floor_ms"]  # two teachers are asked
    assert "of_full" in found[images.REMEMBERED]
    assert all(name in images.text(rows) for name in found)


def test_a_variant_is_timed_under_its_name() -> None:
    few = {"task": "digits", "network": "cnn-4", "teacher": "cnn-8", "batch_size": 16, "repeats": 2}
    [row] = images.measure(["kf/guided"], **few)  # type: ignore[arg-type]
    assert row["method"] == "kf/guided" and "second time" in row["above_floor"]


def test_the_device_may_be_left_to_the_machine() -> None:
    few = {"task": "digits", "network": "cnn-4", "teacher": "cnn-8", "batch_size": 16, "repeats": 2}
    [row] = images.measure(["scratch"], **few, device="auto")  # type: ignore[arg-type]
    assert row["step_ms"] > 0


def test_a_dear_step_has_its_reason_or_is_told_to_have_none() -> None:
    row = {"step_ms": 2.0, "floor_ms": 1.0, "ratio_quartiles": [1.9, 2.1], "images_per_second": 1.0, "repeats": 3}
    said = images.text(
        [
            {**row, "method": "kd", "ratio": 1.0, "above_floor": ""},
            {**row, "method": "semckd", "ratio": 3.3, "above_floor": "convolutions"},
            {**row, "method": "mine", "ratio": 1.3, "above_floor": ""},
        ]
    )
    assert "semckd, 3.30 of its floor: convolutions" in said and "mine, 1.30 of its floor: no reason" in said
    assert "kd, 1.00 of" not in said


def test_every_contender_in_games_takes_its_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "TURN", 1)
    taken = [
        turns.loop("scratch", "atari/pong", "bf16", "cpu", 1),
        turns.loop("scratch", "atari/pong", "fp32", "cpu", 1, overlap=1),
        turns.loop("kf", "atari/pong", "bf16", "cpu", 1),
        turns.loop("kf after the cut", "atari/pong", "fp32", "cpu", 1),
        turns.bare("pong", 1),
        turns.emulators("pong", 1),
        turns.floor(turns.Passes((16,) * 6, ((16,) * 5, (16, 1)), ((), (80,))), "atari/pong", "bf16", "cpu", 1),
    ]
    for turn in taken:
        turn()
        turn()


def test_a_floor_in_games_is_of_the_passes_that_a_method_asks_for() -> None:
    """16 environments, 5 steps, and the values of what is seen last; `mikt` learns what it shows its teachers."""
    every, all_but_last = (16,) * 6, (16,) * 5
    wanted = {
        "finetune": turns.Passes(every, (), ()),
        **dict.fromkeys(after_cut(["finetune", "kf", "mikt", "cat"]), turns.Passes(every, (), ())),
        "kf": turns.Passes(every, (all_but_last,) * 2, ((),) * 2),
        "mikt": turns.Passes(every, (every,) * 2, ((80,),) * 2),
        "policy_distillation": turns.Passes((), (all_but_last,), ((),)),
    }
    assert {name: turns.passes(name, "atari/pong") for name in wanted} == wanted


def test_a_contender_that_cannot_run_is_left_out_with_a_line() -> None:
    said: list[str] = []
    makers = {"scratch": (turns.emulators, "pong", 1), "theirs": (import_module, "no_such_suite")}
    times = games._rounds(makers, 2, said.append)
    assert list(times) == ["scratch"] and len(times["scratch"]) == 2
    assert said == ["left out: theirs cannot run here: ModuleNotFoundError: No module named 'no_such_suite'"]
    with pytest.raises(KfbenchError, match="'scratch' cannot be timed: ModuleNotFoundError"):
        games._rounds({"scratch": (import_module, "no_such_suite")}, 2, said.append)


def test_ratios_in_games_are_taken_within_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up times: scratch 1 s of CPU a turn and 2 s of the clock, the others half, in rounds of unequal speed."""

    def rounds(makers: dict[str, object], repeats: int, say: object) -> dict[str, list[tuple[float, float]]]:
        slow = [1.0 + n for n in range(repeats)]
        return {name: [(s, 2 * s) if name == "scratch" else (s / 2, s / 2) for s in slow] for name in makers}

    monkeypatch.setattr(games, "_rounds", rounds)
    found = {row["name"]: row for row in games.measure("atari/pong", methods=["kf"], repeats=5)}
    assert {"scratch", "kf", "kf after the cut", "scratch, overlap", "scratch, bf16", "bare loop"} <= set(found)
    assert found["kf"]["speed"] == 2 and found["kf"]["speed_by_clock"] == 4
    floors = {name: row["over_floor"] for name, row in found.items() if row["over_floor"]}
    assert floors == {"scratch": 2, "kf": 1, "kf after the cut": 1}
    assert {"floor of scratch", "floor of kf"} <= set(found)
    assert found["scratch"]["steps_per_cpu_second"] == turns.TURN * 80 / 3
    assert "by the clock" in games.text(list(found.values()))
