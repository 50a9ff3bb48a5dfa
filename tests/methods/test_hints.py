"""What layers of teachers are worth: FitNets' hints, maps of attention, and relations between images."""

from typing import cast

import numpy as np
import pytest
import torch
from image_methods import moved, parts_of
from torch import nn
from tuning import setup, trained, values

from kfbench import registry
from kfbench.errors import KfbenchError
from kfbench.networks import taps
from kfbench.networks.network import Network
from kfbench.transfer import losses
from kfbench.transfer.companion import WithCompanions, middle


def test_fitnets_trains_the_lower_part_by_the_hint_alone_and_then_the_whole_without_it() -> None:
    made = setup("fitnets", hint_share=0.5)
    assert isinstance(made.student, WithCompanions)
    before = values(made.student)
    loop = trained(made, 6)
    lower = moved(before, made.student)
    guided = middle(made.student.network.layers)
    assert guided == "body.blocks.1.relu"
    assert all(n.startswith(("network.body.blocks.0", "network.body.blocks.1", "parts.regressor")) for n in lower)
    assert "network.body.blocks.1.conv.weight" in lower and "parts.regressor.0.weight" in lower
    assert set(parts_of(made, loop.batch())) == {"hint"}
    before = values(made.student)
    for _ in loop:
        pass
    upper = moved(before, made.student)
    assert "network.body.head.weight" in upper and not any(name.startswith("parts") for name in upper)
    assert set(parts_of(made, loop.batch())) == {"cross-entropy", "distillation"}


def test_the_weight_of_fitnets_soft_targets_falls_linearly() -> None:
    made = setup("fitnets", hint_share=0.2, soft_start=4.0, soft_end=1.0)
    loop = trained(made, 6)
    batch = loop.batch()
    soft = [parts_of(made, batch, progress)["distillation"] for progress in (0.2, 0.6, 1.0)]
    assert soft[1] / soft[0] == pytest.approx(2.5 / 4, rel=1e-2)
    assert soft[2] / soft[0] == pytest.approx(1 / 4, rel=1e-2)
    target = losses.softened(made.teachers[0](batch).logits, 3.0).double().numpy()
    with torch.no_grad():
        own = (made.student(batch.images).logits / 3).log_softmax(1).double().numpy()
    assert soft[2] == pytest.approx(float(np.mean(-(target * own).sum(1))), rel=1e-2)


def test_a_hint_that_is_matched_costs_nothing() -> None:
    made = setup("fitnets/one-stage")
    batch = trained(made, 1).batch()
    assert isinstance(made.student, WithCompanions)
    hint = middle(made.teachers[0].network.layers)
    wanted = made.teachers[0].features(batch, [hint])[hint]
    assert parts_of(made, batch)["hint"] > 0
    made.student.parts["regressor"] = Answer(wanted)
    assert parts_of(made, batch)["hint"] == 0
    made.student.parts["regressor"] = Answer(wanted + 0.1)
    assert parts_of(made, batch)["hint"] == pytest.approx(100 * 0.01, rel=1e-4)


class Answer(nn.Module):
    def __init__(self, answer: torch.Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        return self.answer


@pytest.mark.parametrize("made", [(8, 4, 4), (8, 8, 8), (8, 16, 16), (8, 3, 3), (8, 5, 5)])
def test_regressors_meet_every_size_that_the_source_code_meets(made: tuple[int, int, int]) -> None:
    regressor = registry.load_module("methods", "fitnets").regressor
    assert tuple(regressor((6, 8, 8), made)(torch.randn(2, 6, 8, 8)).shape[1:]) == made
    with pytest.raises(KfbenchError, match="no regressor"):
        regressor((6, 8, 8), (8, 32, 32))


@pytest.mark.parametrize(("smallest", "compared"), [(1, 4), (4, 2), (7, 1)])  # the maps are of 8, 4, 2 and 2 rows
def test_attention_transfer_adds_up_pairs_of_maps_and_leaves_the_smallest_out(smallest: int, compared: int) -> None:
    made = setup("attention_transfer", beta=10.0, smallest=smallest)
    batch = trained(made, 1).batch()
    student = made.student
    assert isinstance(student, Network)
    with taps.read(student, student.layers) as own:
        student(batch.images)
    theirs = made.teachers[0].features(batch, made.teachers[0].network.layers)
    links = taps.match(student.layers, made.teachers[0].network.layers)
    each = [float(losses.attention(own[layer], theirs[other]).detach()) for layer, (other,) in links.items()]
    assert parts_of(made, batch)["attention"] == pytest.approx(10 * sum(each[:compared]), rel=1e-4)
    with pytest.raises(KfbenchError, match="no layers with maps to compare, 9 x 9 or larger"):
        setup("attention_transfer", smallest=9)


def test_a_relation_is_not_changed_by_a_wider_teacher() -> None:
    made = setup("rkd", distance=1.0, angle=2.0)
    batch = trained(made, 1).batch()
    student = cast(Network, made.student)
    with taps.read(student, student.layers[-1:]) as own:
        student(batch.images)
    layer = made.teachers[0].network.layers[-1]
    theirs = made.teachers[0].features(batch, [layer])[layer]
    apart, seen = losses.relational(losses.pooled(own[student.layers[-1]]), losses.pooled(theirs))
    found = parts_of(made, batch)
    assert found["distance"] == pytest.approx(float(apart.detach()), rel=1e-2)
    assert found["angle"] == pytest.approx(2 * float(seen.detach()), rel=1e-2)
