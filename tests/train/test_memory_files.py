"""The files in which teachers are remembered: who shares one, damage, a kill, two that fill one at once, no room."""

import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import torch
from remembering import ROWS, STEP, files, loop_of, memory_of, outcome, rows_of, setup_of, spec_of
from torch import Tensor

from kfbench import machine
from kfbench.errors import KfbenchError
from kfbench.folders import PACKAGE
from kfbench.running import execute
from kfbench.running.execute import Interrupted
from kfbench.train import memory
from kfbench.train.loop import Watcher
from kfbench.train.memory import OUTPUT

pytestmark = pytest.mark.usefixtures("quiet_machine")


def test_methods_and_train_sizes_share_a_file_but_not_teachers_layers_views_or_threads(tmp_path: Path) -> None:
    execute.run(spec_of("kd"), results=tmp_path)
    assert rows_of(execute.run(spec_of("dkd", seed=3, train_size=200), results=tmp_path)) == (18 * STEP, 18 * STEP)
    [path] = files(tmp_path)
    assert path.stat().st_size == memory.File.size(2 * ROWS, (10,))  # fewer rows must not shorten what others have open
    for count, changes in enumerate(({"views": 3}, {"pad": 2}, {"flip": True}), 2):
        execute.run(spec_of("kd", epochs=1, **changes), results=tmp_path)
        assert len(files(tmp_path)) == count
    loop = loop_of(tmp_path, spec_of())
    [teacher] = loop.setup.teachers
    stems = set()
    for digest in ("a", "b"):
        for threads in (1, 2):
            torch.set_num_threads(threads)
            kept = memory_of(loop.setup, tmp_path, "0")
            file = kept._file(dataclasses.replace(teacher, digest=digest), OUTPUT)
            assert file
            stems.add(file.path)
    assert len(stems) == 4


def test_a_run_that_was_stopped_goes_on_to_the_same_bits_and_counts(tmp_path: Path) -> None:
    class Stopping(Watcher):
        def step(self, loop: Any, row: dict[str, float] | None) -> None:
            if loop.position == 6:
                os.kill(os.getpid(), 2)

    whole = execute.run(spec_of(), results=tmp_path / "whole")
    with pytest.raises(Interrupted):
        execute.run(spec_of(), results=tmp_path / "stopped", watcher=Stopping())
    rest = execute.run(spec_of(), results=tmp_path / "stopped")
    assert outcome(rest) == outcome(whole) and rows_of(rest) == rows_of(whole)


class Killed(BaseException):
    """Nothing after it runs, as after kill -9."""


