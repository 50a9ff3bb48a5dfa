"""Knowledge review, semantic calibration and the adaptive ensemble, against their sources' code."""

from typing import cast

import numpy as np
import pytest
import torch
from golden import CLOSE, fill, leaf, numbers, same, wave
from torch import nn

from kfbench import registry
from kfbench.conformance import tiny
from kfbench.errors import KfbenchError
from kfbench.networks import taps
from kfbench.running import resolve, stand_in
from kfbench.train.supervised import Supervised
from kfbench.transfer import maps
from kfbench.transfer.companion import WithCompanions

reviewkd, semckd, aekd = (registry.load_module("methods", name) for name in ("reviewkd", "semckd", "aekd"))


def test_a_review_is_the_authors() -> None:
    """dvlab-research/ReviewKD, CIFAR-100/model/reviewkd.py, ABF and hcl: pooled features, then a larger map."""
    pooled, own = leaf(wave(8, 7, 1, 1)), leaf(wave(8, 6, 5, 5))
    deep, shallow = reviewkd.Fusion(7, 10, 7, fuses=False), reviewkd.Fusion(6, 9, 7, fuses=True)
    fill(deep)
    fill(shallow)
    first, left = deep(pooled, None, (1, 1))
    second, left = shallow(own, left, (6, 6))
    assert left.shape == (8, 7, 6, 6)
    found = reviewkd.hierarchical(second, wave(8, 9, 6, 6, step=1.3))
    found = found + reviewkd.hierarchical(first, wave(8, 10, 1, 1, step=1.3))
    told = [4.49150658, 0.632876886, 0.043243098, 1.91404044, -0.000123716092, 3.88128755, 0.501396964, 0.223838732]
    told += [-0.0124835096, 0.0365414144, -0.0137903928, 4.66082233, -0.19788218, 1.86366509, 0.532313636, 1.9916485]
    told += [0.517981792, 0.196284064, 0.0196257111, 0.0600414369, -0.0263897555, 0.0437585379, -0.0175970027]
    told += [7.59784494, 0.436603262, 1.4266839, 0.663247771, 2.048319, 0.819599791, 0.322850139, -0.0147497779]
    told += [0.0207088673, 0.00388462831]
    same(numbers(found, own, pooled, *deep.parameters(), *shallow.parameters()), told)


def test_a_review_warms_up_and_ends_with_the_teachers_pooled_features() -> None:
    made = stand_in.setup(tiny.spec_of("reviewkd"), rows=48)
    batch, student = Supervised(made).batch(), cast(WithCompanions, made.student)
    seen: list[torch.Tensor] = []
    for fusion in cast(nn.ModuleList, student.parts["fusions"]):
        fusion.register_forward_hook(lambda _module, _given, made: seen.append(made[0].detach()))

    def review(progress: float) -> float:
        _, parts = made.method.losses(student, made.teachers, batch, made.task, progress)
        return float(parts["review"].detach())

    assert review(0.0) == 0
    assert review(10 / 240) == pytest.approx(review(0.9) / 2, rel=1e-5)
    teacher = made.teachers[0]
    before = teacher.features(batch, teacher.network.layers, "pre")
    wanted = [before[layer] for layer in reversed(teacher.network.layers)]
    last = teacher.network.layers[-1]
    with torch.no_grad(), taps.read(teacher.network, [last]) as after:
        teacher.network(batch.images)
    wanted = [after[last].mean((2, 3), keepdim=True), *wanted]
    total = sum(float(reviewkd.hierarchical(*pair)) for pair in zip(seen[-5:], wanted, strict=True))
    assert review(0.9) == pytest.approx(5 * total, rel=1e-5)


def test_a_teacher_is_asked_once_for_a_review() -> None:
    made = stand_in.setup(tiny.spec_of("reviewkd"), rows=48)
    passes: list[int] = []
    made.teachers[0].network.body.register_forward_pre_hook(lambda *_: passes.append(1))
    batch = Supervised(made).batch()
    made.method.losses(made.student, made.teachers, batch, made.task, 0.5)
    assert len(passes) == 1


def calibration(monkeypatch: pytest.MonkeyPatch) -> tuple[nn.Module, list[torch.Tensor], list[torch.Tensor]]:
    """Two layers of a student, three of a teacher, for batches of 8, with wave weights; and their maps."""
    monkeypatch.setattr(maps, "BATCH", 8)
    made = semckd.Calibration([6, 5], [9, 4, 3], 2.0, 4)
    for number, embedding in enumerate((*made.queries, *made.keys)):
        for weight in fill(embedding).parameters():
            weight.data *= 1 + 0.1 * number
    for row in made.regressors:
        for regressor in row:
            fill(regressor)
    own = [leaf(0.3 * wave(8, 6, 5, 5)), leaf(0.3 * wave(8, 5, 3, 3, step=1.1))]
    return (
        made,
        own,
        [0.3 * wave(8, 9, 6, 6, step=1.3), 0.3 * wave(8, 4, 4, 4, step=1.4), 0.3 * wave(8, 3, 2, 2, step=1.5)],
    )


def test_calibration_is_the_authors(monkeypatch: pytest.MonkeyPatch) -> None:
    """DefangChen/SimKD, models/util.py, SelfA, and distiller_zoo/SemCKD.py, with batches of 8."""
    made, own, theirs = calibration(monkeypatch)
    told = [0.335406184, 0.335543305, 0.329050511, 0.33470878, 0.335275561, 0.33001563]
    assert made.attention(own, theirs)[3].flatten().tolist() == pytest.approx(told, rel=CLOSE)
    weights = [made.queries[1][0].weight, made.keys[2][2].weight, made.regressors[1][2][3].weight]
    told = [1.30631018, 4.03293684, -0.0565532864, 2.42913991, 0.127482316, 0.018467318, -0.00484084417, 0.0356786451]
    same(numbers(made(own, theirs), *own, *weights), [*told, -0.00140996951, 8.94146379, 0.198165587])


