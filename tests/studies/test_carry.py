"""A run carried: what is laid out, what is handed back, how each end is told; and the folder that talk goes through."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rich.console import Console

from kfbench.running import execute, prepare, records, resolve, verify
from kfbench.studies import board, carry
from kfbench.studies.board import open_board
from kfbench.studies.carry import Order
from kfbench.studies.engines import folder
from kfbench.studies.trials import Job, name_of


@pytest.fixture
def spec():
    """A short run with a teacher."""
    return resolve.resolve(
        "kd", "digits/high", budget="smoke", recipe={"epochs": 1, "evaluations": 2, "network": "cnn-4"}
    )


@pytest.fixture
def one_thread():
    """Runs are carried with one thread, here in the tests' own process."""
    import torch

    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def order(spec, **more) -> Order:
    return Order(name_of(spec), spec.to_json(), **more)


def go(event) -> str:
    return "go"


def test_where_links_may_not_be_made_files_are_copied_and_folders_begin_empty(tmp_path, monkeypatch):
    def forbidden(*_, **__):
        raise OSError("a required privilege is not held by the client")

    (tmp_path / "memory").mkdir()
    (tmp_path / "weights").write_text("of a teacher")
    files = {"teachers/w": tmp_path / "weights", ".cache/memory": tmp_path / "memory", "content": b"of a checkpoint"}
    carry.lay_out(files, tmp_path / "linked")
    assert (tmp_path / "linked" / "teachers" / "w").is_symlink() and (
        tmp_path / "linked" / ".cache/memory"
    ).is_symlink()
    monkeypatch.setattr(carry.Path, "symlink_to", forbidden)
    for _ in range(2):  # a run that goes on finds them there
        carry.lay_out(files, tmp_path / "copied")
        copy = tmp_path / "copied" / "teachers" / "w"
        assert copy.read_text() == "of a teacher" and not copy.is_symlink()
        assert not (tmp_path / "copied" / ".cache/memory").exists()


def test_links_into_a_results_folder_that_has_moved_are_made_anew(tmp_path):
    for place in ("before", "after"):
        (tmp_path / place / "memory").mkdir(parents=True)
        (tmp_path / place / "weights").write_text(place)
        files = {"w": tmp_path / place / "weights", ".cache/memory": tmp_path / place / "memory"}
        carry.lay_out(files, tmp_path / "run")
        assert (tmp_path / "run" / "w").read_text() == place  # not of the older folder, whether that is there or not
        assert (tmp_path / "run" / ".cache/memory").resolve() == tmp_path / place / "memory"


def test_a_teacher_then_its_student_come_home_as_execute_makes_them(spec, tmp_path, one_thread):
    events: list[dict] = []
    teacher = prepare.teachers_of(spec)[0]

    def heard(event) -> str:
        events.append(event)
        return "go"

    first = carry.carry(order(teacher, is_teacher=True), {}, folder=tmp_path / "a", report=heard)
    assert first.state == "done" and [name.rpartition(".")[2] for name in first.files] == ["safetensors", "json"]
    assert all(name.startswith("teachers/digits/high/scratch/") for name in first.files)
    content = {name: path.read_bytes() for name, path in first.files.items()}
    second = carry.carry(order(spec), content, folder=tmp_path / "b", report=go)
    third = carry.carry(order(spec), first.files, folder=tmp_path / "c", report=go)  # linked, not copied
    assert [each.state for each in (second, third)] == ["done", "done"]
    plain = execute.run(spec, results=tmp_path / "plain")
    for outcome in (second, third):
        record = records.read(next(path for name, path in outcome.files.items() if name.endswith(".json")))
        assert verify.differences(plain, record) == () and record.key == plain.key
    assert sum(event["score"] is not None for event in events) == teacher.recipe.evaluations
    assert {"step", "progress", "score", "val", "unit", "rate", "node", "device", "pid"} == events[0].keys()
    assert all(event["val"] == 100 - event["score"] for event in events if event["score"] is not None)
    assert [event["step"] for event in events][:2] == [0, 1]  # before its data are loaded: it has found room


def test_a_student_without_its_teachers_is_refused(spec, tmp_path, one_thread):
    """Else each run would train them for itself."""
    outcome = carry.carry(order(spec), {}, folder=tmp_path, report=go)
    assert (outcome.state, outcome.why, outcome.files) == ("refused", "its teachers did not come along", {})


def test_what_is_said_of_a_file_names_it_as_it_lies_at_home(spec, tmp_path, one_thread):
    """A worker's folder may be on another machine, and gone by the time that its message is read."""
    folder, bag, results = (str(tmp_path / name) for name in ("node", "runs/a", "results"))
    asked = order(spec, results=results, bag=bag)
    (tmp_path / "node" / ".checkpoints").mkdir(parents=True)
    plan = prepare.plan(resolve.resolve("scratch", "digits/high", budget="smoke"), results=tmp_path / "results")
    lone = Order("lone", plan.spec.to_json(), results=results, bag=bag)
    (tmp_path / "node" / ".checkpoints" / f"{plan.key}.ckpt").write_text("damaged")
    outcome = carry.carry(lone, {}, folder=tmp_path / "node", report=go)
    assert outcome.state == "refused" and f"checkpoint '{bag}/.checkpoints/{plan.key}.ckpt' cannot" in outcome.why
    assert (
        carry.driver_paths(f"'{folder}/teachers/a.json' is", Path(folder), asked) == f"'{results}/teachers/a.json' is"
    )
    inside = carry.driver_paths(f"'{bag}/.checkpoints/a' and '{bag}/teachers/b'", Path(bag), asked)
    assert inside == f"'{bag}/.checkpoints/a' and '{results}/teachers/b'"


