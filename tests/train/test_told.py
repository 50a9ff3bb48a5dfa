"""What a method's functions return: slips of those who write one are told by the function's name."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kfbench.data.splits import Split
from kfbench.errors import KfbenchError
from kfbench.methods import Method
from kfbench.tasks import Task
from kfbench.train import loop, supervised, told
from kfbench.train.objective import CrossEntropy

RNG = torch.Generator()


class Answers(Method):
    """A method each of whose functions returns the same."""

    def __init__(self, answer: Any) -> None:
        object.__setattr__(self, "answer", answer)

    def make_student(self, *_: Any) -> Any:
        return self.answer  # type: ignore[attr-defined]

    metrics = export = parameter_groups = make_student


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"x": 1.0}, "'losses' of the method returned 'x' as a float (1.0); return each as a scalar tensor"),
        ({"x": torch.zeros(32)}, "part 'x' of the loss has shape [32]; return its mean over the batch"),
        ({}, "'losses' of the method returned no parts; return (output, parts)"),
        (None, "'losses' of the method returned 'parts' as None; return (output, parts)"),
        (torch.zeros(()), "'losses' of the method returned 'parts' as a Tensor; return (output, parts)"),
    ],
)
def test_parts_are_scalar_tensors_by_name(parts: Any, said: str) -> None:
    with pytest.raises(KfbenchError, match=re.escape(said)):
        told.parts_of(("output", parts))
    trained = torch.zeros((), requires_grad=True)
    assert set(told.parts_of(("output", {"x": torch.zeros(()), "y": trained}))) == {"x", "y"}


def test_a_loss_that_depends_on_nothing_that_is_trained_is_told() -> None:
    parts = {"x": torch.zeros((), requires_grad=True).detach()}
    with pytest.raises(KfbenchError, match="no part of the loss depends on what is trained"):
        told.parts_of(("output", parts))
    with torch.no_grad():
        assert told.parts_of(("output", parts)) == parts


def test_metrics_become_plain_finite_numbers() -> None:
    values = {"tensor": torch.tensor([1.5]), "whole": 2, "nan": float("nan"), "inf": torch.tensor(float("inf"))}
    found = told.metrics_of(Answers(values), nn.Identity())
    assert found == {"tensor": 1.5, "whole": 2.0} and {type(value) for value in found.values()} == {float}
    for value, said in (("big", "a str ('big')"), (torch.zeros(2), "a Tensor"), (None, "None")):
        with pytest.raises(KfbenchError, match=re.escape(f"'metrics' of the method returned 'x' as {said}; return")):
            told.metrics_of(Answers({"x": value}), nn.Identity())
    with pytest.raises(KfbenchError, match="'metrics' of the method returned None; return numbers by name"):
        told.metrics_of(Answers(None), nn.Identity())


def test_modules_and_groups() -> None:
    weights: list[Tensor] = [nn.Parameter(torch.zeros(2))]
    with pytest.raises(KfbenchError, match="'make_student' of the method returned None; return the module"):
        told.student_of(Answers(None), None, [], RNG)  # type: ignore[arg-type]
    with pytest.raises(KfbenchError, match="'export' of the method returned a dict; return the network that is kept"):
        told.exported(Answers({}), nn.Identity())
    for answer, said in ((weights, "a Parameter"), (None, "None"), ([{"lr": 1}], "a dict"), ({"params": []}, "a dict")):
        with pytest.raises(KfbenchError, match=f"'parameter_groups' of the method returned {said}; return a list"):
            told.groups_of(Answers(answer), nn.Identity())
    assert told.groups_of(Answers([{"params": weights}]), nn.Identity()) == [{"params": weights}]


def test_a_plain_module_says_no_output() -> None:
    plain = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
    images = torch.zeros(4, 3, 8, 8)
    said = "the student returned Tensor, no Output; return Output(logits)"
    task = Task("x", "images", (3, 8, 8), tuple("abcdefghij"), "cnn-4", 0, 4, 1, CrossEntropy())
    with pytest.raises(KfbenchError, match=re.escape(said)):
        task.loss(plain(images), None)  # type: ignore[arg-type]
    with pytest.raises(KfbenchError, match=re.escape(said)):
        supervised.evaluate(plain, Split(images.byte(), torch.zeros(4, dtype=torch.int64)))


def test_a_frozen_weight_puts_its_own_module_into_evaluation_and_not_what_is_below() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(2), requires_grad=False)
            self.norm, self.frozen = nn.BatchNorm1d(2), nn.BatchNorm1d(2).requires_grad_(False)

    block = Block().eval()
    loop.set_training(block)
    assert (block.training, block.norm.training, block.frozen.training) == (False, True, False)
