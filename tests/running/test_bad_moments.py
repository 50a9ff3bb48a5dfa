"""What other processes, failures and signals at a bad moment leave of a run: one record, and never a worse one."""

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from short_runs import Told, outcome, spec_of

from kfbench.errors import NoMemory
from kfbench.networks import weights
from kfbench.running import execute, prepare, records, status

pytestmark = pytest.mark.usefixtures("quiet_machine")


@pytest.mark.parametrize("is_teacher", [False, True])
def test_of_two_processes_one_makes_a_run_and_the_other_takes_it(tmp_path: Path, is_teacher: bool) -> None:
    spec = spec_of()
    plan, place = prepare.plan(spec, results=tmp_path), tmp_path / "teachers" if is_teacher else tmp_path
    lock = FileLock(place / ".cache" / "locks" / f"{plan.key}.lock")
    Path(lock.lock_file).parent.mkdir(parents=True)
    make = execute.teacher if is_teacher else execute.run
    done = make(spec, results=tmp_path / "there")

    class Other(Told):
        def say(self, line: str) -> None:  # it ends while we wait, and leaves its record
            super().say(line)
            if lock.is_locked:
                source = tmp_path / "there" / ("teachers" if is_teacher else "")
                shutil.copytree(source / "digits", place / "digits")
                lock.release()

    lock.acquire()
    told = Other()
    again = make(spec, results=tmp_path, watcher=told)
    assert again == done and told.position == 0
    assert told.lines[0] == f"another process makes scratch on digits [{plan.key}]; this one waits for it"


def test_a_failure_takes_no_finished_record(tmp_path: Path) -> None:
    def fill() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    record = execute.run(spec_of(), results=tmp_path)
    with pytest.raises(NoMemory):
        execute.run(spec_of(), results=tmp_path, force=True, watcher=Told(12, fill))
    assert list(records.records(tmp_path)) == [record]
    [told] = status.read(tmp_path)
    assert told["state"] == "failed"


def test_a_record_is_done_once_its_weights_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> str:
        raise MemoryError("no room to copy")

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(weights, "save", full)
        execute.run(spec_of(), results=tmp_path, checkpoint_seconds=0)
    [record] = records.records(tmp_path)
    assert record.status == "failed" and record.error == "MemoryError: no room to copy"
    told = Told()
    assert execute.run(spec_of(), results=tmp_path, watcher=told).provenance["weights"]
    assert told.lines == ["goes on from step 30 of 30"]


def test_a_signal_in_the_last_step_leaves_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(execute.Interrupted, match="stopped at step 30 of 30; the same command goes on from there"):
        execute.run(spec_of(), results=tmp_path, watcher=Told(30, lambda: signal.raise_signal(signal.SIGTERM)))
    told = Told()
    record = execute.run(spec_of(), results=tmp_path, watcher=told)
    assert told.lines == ["goes on from step 30 of 30"]
    assert outcome(record) == outcome(execute.run(spec_of(), results=tmp_path / "whole"))


def test_teachers_are_checkpointed_as_often_as_their_pupil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told, train = [], execute._train
    monkeypatch.setattr(execute, "_train", lambda *args: (told.append(args[3].checkpoint_seconds), train(*args))[1])
    execute.run(spec_of("kd", teachers=["digits/cnn-4@smoke:epochs=1"]), results=tmp_path, checkpoint_seconds=7)
    assert told == [7, 7]
