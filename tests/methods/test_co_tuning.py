"""Co-tuning, against the authors' numbers: the relationship of old classes to new ones, and the loss made of it."""

from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor
from tuning import THEIRS, module, parts_of, setup, trained, wave

from kfbench.methods import Batch
from kfbench.train.supervised import Supervised
from kfbench.transfer.companion import WithCompanions


def test_the_relationship_of_classes_is_the_authors() -> None:
    answers, labels = torch.softmax(2 * wave(8, 3), 1), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    found = module("co_tuning").direct(answers, labels, 3)
    assert found.flatten().tolist() == pytest.approx(THEIRS["direct"], rel=1e-5)


def noisy(rows: int, classes: int, pace: float) -> tuple[Tensor, Tensor]:
    """Answers of four old classes that lean towards the new one, [rows, 4], and the new classes."""
    labels = torch.arange(rows) % classes
    return torch.softmax(1.5 * wave(rows, 4, pace=pace) + 1.2 * torch.eye(4)[labels], 1), labels


def test_the_relationship_turned_round_is_the_authors() -> None:
    found = module("co_tuning").reverse(*noisy(60, 3, 0.73), *noisy(20, 3, 1.19))
    # the calibration is another minimiser of the same convex cost, so the third digit may differ
    assert found.flatten().tolist() == pytest.approx(THEIRS["reverse"], rel=0.02, abs=2e-4)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_relationship_is_a_distribution_for_each_class(classes: int) -> None:
    found = module("co_tuning").learned(*noisy(90, classes, 0.73), torch.Generator().manual_seed(0))
    assert tuple(found.shape) == (classes, 4)
    assert found.sum(1).tolist() == pytest.approx([1] * classes, rel=1e-5)
    assert found.argmax(1).tolist() == list(range(classes))
    few = module("co_tuning").learned(*noisy(3 * classes, classes, 0.73), torch.Generator().manual_seed(0))
    assert few.sum(1).tolist() == pytest.approx([1] * classes, rel=1e-5)


def test_a_relationship_of_answers_that_are_easy_to_tell_apart_is_finite() -> None:
    """The scale then runs to its bound, and target classes that are nobody's first have a probability of 0."""
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(5).repeat_interleave(10)
        centres = torch.randn(5, 2, generator=generator) * 3
        answers = torch.softmax(centres[labels] + 1e-3 * torch.randn(50, 2, generator=generator), dim=1)
        found = module("co_tuning").learned(answers, labels, generator)
        assert found.sum(1).tolist() == pytest.approx([1] * 5, rel=1e-5)


@pytest.mark.parametrize("method", ["co_tuning", "co_tuning/direct"])
@pytest.mark.parametrize("classes", [1, 3])
def test_co_tuning_takes_a_split_that_lacks_classes(method: str, classes: int) -> None:
    """As a few rows do that stand in for the data when a run's time is estimated."""
    made = setup(method)
    student, batch = cast(WithCompanions, made.student), next(Supervised(made)._ordered())
    few = Batch(images=batch.images[:12], labels=torch.arange(12) % classes + 2, rng=made.rng)
    made.method.begin(student, made.teachers, made.method.stages[0], [few], made.rng)
    table = cast(Tensor, student.parts["relationship"].table)
    assert torch.allclose(table.sum(1), torch.ones(len(table))) and bool((table >= 0).all())
    assert torch.equal(table[0], torch.full_like(table[0], 1 / table.shape[1]))
    assert not torch.equal(table[2], table[0])


@pytest.mark.parametrize("method", ["co_tuning", "co_tuning/direct"])
def test_co_tuning_is_the_cross_entropy_to_the_row_of_the_label(method: str) -> None:
    live = setup(method, weight=2.0)
    batch = trained(live, 2).batch()
    student = cast(WithCompanions, live.student)
    table = cast(Any, student.parts["relationship"]).table
    assert table.sum(1).tolist() == pytest.approx([1] * len(table), rel=1e-5) and float(table.std()) > 0
    taken: list[Tensor] = []
    handle = student.network.get_submodule("body.head").register_forward_pre_hook(lambda _m, x: taken.append(x[0]))
    found = parts_of(live, batch)["old"]
    handle.remove()
    with torch.no_grad():
        logged = student.parts["old"](taken[0]).log_softmax(1).double().numpy()
    wanted = table[batch.labels].double().numpy()
    assert float(found.detach()) == pytest.approx(2 * float(np.mean(-(wanted * logged).sum(1))), rel=1e-4)


def test_the_loss_of_co_tuning_is_the_authors() -> None:
    from kfbench.transfer import losses

    logits = wave(5, 3).requires_grad_()
    found = losses.cross_entropy(torch.softmax(wave(5, 3, pace=0.6), 1), logits)
    found.backward()
    theirs, slopes = THEIRS["co_tuning"]
    assert float(found.detach()) == pytest.approx(theirs, rel=1e-5)
    assert logits.grad is not None and logits.grad.flatten()[[0, 7, 14]].tolist() == pytest.approx(slopes, rel=1e-4)
