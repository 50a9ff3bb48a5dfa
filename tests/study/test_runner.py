"""A study from the command line, on real digits: teachers first, failures kept, stopped and continued, verified."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kfbench.errors import KfbenchError
from kfbench.report import grid
from kfbench.run import records
from kfbench.study import definition, plan, runner

STUDY = """
title = "Digits"
budget = "smoke"
seeds = 2
methods = ["scratch", "kf", { method = "kf", label = "random", teachers = "random" }, "kickstarting", "breaks"]
tasks = [{ task = "digits/high", teachers = ["digits/low"], recipe = { epochs = 2 } }]

[[claims]]
text = "kf beats scratch"
better = "kf"
than = "scratch"
"""
BREAKS = '''"""A method whose loss is not finite."""

import math
from dataclasses import dataclass

from kfbench.methods import Method


@dataclass(frozen=True)
class Breaks(Method):
    """Nothing to set."""

    def losses(self, student, teachers, batch, task, progress):
        output, parts = super().losses(student, teachers, batch, task, progress)
        return output, {name: part * math.nan for name, part in parts.items()}
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a study, and the environment in which its method is found."""
    root = tmp_path_factory.mktemp("runner")
    (root / "reports" / "digits").mkdir(parents=True)
    (root / "reports" / "digits" / "study.toml").write_text(STUDY)
    (root / "own").mkdir()
    (root / "own" / "breaks.py").write_text(BREAKS)
    return root, {**os.environ, "KFBENCH_METHODS": str(root / "own"), "OMP_NUM_THREADS": "1"}


