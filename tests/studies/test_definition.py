"""Studies: the schema, whose mistakes name their key, expansion to specs, the plan."""

import subprocess
import sys
from pathlib import Path

import pytest

from kfbench.errors import KfbenchError
from kfbench.studies import definition

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


def test_networks_and_training_sizes_multiply_columns(tmp_path):
    text = 'title = "t"\nmethods = ["scratch"]\ntasks = ["cifar10", "cifar100"]\nnetworks = ["cnn-16", "resnet8"]\n'
    made = definition.load(write(tmp_path / "a", text + "train_sizes = [500, 2000]\nsearch = true\n"))
    assert len(made.tasks) == 8
    assert made.tasks[1].label == "cifar10, cnn-16, 2,000 images"
    assert (made.tasks[1].network, made.tasks[1].train_size) == ("cnn-16", 2000)
    assert made.search is not None and made.search.trials == 25


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("seeds = 3", "seed = 3", "'seed': no such key; did you mean 'seeds'?"),
        ("seeds = 3", "seeds = [1, 'x']", "seeds, entry 2: cannot be 'x'"),
        (
            'label = "Knowledge Flow" }',
            'lable = "Knowledge Flow" }',
            "methods, entry 2, 'lable': no such key; did you mean 'label'?",
        ),
        ("settings = { cut = 0.5 }", "settings = { cut = [1] }", "methods, entry 3, settings, 'cut': cannot be [1]"),
        ('teachers = ["digits/low"]', "teachers = 5", "tasks, entry 1, 'teachers': cannot be 5"),
        ("train_size = 100", "train_size = 0", "tasks, entry 2, 'train_size': cannot be 0: input should be greater"),
        ('task = "digits/low"', 'teachers = ["a"]', "tasks, entry 2, 'task': is missing"),
        ('better = "Knowledge Flow"', "", "claims, entry 1: cannot be"),
        ('better = "Knowledge Flow"', "", "a claim has 'better' and 'than', or"),
        ('on = ["low"]', 'on = ["loww"]', "claims, entry 1, 'on': no row or column 'loww'; did you mean 'low'?"),
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
