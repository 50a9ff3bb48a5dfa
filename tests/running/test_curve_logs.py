"""Curves in TensorBoard, Weights & Biases and Trackio: what is read back there is the record's curve."""

import importlib.util
import json
import math
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kfbench.cli import complete
from kfbench.errors import KfbenchError
from kfbench.running import curve_logs, execute, resolve
from kfbench.running.records import RunRecord
from kfbench.train.loop import Watcher

pytestmark = pytest.mark.filterwarnings("default")  # of those packages, which are not ours to mend


@pytest.fixture
def in_digits(packed_digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFBENCH_DATA", str(packed_digits))


def trained(kind: str, results: Path, watcher: Watcher | None = None, **more: Any) -> RunRecord:
    recipe = {"network": "cnn-4", "epochs": 2, "batch_size": 256}
    spec = resolve.resolve("scratch", "digits", budget="smoke", recipe=recipe)
    watching = curve_logs.logging([kind], results=results, then=watcher or Watcher())
    return execute.run(spec, results=results, watcher=watching, **more)


def needs(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


def test_event_files_hold_the_curve(in_digits: None, tmp_path: Path) -> None:
    needs("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    record = trained("tensorboard", tmp_path)
    [folder] = (tmp_path / ".cache" / "tensorboard").iterdir()
    assert folder.name == f"scratch-digits-s0-{record.key}"
    events = EventAccumulator(str(folder))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {name for row in record.curve for name in row} - {"step"}
    for name in ("loss", "val_error", "lr"):
        written = [(event.step, event.value) for event in events.Scalars(name)]
        told = [(int(row["step"]), row[name]) for row in record.curve if name in row]
        assert [step for step, _ in written] == [step for step, _ in told]
        assert all(math.isclose(a, b, rel_tol=1e-5) for (_, a), (_, b) in zip(written, told, strict=True))


class Stops(Watcher):
    """Interrupts the run at a step."""

    def step(self, loop: Any, row: Any) -> None:
        if loop.position == 7:
            raise KeyboardInterrupt


def test_a_run_that_goes_on_has_each_row_once(in_digits: None, tmp_path: Path) -> None:
    needs("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with pytest.raises(KeyboardInterrupt):
        trained("tensorboard", tmp_path, Stops(), checkpoint_seconds=0)
    record = trained("tensorboard", tmp_path, checkpoint_seconds=0)
    events = EventAccumulator(str(tmp_path / ".cache" / "tensorboard" / f"scratch-digits-s0-{record.key}"))
    events.Reload()
    assert [event.step for event in events.Scalars("val_error")] == [int(row["step"]) for row in record.curve]


def entries(content: bytes) -> Iterator[bytes]:
    """Yield the entries of a LevelDB log, which W&B's files are after 7 bytes of their own."""
    parts, at = b"", 7
    while at + 7 <= len(content):
        left = 2**15 - at % 2**15
        if left < 7:  # no entry begins in the last 6 bytes of a block
            at += left
            continue
        length, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or its last part
            yield parts
            parts = b""


def test_wandb_offline_holds_the_curve(in_digits: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("wandb")
    from wandb.proto import wandb_internal_pb2

    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_DATA_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    record = trained("wandb", tmp_path)
    [path] = tmp_path.rglob("*.wandb")
    rows = []
    for content in entries(path.read_bytes()):
        entry = wandb_internal_pb2.Record()
        entry.ParseFromString(content)
        if entry.WhichOneof("record_type") == "history":
            rows.append({(item.key or "/".join(item.nested_key)): item.value_json for item in entry.history.item})
    assert [int(row["_step"]) for row in rows] == [int(row["step"]) for row in record.curve]
    assert [float(row["val_error"]) for row in rows] == [row["val_error"] for row in record.curve]


def test_trackio_holds_the_curve(
    in_digits: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needs("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    with pytest.raises(KeyboardInterrupt):
        trained("trackio", tmp_path, Stops(), checkpoint_seconds=0)
    record = trained("trackio", tmp_path)
    with sqlite3.connect(tmp_path / "trackio" / "kfbench.db") as database:
        rows = database.execute("select run_name, step, metrics from metrics order by step").fetchall()
    database.close()
    assert {name for name, _, _ in rows} == {f"scratch-digits-s0-{record.key}"}
    assert [step for _, step, _ in rows] == [int(row["step"]) for row in record.curve]
    assert [json.loads(told)["val_error"] for _, _, told in rows] == [row["val_error"] for row in record.curve]
    assert capsys.readouterr().out == ""


def test_an_unknown_log_and_a_missing_package_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert complete.LOGS.keys() == curve_logs.KINDS.keys()  # what the command line knows without torch
    with pytest.raises(KfbenchError, match="no log 'tensorbord'; did you mean 'tensorboard'"):
        curve_logs.logging(["tensorbord"], results=tmp_path, then=Watcher())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        KfbenchError, match=r"--log wandb needs the package 'wandb'; type: pip install 'kfbench\[wandb\]'"
    ):
        curve_logs.logging(["wandb"], results=tmp_path, then=Watcher())


def test_without_a_log_nothing_is_wrapped(tmp_path: Path) -> None:
    watcher = Watcher()
    assert curve_logs.logging([], results=tmp_path, then=watcher) is watcher


class Broken(curve_logs.CurveLog):
    """A log whose service fails at the third row, or at once."""

    rows, works = 0, 2

    def open(self) -> None:
        if not self.works:
            raise OSError("no such service")

    def write(self, row: Any) -> None:
        self.rows += 1
        if self.rows > self.works:
            raise OSError("the service is gone")

    def close(self) -> None:
        raise AssertionError("it was closed after it had failed")


def test_a_log_that_fails_ends_no_run(in_digits: None, tmp_path: Path) -> None:
    said: list[str] = []

    class Says(Watcher):
        def say(self, line: str) -> None:
            said.append(line)

    recipe = {"network": "cnn-4", "epochs": 2, "batch_size": 256, "evaluations": 4}
    spec = resolve.resolve("scratch", "digits", budget="smoke", recipe=recipe)
    log = Broken(tmp_path, Says())
    assert execute.run(spec, results=tmp_path, watcher=log).status == "done" and log.rows == 3
    assert said == ["the log ends here, the run goes on: OSError: the service is gone"]
    log = Broken(tmp_path, Says())
    log.works = 0
    with pytest.raises(KfbenchError, match="no log can be begun: OSError: no such service"):
        execute.run(spec, results=tmp_path, watcher=log, force=True)
