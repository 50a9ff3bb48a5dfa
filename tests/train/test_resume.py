"""A run of a game that was stopped or killed goes on to the bits of one that was not."""

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from playing import copied, equal, make_setup, trained

from kfbench.errors import KfbenchError
from kfbench.train.actor_critic import ActorCritic


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
