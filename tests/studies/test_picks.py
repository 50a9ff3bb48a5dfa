"""Studies that ask for the best teachers: chosen once a cell, kept, named in every spec, told in every record."""

import json
from pathlib import Path

import pytest

from kfbench.errors import KfbenchError
from kfbench.running import execute, records, teacher_names
from kfbench.studies import carry, definition, missing, picks, plan

NAMES = ("digits/cnn-4@smoke", "digits/cnn-8@smoke:epochs=8")
STUDY = """
title = "Digits"
budget = "smoke"
seeds = 2
methods = ["scratch", "kd", { method = "kd", label = "random", teachers = "random" }, "kickstarting"]
tasks = [{ task = "digits", teachers = ["best:1"], network = "cnn-4", train_size = 60, recipe = { epochs = 1 } }]
"""


@pytest.fixture(autouse=True)
def data_folder(packed_digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFBENCH_DATA", str(packed_digits))


def test_a_cell_has_the_best_of_the_store_and_keeps_it(tmp_path: Path) -> None:
    results, folder = tmp_path / "results", tmp_path / "study"
    folder.mkdir()
    (folder / "study.toml").write_text(STUDY)
    study = definition.load(folder)
    with pytest.raises(KfbenchError, match="asks for 1 teachers, but 0 of those"):
        picks.settle(folder, study, results=results)
    execute.teacher(teacher_names.read(NAMES[0], budget="smoke").spec(), results=results)
    picked = picks.settle(folder, study, results=results)
    assert set(picked) == {"kd · digits", "random · digits"} and picks.read(folder) == picked
    execute.teacher(teacher_names.read(NAMES[1], budget="smoke").spec(), results=results)
    assert picks.settle(folder, study, results=results) == picked  # the store has grown: nothing changes
    cells = {cell.row: cell for cell in plan.make(study, {}, picked)}
    assert cells["kd"].spec is not None and cells["kd"].spec.teachers == (NAMES[0],)
    assert cells["random"].spec is not None and cells["random"].spec.teachers == (f"random:{NAMES[0]}",)
    assert cells["scratch"].spec is not None and cells["scratch"].chosen is None
    assert "is for games" in cells["kickstarting"].reason

    (folder / "teachers.json").unlink()
    again = picks.settle(folder, study, results=results)["kd · digits"]
    assert set(again["candidates"]) == set(NAMES)
    assert again["candidates"][again["teachers"][0]] == max(again["candidates"].values())

    jobs = missing.missing(
        missing.wanted(study, list(cells.values()), row="kd", column=None), missing.recorded(results)
    )
    assert len(jobs) == 2 and all(job.chosen == picked["kd · digits"] for job in jobs)
    order = carry.Order(jobs[0].name, jobs[0].spec.to_json(), versions=carry.versions(), chosen=jobs[0].chosen)
    assert carry.carry(order, {}, folder=results, report=lambda event: "go").state == "done"
    (record,) = records.records(results)
    assert record.provenance["teachers_chosen"] == picked["kd · digits"] and record.spec["teachers"] == [NAMES[0]]


def test_another_question_is_asked_anew_and_a_damaged_answer_is_a_line(tmp_path: Path) -> None:
    results = tmp_path / "results"
    for name in NAMES:
        execute.teacher(teacher_names.read(name, budget="smoke").spec(), results=results)
    (tmp_path / "study.toml").write_text(STUDY)
    first = picks.settle(tmp_path, definition.load(tmp_path), results=results)
    (tmp_path / "study.toml").write_text(STUDY.replace("best:1", "best:1:parc"))
    second = picks.settle(tmp_path, definition.load(tmp_path), results=results)
    assert {choice["score"] for choice in first.values()} == {"logme"}
    assert {choice["score"] for choice in second.values()} == {"parc"}
    (tmp_path / "study.toml").write_text(STUDY.replace("best:1", "best:1:parc").replace("= 60", "= 200"))
    third = picks.settle(tmp_path, definition.load(tmp_path), results=results)
    assert third["kd · digits"]["candidates"] != second["kd · digits"]["candidates"]  # ranked on other images
    (tmp_path / "study.toml").write_text(STUDY.replace("best:1", NAMES[0]))
    assert picks.settle(tmp_path, definition.load(tmp_path), results=results) == {}
    assert json.loads((tmp_path / "teachers.json").read_text()) == {}
    (tmp_path / "teachers.json").write_text("{")
    with pytest.raises(KfbenchError, match="is not JSON"):
        picks.read(tmp_path)