def test_a_run_that_is_told_to_stop_leaves_a_checkpoint_and_one_that_is_pruned_nothing(spec, tmp_path, one_thread):
    spec = resolve.resolve("scratch", "digits/high", budget="smoke")
    stopped = carry.carry(order(spec), {}, folder=tmp_path / "a", report=lambda event: "stop")
    assert stopped.state == "stopped" and [name.rpartition(".")[2] for name in stopped.files] == ["ckpt"]
    pruned = carry.carry(order(spec), {}, folder=tmp_path / "b", report=lambda event: "prune")
    assert pruned.state == "pruned" and pruned.why.startswith("pruned at step ") and pruned.files == {}


def test_a_judged_run_waits_for_the_verdict_and_others_do_not(spec, tmp_path):
    engine = folder.Folder(tmp_path)
    judged = order(spec, is_judged=True)
    reports = folder.Reports(judged, engine.open(judged))
    with ThreadPoolExecutor(1) as pool:
        word = pool.submit(reports, {"score": 5.0})
        time.sleep(0.3)
        assert not word.done() and engine.events() == [(judged.name, {"score": 5.0})] and engine.events() == []
        engine.answer(judged.name, "prune")
        assert word.result(timeout=10) == "prune"
    assert folder.Reports(order(spec), tmp_path / judged.name)({"score": None}) == "prune"
    engine.open(judged)
    assert folder.Reports(order(spec), tmp_path / judged.name)({"score": 5.0}) == "go"


def test_an_outcome_that_nobody_fetched_stays_unless_it_is_of_another_version(spec, tmp_path):
    engine, mine = folder.Folder(tmp_path), order(spec, versions={"torch": "1"})
    bag = engine.open(mine)
    (bag / "outcome.json").write_text('{"state": "done", "why": "", "files": ["a.json"], "versions": {"torch": "1"}}')
    assert folder.read(engine.open(mine)).files == {"a.json": bag / "a.json"}
    engine.open(order(spec, versions={"torch": "2"}))
    assert folder.read(bag) is None


def test_the_boards_file_says_what_runs_where_and_what_failed(spec, tmp_path, monkeypatch):
    """It is what `kfbench status` reads."""
    monkeypatch.setattr(board, "WRITE", 0.0)
    job, event = Job(spec, "kd · digits"), {"step": 10, "progress": 0.25, "score": 42.0, "rate": 300.0}
    event |= {"val": 58.0, "unit": "%"}
    with open_board("study/one", 2, tmp_path, Console(quiet=True), on="ray") as shown:
        shown.begin(job)
        shown.event(job.name, {**event, "step": 0, "progress": 0.0, "val": None, "node": "", "device": "", "pid": 0})
        for progress in (0.25, 0.5):
            shown.event(job.name, {**event, "progress": progress, "node": "here", "device": "cuda:1", "pid": 7})
            time.sleep(0.01)
        shown.look()
        told = json.loads((tmp_path / "status" / "study-one.json").read_text())
        row = told["running"][job.name]
        assert told["on"] == "ray" and row["first"][1] == 0.25  # what a checkpoint held already tells no rate
        assert (told["total"], told["ended"], told["over"]) == (2, 0, False)
        assert [row[key] for key in ("label", "node", "device", "pid", "score")] == [job.label, "here", "cuda:1", 7, 58]
        assert row["left"] > 0 and row["log"] == str(tmp_path / "logs" / f"{job.name}.log")
        shown.end(job, "failed", "it broke", log="abc")
    told = json.loads((tmp_path / "status" / "study-one.json").read_text())
    assert told["over"] and told["ended"] == 1 and told["running"] == {}
    assert told["failed"][0]["why"] == "it broke" and told["failed"][0]["log"].endswith("/logs/abc.log")


def test_a_report_that_cannot_be_written_ends_no_run_and_waits_for_no_verdict(spec, tmp_path):
    engine, judged = folder.Folder(tmp_path), order(spec, is_judged=True)
    bag = engine.open(judged)
    (bag / "events").mkdir()  # nothing can be appended to that, not even by root
    reports, began = folder.Reports(judged, bag), time.monotonic()
    assert reports({"score": 5.0}) == "go" and time.monotonic() - began < carry.PATIENCE / 2


def test_events_that_are_begun_anew_or_torn_stop_no_driver(spec, tmp_path):
    """Another worker's file is shorter or longer than what was read; a full disk tears a line."""
    engine, mine = folder.Folder(tmp_path), order(spec)
    bag = engine.open(mine)
    for step in (1, 2, 3):
        folder.Reports(mine, bag)({"step": step, "score": None})
    assert len(engine.events()) == 3
    (bag / "events").write_text('{"step": 7, "score": null}\n')
    assert engine.events() == [(mine.name, {"step": 7, "score": None})]
    (bag / "events").write_text('{"step": 10, "what is longer": 1, "score": null}\n{"step": 11, "sco{"step": 12}\n')
    folder.Reports(mine, bag)({"step": 13, "score": None})
    assert engine.events() == [(mine.name, {"step": 13, "score": None})]
