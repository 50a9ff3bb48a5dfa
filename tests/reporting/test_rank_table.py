"""A study that ranks its teachers: scores are kept beside it, set against what was measured, never worked out twice."""

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import kendalltau

from kfbench.errors import KfbenchError
from kfbench.ranking import ranking
from kfbench.ranking.names import SCORES
from kfbench.reporting import grid, page, rank_table
from kfbench.running import execute, teacher_names
from kfbench.studies import definition, plan, promises, steps
from kfbench.studies.place import Place

TEACHERS = [f"digits/low/cnn-4@smoke:epochs={epochs}" for epochs in (1, 4, 8)] + ["random:digits/low/cnn-4@smoke"]
ROWS = ", ".join(f'{{ method = "finetune", label = "from {n}", teachers = ["{t}"] }}' for n, t in enumerate(TEACHERS))
STUDY = f"""
title = "Which teacher"
budget = "smoke"
seeds = 2
rank = true
methods = ["scratch", {ROWS}]
tasks = [{{ task = "digits/high", network = "cnn-4", train_size = 100, recipe = {{ epochs = 1 }} }}]
"""


@pytest.fixture(autouse=True)
def data_folder(packed_digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFBENCH_DATA", str(packed_digits))


def planned(folder: Path, text: str = STUDY) -> list[plan.Planned]:
    folder.mkdir(exist_ok=True)
    (folder / "study.toml").write_text(text)
    study = definition.load(folder)
    cells = plan.make(study)
    plan.write(folder, study, cells)
    return cells


def test_scores_stand_beside_what_was_measured(tmp_path: Path) -> None:
    folder, results = tmp_path / "which", tmp_path / "results"
    cells = planned(folder)
    for name in TEACHERS[:3]:
        execute.teacher(teacher_names.read(name, budget="smoke").spec(), results=results)
    promises.settle(folder, cells, results=results)
    for cell in cells:
        for spec in cell.runs([0, 1]):
            execute.run(spec, results=results)
    page.make(folder, results)

    kept = json.loads((folder / "ranks.json").read_text())["digits/high"]
    assert list(kept) == TEACHERS and all(set(each["scores"]) == set(SCORES) for each in kept.values())
    made = grid.load(folder, definition.load(folder), results)
    [table] = rank_table.tables(made)
    rows = dict(table.rows)
    assert table.head == ("finetune, error", *SCORES)
    accuracy = [float(np.mean(-made.scores(f"from {n}", ["digits/high"]))) for n in range(4)]
    assert list(rows)[:4] == [TEACHERS[n] for n in np.argsort(accuracy, kind="stable")[::-1]]
    for place, score in enumerate(SCORES, 1):
        shown = rows["Kendall's τ, finetune (4)"][place]
        tau = kendalltau([kept[name]["scores"][score] for name in TEACHERS], accuracy).statistic
        assert shown.values["value"] == pytest.approx(tau) and shown.values["low"] < shown.values["high"]
        assert len(shown.keys) == 8
    said = (folder / "README.md").read_text()
    assert "### Which teacher to take: digits/high" in said and "plots/teachers.png" in said
    assert "Which teacher to take: digits/high" in (folder / "index.html").read_text()


def test_two_groups_of_one_method_have_names_that_tell_them_apart(tmp_path: Path) -> None:
    faster = ROWS.replace('label = "from', 'recipe = { lr = 0.01 }, label = "faster from')
    groups = promises.groups(planned(tmp_path / "which", STUDY.replace(ROWS, f"{ROWS}, {faster}")))
    names = [rank_table._name(group, groups) for group in groups]
    assert names == ["finetune (lr=0.003)", "finetune (lr=0.01)"] and len(groups[1].cells) == 4


def test_what_is_kept_is_not_worked_out_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, results = tmp_path / "which", tmp_path / "results"
    cells = planned(folder)
    asked: list[list[str]] = []
    rank = ranking.rank
    monkeypatch.setattr(ranking, "rank", lambda spec, names, **to: asked.append([*names]) or rank(spec, names, **to))
    promises.settle(folder, cells, results=results)  # no teacher is made yet
    assert asked == [[TEACHERS[3]]] and list(promises.read(folder)["digits/high"]) == [TEACHERS[3]]
    execute.teacher(teacher_names.read(TEACHERS[0], budget="smoke").spec(), results=results)
    for _ in range(2):
        promises.settle(folder, cells, results=results)
    assert asked[1:] == [[TEACHERS[0]]]

    other = json.loads((folder / "ranks.json").read_text())
    other["digits/high"][TEACHERS[0]]["weights"] = "another's"
    (folder / "ranks.json").write_text(json.dumps(other))
    promises.settle(folder, cells, results=results)
    assert asked[2:] == [[TEACHERS[0]]]
    more = planned(folder, STUDY.replace("epochs = 1", "epochs = 1, train_size = 300"))
    promises.settle(folder, more, results=results)  # on other images
    assert asked[3:] == [[TEACHERS[0], TEACHERS[3]]]
    for weights in results.rglob("*.safetensors"):
        weights.unlink()
    promises.settle(folder, more, results=results)  # a clone without weights
    assert len(asked) == 4 and set(promises.read(folder)["digits/high"]) == {TEACHERS[0], TEACHERS[3]}
    (folder / "ranks.json").write_text("{")
    with pytest.raises(KfbenchError, match="is not JSON.*delete it"):
        promises.read(folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (STUDY.replace(ROWS, '"kd"'), "no method has 3 rows with one teacher each"),
        (
            STUDY.replace("digits/high", "atari/pong")
            .replace("digits/low/cnn-4", "atari/krull")
            .replace(", recipe = { epochs = 1 }", "")
            .replace(', network = "cnn-4", train_size = 100', "")
            .replace("epochs=", "frames=1000"),
            "'atari/pong' is of games",
        ),
    ],
)
def test_a_study_that_cannot_be_ranked_is_refused_before_it_runs(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(text)
    with pytest.raises(KfbenchError, match=said):
        steps.full(tmp_path, Place(results=tmp_path / "results"), row=None, column=None, console=Console(quiet=True))


def test_teachers_that_cannot_be_ranked_cost_no_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*words: object, **more: object) -> None:
        raise KfbenchError("has one class")

    monkeypatch.setattr(ranking, "rank", refuse)
    said: list[str] = []
    promises.settle(tmp_path / "which", planned(tmp_path / "which"), results=tmp_path / "results", say=said.append)
    assert said == ["teachers are not ranked: has one class"]
    assert promises.read(tmp_path / "which") == {"digits/high": {}}