def test_a_run_killed_while_filling_leaves_nothing_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = execute.run(spec_of("fitnets"), results=tmp_path / "whole")
    written, write = [], machine.write_at

    def dying(file: IO[bytes], record: Any, place: int) -> int:
        written.append(place)
        if len(written) == 200:
            write(file, bytes(record)[: record.nbytes // 2], place)
            raise Killed
        return write(file, record, place)

    with monkeypatch.context() as patch:
        patch.setattr(machine, "write_at", dying)
        with pytest.raises(Killed):
            execute.run(spec_of("fitnets"), results=tmp_path / "killed")
    assert len(written) == 200
    rest = execute.run(spec_of("fitnets"), results=tmp_path / "killed")
    assert outcome(rest) == outcome(whole)


def overwritten(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[1000] ^= 1  # a single bit
    data[4000:6000] = bytes(2000)
    data[8000:8100] = os.urandom(100)
    path.write_bytes(data)


def shifted(path: Path) -> None:
    record = (10 + memory.CHECK) * 2
    path.write_bytes(path.read_bytes()[record:] + bytes(record))


def cut_off(path: Path) -> None:
    os.truncate(path, 5001)


@pytest.mark.parametrize("damage", [overwritten, shifted, cut_off, Path.unlink])
def test_a_damaged_file_is_mended(tmp_path: Path, damage: Any) -> None:
    whole = execute.run(spec_of(), results=tmp_path)
    [path] = files(tmp_path)
    kept = path.read_bytes()
    damage(path)
    again = execute.run(spec_of(), results=tmp_path, force=True)
    assert outcome(again) == outcome(whole) and rows_of(again)[1] < rows_of(again)[0]
    assert path.read_bytes() == kept


RUN = """
import json, sys, torch
from pathlib import Path
from kfbench import registry
from kfbench.running import execute
torch.set_num_threads(1)
print("ready", flush=True)
spec = registry.read_spec(json.loads(sys.stdin.readline()))
record = execute.run(spec, results=Path(sys.argv[1]))
print(json.dumps([record.scores, record.provenance["weights"], record.cost["teacher_rows_asked"]]))
"""


def test_two_processes_fill_one_memory_at_once(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", RUN, str(tmp_path / "both")]
    ours, theirs = (spec_of("fitnets", seed=seed, train_size=640, epochs=2) for seed in (4, 5))
    alone = [execute.run(spec, results=tmp_path / "alone") for spec in (ours, theirs)]
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin and other.stdout
        assert other.stdout.readline() == "ready\n"
        other.stdin.write(json.dumps(theirs.to_json()) + "\n")
        other.stdin.flush()
        here = execute.run(ours, results=tmp_path / "both")
        there = json.loads(other.communicate(timeout=100)[0])
    assert outcome(here) == outcome(alone[0])
    assert there == [alone[1].scores, alone[1].provenance["weights"], alone[1].cost["teacher_rows_asked"]]
    assert [path.read_bytes() for path in files(tmp_path / "both")] == [
        path.read_bytes() for path in files(tmp_path / "alone")
    ]


def test_two_that_read_and_write_in_turns_see_each_others_rows(tmp_path: Path) -> None:
    """The interleaving that processes only sometimes have: both open the empty file, then take turns at steps."""
    one, other = (loop_of(tmp_path, spec_of(seed=seed)) for seed in (0, 1))
    alone = loop_of(tmp_path / "alone", spec_of(seed=1))
    for _ in range(12):
        one.setup.teachers[0](one.batch())
        told, wanted = (loop.setup.teachers[0](loop.batch()).logits for loop in (other, alone))
        assert torch.equal(told, wanted)
    assert one.setup.memory and other.setup.memory
    assert one.setup.memory.computed + other.setup.memory.computed < 3 * ROWS  # each alone: 2 · ROWS


def test_a_layer_too_large_is_computed_as_ever_and_that_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Told(Watcher):
        def __init__(self) -> None:
            self.lines: list[str] = []

        def say(self, line: str) -> None:
            self.lines.append(line)

    told = Told()
    without = execute.run(spec_of("kf"), results=tmp_path / "without", remember=False)
    monkeypatch.setattr(memory, "LIMIT", 2 * ROWS * (10 + memory.CHECK) * 2)  # just enough for outputs
    record = execute.run(spec_of("kf"), results=tmp_path, watcher=told)
    assert outcome(record) == outcome(without)
    assert rows_of(record) == (10 * STEP, 0) and files(tmp_path) == []
    said = [line for line in told.lines if "not remembered but computed" in line]
    assert len(said) == len(set(said)) == len(setup_of(spec_of("kf"), tmp_path).teachers[0].network.layers)
    assert rows_of(execute.run(spec_of("kd"), results=tmp_path))[1] > 0


def test_no_room_and_no_folder_are_told_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(machine, "write_at", full)
        with pytest.raises(KfbenchError, match="memory of teachers cannot be kept.*No space left.*--no-memory"):
            execute.run(spec_of(), results=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(memory.File, "size", lambda *_: 2**60)
        patch.setattr(memory, "LIMIT", 2**61)
        with pytest.raises(KfbenchError, match="GB are needed.*make room"):
            execute.run(spec_of(), results=tmp_path)
    shutil.rmtree(tmp_path / ".cache")
    (tmp_path / ".cache").write_text("in the way")
    with pytest.raises(KfbenchError, match="cannot be kept"):
        execute.run(spec_of(), results=tmp_path)


def test_words_of_a_record_are_those_of_the_docstring(tmp_path: Path) -> None:
    file = memory.File(tmp_path / "f", 6, (3, 2, 2))
    answers = torch.randn(2, 3, 2, 2)
    file.write(torch.tensor([4, 1]), answers)
    words = np.fromfile(tmp_path / "f", np.int16).reshape(6, 16)
    for place, answer in zip((4, 1), answers.numpy(), strict=True):
        np.testing.assert_array_equal(
            words[place, :12].view(np.float16), answer.transpose(1, 2, 0).ravel().astype("f2")
        )
        check = int(words[place, :12].astype(int).sum()) + memory.SALT * (place + 1)
        assert words[place, 12:].view(np.int64)[0] == check
    assert memory.File(tmp_path / "f", 6, (3, 2, 2)).look(0, 6).tolist() == [False, True, False, False, True, False]
    rounded: Tensor = file.read(torch.tensor([1, 4]), torch.device("cpu"))
    assert torch.equal(rounded, answers.flip(0).half().float())
