"""Plans: what a study leaves open is filled in, what is misspelt is an error, shipped plans are current."""

from pathlib import Path

import pytest

from kfbench import registry
from kfbench.errors import KfbenchError
from kfbench.spec import digest
from kfbench.studies import definition, forecast, plan
from kfbench.studies.place import Place

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


def test_a_student_that_cannot_be_made_is_no_run_where_one_is_lacking(tmp_path, monkeypatch):
    """Before its teachers are trained; what a method's own code does wrong, or a teacher that is not here, passes."""
    (tmp_path / "study.toml").write_text(
        'title = "Digits"\nbudget = "smoke"\nseeds = 2\nmethods = [{ method = "lora", settings = { only = "no" } }, '
        f'"finetune", {{ method = "kf", teachers = ["file:{tmp_path}/x.pth"] }}]\n'
        'tasks = [{ task = "digits/high", teachers = ["digits/low/cnn-16"] }]\n'
    )
    made = definition.load(tmp_path)

    def reasons(done):
        return {cell.row: cell.reason for cell in plan.make(made, results=tmp_path / "results", done=done)}

    told = reasons(())
    assert "no layer of network 'cnn-16' has 'no' in its name; there are: " in told["lora"]
    assert told["finetune"] == told["kf"] == "" and not (tmp_path / "results").exists()
    every = {digest(spec.to_json()) for cell in plan.make(made) for spec in cell.runs(made.seeds)}
    assert reasons(every)["lora"] == "" == reasons(None)["lora"]
    monkeypatch.setattr(registry.method_class("lora"), "make_student", lambda *_: 1 / 0)
    assert reasons(())["lora"] == ""


def test_cells_whose_data_are_not_here_are_runs_and_not_na(tmp_path, monkeypatch):
    """What is planned where the data lie is planned anywhere; who begins there is told to fetch them."""
    monkeypatch.setenv("KFBENCH_DATA", str(tmp_path / "empty"))
    (tmp_path / "study.toml").write_text(
        'title = "C"\nbudget = "smoke"\nseeds = 1\nmethods = ["scratch", "kd", "kf"]\ntasks = ["cifar100"]\n'
    )
    cells = plan.make(definition.load(tmp_path), results=tmp_path / "results", done=())
    assert [(cell.spec is None, cell.reason) for cell in cells] == [(False, "")] * 3
    with pytest.raises(KfbenchError, match="no data set 'cifar.*kfbench data download cifar"):
        forecast.tell(tmp_path, results=tmp_path / "results", row=None, column=None, say=print, note=print)


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
        ("epochs = 2", "epochs = true", "field 'epochs' .* cannot be True: it should be a number"),
        ('["digits/low"]', '["digts/low"]', "no task 'digts'; did you mean 'digits'"),
        (
            'label = "random", teachers = "random"',
            'label = "x", teachers = ["mnist@smal"]',
            "no budget 'smal'; did you",
        ),
        ('label = "random"', 'label = "random", settings = { cutt = 1 }', "no setting 'cutt'; did you mean 'cut'"),
    ],
)
def test_a_misspelt_name_is_an_error_and_no_empty_cell(tmp_path, old, new, told):
    (tmp_path / "study.toml").write_text(STUDY.replace(', "breaks"', "").replace(old, new))
    with pytest.raises(KfbenchError, match=told):
        plan.make(definition.load(tmp_path))


def test_shipped_studies_load_and_their_plans_are_current():
    """Every study of the repository resolves to runs, and its committed plan is the one today's code would make."""
    root = Path(__file__).parents[2] / "reports"
    if not root.is_dir():
        pytest.skip("no reports beside the tests")
    found = sorted(path.parent for path in root.glob("*/study.toml"))
    assert len(found) >= 5
    for folder in found:
        made = definition.load(folder)
        assert plan.read(folder, made) == plan.make(made, plan.tuned(folder, made)), folder.name


def test_damaged_plans_and_choices_are_a_line(tmp_path):
    (tmp_path / "study.toml").write_text(STUDY.replace(', "breaks"', ""))
    made = definition.load(tmp_path)
    for text in ("[]", "{}", '{"cells": 1}'):
        (tmp_path / "plan.json").write_text(text)
        with pytest.raises(KfbenchError, match="plan.json' is no plan; make it: kfbench study"):
            plan.read(tmp_path, made)
    searched = made.model_copy(update={"search": definition.Search()})
    plan.write(tmp_path, made, plan.make(made))
    with pytest.raises(KfbenchError, match="is older than the rows and columns"):
        plan.read(tmp_path, searched)


def test_a_place_is_checked_wherever_it_is_asked_for(tmp_path):
    for name, value in (("jobs", 0), ("threads", 0), ("memory", -1.0), ("checkpoint_seconds", float("nan"))):
        with pytest.raises(KfbenchError, match=f"{name} cannot be {value}; give a number from"):
            Place(tmp_path, **{name: value})
