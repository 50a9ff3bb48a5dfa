"""The library: the commands' functions, from Python."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kfbench import library
from kfbench.errors import KfbenchError
from kfbench.running import export


def test_run_load_and_look(packed_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFBENCH_DATA", str(packed_digits))
    tiny = {"recipe": {"train_size": 60}, "epochs": 1, "network": "cnn-4", "results": tmp_path, "progress": False}
    record = library.run("kd", "digits", teachers=["digits/cnn-4"], budget="smoke", settings={"temperature": 2}, **tiny)  # type: ignore[arg-type]
    again = library.run(
        "kd", "digits", teachers=" digits/cnn-4 ,", budget="smoke", settings={"temperature": 2.0}, **tiny
    )  # type: ignore[arg-type]
    assert again == record and record.spec["recipe"]["epochs"] == 1
    network = library.load(record.key[:6], results=str(tmp_path))
    assert not network.training
    with torch.no_grad():
        assert network(torch.rand(3, 1, 8, 8)).logits.shape == (3, 10)
    export.export(record.key, tmp_path / "own.safetensors", results=tmp_path)
    for name in (f"run:{record.key}", f"file:{tmp_path}/own.safetensors", "digits/cnn-4@smoke"):
        there = library.load(name, results=tmp_path)
        same = torch.equal(there.body.head.weight, network.body.head.weight)  # type: ignore[arg-type, union-attr]
        assert not there.training and same == (name != "digits/cnn-4@smoke")
    (row,) = library.runs(tmp_path).to_dict("records")
    assert row["key"] == record.key and row["settings.temperature"] == 2.0
    assert row["last.error"] == record.scores["last"]["error"]
    (teacher,) = library.runs(tmp_path, teachers=True).to_dict("records")
    assert teacher["method"] == "scratch"
    curve = library.curves(tmp_path, keys=record.key, metrics="val_error")
    assert curve["value"].iloc[-1] == record.scores["val"]["error"]


def test_mistakes_are_errors_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(KfbenchError, match="did you mean 'kd'"):
        library.run("kdd", "digits", results=tmp_path)
    with pytest.raises(KfbenchError, match="has no field 'epoch'"):
        library.run("scratch", "digits", results=tmp_path, epoch=3)
    with pytest.raises(KfbenchError, match="'temperature' is a setting of method 'kd': settings={'temperature': 2}"):
        library.run("kd", "digits", temperature=2, results=tmp_path)
    for seed in ("1", 1.5, True, -1, 2**63):
        with pytest.raises(KfbenchError, match=f"the seed of a run cannot be {seed!r}; give a whole number from 0"):
            library.run("scratch", "digits", seed=seed, results=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(KfbenchError, match="threads=0: a run needs one"):
        library.run("scratch", "digits", threads=0, results=tmp_path)
    with pytest.raises(KfbenchError, match="no run"):
        library.load("abc", results=tmp_path)
    with pytest.raises(KfbenchError, match="no run is named; give how its key begins"):
        library.load(" ", results=tmp_path)
    for look in (library.runs, library.curves):
        with pytest.raises(KfbenchError, match="no folder '.*typo'; name the one with the records"):
            look(tmp_path / "typo")
    with pytest.raises(KfbenchError, match="recipe of task 'digits' has no field '2'"):
        library.run("scratch", "digits", results=tmp_path, recipe={2: 1})  # type: ignore[dict-item]
    for name, said in {
        "file:no.pth": "no weights 'no.pth'",
        "run:abc": "no run in",
        "digits/cnn-4": "make it: kfbench teacher train digits/cnn-4@small",
        "digitz": "did you mean 'digits'",
        "timm:resnet18": "is made for a run's images",
    }.items():
        with pytest.raises(KfbenchError, match=said):
            library.load(name, results=tmp_path)


WRONG = [
    ({"settings": ["a=1"]}, "settings cannot be ['a=1']; give names with their values, as {'epochs': 3}"),
    ({"recipe": "epochs=1"}, "recipe cannot be 'epochs=1'; give names with their values, as {'epochs': 3}"),
    ({"teachers": [None]}, "teachers cannot be [None]; give names, by commas or in a list"),
    ({"teachers": 5}, "teachers cannot be 5; give names, by commas or in a list"),
    ({"results": None}, "a folder cannot be None; give its path"),
    ({"budget": 1}, "budget cannot be 1; give a name"),
    ({"device": 0}, "device cannot be 0; give a name"),
    ({"threads": "2"}, "threads cannot be '2'; give a whole number"),
    ({"log": 5}, "log cannot be 5; give a name, or a list of names"),
    ({"memory": 4}, "memory cannot be 4; give True or False"),
    ({"settings": {1: 3}}, "method 'scratch' has no setting '1'; there is none"),
    ({"recipe": {"epochs": 1}, "epochs": 2}, "'epochs' is given by its name and in recipe; leave one out"),
]


@pytest.mark.parametrize(("given", "said"), WRONG)
def test_what_is_of_the_wrong_type_is_told_in_a_line(given: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(KfbenchError) as told:
        library.run("scratch", "digits", **{"results": tmp_path, "budget": "smoke", "progress": False, **given})
    assert str(told.value) == said


def test_the_other_functions_look_at_types_too(tmp_path: Path) -> None:
    asked: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = [
        (library.run, (None, "digits"), {}),
        (library.runs, (None,), {}),
        (library.curves, (tmp_path,), {"keys": 5}),
        (library.load, (5,), {}),
        (library.rank, ("digits", [None]), {}),
        (library.rank, ("digits",), {"train_size": [5]}),
        (library.study, (None,), {}),
        (library.study, (tmp_path,), {"jobs": "2"}),
        (library.study, (tmp_path,), {"threads": None}),
        (library.study, (tmp_path,), {"slurm": ["partition=gpu"]}),
        (library.report, (None,), {"results": tmp_path}),
    ]
    for function, words, more in asked:
        with pytest.raises(KfbenchError, match="cannot be .*; give "):
            function(*words, **more)


def test_an_option_that_an_engine_does_not_heed_is_refused(tmp_path: Path) -> None:
    asked: list[tuple[dict[str, Any], str]] = [
        ({"memory": 4}, "memory is for on='ray' and on='slurm', and this is on='local'"),
        ({"slurm": {"partition": "gpu"}, "on": "ray"}, "slurm is for on='slurm', and this is on='ray'"),
        ({"checkpoint_mb": 9, "on": "slurm"}, "checkpoint_mb is for on='ray', and this is on='slurm'"),
    ]
    for given, said in asked:
        with pytest.raises(KfbenchError) as told:
            library.study(tmp_path, **given)
        assert str(told.value) == said


def test_report_from_python(small: tuple[Path, Path]) -> None:
    folder, results = small
    for path in sorted(results.rglob("*.json"))[1:]:  # few runs, few plots
        path.unlink()
    page = library.report(str(folder), results=str(results))
    assert (page.name, page.done) == ("small", 1) and (folder / "index.html").is_file()
    assert "small/index.html" in (folder.parent / "index.html").read_text()  # to which the page's head leads
    with pytest.raises(KfbenchError, match="no folder 'nowhere'"):
        library.report(folder, results="nowhere")
