"""Methods that stay near a teacher's weights or answers, from which they start: LwF, L2-SP and DELTA."""

import pytest
import torch
from image_methods import MLP, moved, parts_of
from tuning import ROWS, setup, trained, values

from kfbench import networks, registry
from kfbench.errors import KfbenchError
from kfbench.networks import taps
from kfbench.running import resolve, stand_in
from kfbench.train.supervised import Supervised
from kfbench.transfer import losses
from kfbench.transfer.companion import WithCompanions
from kfbench.transfer.transplant import carry, is_head


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


def test_delta_keeps_vectors_near_the_teachers_too() -> None:
    spec = resolve.resolve("delta", "digits/high", budget="smoke", teachers=["digits/low/mlp-30"], recipe=MLP)
    made = stand_in.setup(spec, rows=ROWS)
    loop = trained(made, 8)
    assert loop.stage == 1 and parts_of(made, loop.batch(), 0.9)["features"] > 0


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
