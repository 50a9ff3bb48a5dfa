"""The command of a run asks for the very run, whatever its settings, recipe and teachers."""

from pathlib import Path
from typing import Any

import pytest

from kfbench.errors import KfbenchError
from kfbench.running import command, prepare, resolve, teacher_names
from kfbench.spec import RunSpec
from kfbench.studies import definition, plan

REPORTS = Path(__file__).parents[2] / "reports"


def asked(words: list[str]) -> RunSpec:
    """Return the run that the words of `kfbench run` ask for, read as the command line reads them."""
    assert words[:2] == ["kfbench", "run"]
    given: dict[str, Any] = {"--set": {}, "--set-recipe": {}}
    for option, value in zip(words[2::2], words[3::2], strict=True):
        if isinstance(given.get(option), dict):
            name, _, text = value.partition("=")
            given[option][name] = text
        else:
            given[option] = value
    teachers = given.get("--teachers")
    return resolve.resolve(
        given["--method"],
        given["--task"],
        budget=given["--budget"],
        teachers=None if teachers is None else teachers.split(","),
        seed=int(given["--seed"]),
        recipe=given["--set-recipe"],
        settings=given["--set"],
    )


@pytest.mark.parametrize(
    ("method", "task", "more"),
    [
        ("scratch", "digits", {"recipe": {"schedule": "step", "milestones": "0.3,0.6", "flip": True}, "seed": 3}),
        ("kd", "digits", {"recipe": {"train_size": "none", "milestones": (0.25,)}, "settings": {"alpha": 0.3}}),
        ("kf/guided", "digits", {"teachers": ["random:digits", "digits/low"], "settings": {"cut": 0.5}}),
        ("scratch/equal-compute", "digits", {"teachers": ["digits/low"]}),
        ("pathnet", "digits/high", {"settings": {"source": "digits/low"}}),
        (
            "kf",
            "atari/pong",
            {
                "recipe": {"algorithm": "a2c", "passes": 1, "minibatches": 1, "correction": "vtrace"},
                "teachers": ["random:atari/krull"],
            },
        ),
        ("scratch", "atari/pong", {"recipe": {"correction": "none", "frames": "1000"}}),
    ],
)
def test_the_command_of_a_run_asks_for_it(method: str, task: str, more: dict[str, Any]) -> None:
    spec = resolve.resolve(method, task, budget="smoke", **more)
    assert asked(command.run(spec)) == spec


@pytest.mark.parametrize("study", ["quick", "cifar100-methods", "tuned", "atari-a2c", "distillation-cifar100"])
def test_so_does_that_of_every_run_and_teacher_of_a_study(study: str) -> None:
    cells = plan.read(REPORTS / study, definition.load(REPORTS / study))
    for spec in (cell.spec for cell in cells if cell.spec is not None):
        assert asked(command.run(spec)) == spec
        for teacher in prepare.teachers_of(spec):
            words = command.teacher(teacher)
            assert teacher_names.read(words[-1], budget="small").spec() == teacher


def test_a_run_has_one_spec_however_it_is_typed() -> None:
    forms: list[dict[str, Any]] = [
        {"epochs": 3.0, "train_size": "300", "flip": "True", "milestones": "0.3,0.6"},
        {"milestones": (0.3, 0.6), "flip": True, "train_size": 300, "epochs": "3"},
    ]
    first, second = (resolve.resolve("kd", "digits", budget="smoke", recipe=form) for form in forms)
    assert first == second
    assert first.teachers == ("digits/cnn-32@smoke:train_size=300+epochs=3+milestones=0.3/0.6+flip=true",)
    for all_of_them in ("all", "none", None):
        spec = resolve.resolve("kd", "cifar10", recipe={"train_size": all_of_them})
        assert spec.teachers == ("cifar10/cnn-32@small:train_size=none",)
    named = resolve.resolve("kf", "digits", budget="smoke", teachers=["digits@smoke:flip=True+epochs=3.0"])
    assert named.teachers == ("digits/cnn-32@smoke:epochs=3+flip=true",)
    with pytest.raises(KfbenchError, match="the network stands before the budget: digits/cnn-8@smoke"):
        teacher_names.read("digits/cnn-32@smoke:network=cnn-8", budget="smoke")


def test_what_is_typed_for_a_run_goes_over_to_its_teacher() -> None:
    """`none` is no value and not the word; numbers are joined by a slash, for commas are between teachers."""
    recipe = {"train_size": "none", "milestones": "0.3,0.6"}
    spec = resolve.resolve("kd", "digits", budget="smoke", recipe=recipe)
    assert "," not in spec.teachers[0]
    [teacher] = prepare.teachers_of(spec)
    assert (teacher.recipe.train_size, teacher.recipe.milestones) == (None, (0.3, 0.6))  # type: ignore[attr-defined]
    assert resolve.resolve("kd", "digits", budget="smoke", recipe={**recipe, "milestones": [0.3, 0.6]}) == spec
