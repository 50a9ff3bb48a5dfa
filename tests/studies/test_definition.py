"""Studies: the schema, whose mistakes name their key, expansion to specs, the plan."""

import subprocess
import sys
from pathlib import Path

import pytest

from kfbench.errors import KfbenchError
from kfbench.studies import definition, plan

GOOD = """# a study
title = "Small"
budget = "smoke"
seeds = 3
methods = [
    "scratch",
    { method = "kf", label = "Knowledge Flow" },  # with a comment, and a comma
    { method = "kf", label = "random", teachers = "random", settings = { cut = 0.5 } },
]

[[tasks]]
task = "digits/high"
teachers = ["digits/low"]

[[tasks]]
task = "digits/low"
label = "low"
train_size = 100

[[claims]]
text = "kf beats scratch"
better = "Knowledge Flow"
than = "scratch"
on = ["low"]

[[reference]]
row = "scratch"
column = "low"
value = 12.5
source = "somebody 2020, table 1"
"""


def write(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "study.toml").write_text(text)
    return folder


def test_a_study_loads_with_its_labels(tmp_path):
    made = definition.load(write(tmp_path / "small", GOOD))
    assert made.name == "small" and made.seeds == [0, 1, 2]
    assert [row.label for row in made.methods] == ["scratch", "Knowledge Flow", "random"]
    assert [column.label for column in made.tasks] == ["digits/high", "low"]
    assert made.row("random").settings == {"cut": 0.5}
    assert made.search is None


def test_teachers_may_have_blanks_around_them(tmp_path):
    (tmp_path / "study.toml").write_text(GOOD.replace('["digits/low"]', '["digits/low ", " "]'))
    assert definition.load(tmp_path).tasks[0].teachers == ["digits/low"]


def test_networks_and_training_sizes_multiply_columns(tmp_path):
    text = 'title = "t"\nmethods = ["scratch"]\ntasks = ["cifar10", "cifar100"]\nnetworks = ["cnn-16", "resnet8"]\n'
    made = definition.load(write(tmp_path / "a", text + "train_sizes = [500, 2000]\nsearch = true\n"))
    assert len(made.tasks) == 8
    assert made.tasks[1].label == "cifar10, cnn-16, 2,000 images"
    assert (made.tasks[1].network, made.tasks[1].train_size) == ("cnn-16", 2000)
    assert made.search is not None and made.search.trials == 25


