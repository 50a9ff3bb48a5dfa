"""The control that is trained longer by what teachers would have cost."""

import pytest

from kfbench import registry
from kfbench.errors import KfbenchError
from kfbench.running import equal_cost, resolve
from kfbench.spec import AnyRecipe, GameRecipe, Recipe
from kfbench.train.training import training_of


def recipe_of(method: str, task: str, teachers: list[str] | None, **changes: object) -> AnyRecipe:
    return resolve.resolve(method, task, teachers=teachers, recipe=changes).recipe


def test_a_teacher_like_the_student_adds_its_training_and_a_forward_pass_an_image() -> None:
    plain = recipe_of("scratch", "cifar100", None, network="cnn-16")
    same = recipe_of("scratch/equal-compute", "cifar100", ["cifar100/cnn-16"], network="cnn-16")
    assert isinstance(plain, Recipe) and isinstance(same, Recipe)
    assert same.epochs == pytest.approx(plain.epochs * (1 + 1 + 1 / 3), rel=1e-3)
    twice = recipe_of("scratch/equal-compute", "cifar100", ["cifar100/cnn-16"] * 2, network="cnn-16")
    assert isinstance(twice, Recipe) and twice.epochs == pytest.approx(plain.epochs * (1 + 2 + 2 / 3), rel=1e-3)


def test_a_random_teacher_costs_its_forward_passes_only() -> None:
    plain = recipe_of("scratch", "cifar100", None, network="cnn-16")
    longer = recipe_of("scratch/equal-compute", "cifar100", ["random:cifar100/cnn-16"], network="cnn-16")
    assert isinstance(plain, Recipe) and isinstance(longer, Recipe)
    assert longer.epochs == pytest.approx(plain.epochs * (1 + 1 / 3), rel=1e-3)


def test_a_games_frames_grow() -> None:
    plain = recipe_of("scratch", "atari/krull", None)
    longer = recipe_of("scratch/equal-compute", "atari/krull", ["atari/pong"])
    assert isinstance(plain, GameRecipe) and isinstance(longer, GameRecipe)
    passes = 1 + 3 * plain.passes
    assert longer.frames == pytest.approx(plain.frames * (1 + (passes + 1) / passes), rel=1e-3)


def test_the_spec_has_no_teachers_and_nothing_else_changes() -> None:
    made = resolve.resolve("scratch/equal-compute", "cifar100")
    plain = resolve.resolve("scratch", "cifar100")
    assert made.teachers == () and made.settings == plain.settings == {}
    assert isinstance(made.recipe, Recipe) and isinstance(plain.recipe, Recipe)
    assert made.recipe.epochs > plain.recipe.epochs
    assert resolve.resolve("scratch/equal-compute", "cifar100", teachers=[]).recipe == plain.recipe


def test_a_teacher_of_unknown_cost_is_refused() -> None:
    with pytest.raises(KfbenchError, match="is not known"):
        resolve.resolve("scratch/equal-compute", "cifar100", teachers=["torchvision:resnet18"])


def test_images_are_counted_by_the_recipe() -> None:
    task = registry.load_task("cifar100")
    assert training_of(task.kind).seen(task, Recipe(epochs=2, train_size=1000)) == 2000


def test_a_run_costs_its_training_and_each_teachers_passes() -> None:
    seen = {"network": "cnn-16", "train_size": 1000, "epochs": 2, "batch_size": 64}
    alone = equal_cost.run_cost(resolve.resolve("scratch", "cifar100", recipe=seen))
    task = registry.load_task("cifar100")
    narrow, wide = (equal_cost.multiply_adds_of(task, name) for name in ("cnn-16", "cnn-32"))
    assert alone == 3 * 2000 * narrow
    taught = resolve.resolve("kf", "cifar100", teachers=["cifar100/cnn-32", "random:cifar100/cnn-16"], recipe=seen)
    assert equal_cost.run_cost(taught) == alone + 2000 * (wide + narrow)
    assert equal_cost.steps(taught) == 2 * 15  # as the loop takes them: a batch that is not full is left out
    with pytest.raises(KfbenchError, match="'torchvision:resnet18' costs is not known"):
        equal_cost.run_cost(resolve.resolve("kf", "cifar100", teachers=["torchvision:resnet18"], recipe=seen))
