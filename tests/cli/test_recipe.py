"""What is listed of a recipe is what can be typed."""

from dataclasses import fields

import pytest

from kfbench import registry
from kfbench.cli import recipe
from kfbench.errors import KfbenchError
from kfbench.running import budgets


@pytest.mark.parametrize(("kind", "task"), [("images", "digits"), ("games", "atari/pong")])
def test_every_field_is_listed_and_takes_its_default_as_it_is_shown(kind: str, task: str) -> None:
    rows = {row["name"]: row for row in recipe.rows() if row["kind"] == kind}
    made = recipe.KINDS[kind]
    assert list(rows) == [field.name for field in fields(made)]
    assert all(row["about"] and row["values"] for row in rows.values())
    typed = {name: row["default"] for name, row in rows.items() if "(" not in row["default"]}
    own = {name: row["default"] for name, row in rows.items() if "(" in row["default"]}
    assert set(own) == ({"rollout", "trace", "optimizer", "lr", "passes", "minibatches"} if kind == "games" else set())
    typed |= {name: text.split(", ")[1].removesuffix(" (ppo)") for name, text in own.items()}
    assert budgets.recipe(registry.load_task(task), "smoke", typed) == made()


def test_bounds_are_those_of_the_code() -> None:
    rows = {row["name"]: row["values"] for row in recipe.rows() if row["kind"] == "images"}
    assert rows["momentum"] == "number from 0 below 1" and rows["views"] == "whole number above 0, or all"
    assert rows["optimizer"] == "adamw, sgd" and rows["flip"] == "true or false"


def test_all_is_no_limit() -> None:
    task = registry.load_task("cifar10")
    assert budgets.recipe(task, "small").train_size == 10_000
    for word in ("all", "none", None):
        assert budgets.recipe(task, "small", {"train_size": word}).train_size is None


@pytest.mark.parametrize(("name", "value"), [("train_size", "al"), ("train_size", True), ("views", 0), ("lr", True)])
def test_a_value_of_another_kind_is_refused(name: str, value: object) -> None:
    with pytest.raises(KfbenchError, match=f"field '{name}' of the recipe of task 'cifar10' cannot be {value!r}"):
        budgets.recipe(registry.load_task("cifar10"), "small", {name: value})