def test_all_images_is_the_spec_that_names_no_size(tmp_path):
    """Whatever the budget takes; so runs with all images are shared by studies with and without other sizes."""
    text = 'title = "t"\nbudget = "small"\nmethods = ["scratch"]\ntasks = ["cifar100"]\ntrain_sizes = [500, "all"]\n'
    made = definition.load(write(tmp_path / "a", text))
    assert [column.label for column in made.tasks] == ["cifar100, 500 images", "cifar100, all images"]
    few, every = (plan.recipe_of(made, made.methods[0], column) for column in made.tasks)
    assert few == {"train_size": 500} and every == {"train_size": None}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("seeds = 3", "seed = 3", "'seed': no such key; did you mean 'seeds'?"),
        ("seeds = 3", 'name = "My study"', "'name': no such key; the folder's name is the study's, 'title' is for the"),
        ("seeds = 3", "seeds = [1, 'x']", "seeds, entry 2: cannot be 'x'"),
        (
            'label = "Knowledge Flow" }',
            'lable = "Knowledge Flow" }',
            "methods, entry 2, 'lable': no such key; did you mean 'label'?",
        ),
        ("settings = { cut = 0.5 }", "settings = { cut = [1] }", "methods, entry 3, settings, 'cut': cannot be [1]"),
        ('teachers = ["digits/low"]', "teachers = 5", "tasks, entry 1, 'teachers': cannot be 5"),
        ("train_size = 100", "train_size = 0", "tasks, entry 2, 'train_size': cannot be 0: input should be greater"),
        ("train_size = 100", 'train_size = "al"', "cannot be 'al': input should be a valid integer or 'all'"),
        (
            "train_size = 100",
            "train_size = true",
            "'train_size': cannot be True: input should be a valid integer or",
        ),
        ("seeds = 3", 'baseline = "scrach"', "'baseline': no row or column 'scrach'; did you mean 'scratch'?"),
        ("seeds = 3", "seeds = [0, 1, 0]", "'seeds': [0, 1, 0] names one twice"),
        ("seeds = 3", "seeds = [3, 1000]\nsearch = true", "'seeds': the search chooses by seed 1000; runs that are"),
        ("seeds = 3", "seeds = [-1]", "seeds, entry 1: cannot be -1: input should be greater than or equal to 0"),
        ("seeds = 3", f"seeds = [{2**63}]", "seeds, entry 1: cannot be 9223372036854775808: input should be"),
        ("seeds = 3", 'search = "yes"', "'search': cannot be 'yes': input should be a valid table"),
        (
            "[[claims]]",
            '[[tables]]\nname = "a"\ntitle = "A"\n[[tables]]\nname = "a"\ntitle = "B"\n[[claims]]',
            "study.toml': two tables are called 'a'; give each a name of its own",
        ),
        (
            "[[claims]]",
            '[[tables]]\nname = "cost"\ntitle = "A"\n[[claims]]',
            "study.toml': a table of every page is called 'cost'; give yours another name",
        ),
        ('label = "low"', 'label = "_low"', "label '_low' begins with _, which plots leave out"),
        ("seeds = 3", "seeds = 1000000000", "'seeds': cannot be 1000000000: there are 1 to 1,000 seeds, or a list"),
        ("settings = { cut = 0.5 }", "settings = { cut = inf }", "methods, entry 3, settings, 'cut': cannot be inf"),
        ("value = 12.5", "value = nan", "reference, entry 1, 'value': cannot be nan: input should be a finite number"),
        (
            'better = "Knowledge Flow"\nthan = "scratch"',
            'row = "scratch"\ncurve = "loss"\nbelow = 1\nmargin = 2',
            "a claim about a curve has no margin",
        ),
        ('better = "Knowledge Flow"', 'better = "scratch"', "a claim compares two rows, not one with itself"),
        ("seeds = 3", "seeds = [true]", "seeds, entry 1: cannot be True: input should be a valid integer"),
        ("value = 12.5", "value = true", "reference, entry 1, 'value': cannot be True: input should be a valid number"),
        ('task = "digits/low"', 'teachers = ["a"]', "tasks, entry 2, 'task': is missing"),
        ('better = "Knowledge Flow"', "", "claims, entry 1: cannot be"),
        ('better = "Knowledge Flow"', "", "a claim has 'better' and 'than', or"),
        ('on = ["low"]', 'on = ["loww"]', "claims, entry 1, 'on': no row or column 'loww'; did you mean 'low'?"),
        ('on = ["low"]', 'on = ["low", "low"]', "claims, entry 1, 'on': 'low' stands twice; name it once"),
        (
            "[[claims]]",
            '[[tables]]\nname = "a"\ntitle = "A"\nrows = ["scratch", "scratch"]\n[[claims]]',
            "tables, entry 1, 'rows': 'scratch' stands twice",
        ),
        ('row = "scratch"', 'row = "scrach"', "reference, entry 1, 'row': no row or column 'scrach'; did you mean"),
        ("value = 12.5", 'value = "high"', "reference, entry 1, 'value': cannot be 'high'"),
        ('label = "low"', 'label = "digits/high"', "study.toml': two tasks are called 'digits/high'"),
        ('title = "Small"', 'title = "Small', "is not TOML"),
    ],
)
def test_a_mistake_names_its_key(tmp_path, old, new, told):
    assert old in GOOD
    folder = write(tmp_path / "bad", GOOD.replace(old, new))
    with pytest.raises(KfbenchError) as caught:
        definition.load(folder)
    text = str(caught.value)
    assert told in text and "study.toml'" in text and "\n" not in text


def test_an_unknown_study_names_the_nearest(tmp_path):
    write(tmp_path / "cifar", GOOD)
    with pytest.raises(KfbenchError, match="did you mean 'cifar'"):
        definition.load(tmp_path / "cifarr")


def test_reading_a_study_imports_neither_torch_nor_optuna(tmp_path):
    folder = write(tmp_path / "small", GOOD)
    code = (
        "import sys, pathlib\nfrom kfbench.studies import definition, plan\nfrom kfbench.reporting import grid, pairs\n"
        f"definition.load(pathlib.Path({str(folder)!r}))\nassert not {{'torch', 'optuna'}} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
