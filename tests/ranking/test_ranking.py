"""Ranking real teachers on the digits: features through the one door, and what cannot be ranked is a line."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kfbench import library, networks
from kfbench.data.splits import Split, to_float
from kfbench.errors import KfbenchError
from kfbench.networks.network import Network
from kfbench.ranking import ranking, store
from kfbench.ranking.features import said
from kfbench.ranking.names import SCORES
from kfbench.running import execute, records, resolve, teacher_names
from kfbench.teachers import Teacher

TAUGHT = "digits/cnn-8@smoke:epochs=8"


@pytest.fixture(autouse=True)
def data_folder(packed_digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFBENCH_DATA", str(packed_digits))


@pytest.fixture(scope="module")
def results(packed_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with one teacher."""
    folder = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KFBENCH_DATA", str(packed_digits))
        execute.teacher(teacher_names.read(TAUGHT, budget="smoke").spec(), results=folder)
    return folder


def rank(task: str, teachers: list[str], *, results: Path, train_size: int = 300, **more: Any) -> list[ranking.Ranked]:
    spec = resolve.resolve("scratch", task, budget="smoke", recipe={"train_size": train_size} if train_size else {})
    return ranking.rank(spec, teachers, results=results, **more)


def split(shape: tuple[int, int, int] = (1, 8, 8), rows: int = 12) -> Split:
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (rows, *shape), generator=rng, dtype=torch.uint8)
    return Split(images, torch.arange(rows) % 3)


def teacher(network: Network) -> Teacher:
    return Teacher(network, "it", None, (), "")


@pytest.mark.parametrize("name", ["cnn-4", "mlp-16", "resnet8", "vgg8", "vit-3-32"])
def test_features_are_what_the_head_takes_in(name: str) -> None:
    network = networks.make(name, shape=(3, 32, 32), outputs=5)
    answers = said(teacher(network), split((3, 32, 32)))
    head = network.get_submodule(network.heads[-1])
    assert isinstance(head, torch.nn.Linear) and answers.features.shape == (12, head.in_features)
    with torch.no_grad():
        logits = network(to_float(split((3, 32, 32)).images)).logits.double()
        again = head(torch.from_numpy(answers.features).float()).double()
    np.testing.assert_allclose(answers.probabilities, logits.softmax(1), atol=1e-6)
    np.testing.assert_allclose(again, logits, atol=1e-4)


def test_answers_that_are_not_finite_are_a_line() -> None:
    network = networks.make("cnn-4", shape=(1, 8, 8), outputs=5)
    with torch.no_grad():
        network.get_submodule("body.head").weight[0, 0] = float("nan")  # type: ignore[index, operator]
    with pytest.raises(KfbenchError, match="'it' puts out numbers that are not finite"):
        said(teacher(network), split())
    network.layers = ()
    with pytest.raises(KfbenchError, match="layers of teacher 'it' are not known"):
        said(teacher(network), split())


def test_a_trained_teacher_promises_more_than_an_untrained_one(results: Path) -> None:
    control = f"random:{TAUGHT}"
    rows = rank("digits/low", [control, TAUGHT, TAUGHT], train_size=100, results=results)
    assert {row.teacher for row in rows} == {control, TAUGHT} and len(rows) == 2
    assert rows[0].scores["logme"] > rows[1].scores["logme"]
    ours = next(row for row in rows if row.teacher == TAUGHT)
    theirs = next(row for row in rows if row.teacher == control)
    assert list(ours.scores) == list(SCORES) and ours.trained_on == "digits"
    assert (ours.outputs, ours.dimensions) == (10, 64) and ours.seconds > 0
    assert ours.scores["probe"] > theirs.scores["probe"]
    by = rank("digits/low", [TAUGHT, control], train_size=100, by="parc", results=results)
    assert by[0].scores["parc"] >= by[1].scores["parc"]
    assert {row.teacher: row.scores for row in by} == {row.teacher: row.scores for row in rows}


def test_only_what_is_asked_for_is_worked_out(results: Path) -> None:
    (row,) = rank("digits/low", [TAUGHT], by="leep", only=["leep"], results=results)
    assert list(row.scores) == ["leep"]


def test_what_cannot_be_ranked_is_a_line(results: Path) -> None:
    def refused(task: str, teachers: list[str], match: str, **more: str) -> None:
        with pytest.raises(KfbenchError, match=match):
            rank(task, teachers, results=results, train_size=0, **more)

    refused("digits/low", [], "no teachers to rank")
    refused("digits/low", ["digits/high/cnn-4"], "not in .*make it: kfbench teacher train")
    refused("digits/low", [TAUGHT], "did you mean 'logme'", by="log-me")
    refused("digits/3-3", [TAUGHT], "one class")
    refused("atari/pong", [TAUGHT], "are ranked for images")


def test_the_store_knows_its_teachers_by_names_that_mean_them(results: Path, tmp_path: Path) -> None:
    assert store.names(results) == {TAUGHT: "digits"}
    (record,) = records.records(results / "teachers")
    spec = record.run_spec()
    assert store.name_of(spec) == TAUGHT and teacher_names.read(TAUGHT, budget="smoke").spec() == spec
    assert store.name_of(dataclasses.replace(spec, seed=3)) is None
    assert store.others("mnist", results) == [TAUGHT]
    with pytest.raises(KfbenchError, match="no teachers of other tasks than 'digits/low'"):
        store.others("digits/low", results)  # of the same data set: it may have seen these labels
    with pytest.raises(KfbenchError, match="no teachers of other tasks than 'mnist'"):
        store.others("mnist", tmp_path)


def test_from_python(results: Path) -> None:
    frame = library.rank("digits/low", TAUGHT, budget="smoke", train_size=60, results=str(results), progress=False)
    assert list(frame.columns)[:5] == ["teacher", "network", "trained_on", "outputs", "dimensions"]
    assert list(frame.columns)[5:] == [*SCORES, "seconds"] and len(frame) == 1