def kfbench(place, *words: str, check: int | None = 0) -> str:
    root, environment = place
    command = [sys.executable, "-c", "from kfbench.cli.main import main; main()", *words]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=560)
    assert check is None or done.returncode == check, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def ran(place):
    """The study run once with two jobs, one of which is killed on the way."""
    root, environment = place
    words = ["study", "reports/digits", "--jobs", "2", "--heartbeat", "1", "--grace", "4"]
    command = [sys.executable, "-c", "from kfbench.cli.main import main; main()", *words]
    running = subprocess.Popen(
        command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    until = time.monotonic() + 400
    while not list(root.glob("results/teachers/**/*.json")) and time.monotonic() < until and running.poll() is None:
        time.sleep(0.2)
    listed = subprocess.check_output(["ps", "-eo", "pid,ppid"], text=True).splitlines()[1:]
    workers = [int(pid) for pid, parent in map(str.split, listed) if int(parent) == running.pid]
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    out, _ = running.communicate(timeout=500)
    return running.returncode, out


def test_all_runs_are_made_and_failures_are_told(place, ran):
    code, out = ran
    root, _ = place
    assert code == 1 and "breaks · digits/high · seed 0: failed: " in out
    assert "kickstarting on digits/high: n/a, because method 'kickstarting' is for games" in out
    found = list(records.records(root / "results"))
    done = sorted((r.spec["method"], r.spec["seed"]) for r in found if r.status == "done")
    assert done == [("kf", 0), ("kf", 0), ("kf", 1), ("kf", 1), ("scratch", 0), ("scratch", 1)]
    assert [r.spec["method"] for r in found if r.status == "failed"] == ["breaks", "breaks"]
    assert len(list((root / "results" / "teachers").rglob("*.json"))) == 1


def test_the_report_is_there(place, ran):
    root, _ = place
    folder = root / "reports" / "digits"
    text = (folder / "README.md").read_text()
    assert "kf beats scratch" in text and "2 failed" in text and "n/a" in text
    made = grid.load(folder, definition.load(folder), root / "results")
    assert len(made.cells["kf", "digits/high"].done) == 2 and len(made.cells["breaks", "digits/high"].failed) == 2


def test_what_is_recorded_is_not_run_again(place, ran):
    root, _ = place
    before = {path: path.stat().st_mtime_ns for path in (root / "results").rglob("*.json")}
    out = kfbench(place, "study", "reports/digits", "--row", "kf")
    assert "2 runs, 2 recorded already, 0 to make" in out
    assert {path: path.stat().st_mtime_ns for path in (root / "results").rglob("*.json")} == before
    out = kfbench(place, "study", "reports/digits", "--dry-run", "--row", "breaks")
    assert "breaks · digits/high: seeds 0, 1" in out and "2 runs, 2 to make" in out


TUNED = """
title = "Tuned digits"
budget = "smoke"
seeds = 1
search = { trials = 2 }
methods = ["scratch", "kf"]
tasks = [{ task = "digits/high", teachers = ["digits/low"], recipe = { epochs = 2 } }]
"""


def test_a_study_with_a_search_tunes_first_and_its_page_says_what_was_chosen(place):
    root, _ = place
    folder = root / "reports" / "tuned"
    folder.mkdir()
    (folder / "study.toml").write_text(TUNED)
    out = kfbench(place, "study", "reports/tuned", "--results", "searched")
    assert "searching kf on digits/high: 2 trials" in out and "2 of 2 runs" in out
    found = json.loads((folder / "tuned.json").read_text())
    assert list(found) == ["kf"] and found["kf"]["validation"] >= found["kf"]["started"]
    cells = {cell.row: cell for cell in plan.read(folder, definition.load(folder))}
    assert cells["kf"].spec is not None and cells["kf"].spec.settings["cut"] == found["kf"]["settings"]["cut"]
    told = f"kf: initial_share {found['kf']['settings']['initial_share']:.3g}, "
    assert told in (folder / "README.md").read_text() and told in (folder / "index.html").read_text()
    seeds = {record.spec["seed"] for record in records.records(root / "searched") if record.spec["method"] == "kf"}
    assert 1000 in seeds
    again = kfbench(place, "study", "reports/tuned", "--results", "searched")
    assert "searching" not in again and "0 to make" in again


def test_verify_finds_the_same_bits_and_a_changed_number(place, ran):
    root, _ = place
    record = next(r for r in records.records(root / "results") if r.spec["method"] == "kf" and r.status == "done")
    path = records.path_of(root / "results", record.key, record.run_spec())
    weights = path.with_suffix(".safetensors").read_bytes()
    path.with_suffix(".safetensors").unlink()
    out = kfbench(place, "verify", record.key[:8])
    assert f"{record.key}: bit-equal" in out
    assert path.with_suffix(".safetensors").read_bytes() == weights  # put back
    values = json.loads(path.read_text())
    kept = path.read_text()
    values["scores"]["last"]["error"] += 40.0
    values["curve"][0]["loss"] += 1.0
    path.write_text(json.dumps(values))
    out = kfbench(place, "verify", record.key, check=1)
    path.write_text(kept)
    assert "different" in out and "score last.error" in out and "curve loss from step" in out


def test_a_teacher_is_shown_and_verified_too(place, ran):
    root, _ = place
    teacher = next(records.records(root / "results" / "teachers"))
    assert "/teachers/" in kfbench(place, "show", teacher.key)
    path = records.path_of(root / "results" / "teachers", teacher.key, teacher.run_spec()).with_suffix(".safetensors")
    weights = path.read_bytes()
    path.unlink()
    assert "bit-equal" in kfbench(place, "verify", teacher.key)
    assert path.read_bytes() == weights


def test_ctrl_c_stops_cleanly_and_the_same_command_goes_on(place, ran):
    root, environment = place
    folder = root / "reports" / "long"
    folder.mkdir()
    (folder / "study.toml").write_text(
        'title = "Long"\nbudget = "smoke"\nseeds = 1\nmethods = ["scratch"]\n'
        'tasks = [{ task = "digits/low", recipe = { epochs = 400 } }]\n'
    )
    command = [sys.executable, "-c", "from kfbench.cli.main import main; main()", "study", "reports/long"]
    running = subprocess.Popen(
        command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    storage = runner.open_storage(runner.Place(root / "results", f"sqlite:///{root}/results/.cache/optuna.db"))
    until = time.monotonic() + 300
    while time.monotonic() < until and running.poll() is None:
        time.sleep(0.3)
        if "long" in _names(storage) and any("progress" in t.user_attrs for t in _live(storage)):
            break
    running.send_signal(signal.SIGINT)
    out, _ = running.communicate(timeout=200)
    assert running.returncode == 130, out
    assert "goes on from there" in out and "Traceback" not in out
    assert len(list((root / "results" / ".checkpoints").glob("*.ckpt"))) == 1
    out = kfbench(place, "study", "reports/long")
    assert "1 of 1 runs" in out
    assert not list((root / "results" / ".checkpoints").glob("*.ckpt"))
    (getattr(storage, "_backend", storage)).engine.dispose()


def _names(storage) -> list[str]:
    import optuna

    return optuna.get_all_study_names(storage)


def _live(storage) -> list:
    from kfbench.study import queue

    return queue.running(queue.load(storage, "long"))


def test_records_made_elsewhere_are_brought_home(place, ran, tmp_path):
    from kfbench.study import queue, worker

    root, _ = place
    storage = runner.open_storage(runner.Place(root / "results", f"sqlite:///{root}/results/.cache/optuna.db"))
    assert worker.collect(queue.load(storage, "digits"), tmp_path) == 8
    ours = {record.key: record for record in records.records(root / "results")}
    assert {record.key for record in records.records(tmp_path)} <= set(ours)
    assert all(ours[record.key].scores == record.scores for record in records.records(tmp_path))
    (getattr(storage, "_backend", storage)).engine.dispose()


def test_a_plan_fills_in_what_a_study_leaves_open(tmp_path):
    (tmp_path / "study.toml").write_text(STUDY.replace(', "breaks"', ', { method = "kd", settings = { alpha = 0.5 } }'))
    made = definition.load(tmp_path)
    cells = {cell.row: cell for cell in plan.make(made.model_copy(update={"tasks": [made.tasks[0].model_copy(
        update={"teachers": {"features": ["digits/low"]}})]}))}  # fmt: skip
    assert cells["scratch"].spec.teachers == ()
    assert cells["kf"].spec.teachers == ("digits/low/cnn-32@smoke",)
    assert cells["random"].spec.teachers == ("random:digits/low/cnn-32@smoke",)
    assert (
        cells["kd"].spec.teachers[0].startswith("digits/high/cnn-32@smoke")
        and cells["kd"].spec.settings["alpha"] == 0.5
    )
    assert cells["kickstarting"].spec is None and "is for games" in cells["kickstarting"].reason
    assert [spec.seed for spec in cells["kf"].runs(made.seeds)] == [0, 1]
    text = (tmp_path / "study.toml").read_text().replace('"scratch"', '"scratch", "scratch/equal-compute"', 1)
    (tmp_path / "study.toml").write_text(text)
    longer = {cell.row: cell for cell in plan.make(definition.load(tmp_path))}["scratch/equal-compute"].spec
    assert longer.recipe.epochs > 2 * cells["scratch"].spec.recipe.epochs  # the column's teachers are its cost
    tuned = {cell.row: cell for cell in plan.make(made, {"kf": {"cut": 0.7}})}
    assert tuned["kf"].spec.settings["cut"] == 0.7 and tuned["random"].spec.settings["cut"] != 0.7


def test_a_studys_teacher_of_outputs_is_not_for_a_method_whose_teacher_is_its_twin(tmp_path):
    (tmp_path / "study.toml").write_text(
        STUDY.replace('"kickstarting", "breaks"', '"kd", "born_again"').replace(
            'teachers = ["digits/low"]', 'network = "cnn-4", teachers = { outputs = ["digits/high/cnn-8"] }'
        )
    )
    cells = {cell.row: cell for cell in plan.make(definition.load(tmp_path))}
    assert cells["kd"].spec.teachers == ("digits/high/cnn-8@smoke",)
    assert cells["born_again"].spec.teachers == ("digits/high/cnn-4@smoke:epochs=2",)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"scratch"', '"scrach"', "no method 'scrach'; did you mean 'scratch'"),
        ("digits/high", "digit/high", "no task 'digit'; did you mean 'digits'"),
        ("epochs = 2", "epoch = 2", "no field 'epoch'; did you mean 'epochs'"),
        ('label = "random"', 'label = "random", settings = { cutt = 1 }', "no setting 'cutt'; did you mean 'cut'"),
    ],
)
def test_a_misspelt_name_is_an_error_and_no_empty_cell(tmp_path, old, new, told):
    (tmp_path / "study.toml").write_text(STUDY.replace(', "breaks"', "").replace(old, new))
    with pytest.raises(KfbenchError, match=told):
        plan.make(definition.load(tmp_path))


def test_workers_are_spread_over_gpus(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert [runner.spread("cuda", n) for n in range(4)] == ["cuda:0", "cuda:1", "cuda:2", "cuda:0"]
    assert runner.spread("cuda:1", 5) == "cuda:1" and runner.spread("cpu", 5) == "cpu"


def test_shipped_studies_load_and_their_plans_are_current():
    """Every study of the repository resolves to runs, and its committed plan is the one today's code would make."""
    root = Path(__file__).parents[2] / "reports"
    if not root.is_dir():
        pytest.skip("no reports beside the tests")
    found = sorted(path.parent for path in root.glob("*/study.toml"))
    assert len(found) >= 5
    for folder in found:
        made = definition.load(folder)
        assert plan.read(folder, made) == plan.make(made, plan.tuned(folder)), folder.name