def test_attention_sums_to_one_over_the_teachers_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    made, own, theirs = calibration(monkeypatch)
    weights = made.attention(own, theirs)
    assert weights.shape == (8, 2, 3) and weights.sum(2).flatten().tolist() == pytest.approx([1] * 16)


@pytest.mark.parametrize("rows", [16, 64, 128])
def test_similarities_of_any_batch_are_64_long(rows: int) -> None:
    features = wave(rows, 3, 2, 2)
    found, whole = semckd.similarities(features), features.flatten(1) @ features.flatten(1).T
    assert found.shape == (rows, 64)
    told = {
        16: whole.repeat_interleave(4, 1),
        64: whole,
        128: whole.view(128, 64, 2).mean(2) if rows == 128 else whole,
    }[rows]
    assert torch.allclose(found, told, atol=1e-6)


# C, so many teachers, their shares by AnTuo1998/AE-KD, helper/optimization.py, find_optimal_svm with nu = 1/(C M)
SHARES = [
    (0.6, 2, [0.6, 0.4], [4.41555834, 2.05409972, -0.0601098001]),
    (0.6, 3, [0.6, 0, 0.4], [4.44974232, 2.14710367, -0.0433159114]),
    (0.4, 3, [0.4, 0.2, 0.4], [4.63657856, 2.08142448, -0.0300075844]),
    (0.6, 4, [0.6, 0, 0.4, 0], [4.44974232, 2.14710367, -0.0433159114]),
]


@pytest.mark.parametrize(("most", "teachers", "shares", "told"), SHARES)
def test_shares_of_outputs_are_the_authors(most: float, teachers: int, shares: list[float], told: list[float]) -> None:
    own = leaf(3 * wave(8, 7))
    answers = torch.stack(
        [3 * wave(8, 7, step=1.3 + 0.2 * i) + i * wave(7, step=2.2 + 0.3 * i) for i in range(teachers)]
    )
    apart, slopes = aekd.divergences(own, answers, 4.0)
    for found, loss in zip(slopes, apart, strict=True):
        assert torch.allclose(found, torch.autograd.grad(loss, own, retain_graph=True)[0].mean(0), atol=1e-6)
    weights = aekd.Shares(teachers, most)(slopes)
    assert weights.tolist() == pytest.approx(shares, abs=1e-4)
    same(numbers((weights * apart).sum(), own), told)


def test_shares_of_features_are_the_authors() -> None:
    """The same, with gradients by a map through 1x1 convolutions; the solver there stops within 1e-4."""
    own = leaf(wave(8, 6, 5, 5))
    theirs = [wave(8, 9, 5, 5, step=1.3), wave(8, 4, 5, 5, step=1.5).relu(), wave(8, 5, 5, 5, step=1.7)]
    regressors = nn.ModuleList(fill(nn.Conv2d(6, wanted.shape[1], 1)) for wanted in theirs)
    errors, slopes = aekd.hinted(regressors, own, theirs)
    for found, error in zip(slopes, errors, strict=True):
        slope = torch.autograd.grad(error, own, retain_graph=True)[0].mean(0)
        assert torch.allclose(8 * found.view_as(slope), 8 * slope, atol=1e-7)
    weights = aekd.Shares(3, 0.6)(slopes)
    assert weights.tolist() == pytest.approx([0.588604033, 0, 0.411395937], abs=1e-4)
    assert float((weights * errors).sum().detach()) == pytest.approx(2.33114052, rel=1e-4)


@pytest.mark.parametrize("teachers", [2, 3, 5])
@pytest.mark.parametrize("most", [0.1, 0.5, 1.0])
def test_no_other_shares_make_the_gradient_shorter(teachers: int, most: float) -> None:
    rng = np.random.default_rng(teachers)
    slopes = torch.tensor(rng.normal(size=(teachers, 9)) + rng.normal(size=9))
    found = aekd.Shares(teachers, most)(slopes).double()
    cap = max(most, 1 / teachers)
    assert float(found.sum()) == pytest.approx(1) and float(found.min()) >= 0 and float(found.max()) <= cap + 1e-6
    length = float((found @ slopes).norm())
    for other in torch.tensor(rng.dirichlet(np.ones(teachers), 3000)):
        if float(other.max()) <= cap:
            assert float((other @ slopes).norm()) >= length - 1e-6


def test_teachers_that_agree_share_and_none_is_left_without_a_number() -> None:
    slopes = wave(1, 9).expand(3, 9)
    assert aekd.Shares(3, 0.6)(slopes).sum().item() == pytest.approx(1)
    at_its_end = aekd.Shares(2, 0.6)(torch.tensor([[1.0, 0.0], [10.0, 0.0]]))
    assert torch.equal(at_its_end, torch.tensor([0.6, 0.4]))  # to the bit: C is not rounded on the way
    assert aekd.Shares(3, 0.6)(torch.zeros(3, 9)).isfinite().all()


def test_a_network_without_maps_is_told_the_variant() -> None:
    spec = resolve.resolve(
        "aekd", "digits", budget="smoke", teachers=["digits/cnn-8", "digits/mlp-30"], recipe={"network": "cnn-4"}
    )
    with pytest.raises(KfbenchError, match="middle layer of network 'mlp-30' is no map; use aekd/outputs"):
        stand_in.setup(spec, rows=16)
