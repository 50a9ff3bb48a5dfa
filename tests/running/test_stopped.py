"""A run that is stopped anywhere goes on to the same bits; a disk or a GPU without room is one line."""

import io
import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from short_runs import TEACHERS, Told, checkpoint, outcome, spec_of

from kfbench import train
from kfbench.errors import KfbenchError
from kfbench.folders import PACKAGE
from kfbench.running import execute
from kfbench.running.execute import Interrupted
from kfbench.train.loop import Loop

pytestmark = pytest.mark.usefixtures("quiet_machine")

# --- stopped and resumed -------------------------------------------------------------------------------------------

KILLED = """
import json, os, signal, sys
from pathlib import Path
import torch
from kfbench import registry
from kfbench.running import execute
from kfbench.train.loop import Watcher

class Killed(Watcher):
    def step(self, loop, row):
        if loop.position == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)

torch.set_num_threads(1)
spec = registry.read_spec(json.loads(sys.argv[3]))
execute.run(spec, results=Path(sys.argv[1]), checkpoint_seconds=0, watcher=Killed())
"""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "OMP_NUM_THREADS": "1"}


def test_killed_in_mid_epoch_before_at_and_after_the_cut_a_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    settings = {"cut": 0.5, "dep_start": 0.1, "dep_end": 0.4}
    spec = spec_of("kf", teachers=TEACHERS, settings=settings)
    whole = execute.run(spec, results=tmp_path / "whole")
    assert whole.cost["steps"] == 30 and whole.curve[0]["share/student"] != whole.curve[1]["share/student"]
    stops = {"before": 8, "at": 15, "after": 24}  # steps; an epoch has 10, the cut is at 15
    processes = {}
    for name, stop in stops.items():
        words = [str(tmp_path / name), str(stop), json.dumps(spec.to_json())]
        processes[name] = subprocess.Popen([sys.executable, "-c", KILLED, *words], env=environment())
    for name, process in processes.items():
        assert process.wait() == -signal.SIGKILL
        told = Told()
        resumed = execute.run(spec, results=tmp_path / name, watcher=told)
        assert f"goes on from step {stops[name] - 1} of 30" in told.lines  # the last whole checkpoint
        assert outcome(resumed) == outcome(whole)
        assert not list((tmp_path / name / ".checkpoints").iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint_from_which_the_same_command_goes_on(number: int, tmp_path: Path) -> None:
    spec = spec_of("finetune", teachers=["random:digits/low/cnn-4"])
    whole, before = execute.run(spec, results=tmp_path / "whole"), signal.getsignal(number)
    with pytest.raises(Interrupted, match="stopped at step 13 of 30; the same command goes on") as stopped:
        execute.run(spec, results=tmp_path, watcher=Told(13, lambda: signal.raise_signal(number)))
    assert stopped.value.exit_code == 130 and checkpoint(tmp_path).is_file()
    assert signal.getsignal(number) is before  # the handlers are gone again
    told = Told()
    assert outcome(execute.run(spec, results=tmp_path, watcher=told)) == outcome(whole)
    assert told.lines == ["goes on from step 13 of 30"]


def test_a_second_signal_is_obeyed_at_once(tmp_path: Path) -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        execute.run(spec_of(), results=tmp_path, watcher=Told(5, twice))


def test_the_command_line_stops_at_a_signal_with_130_and_no_traceback(tmp_path: Path) -> None:
    words = "--method scratch --task digits --budget smoke --network cnn-4 --epochs 400 --set-recipe evaluations=400"
    code = "from kfbench.cli.main import main; main()"
    command = [sys.executable, "-c", code, "run", *words.split(), "--threads", "1", "--results", str(tmp_path)]
    for number in (signal.SIGINT, signal.SIGTERM):
        with subprocess.Popen(command, env=environment(), cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            said = []
            for line in process.stderr:
                said.append(line)
                if line.startswith("  step "):
                    process.send_signal(number)
                    break
            said += process.stderr.readlines()
            assert process.wait() == 130, said
        assert said[-1].startswith("error: stopped at step ") and not any("Traceback" in line for line in said)
    assert any(line.startswith("goes on from step") for line in said)


@pytest.mark.parametrize("content", ["truncated", "pickle", "other run", "not a checkpoint"])
def test_a_bad_checkpoint_is_refused_in_a_line_and_kept(content: str, tmp_path: Path) -> None:
    spec = spec_of()
    with pytest.raises(Interrupted):
        execute.run(spec, results=tmp_path, watcher=Told(5, lambda: signal.raise_signal(signal.SIGINT)))
    path = checkpoint(tmp_path)
    if content == "truncated":
        path.write_bytes(path.read_bytes()[:-500])
    elif content == "pickle":
        path.write_bytes(pickle.dumps(Evil(tmp_path / "executed")))
    elif content == "other run":
        torch.save({"threads": 1, "stage": 0, "student": {}, "optimizer": {}}, path)
    else:
        torch.save([1, 2, 3], path)
    before = path.read_bytes()
    with pytest.raises(KfbenchError, match="or start anew with kfbench run --force") as raised:
        execute.run(spec, results=tmp_path)
    assert "\n" not in str(raised.value) and str(path) in str(raised.value)
    assert path.read_bytes() == before and not (tmp_path / "executed").exists()
    assert not list(tmp_path.glob("digits/scratch/*"))
    assert execute.run(spec, results=tmp_path, force=True).status == "done"


def test_a_forced_rerun_that_is_stopped_goes_on_by_the_same_command(tmp_path: Path) -> None:
    spec = spec_of()
    stop = Told(5, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Interrupted):
        execute.run(spec, results=tmp_path, watcher=stop)
    first = Told()
    execute.run(spec, results=tmp_path, force=True, watcher=first)
    assert not any("goes on" in line for line in first.lines)  # that checkpoint was not of a rerun
    with pytest.raises(Interrupted, match="the same command goes on from there"):
        execute.run(spec, results=tmp_path, force=True, watcher=stop)
    path = checkpoint(tmp_path)
    kept = path.read_bytes()
    second = Told()
    execute.run(spec, results=tmp_path, force=True, watcher=second)
    assert any("goes on from step 5 of" in line for line in second.lines)

    state = torch.load(io.BytesIO(kept), weights_only=True)
    torch.save({**state, "student": {}}, path)
    with pytest.raises(KfbenchError, match="is not of this run"):
        execute.run(spec, results=tmp_path, force=True)
    assert execute.run(spec, results=tmp_path, force=True).status == "done"


class Evil:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


def test_another_number_of_threads_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        execute.run(spec_of(), results=tmp_path, watcher=Told(5, lambda: signal.raise_signal(signal.SIGINT)))
    torch.set_num_threads(2)
    with pytest.raises(KfbenchError, match="made with --threads 1"):
        execute.run(spec_of(), results=tmp_path)


def test_a_checkpoint_of_a_gpu_that_is_not_here_goes_on(tmp_path: Path) -> None:
    spec = spec_of()
    with pytest.raises(Interrupted):
        execute.run(spec, results=tmp_path, watcher=Told(12, lambda: signal.raise_signal(signal.SIGINT)))
    path = checkpoint(tmp_path)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():  # where a tensor was, as the pickle has it: a length and the name
            there = content.replace(b"\x03\0\0\0cpu", b"\x06\0\0\0cuda:1")
            archive.writestr(name, there if name.endswith("data.pkl") else content)
    assert b"cuda:1" in path.read_bytes()
    told = Told()
    record = execute.run(spec, results=tmp_path, watcher=told)
    assert told.lines == ["goes on from step 12 of 30"]
    assert outcome(record) == outcome(execute.run(spec, results=tmp_path / "whole"))


# --- no room -------------------------------------------------------------------------------------------------------


@contextmanager
def small_files(most: int) -> Iterator[None]:
    """Let no file grow past `most` bytes: to a writer it is a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def refused_before_training(results: Path, said: str) -> None:
    told = Told()
    with pytest.raises(KfbenchError, match=said) as raised:
        execute.run(spec_of(), results=results, watcher=told)
    assert told.position == 0 and "\n" not in str(raised.value)


def test_a_folder_that_cannot_be_written_is_found_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    refused_before_training(tmp_path / "file", "cannot write to .*; give another folder with --results")
    refused_before_training(Path("/proc/kfbench"), "cannot write to '/proc/kfbench'")  # not even root can
    with small_files(1000):
        refused_before_training(tmp_path, "cannot write to")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=40_000))
    refused_before_training(tmp_path, "only 0 MB free for")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_a_disk_that_fills_up_later_is_one_line_and_the_last_checkpoint_stays(tmp_path: Path) -> None:
    spec = spec_of()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    fill = Told(12, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1])))
    try:
        with pytest.raises(KfbenchError, match="cannot write .*; make room, and the same command goes on") as raised:
            execute.run(spec, results=tmp_path, watcher=fill, checkpoint_seconds=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(raised.value)
    told = Told()
    record = execute.run(spec, results=tmp_path, watcher=told)
    assert told.lines == ["goes on from step 11 of 30"]
    assert outcome(record) == outcome(execute.run(spec, results=tmp_path / "whole"))


class Filling:
    """A GPU's memory runs out when it is written, or restored."""

    def __reduce__(self) -> tuple[Any, ...]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    def restore(self, state: dict[str, Any]) -> None:
        self.__reduce__()


def test_what_goes_wrong_on_a_gpu_is_no_fault_of_the_disk_or_the_checkpoint(tmp_path: Path) -> None:
    """Else room is asked for on the disk, or a sound checkpoint is to be deleted."""
    path = tmp_path / "run.ckpt"
    train.checkpoint.write(path, {"position": 1})
    with pytest.raises(torch.OutOfMemoryError):
        train.checkpoint.restore(cast(Loop, Filling()), path)
    with pytest.raises(torch.OutOfMemoryError):
        train.checkpoint.write(path, {"student": Filling()})
    assert train.checkpoint.read(path) == {"position": 1} and list(tmp_path.iterdir()) == [path]


def test_a_gpu_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    for name, said in (("cuda:99", "no GPU 'cuda:99'"), ("gpu", "no device 'gpu'"), ("meta", "is not supported")):
        with pytest.raises(KfbenchError, match=said):
            execute.run(spec_of(), results=tmp_path, device=name)
