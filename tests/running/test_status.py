"""Status files: written while a run trains, gone when it is done, and telling why when it is not."""

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kfbench.errors import Diverged, KfbenchError
from kfbench.running import heartbeat, status
from kfbench.running.execute import Interrupted
from kfbench.spec import Recipe, RunSpec
from kfbench.train.loop import Loop, Row, Watcher

SPEC = RunSpec(method="scratch", task="digits", teachers=(), recipe=Recipe())


class Heard(Watcher):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def say(self, line: str) -> None:
        self.words.append(line)

    def begin(self, key: str, spec: RunSpec) -> None:
        self.words.append(f"begin {key}")

    def start(self, spec: RunSpec, loop: Loop) -> None:
        self.words.append("start")

    def step(self, loop: Loop, row: Row | None) -> None:
        self.words.append(f"step {loop.position}")

    def stop(self) -> None:
        self.words.append("stop")


class Stepping:
    """A loop as watchers see it."""

    position, total, curve = 0, 10, []  # type: ignore[var-annotated]

    def status(self) -> Row:
        return {"rate": 100.0, "loss": float("nan")}


def file_of(results: Path) -> Path:
    [path] = status.place(results).glob("*.json")
    return path


def test_a_run_tells_how_far_it_is_and_passes_on_all_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "EVERY", 0.0)
    heard, loop = Heard(), Stepping()
    with heartbeat.heartbeat("0123456789ab", SPEC, results=tmp_path, device="cpu", then=heard) as watcher:
        watcher.say("news")
        watcher.start(SPEC, loop)  # type: ignore[arg-type]
        for loop.position in range(1, 6):
            time.sleep(0.01)
            watcher.step(loop, {"val_error": 40.0} if loop.position == 3 else None)  # type: ignore[arg-type]
        [told] = status.read(tmp_path)
        watcher.stop()
    assert (told["run"], told["state"], told["label"]) == ("0123456789ab", "running", "scratch on digits, seed 0")
    assert (told["step"], told["total"], told["progress"], told["score"]) == (5, 10, 0.5, 40.0)
    assert (told["pid"], told["node"], told["device"], told["rate"]) == (os.getpid(), platform.node(), "cpu", 100.0)
    assert 0.04 < told["left"] < 5 and told["updated"] >= told["started"]
    assert heard.words == ["news", "start", *(f"step {n}" for n in range(1, 6)), "stop"]
    assert status.read(tmp_path) == []  # it is done: nothing is left


def test_a_stop_tells_where_it_was_and_whether_there_is_a_checkpoint(tmp_path: Path) -> None:
    loop = Stepping()
    with pytest.raises(Interrupted), heartbeat.heartbeat(
        "0123456789ab", SPEC, results=tmp_path, device="cpu", then=Watcher()
    ) as watcher:  # fmt: skip
        watcher.start(SPEC, loop)  # type: ignore[arg-type]
        loop.position = 7  # too soon after the last writing
        watcher.step(loop, None)  # type: ignore[arg-type]
        watcher.stop()
        raise Interrupted("stopped at step 7")
    [told] = status.read(tmp_path)
    assert (told["state"], told["step"], told["progress"], told["checkpoint"]) == ("stopped", 7, 0.7, False)
    (tmp_path / ".checkpoints").mkdir()
    (tmp_path / ".checkpoints" / "0123456789ab.ckpt").touch()
    assert status.read(tmp_path)[0]["checkpoint"]


def test_a_file_is_written_seldom(tmp_path: Path) -> None:
    loop = Stepping()
    with heartbeat.heartbeat("0123456789ab", SPEC, results=tmp_path, device="cpu", then=Watcher()) as watcher:
        watcher.start(SPEC, loop)  # type: ignore[arg-type]
        first = file_of(tmp_path).read_text()
        for loop.position in range(1, 9):
            watcher.step(loop, None)  # type: ignore[arg-type]
        assert file_of(tmp_path).read_text() == first


@pytest.mark.parametrize(
    ("error", "state", "why"),
    [
        (Interrupted("stopped at step 5"), "stopped", "stopped at step 5"),
        (KeyboardInterrupt(), "stopped", "KeyboardInterrupt:"),
        (Diverged("task", 5), "failed", "loss part 'task' was not finite at step 5"),
        (KfbenchError("no room"), "failed", "no room"),
        (RuntimeError("cuda\nout of memory"), "failed", "RuntimeError: cuda"),
    ],
)
def test_a_bad_end_says_why(error: BaseException, state: str, why: str, tmp_path: Path) -> None:
    with (
        pytest.raises(type(error)),
        heartbeat.heartbeat("0123456789ab", SPEC, results=tmp_path, device="cpu", then=Watcher()),
    ):
        raise error
    [told] = status.read(tmp_path)
    assert told["state"] == state and told["why"].startswith(why)


def test_a_run_whose_process_is_gone_is_lost(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    told: dict[str, Any] = {"run": "0123456789ab", "state": "running", "pid": gone.pid, "node": platform.node()}
    path = status.place(tmp_path) / "0123456789ab.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({**told, "updated": time.time()}))
    [row] = status.read(tmp_path)
    assert row["state"] == "lost" and str(gone.pid) in row["why"]
    for node, age, state in (("elsewhere", 10, "running"), ("elsewhere", 1000, "lost")):
        path.write_text(json.dumps({**told, "node": node, "updated": time.time() - age}))
        assert status.read(tmp_path)[0]["state"] == state


def test_damaged_files_are_no_matter(tmp_path: Path) -> None:
    place = status.place(tmp_path)
    place.mkdir(parents=True)
    for number, content in enumerate(["", "{", "[]", "{}", '{"run": 1}', '{"study": "x", "driver": 3}']):
        (place / f"{number}.json").write_text(content)
    assert status.read(tmp_path) == []


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "1 s"), (40.2, "40 s"), (200, "3 min 20 s"), (7800, "2 h 10 min"), (3600, "1 h"), (3605, "1 h")],
)
def test_durations_as_people_say_them(seconds: float, said: str) -> None:
    assert status.spoken(seconds) == said
