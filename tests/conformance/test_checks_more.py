"""Rules on what leaks and what is scaled: each finds the method that breaks it, and spares the one that does not."""

from pathlib import Path

import pytest

from kfbench.conformance import checks

HEAD = '''
"""{about}

Source: nobody.
Differs: {differs}.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from kfbench.transfer import losses
from kfbench.transfer.companion import WithCompanions
from kfbench.methods import Method


@dataclass(frozen=True)
class Made(Method):
    """A method made for a test."""

'''
BANK = """
    kinds = ("images",)

    def make_student(self, task, teachers, rng):
        return Banked(task.make_network(), task.outputs)

    def act(self, student, teachers, batch, progress):
        return student(batch.images), {}

    def export(self, student):
        return student.network


class Banked(WithCompanions):
    def __init__(self, network, outputs):
        super().__init__(network)
        self.register_buffer("bank", torch.zeros(outputs))

    def forward(self, images):
        output = super().forward(images)
        if CONDITION:
            self.bank.lerp_(output.logits.detach().mean(0), 0.1)
        return output
"""
SOFT = """
    temperature: float = 4.0

    kinds = ("images",)
    teachers = (1, 1)
    needs = "outputs"
    has_t2 = HAS_T2

    def losses(self, student, teachers, batch, task, progress):
        output = student(batch.images)
        target = losses.softened(teachers[0](batch).logits, self.temperature)
        soft = losses.kl(target, output.logits / self.temperature) * FACTOR
        return output, task.loss(output, batch) | {"soft": soft}
"""


def broken(folder: Path, body: str, *, differs: str = "nothing") -> dict[str, str]:
    """Return {rule: what it says} of a method's file."""
    file = folder / "made.py"
    head = HEAD.lstrip().replace("{about}", "Made for a test.").replace("{differs}", differs)
    file.write_text(head + body.strip("\n") + "\n")
    return {rule: said for _, rule, said in checks.check_method(str(file)) if said}


@pytest.mark.parametrize(("condition", "rules"), [("True", {"evaluation_leaves_no_trace"}), ("self.training", set())])
def test_a_bank_that_takes_in_what_is_only_evaluated_is_found(tmp_path: Path, condition: str, rules: set[str]) -> None:
    found = broken(tmp_path, BANK.replace("CONDITION", condition))
    assert set(found) == rules
    assert all("test data leak" in said for said in found.values())


@pytest.mark.parametrize(
    ("factor", "has_t2", "rules"),
    [
        ("1", "True", {"soft_targets_keep_their_size"}),
        ("1", "False", set()),
        ("self.temperature**2", "True", set()),
    ],
)
def test_soft_targets_without_their_square_are_found(tmp_path: Path, factor: str, has_t2: str, rules: set[str]) -> None:
    assert set(broken(tmp_path, SOFT.replace("FACTOR", factor).replace("HAS_T2", has_t2))) == rules
