"""What teachers said is remembered: to the bit whoever filled it, near what they say, of training images alone."""

import dataclasses
import re
import sys
from pathlib import Path

import pytest
import torch
from remembering import ROWS, STEP, TEACHER, files, loop_of, outcome, rows_of, spec_of

from kfbench.cli.main import main
from kfbench.errors import KfbenchError
from kfbench.methods import Batch
from kfbench.running import execute, resolve
from kfbench.teachers import Teacher
from kfbench.train import memory

pytestmark = pytest.mark.usefixtures("quiet_machine")


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


def test_views_that_are_not_fixed_are_not_remembered(tmp_path: Path) -> None:
    for spec in (spec_of(views=None, epochs=1), dataclasses.replace(spec_of(epochs=1), method="scratch", teachers=())):
        if spec.method == "scratch":
            spec = dataclasses.replace(spec, settings={})
        record = execute.run(spec, results=tmp_path)
        assert "teacher_rows_asked" not in record.cost and record.provenance["remembers"] is False
    assert not (tmp_path / ".cache" / "memory").exists()


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
