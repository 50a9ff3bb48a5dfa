"""`kfbench status`: what runs, what stopped, what failed and why, of single runs and of studies."""

import json
import os
import platform
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from console import TINY, imported_by, key_of

from kfbench.running import heartbeat, records, status
from kfbench.spec import Recipe, RunSpec, digest

NOW = {"pid": os.getpid(), "node": platform.node(), "device": "cpu"}


def put(results: Path, name: str, told: dict[str, Any]) -> None:
    path = status.place(results) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told))


def test_nothing_runs(type_in: Any) -> None:
    done = type_in("status")
    assert (done.code, done.out, done.err) == (0, "nothing runs now with its results in 'results'\n", "")
    empty = {"running": [], "studies": [], "stopped": [], "stopped_studies": [], "failed": []}
    assert json.loads(type_in("status", "--json").out) == empty


def test_what_runs_stopped_and_failed(type_in: Any, small: tuple[Path, Path]) -> None:
    _, results = small
    label = {"label": "kf on digits, seed 3", "why": ""}
    far = {"step": 1200, "total": 6000, "progress": 0.2, "rate": 1234.5, "left": 95, "score": 43.21, "unit": "%"}
    put(
        results,
        "0123456789ab",
        {"run": "0123456789ab", "state": "running", "updated": time.time(), **label, **NOW, **far},
    )
    ended = {"updated": time.time(), **NOW, **far}
    put(results, "aaaaaaaaaaaa", {"run": "aaaaaaaaaaaa", **label, **ended, "state": "stopped", "why": "at step 7"})
    put(results, "bbbbbbbbbbbb", {"run": "bbbbbbbbbbbb", **label, **ended, "state": "failed", "why": "no room"})
    done = type_in("status", "--results", results)
    lines = done.out.splitlines()
    assert lines[0] == "kf on digits, seed 3  [0123456789ab]"
    where = f"process {os.getpid()} on {platform.node()}, cpu"
    assert lines[1] == f"  20 % · step 1,200 of 6,000 · 1,234/s · val 43.2 % · about 1 min 35 s left · {where}"
    anew = "; there was no checkpoint yet, so it begins anew"
    assert (
        f"  kf on digits, seed 3  [aaaaaaaaaaaa]: at step 7{anew}" in lines
        and "  kf on digits, seed 3: no room" in lines
    )
    [bad] = [record.key for record in records.records(results) if record.status == "failed"]
    told = f"  pathnet on cifar10, seed 2: Diverged: loss is nan at step 40  (kfbench show {bad})"
    assert told in lines
    found = json.loads(type_in("status", "--results", results, "--json").out)
    assert [len(found[name]) for name in ("running", "studies", "stopped", "failed")] == [1, 0, 1, 2]


def test_a_study_shows_its_workers_and_their_logs(type_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)  # else a busy machine needs a second between here and the command
    running = {"label": "kd · cifar10 · seed 1", "log": "results/.cache/logs/x.log", "progress": 0.5, "step": 40, **NOW}
    failed = {
        "label": "kf · cifar10 · seed 0",
        "why": "Diverged",
        "state": "failed",
        "log": "results/.cache/logs/y.log",
    }
    study = {"study": "quick", "driver": NOW, "started": now - 250, "total": 10, "ended": 2, "failed": [failed]}
    study |= {"running": {"x": running}, "updated": now, "over": False}
    put(Path("results"), "quick", study)
    lines = type_in("status").out.splitlines()
    assert lines[0].startswith("study quick: 2 of 10 runs ended · 1 failed · about 12 min 30 s left · driver ")
    assert (
        lines[1].startswith("  kd · cifar10 · seed 1: 50 % · step 40")
        and lines[2] == "    log: results/.cache/logs/x.log"
    )
    assert "  kf · cifar10 · seed 0: Diverged  (log: results/.cache/logs/y.log)" in lines
    put(Path("results"), "quick", {**study, "driver": {**NOW, "node": "elsewhere"}, "updated": 0})
    assert "its driver is gone: start it again, it goes on" in type_in("status").out
    waiting = {"label": "kd · digits", "log": "x.log", "started": now, "progress": 0.0}
    for on, row, word in (("ray", {}, "waits for room"), ("ray", {"node": "a"}, "starting"), ("local", {}, "starting")):
        put(Path("results"), "quick", {**study, "on": on, "running": {"x": {**waiting, **row}}})
        assert f"kd · digits: {word}" in type_in("status").out
    put(Path("results"), "quick", {**study, "running": {"x": {**waiting, "others": True}}})
    told = type_in("status").out
    assert "kd · digits: another study makes it" in told and "x.log" not in told
    put(Path("results"), "quick", {**study, "over": True})
    assert "stopped; the same command goes on:\n  study quick: 2 of 10 runs ended" in type_in("status").out
    put(Path("results"), "quick", {**study, "over": True, "ended": 10})
    assert "study" not in type_in("status").out.partition("failed:")[0]


def test_a_studys_failed_run_is_told_once_and_no_more_once_it_is_made_good(
    type_in: Any, small: tuple[Path, Path]
) -> None:
    _, results = small
    [bad] = [record for record in records.records(results) if record.status == "failed"]
    row = {"name": digest(bad.spec), "label": "pathnet · seed 2", "why": "Diverged", "state": "failed", "log": "y.log"}
    study = {"study": "small", "driver": NOW, "started": 0, "total": 1, "ended": 1, "failed": [row], "running": {}}
    put(results, "small", {**study, "updated": time.time(), "over": True})
    found = json.loads(type_in("status", "--results", results, "--json").out)["failed"]
    assert [each["run"] for each in found] == [bad.key]
    records.write(results, bad.model_copy(update={"status": "done", "error": None}))
    assert json.loads(type_in("status", "--results", results, "--json").out)["failed"] == []
    put(results, "small", {**study, "failed": [{**row, "name": "another"}], "updated": time.time(), "over": True})
    assert "  pathnet · seed 2: Diverged  (log: y.log)" in type_in("status", "--results", results).out


def test_a_run_is_seen_from_another_terminal_while_it_trains(type_in: Any) -> None:
    words = ["run", "--method", "scratch", "--task", "digits", *TINY, "--epochs", "40", "--batch-size", "32"]
    seen: list[dict[str, Any]] = []

    def look() -> None:
        while not over.is_set():
            seen.extend(status.read(Path("results")))
            time.sleep(0.01)

    over = threading.Event()
    watching = threading.Thread(target=look)
    watching.start()
    assert type_in(*words).code == 0
    over.set()
    watching.join()
    assert (
        seen
        and {row["state"] for row in seen} == {"running"}
        and {row["run"] for row in seen} == {key_of(Path("results"))}
    )
    assert "nothing runs now" in type_in("status").out


def test_status_needs_no_torch() -> None:
    done, imported = imported_by("status")
    assert done.code == 0 and not imported, done


def test_a_status_file_that_cannot_be_written_ends_no_run(tmp_path: Path) -> None:
    (tmp_path / ".cache").write_text("a file, not a folder")
    spec = RunSpec(method="scratch", task="digits", teachers=(), recipe=Recipe())
    with heartbeat.heartbeat("0123456789ab", spec, results=tmp_path, device="cpu", then=heartbeat.Watcher()) as watcher:
        assert isinstance(watcher, heartbeat.Heartbeat)
        watcher.write()
