"""The image methods: what each stage trains, what is remembered, and what the sources' formulas say of it."""

from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from kfbench import networks, registry
from kfbench.conformance import tiny
from kfbench.errors import KfbenchError
from kfbench.methods import Batch
from kfbench.networks import taps
from kfbench.networks.network import Network
from kfbench.running import resolve, stand_in
from kfbench.train.setup import Setup
from kfbench.train.supervised import Supervised
from kfbench.transfer import losses
from kfbench.transfer.companion import WithCompanions, middle
from kfbench.transfer.transplant import carry, is_head

ROWS = 48
MLP = {"network": "mlp-30", "batch_size": 16, "epochs": 4}


def setup(method: str, **settings: Any) -> Setup:
    """A run of 12 steps on made-up digits with untrained teachers."""
    return stand_in.setup(tiny.spec_of(method, settings or None), rows=ROWS)


def trained(made: Setup, steps: int) -> Supervised:
    loop = Supervised(made)
    for _ in zip(range(steps), loop, strict=False):
        pass
    return loop


def values(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def moved(before: dict[str, torch.Tensor], module: nn.Module) -> set[str]:
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


def parts_of(made: Setup, batch: Batch, progress: float = 0.5) -> dict[str, float]:
    _, found = made.method.losses(made.student, made.teachers, batch, made.task, progress)
    return {name: float(part.detach()) for name, part in found.items()}


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


def test_decoupled_distillation_warms_up() -> None:
    made = setup("dkd", warmup=0.5)
    batch = trained(made, 1).batch()
    early, late = parts_of(made, batch, 0.25), parts_of(made, batch, 0.9)
    assert early["target"] == pytest.approx(late["target"] / 2, rel=1e-3)
    assert early["cross-entropy"] == pytest.approx(late["cross-entropy"], rel=1e-3)


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


@pytest.mark.parametrize("method", ["lwf", "delta"])
def test_the_head_is_trained_alone_first(method: str) -> None:
    made = setup(method, warmup=0.25)
    assert isinstance(made.student, WithCompanions)
    start = made.teachers[0].network.state_dict()
    network = made.student.network
    for name, value in network.state_dict().items():
        assert is_head(network, name) or torch.equal(value, start[name])
    before = values(made.student)
    loop = trained(made, 3)
    assert moved(before, made.student) == {"network.body.head.weight", "network.body.head.bias"}
    for _ in loop:
        pass
    assert "network.body.blocks.0.conv.weight" in moved(before, made.student)


def test_old_answers_cost_their_entropy_when_they_are_kept() -> None:
    made = setup("lwf", warmup=0.0, weight=2.0)
    batch = trained(made, 0).batch()
    made.method.begin(made.student, made.teachers, made.method.stages[0], [], made.rng)
    made.student.eval()  # else BatchNorm answers otherwise than the teacher's
    target = losses.softened(made.teachers[0](batch).logits, 2.0)
    entropy = float(-(target * target.log()).sum(1).mean())
    assert parts_of(made, batch)["old"] == pytest.approx(2 * entropy, rel=1e-4)
    made.student.parts["old"].weight.data.mul_(3)
    assert parts_of(made, batch)["old"] > 2 * entropy * 1.0001


def test_the_start_penalty_is_half_the_squared_distance_of_weights_alone() -> None:
    made = setup("finetune/l2sp", start_penalty=0.5, head_penalty=0.02)
    batch = trained(made, 3).batch()
    start = made.teachers[0].network.state_dict()
    now = {name: weight.detach().double().numpy() for name, weight in made.student.named_parameters()}
    kernels = [f"body.blocks.{index}.conv.weight" for index in range(4)]
    moved = sum(((now[name] - start[name].double().numpy()) ** 2).sum() for name in kernels)
    found = parts_of(made, batch)
    assert found["start"] == pytest.approx(0.5 / 2 * moved, rel=1e-4) and moved > 0
    assert found["head"] == pytest.approx(0.02 / 2 * (now["body.head.weight"] ** 2).sum(), rel=1e-4)


def test_delta_is_the_sources_sum_over_channels() -> None:
    made = setup("delta", warmup=0.25, alpha=0.5, beta=0.02)
    loop = trained(made, 8)
    batch, student = loop.batch(), made.student
    assert isinstance(student, WithCompanions)
    network = student.network
    with taps.read(network, network.layers) as now:
        network(batch.images)
    start = made.teachers[0].features(batch, network.layers)
    total = 0.0
    for layer, weights in zip(network.layers, student.parts["channels"].buffers(), strict=True):
        assert float(weights.sum()) == pytest.approx(1) and float(weights.std()) > 0
        own, theirs = now[layer].detach().double().numpy(), start[layer].double().numpy()
        rows, channels, height, width = own.shape
        for b in range(rows):
            for c in range(channels):
                square = ((own[b, c] - theirs[b, c]) ** 2).sum()
                total += 0.5 * float(weights[c]) * channels / (height * width) * square / rows
    found = parts_of(made, batch)
    assert found["features"] == pytest.approx(0.5 * total, rel=1e-2)
    head = sum(float(w.detach().square().sum()) for n, w in network.named_parameters() if is_head(network, n))
    assert found["head"] == pytest.approx(0.02 / 2 * head, rel=1e-3)


def test_a_channel_that_nothing_reads_has_no_importance() -> None:
    made = setup("delta")
    assert isinstance(made.student, WithCompanions)
    network = made.student.network
    network.get_submodule("body.head").weight.data[:, 3] = 0
    batch = Supervised(made).batch()
    growth = registry.load_module("methods", "delta").importance(network, [batch])
    assert [len(each) for each in growth] == [4, 8, 16, 32]
    assert float(growth[-1][3]) == 0 and int((growth[-1] == 0).sum()) == 1


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


def test_delta_keeps_vectors_near_the_teachers_too() -> None:
    spec = resolve.resolve("delta", "digits/high", budget="smoke", teachers=["digits/low/mlp-30"], recipe=MLP)
    made = stand_in.setup(spec, rows=ROWS)
    loop = trained(made, 8)
    assert loop.stage == 1 and parts_of(made, loop.batch(), 0.9)["features"] > 0


def test_a_student_without_maps_is_told_the_variant() -> None:
    teachers = ["digits/cnn-8", "digits/cnn-4"]
    spec = resolve.resolve("ca_mkd", "digits", budget="smoke", teachers=teachers, recipe=MLP)
    with pytest.raises(KfbenchError, match="last features of network 'mlp-30' are no maps; use ca_mkd/outputs"):
        stand_in.setup(spec, rows=ROWS)


def test_decoupled_distillation_needs_two_classes() -> None:
    spec = resolve.resolve("dkd", "cifar100/5-5", budget="smoke", teachers=["cifar100/5-5/cnn-4"])
    with pytest.raises(KfbenchError, match="'cifar100/5-5' has one; use kd"):
        stand_in.setup(spec, rows=ROWS)


@pytest.mark.parametrize("method", ["finetune", "lwf", "delta"])
@pytest.mark.parametrize(
    ("network", "source", "said"),
    [
        ("mlp-30", "digits", "'body.fc1.weight' is another size .*; use .* a --network that pools them"),
        (
            "cnn-4",
            "cifar10",
            "images of 3×32×32, .* other channels, 1×28×28; use a teacher trained on grey images, or .* --rgb$",
        ),
    ],
)
def test_weights_of_another_size_are_refused_before_anything_is_trained(
    method: str, network: str, source: str, said: str
) -> None:
    with pytest.raises(KfbenchError, match=f"has other sizes: .*{said}"):
        resolve.resolve(method, "mnist/5k", teachers=[f"{source}/{network}"], recipe={"network": network})
    student, teacher = (networks.make(network, shape=shape, outputs=2) for shape in ((1, 28, 28), (3, 8, 8)))
    with pytest.raises(KfbenchError, match="cannot start from such a teacher: .* use a teacher trained on grey images"):
        carry(teacher, student)
    with pytest.raises(KfbenchError, match="other channels, 3×8×8; use a teacher trained on images in colour$"):
        carry(student, teacher)
