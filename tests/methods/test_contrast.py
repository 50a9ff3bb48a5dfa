"""Contrastive distillation: which rows of the banks are drawn, what they score, and when they change."""

from typing import cast

import numpy as np
import pytest
import torch
from image_methods import parts_of
from torch import nn
from tuning import ROWS, setup, trained, values

from kfbench import registry
from kfbench.errors import KfbenchError
from kfbench.running import resolve
from kfbench.transfer.companion import WithCompanions


def test_negatives_are_of_other_classes_and_all_of_them_are_drawn() -> None:
    banks = registry.load_module("methods", "crd").Banks(10, 4, 3)
    classes = torch.tensor([0, 2, 1, 0, 1, 1, 2, 0, 1, 1])
    banks.classify(classes)
    drawn = banks.draw(torch.tensor([0, 1, 2]), 2000, torch.Generator().manual_seed(0))
    for label, rows in enumerate(drawn):
        others = [row for row in range(10) if classes[row] != label]
        counts = torch.bincount(rows, minlength=10)
        assert counts.nonzero().flatten().tolist() == others
        assert counts[others].float().std() / counts[others].float().mean() < 0.1


def test_contrast_is_the_sources_score_of_bank_rows() -> None:
    banks = registry.load_module("methods", "crd").Banks(10, 4, 3)
    generator = torch.Generator().manual_seed(1)
    own = nn.functional.normalize(torch.randn(3, 4, generator=generator), dim=1)
    theirs = nn.functional.normalize(torch.randn(3, 4, generator=generator), dim=1)
    chosen = torch.tensor([[0, 5, 5], [1, 2, 3], [9, 8, 7]])
    student, teacher = banks.scores(own, theirs, chosen, 0.07)
    plain = [[np.exp(float(own[b] @ banks.teacher[row]) / 0.07) for row in rows] for b, rows in enumerate(chosen)]
    assert student.numpy() == pytest.approx(np.array(plain) / (np.mean(plain) * 10), rel=1e-4)
    constants = banks.constants.clone()
    again, _ = banks.scores(own, theirs, chosen.flip(1), 0.07)
    assert torch.equal(banks.constants, constants)  # fixed by the first batch
    assert torch.allclose(again.flip(1), student)
    assert teacher.shape == (3, 3)


def test_banks_take_in_a_batch_and_forget_nothing_else() -> None:
    made = setup("crd", negatives=8)
    loop = trained(made, 1)
    assert isinstance(made.student, WithCompanions)
    banks = made.student.parts["banks"]
    before, batch = values(banks), loop.batch()
    parts_of(made, batch)
    rows = set(cast(torch.Tensor, batch.index).tolist())
    for name in ("student", "teacher"):
        now = banks.get_buffer(name)
        changed = {row for row in range(ROWS) if not torch.equal(now[row], before[name][row])}
        assert changed == rows
        assert now[sorted(rows)].norm(dim=1).tolist() == pytest.approx([1] * len(rows), rel=1e-4)


def test_contrast_with_hintons_loss_wants_the_same_classes() -> None:
    other = resolve.resolve("crd", "digits/0-4", budget="smoke", settings={"kd": 0.0}).teachers
    assert other == ("digits/5-9/cnn-32@smoke",)
    same = resolve.resolve("crd", "digits/0-4", budget="smoke", settings={"kd": 1.0}).teachers
    assert same == ("digits/0-4/cnn-32@smoke",)
    with pytest.raises(KfbenchError, match="'crd' copies outputs, but teacher 'digits/5-9.*' has other classes"):
        resolve.resolve("crd", "digits/0-4", budget="smoke", teachers=["digits/5-9"], settings={"kd": 1.0})
