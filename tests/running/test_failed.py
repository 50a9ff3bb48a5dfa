"""A run that fails is a record that says where and why; what was trained before is not lost with it."""

from pathlib import Path

import pytest
import torch
from short_runs import Told, outcome, spec_of

from kfbench.errors import Diverged, KfbenchError, NoMemory
from kfbench.running import execute, prepare, records, status

pytestmark = pytest.mark.usefixtures("quiet_machine")

SPOILT = '''"""A method whose loss breaks.

Source: none.
Differs: nothing known.
"""

from dataclasses import dataclass

from kfbench.methods import Method


@dataclass(frozen=True)
class Spoilt(Method):
    """Breaks at `at`."""

    at: float = 0.5

    def losses(self, student, teachers, batch, task, progress):
        output = student(batch.images)
        spoilt = output.logits.mean() * (float("nan") if progress >= self.at else 0.0)
        return output, task.loss(output, batch) | {"spoilt": spoilt}
'''


def test_a_loss_that_is_not_finite_ends_as_a_failed_record_with_step_and_part(tmp_path: Path) -> None:
    file = tmp_path / "spoilt.py"
    file.write_text(SPOILT)
    spec = spec_of(str(file))
    with pytest.raises(Diverged, match="loss part 'spoilt' was not finite at step 15") as raised:
        execute.run(spec, results=tmp_path / "results")
    assert raised.value.exit_code == 1 and (raised.value.part, raised.value.step) == ("spoilt", 15)
    [path] = (tmp_path / "results" / "digits" / "spoilt").glob("*.json")
    record = records.read(path)
    assert record.status == "failed" and record.error is not None and record.traceback is not None
    at_once = spec_of(str(file), settings={"at": 0.0})
    with pytest.raises(Diverged, match="not finite at step 0; no weight had moved yet: look at the method's formula"):
        execute.run(at_once, results=tmp_path / "results")
    assert "step 15" in record.error and "'spoilt'" in record.error and "Diverged" in record.traceback
    assert record.curve and not record.scores and not list((tmp_path / "results" / ".checkpoints").glob("*"))
    with pytest.raises(Diverged):  # a failed run counts as not run
        execute.run(spec, results=tmp_path / "results")
    file.write_text(SPOILT.replace('float("nan")', "1.0"))  # and a mended file is another run
    assert execute.run(spec, results=tmp_path / "results").key != record.key


UNSCORED = '''"""Cannot be scored where the folder says so. Source: made. Differs: from all."""
from pathlib import Path

from kfbench.methods import Method


class Unscored(Method):
    """No settings."""

    def export(self, student):
        if (Path(__file__).parent / "full").exists():
            raise RuntimeError("out of memory")
        return student
'''


def test_a_training_that_is_done_is_not_lost_with_its_scoring(tmp_path: Path) -> None:
    (tmp_path / "unscored.py").write_text(UNSCORED)
    spec, full = spec_of(str(tmp_path / "unscored.py")), tmp_path / "full"
    with pytest.raises(RuntimeError, match="out of memory"):
        execute.run(spec, results=tmp_path / "results", checkpoint_seconds=0, watcher=Told(30, full.touch))
    [path] = (tmp_path / "results" / "digits" / "unscored").glob("*.json")
    assert records.read(path).status == "failed"
    full.unlink()
    told = Told()
    record = execute.run(spec, results=tmp_path / "results", watcher=told)
    assert told.lines == ["goes on from step 30 of 30"] and not list((tmp_path / "results" / ".checkpoints").glob("*"))
    assert outcome(record) == outcome(execute.run(spec, results=tmp_path / "whole"))


def test_a_run_whose_gpu_was_full_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    def fill() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(NoMemory, match=r"cpu has no memory left \(CUDA out of memory\); .* goes on from") as told_of:
        execute.run(spec_of(), results=tmp_path, checkpoint_seconds=0, watcher=Told(12, fill))
    [failed] = records.records(tmp_path)
    assert failed.error == f"NoMemory: {told_of.value}" and status.read(tmp_path)[0]["why"] == str(told_of.value)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(NoMemory, match="cpu has no memory left"):
        patch.setattr(prepare, "setup", lambda *_, **__: fill())  # it is full before the first step
        execute.run(spec_of(), results=tmp_path)
    told = Told()
    record = execute.run(spec_of(), results=tmp_path, watcher=told)
    assert told.lines == ["goes on from step 11 of 30"] and record.status == "done"


@pytest.mark.parametrize(("returned", "what"), [("", "None"), ("return task.loss(output, batch)", "a dict")])
def test_what_losses_has_to_return_is_one_line(tmp_path: Path, returned: str, what: str) -> None:
    file = tmp_path / "spoilt.py"
    file.write_text(SPOILT.replace('return output, task.loss(output, batch) | {"spoilt": spoilt}', returned))
    with pytest.raises(KfbenchError, match=rf"'losses' of the method returned {what}; return \(output, parts\)"):
        execute.run(spec_of(str(file)), results=tmp_path / "results")
