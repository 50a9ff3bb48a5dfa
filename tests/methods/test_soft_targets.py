"""What outputs of teachers are worth: decoupled, of a generation before, and of several, weighed image by image."""

from typing import cast

import numpy as np
import pytest
import torch
from image_methods import MLP, parts_of
from torch import nn
from tuning import ROWS, setup, trained, values

from kfbench.errors import KfbenchError
from kfbench.running import resolve, stand_in


def test_decoupled_distillation_warms_up() -> None:
    made = setup("dkd", warmup=0.5)
    batch = trained(made, 1).batch()
    early, late = parts_of(made, batch, 0.25), parts_of(made, batch, 0.9)
    assert early["target"] == pytest.approx(late["target"] / 2, rel=1e-3)
    assert early["cross-entropy"] == pytest.approx(late["cross-entropy"], rel=1e-3)


def test_a_generation_learns_from_the_outputs_of_the_one_before_and_its_labels_if_asked() -> None:
    made = setup("born_again/labels", labels=0.5, temperature=2.0)
    assert torch.equal(values(made.student)["body.head.weight"], values(setup("scratch").student)["body.head.weight"])
    batch = trained(made, 2).batch()
    with torch.no_grad():
        own = (made.student(batch.images).logits / 2).log_softmax(1).double().numpy()
        hard = float(nn.functional.cross_entropy(made.student(batch.images).logits, cast(torch.Tensor, batch.labels)))
    before = (made.teachers[0](batch).logits / 2).softmax(1).double().numpy()
    found = parts_of(made, batch)
    assert found["before"] == pytest.approx(4 * float(np.mean(-(before * own).sum(1))), rel=1e-4)
    assert found["cross-entropy"] == pytest.approx(0.5 * hard, rel=1e-4)
    assert set(parts_of(setup("born_again"), batch)) == {"before"}


def test_generation_0_is_the_students_own_network_trained_on_as_many_images() -> None:
    recipe = {"network": "cnn-4", "train_size": 100}
    spec = resolve.resolve("born_again", "digits", budget="smoke", recipe=recipe, seed=3)
    assert spec.teachers == ("digits/cnn-4@smoke:train_size=100",)
    assert resolve.resolve("kd", "digits", budget="smoke", recipe=recipe).teachers[0].startswith("digits/cnn-32@")
    wide = resolve.resolve("born_again", "digits", budget="smoke", recipe=recipe, teachers=["digits/cnn-8"])
    assert wide.teachers == ("digits/cnn-8@smoke",)


def test_several_teachers_are_weighed_image_by_image() -> None:
    made = setup("ca_mkd", alpha=1.0, beta=0.0)
    batch = trained(made, 1).batch()
    labels = cast(torch.Tensor, batch.labels)
    assert len(made.teachers) == 2
    answers = [teacher(batch).logits.double().numpy() for teacher in made.teachers]
    own = made.student(batch.images).logits.detach().double().numpy()

    def softmax(z: np.ndarray) -> np.ndarray:
        return np.exp(z) / np.exp(z).sum()

    total = 0.0
    for b, y in enumerate(labels.tolist()):
        costs = [-np.log(softmax(z[b])[y]) for z in answers]
        shares = [1 - np.exp(c) / sum(np.exp(costs)) for c in costs]
        for share, z in zip(shares, answers, strict=True):
            p, q = softmax(z[b] / 4), softmax(own[b] / 4)
            total += share * 16 * float((p * np.log(p / q)).sum()) / len(labels)
    assert parts_of(made, batch)["distillation"] == pytest.approx(total, rel=1e-2)


def test_several_teachers_are_asked_for() -> None:
    assert len(resolve.resolve("ca_mkd", "cifar100").teachers) == 2
    with pytest.raises(
        KfbenchError, match="both of the student's network, 'cnn-32'; give --teachers cifar100/NETWORK,"
    ):
        resolve.resolve("ca_mkd", "cifar100", recipe={"network": "cnn-32"})
    with pytest.raises(KfbenchError, match="needs 2 teacher"):
        resolve.resolve("ca_mkd", "cifar100", teachers=["cifar100"])


def test_a_student_without_maps_is_told_the_variant() -> None:
    teachers = ["digits/cnn-8", "digits/cnn-4"]
    spec = resolve.resolve("ca_mkd", "digits", budget="smoke", teachers=teachers, recipe=MLP)
    with pytest.raises(KfbenchError, match="last features of network 'mlp-30' are no maps; use ca_mkd/outputs"):
        stand_in.setup(spec, rows=ROWS)


def test_decoupled_distillation_needs_two_classes() -> None:
    spec = resolve.resolve("dkd", "cifar100/5-5", budget="smoke", teachers=["cifar100/5-5/cnn-4"])
    with pytest.raises(KfbenchError, match="'cifar100/5-5' has one; use kd"):
        stand_in.setup(spec, rows=ROWS)
