"""Image tasks: every file, variants, default teachers' tasks, and what a budget makes of them."""

import dataclasses
from pathlib import Path

import pytest
import torch

from kfbench import registry
from kfbench.data import images, packs
from kfbench.data.rows import Raw, Rows
from kfbench.errors import KfbenchError
from kfbench.networks import make
from kfbench.running import budgets, resolve
from kfbench.spec import Recipe
from kfbench.tasks import ImageTask

IMAGE_TASKS = [
    name for name in registry.names("tasks") if name != "imagefolder" and registry.describe("tasks", name).get("shape")
]


@pytest.fixture(autouse=True)
def flowers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An imported data set of five classes."""
    monkeypatch.setenv("KFBENCH_DATA", str(tmp_path / "data"))
    rows = Rows(torch.zeros(10, 3, 6, 7, dtype=torch.uint8), torch.arange(10) % 5)
    made = packs.write("flowers", Raw(rows, rows, tuple("abcde")), source="made up")
    stamp = (made.folder / "pack.json").stat().st_ino
    packs.write("flowers", Raw(rows, rows, tuple("abcde")), source="made up")  # by another process, at once
    assert (made.folder / "pack.json").stat().st_ino == stamp  # who reads it goes on


def image_task(name: str) -> ImageTask:
    task = registry.load_task(name)
    assert isinstance(task, ImageTask)
    return task


def test_the_tasks_of_the_suite_are_there() -> None:
    asked = {"digits", "mnist", "fashion-mnist", "emnist", "svhn", "cifar10", "cifar100", "stl10"}
    assert asked <= set(IMAGE_TASKS) and "imagefolder" in registry.names("tasks")


@pytest.mark.parametrize("name", [*IMAGE_TASKS, "digits/low", "mnist/5k", "cifar100/0-49", "imagefolder/flowers"])
def test_every_budget_of_every_task_is_a_recipe_of_a_network_that_exists(name: str) -> None:
    task = image_task(name)
    shape, outputs = (3, 32, 32) if name == "imagefolder/flowers" else task.shape, task.outputs
    for budget in budgets.BUDGETS:
        recipe = budgets.recipe(task, budget)
        assert isinstance(recipe, Recipe)
        for network in {recipe.network, budgets.teacher_network(task, budget)} if budget != "paper" else set():
            made = make(network, shape=shape, outputs=outputs)
            assert sum(parameter.numel() for parameter in made.parameters()) > 1000
    for source in task.sources:
        other = image_task(source)
        assert other.name == source and other.name != task.name
        assert other.dataset != task.dataset or not set(other.keep or ()) & set(task.keep or ())


def test_a_file_of_literals_is_read_without_importing_it() -> None:
    for name in IMAGE_TASKS:
        told, task = registry.describe("tasks", name), registry.load_module("tasks", name).TASK
        for field in dataclasses.fields(ImageTask):
            if field.name in told and field.name != "name":
                assert told[field.name] == getattr(task, field.name)
        assert told["about"] and "Source:" in (registry.load_module("tasks", name).__doc__ or "")


@pytest.mark.parametrize(
    ("name", "keep", "sources"),
    [
        ("cifar100", None, ("cifar10",)),
        ("cifar100/0-49", range(50), ("cifar100/50-99",)),
        ("cifar100/50-99", range(50, 100), ("cifar100/0-49",)),
        ("cifar100/1-99", range(1, 100), ("cifar10",)),  # one class is no teacher
        ("cifar100/10-19", range(10, 20), ("cifar10",)),
        ("digits", None, ("digits/low", "digits/high")),
        ("digits/low", range(5), ("digits/high",)),
        ("digits/high", range(5, 10), ("digits/low",)),
        ("digits/high/0-1", range(5, 7), ("digits/high/2-4",)),
        ("fashion-mnist/0-4", range(5), ("fashion-mnist/5-9",)),
        ("mnist", None, ("mnist/5k",)),
        ("mnist/5k", None, ("digits",)),
        ("mnist/5k/0-4", range(5), ("mnist/5k/5-9",)),
        ("imagefolder/flowers", None, ()),
        ("imagefolder/flowers/0-2", range(3), ("imagefolder/flowers/3-4",)),
    ],
)
def test_variants(name: str, keep: range | None, sources: tuple[str, ...]) -> None:
    task = image_task(name)
    assert task.name == name and task.sources == sources
    assert task.keep == (None if keep is None else tuple(keep))
    assert task.outputs == (task.classes if keep is None else len(keep))


def test_a_variant_may_have_another_data_set() -> None:
    assert image_task("mnist").dataset == "mnist" and image_task("mnist/5k").dataset == "mnist-5k"
    assert image_task("imagefolder/flowers").dataset == "flowers"


def test_an_imported_data_set_tells_shape_and_classes_as_soon_as_its_task_is_loaded(flowers: None) -> None:
    for split in ("train", "test"):  # the description is all that is read
        (packs.data_folder() / "flowers" / f"{split}.safetensors").unlink()
    task = image_task("imagefolder/flowers")
    assert (task.shape, task.classes, task.outputs) == ((3, 6, 7), 5, 5)
    part = image_task("imagefolder/flowers/1-2")
    assert (part.shape, part.classes, part.outputs, part.keep) == ((3, 6, 7), 5, 2, (1, 2))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("digits/lw", "no variant 'lw' of task 'digits'; did you mean 'low'"),
        ("cifar100/fine", "no variant 'fine' of task 'cifar100'; .*as 0-4"),
        ("cifar100/50-100", "task 'cifar100' has no classes '50-100'; it has 0-99"),
        ("cifar100/9-5", "has no classes '9-5'"),
        ("digits/low/0-5", "task 'digits/low' has no classes '0-5'; it has 0-4"),
        ("mnist/5k/5k", "no variant '5k' of task 'mnist/5k'"),
        ("imagefolder", "needs a name: imagefolder/NAME"),
        ("imagefolder/flower", "no data set 'flower' .*did you mean 'flowers'.*kfbench data import flower PATH"),
        ("imagefolder/flowers/3-5", "task 'imagefolder/flowers' has no classes '3-5'; it has 0-4"),
        ("imagefolder/xyz", "no data set 'xyz' .*; there is: flowers, aircraft, .* import xyz PATH"),
        ("flowers", "no task 'flowers', but there is a data set: its task is 'imagefolder/flowers'"),
        ("flowers/0-2", "its task is 'imagefolder/flowers'"),
        ("cifar10O", "no task 'cifar10O'; did you mean 'cifar100?'"),
    ],
)
def test_names_that_are_wrong_are_refused(name: str, said: str) -> None:
    with pytest.raises(KfbenchError, match=said):
        registry.load_task(name)


def test_what_the_budgets_say() -> None:
    cifar = image_task("cifar100")
    small, standard, paper = (budgets.recipe(cifar, name) for name in ("small", "standard", "paper"))
    assert isinstance(small, Recipe) and isinstance(standard, Recipe) and isinstance(paper, Recipe)
    assert (small.network, small.train_size, small.epochs, small.batch_size) == ("cnn-16", 10_000, 12, 64)
    assert (small.optimizer, small.lr, small.pad, small.flip) == ("adamw", 3e-3, 4, True)
    assert (standard.network, standard.train_size, standard.precision) == ("resnet8x4", None, "bf16")
    # Huang et al. 2017, section 4.2: SGD, Nesterov, batch 64, 0.1 falling tenfold at 50 and 75 % of 300 epochs
    assert (paper.network, paper.optimizer, paper.lr, paper.momentum) == ("densenet-100-24", "sgd", 0.1, 0.9)
    assert (paper.weight_decay, paper.batch_size, paper.epochs) == (1e-4, 64, 300)
    assert (paper.schedule, paper.milestones, paper.decay) == ("step", (0.5, 0.75), 0.1)
    svhn, mnist = (budgets.recipe(image_task(name), "paper") for name in ("svhn", "mnist"))
    assert isinstance(svhn, Recipe) and isinstance(mnist, Recipe)
    assert (svhn.network, svhn.epochs, svhn.pad, svhn.flip) == ("densenet-100-24", 40, 0, False)
    assert mnist.network == "mlp-800" and budgets.teacher_network(image_task("mnist"), "paper") == "mlp-1200-dropout"
    assert budgets.teacher_network(cifar, "small") == "cnn-32"


def test_a_part_of_the_classes_gets_its_part_of_the_images() -> None:
    for name, size in (("cifar100/0-49", 5000), ("cifar100/0-4", 500), ("cifar100/3-3", 100), ("digits/low", None)):
        recipe = budgets.recipe(image_task(name), "small")
        assert isinstance(recipe, Recipe) and recipe.train_size == size


def test_what_the_user_sets_wins_and_is_checked() -> None:
    task = image_task("cifar10")
    recipe = budgets.recipe(task, "small", {"epochs": "3", "train_size": 2000, "flip": "false"})
    assert isinstance(recipe, Recipe)
    assert (recipe.epochs, recipe.train_size, recipe.flip, recipe.pad) == (3, 2000, False, 4)
    for changes, said in (
        ({"epoch": 3}, "the recipe of task 'cifar10' has no field 'epoch'; did you mean 'epochs'"),
        ({"epochs": -1}, "field 'epochs' .* greater than 0"),
        ({"train_size": "many"}, "field 'train_size'"),
        ({"precision": "fp8"}, "field 'precision'"),
    ):
        with pytest.raises(KfbenchError, match=said):
            budgets.recipe(task, "small", changes)
    with pytest.raises(KfbenchError, match="no budget 'smal'; did you mean 'small'"):
        budgets.recipe(task, "smal")


def test_default_budgets_find_enough_images() -> None:
    for name in ("digits", "digits/low", "digits/high/0-1", "mnist/5k", "mnist/5k/0-4"):
        task = image_task(name)
        for budget in budgets.BUDGETS:
            recipe = budgets.recipe(task, budget)
            assert isinstance(recipe, Recipe)
            data = images.load(task, recipe.train_size)
            assert len(data.classes) == task.outputs and data.shape == task.shape
            assert recipe.train_size is None or len(data.train) == recipe.train_size


def test_budgets_that_are_misspelt_are_a_line() -> None:
    task = registry.load_task("digits")
    for fields, said in (
        ({"smok": {}}, "a budget 'smok'; did you mean 'smoke'"),
        ({"all": {"like": "hintn"}}, "'hinton'"),
    ):
        with pytest.raises(KfbenchError, match=said):
            budgets.recipe(dataclasses.replace(task, budgets=fields), "smoke")


def test_a_spec_of_another_version_is_a_line() -> None:
    spec = resolve.resolve("scratch", "digits", budget="smoke").to_json()
    with pytest.raises(
        KfbenchError, match="a run of scratch on digits is written down by another version of kfbench: .*mixup"
    ):
        registry.read_spec({**spec, "recipe": {**spec["recipe"], "mixup": 1}})
