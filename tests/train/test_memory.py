"""What teachers said is remembered: to the bit whoever filled it, near what they say, never half, never of val."""

import dataclasses
import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kfbench import machine
from kfbench.cli.main import main
from kfbench.errors import KfbenchError
from kfbench.folders import PACKAGE
from kfbench.methods import Batch
from kfbench.running import execute, prepare, resolve
from kfbench.running.execute import Interrupted
from kfbench.running.records import RunRecord
from kfbench.spec import Recipe, RunSpec
from kfbench.teachers import Teacher
from kfbench.train import memory
from kfbench.train.loop import Watcher
from kfbench.train.memory import OUTPUT, Memory
from kfbench.train.setup import Setup
from kfbench.train.supervised import Supervised

ROWS, STEP = 300, 64  # training images and rows of a step: 4 steps an epoch, 4 blocks and a part of a fifth
TEACHER = "random:digits/cnn-4"  # nothing to train


@pytest.fixture(autouse=True)
def quiet_machine(packed_digits: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("KFBENCH_DATA", str(packed_digits))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def spec_of(method: str = "kd", *, seed: int = 0, **changes: Any) -> RunSpec:
    """A run on 300 digits of 6 epochs and 3 evaluations, with crops of which each image keeps 2."""
    recipe = {"network": "cnn-4", "train_size": ROWS, "batch_size": STEP, "epochs": 6, "evaluations": 3}
    recipe |= {"pad": 1, "views": 2}
    teachers = [TEACHER, "random:digits/cnn-8"][: 2 if method == "ca_mkd" else 1]
    return resolve.resolve(method, "digits", budget="smoke", teachers=teachers, seed=seed, recipe={**recipe, **changes})


def outcome(record: RunRecord) -> dict[str, Any]:
    """All that a run's numbers are, times and the memory's own count aside."""
    timed = ("seconds", "images_per_second")
    return {
        "scores": record.scores,
        "curve": [{name: value for name, value in row.items() if name not in timed} for row in record.curve],
        "weights": record.provenance["weights"],
    }


def files(results: Path) -> list[Path]:
    return sorted((results / ".cache" / "memory").glob("*.f16"))


def rows_of(record: RunRecord) -> tuple[float, float]:
    return record.cost["teacher_rows_asked"], record.cost["teacher_rows_remembered"]


def setup_of(spec: RunSpec, results: Path) -> Setup:
    for wanted in prepare.missing_teachers(spec, results=results):
        execute.teacher(wanted, results=results)
    return prepare.setup(prepare.plan(spec, results=results), device=torch.device("cpu"))


def memory_of(setup: Setup, folder: Path, checksum: str | None) -> Memory:
    recipe, split, shape = setup.spec.recipe, setup.data.train, setup.task.shape
    assert isinstance(recipe, Recipe)
    return Memory(folder / "memory", recipe, split, shape=shape, device=setup.device, source={"data": checksum})


def loop_of(tmp_path: Path, spec: RunSpec) -> Supervised:
    """The loop of a run with a memory, and nothing around it."""
    setup = setup_of(spec, tmp_path)
    setup.memory = memory_of(setup, tmp_path, "the data's checksum")
    return Supervised(setup)


def passes(teacher: Teacher) -> list[int]:
    """A list that grows with the rows of every forward pass of the teacher."""
    seen: list[int] = []
    teacher.network.register_forward_pre_hook(lambda _, taken: seen.append(len(taken[0])))
    return seen


def asked_anew(batch: Batch) -> Batch:
    return dataclasses.replace(batch, memo={}, past=None)


def test_a_remembered_answer_is_the_teachers_own_rounded_to_fp16(tmp_path: Path) -> None:
    loop = loop_of(tmp_path, spec_of())
    [teacher] = loop.setup.teachers
    layers = teacher.network.layers
    for _ in range(9):
        batch = loop.batch()
        told = {"logits": teacher(batch).logits} | teacher.features(batch, layers)
        again = asked_anew(batch)
        said = {"logits": teacher(again).logits} | teacher.features(again, layers)
        for name, answer in told.items():
            assert answer.shape == said[name].shape and answer.dtype == torch.float32 and not answer.requires_grad
            # measured: no more than half a unit in the last place of fp16
            torch.testing.assert_close(answer, said[name], rtol=2**-11 + 1e-6, atol=1e-6)
            assert answer.dim() < 4 or answer.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("method", ["kd", "kf", "fitnets", "ca_mkd"])
def test_a_run_with_the_memory_is_near_one_without(tmp_path: Path, method: str) -> None:
    spec = spec_of(method)
    with_it, without = (execute.run(spec, results=tmp_path / str(on), remember=on) for on in (True, False))
    assert with_it.key == without.key and "teacher_rows_asked" not in without.cost
    assert [record.provenance["remembers"] for record in (with_it, without)] == [True, False]
    assert not (tmp_path / "False" / ".cache" / "memory").exists()
    assert with_it.provenance["weights"] != without.provenance["weights"]  # else nothing was rounded: not used at all
    for one, other in zip(with_it.curve, without.curve, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=2e-3)  # after 24 steps; measured: 4e-4 at most


def test_after_a_hit_no_teacher_runs_whether_outputs_features_or_both_are_asked(tmp_path: Path) -> None:
    loop = loop_of(tmp_path, spec_of())
    [teacher] = loop.setup.teachers
    last = teacher.network.layers[-1]
    seen = passes(teacher)
    for _ in range(8):
        batch = loop.batch()
        teacher.features(batch, [last], logits=True)
        teacher(batch)
    assert [rows for rows in seen if rows > 1] == 10 * [memory.BLOCK]  # each of 5 blocks twice, for both at once
    for _ in range(4):
        batch = loop.batch()
        assert teacher(batch).logits.shape == (STEP, 10) and teacher.features(batch, [last])
    assert [rows for rows in seen if rows > 1] == 10 * [memory.BLOCK]


def test_only_the_loops_own_training_images_are_remembered(tmp_path: Path) -> None:
    loop = loop_of(tmp_path, spec_of("kf"))
    [teacher] = loop.setup.teachers
    seen = passes(teacher)
    batch = loop.batch()
    teacher(batch)
    assert loop.setup.memory and loop.setup.memory.asked == STEP
    mixed = dataclasses.replace(batch, images=batch.images.flip(0), memo={})  # as a method may do: no view of that row
    before = len(seen)
    torch.testing.assert_close(teacher(mixed).logits, teacher(batch).logits.flip(0), rtol=1e-3, atol=1e-4)
    assert len(seen) == before + 1 and loop.setup.memory.asked == STEP
    assert all(each.past is None for each in loop._ordered())


def test_validation_images_are_never_asked_for(tmp_path: Path) -> None:
    """Knowledge Flow is scored with its teachers until the cut, at two fifths of 24 steps."""
    record = execute.run(spec_of("kf"), results=tmp_path)
    assert any("val_error_attached" in row for row in record.curve)
    assert record.cost["teacher_rows_asked"] == 10 * STEP


@pytest.mark.parametrize(
    ("views", "epochs", "computed"), [(1, 3, ROWS), (2, 6, 2 * ROWS), (9, 2, 2 * ROWS), (500, 2, 600)]
)
def test_no_image_is_computed_more_often_than_it_has_views_or_the_run_has_epochs(
    tmp_path: Path, views: int, epochs: int, computed: int
) -> None:
    record = execute.run(spec_of(views=views, epochs=epochs), results=tmp_path)
    asked = 4 * epochs * STEP
    assert rows_of(record) == (asked, max(0, asked - computed))
    assert len(files(tmp_path)) == 1


def test_one_view_is_all_there_is_without_crops_and_flips(tmp_path: Path) -> None:
    record = execute.run(spec_of(views=4, pad=0), results=tmp_path)
    assert rows_of(record) == (24 * STEP, 24 * STEP - ROWS)
    assert files(tmp_path)[0].stat().st_size == ROWS * (10 + 4) * 2


@pytest.mark.parametrize("method", ["kd", "kf"])
def test_whoever_filled_the_memory_the_bits_are_the_same(tmp_path: Path, method: str) -> None:
    own = execute.run(spec_of(method), results=tmp_path / "own")
    again = execute.run(spec_of(method), results=tmp_path / "own", force=True)
    assert outcome(again) == outcome(own)
    assert rows_of(again)[0] == rows_of(again)[1]  # everything was there
    # half of it by fewer images and another order, in blocks that are not whole; then the rest by another seed
    other = tmp_path / "other"
    execute.run(spec_of(method, seed=1, train_size=ROWS // 2 + 7, epochs=2), results=other)
    half = execute.run(spec_of(method), results=other)
    assert outcome(half) == outcome(own)
    assert rows_of(own)[1] < rows_of(half)[1] < rows_of(half)[0]
    assert len(files(other)) == len(files(tmp_path / "own"))


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


def test_views_that_are_not_fixed_are_not_remembered(tmp_path: Path) -> None:
    for spec in (spec_of(views=None, epochs=1), dataclasses.replace(spec_of(epochs=1), method="scratch", teachers=())):
        if spec.method == "scratch":
            spec = dataclasses.replace(spec, settings={})
        record = execute.run(spec, results=tmp_path)
        assert "teacher_rows_asked" not in record.cost and record.provenance["remembers"] is False
    assert not (tmp_path / ".cache" / "memory").exists()


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


def test_answers_beyond_fp16_are_refused(tmp_path: Path) -> None:
    loop = loop_of(tmp_path, spec_of())
    [teacher] = loop.setup.teachers
    with torch.no_grad():
        list(teacher.network.parameters())[-1].fill_(1e5)
    with pytest.raises(KfbenchError, match="beyond what the memory holds"):
        teacher(loop.batch())


@pytest.mark.parametrize(("options", "said"), [(["--views", "0"], "field 'views'.*greater than 0"), ([], "")])
def test_views_is_an_option_of_run(
    tmp_path: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["run", "--method=kd", "--task=digits", "--budget=smoke", "--network=cnn-4", "--epochs=3", "--views=2"]
    line += ["--teachers", TEACHER, "--results", str(tmp_path), *options]
    monkeypatch.setattr(sys, "argv", ["kfbench", *line])
    with pytest.raises(SystemExit) as stopped:
        main()
    told = capsys.readouterr()
    if said:
        assert stopped.value.code == 2 and re.search(said, told.err)
    else:
        assert stopped.value.code == 0
        assert re.search(r"memory +\d+\.\d % of the [\d,]+ rows asked of teachers took no pass of this run", told.out)


def test_the_default_teacher_does_not_depend_on_the_students_views() -> None:
    names = [resolve.resolve("kd", "digits", recipe={"views": views}).teachers for views in (None, 2)]
    assert names[0] == names[1]


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
