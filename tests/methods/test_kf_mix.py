"""What Knowledge Flow mixes: transformations of any shape, their gradient, links, and what teachers' features weigh."""

import dataclasses
from typing import cast

import numpy as np
import pytest
import torch
from flowing import begun, live_with, softmax
from torch import Tensor

from kfbench import networks, registry
from kfbench.errors import KfbenchError
from kfbench.methods import Batch
from kfbench.networks import taps
from kfbench.teachers import Teacher
from kfbench.train.supervised import Supervised
from kfbench.transfer import mixing
from kfbench.transfer.candidates import Matched, Mix, Norm, Transform, mix, rms
from kfbench.transfer.mixing import MixedStudent, parse_links


def test_mix_is_the_formula() -> None:
    loop, student, batch = begun()
    layer = student.network.layers[1]
    key = layer.replace(".", "/")
    with torch.no_grad():
        student.shares.logits[key].copy_(torch.tensor([0.3, -0.2, 0.5]))
    student.eval()
    features = student.ask(loop.setup.teachers, batch)
    with torch.no_grad(), taps.read(student.network, [layer]) as mixed:
        student(batch.images, features)
    own = np.asarray(mixed_before(student, loop, batch, layer, features))
    weights = softmax(np.array([0.3, -0.2, 0.5], np.float64))
    expected = weights[0] * own
    for i, (k, name) in enumerate(student.links[layer]):
        z = features[f"{k}/{name}"].double().numpy()
        norm = student._norm(f"{k}/{name}")
        assert norm is not None
        extra = (1,) * (z.ndim - 2)
        z = (z - norm.mean.double().numpy().reshape(1, -1, *extra)) / norm.std.double().numpy().reshape(1, -1, *extra)
        q = student.transforms[key][i].weight.detach().double().numpy()  # type: ignore[index]
        if z.ndim == 4:
            made = np.einsum("oc,bchw->bohw", q[:, :, 0, 0], pooled(z, own.shape[2:]))
        else:
            made = (z @ q.T)[:, :, None, None]
        expected = expected + weights[i + 1] * made
    np.testing.assert_allclose(mixed[layer].numpy(), expected, rtol=2e-4, atol=2e-5)


def mixed_before(
    student: MixedStudent, loop: Supervised, batch: Batch, layer: str, features: dict[str, Tensor]
) -> Tensor:
    """The layer's own features h_j, before the mix: its weight set to the student alone."""
    key = layer.replace(".", "/")
    kept = student.shares.logits[key].detach().clone()
    with torch.no_grad(), taps.read(student.network, [layer]) as found:
        student.shares.logits[key].copy_(torch.tensor([60.0, -60.0, -60.0]))
        student(batch.images, features)
        student.shares.logits[key].copy_(kept)
    return found[layer].double()


def pooled(z: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Average pooling to a size that divides the map's."""
    b, c, h, w = z.shape
    return z.reshape(b, c, size[0], h // size[0], size[1], w // size[1]).mean((3, 5))


SHAPES = [  # what a transformation takes, and makes
    ((3, 8, 8), (5, 8, 8)),
    ((3, 8, 8), (5, 4, 4)),
    ((3, 4, 4), (5, 8, 8)),
    ((3, 8, 8), (5,)),
    ((3,), (5, 8, 8)),
    ((3,), (5,)),
    ((3, 7, 9), (5, 4, 5)),
    ((3, 7, 4), (5, 4, 5)),
]


@pytest.mark.parametrize(("taken", "made"), SHAPES)
def test_transform_meets_any_shape_and_is_linear(taken: tuple[int, ...], made: tuple[int, ...]) -> None:
    q = Transform(taken, made)
    one, other = torch.randn(2, *taken), torch.randn(2, *taken)
    assert torch.broadcast_to(q(one), (2, *made)).shape == (2, *made)
    torch.testing.assert_close(q(2 * one - other), 2 * q(one) - q(other), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(q(one, 0.3), 0.3 * q(one))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"links": "body.nothing=0:body.blocks.0.relu"}, "no layer 'body.nothing'"),
        ({"links": "body.blocks.0.relu=0:body.nothing"}, "no layer 'body.nothing'"),
        ({"links": "body.blocks.0.relu=7:body.blocks.0.relu"}, "teacher 7"),
        ({"links": "body.blocks.0.relu"}, "cannot be read"),
        ({"links": "body.blocks.0=0:body.blocks.0", "position": "pre"}, "not an activation"),
    ],
)
def test_wrong_links_are_told_in_a_line(settings: dict[str, object], said: str) -> None:
    with pytest.raises(KfbenchError, match=said):
        live_with(**settings)


def test_links_of_the_users_own() -> None:
    links = parse_links("a.b=0:x.y+1:z;c=1:z", 2)
    assert links == {"a.b": [(0, "x.y"), (1, "z")], "c": [(1, "z")]}


def test_pre_activations_are_mixed_before_the_activation() -> None:
    loop, student, batch = begun(position="pre", teachers=["digits/low/cnn-8"])
    layer = student.network.layers[-1]
    student.eval()
    with torch.no_grad(), taps.read(student.network, [layer]) as found:
        student(batch.images, student.ask(loop.setup.teachers, batch))
    assert found[layer].min().item() >= 0  # the ReLU comes after the mix


def test_a_teacher_of_any_shape_and_output_can_flow() -> None:
    network = networks.make("resnet8", shape=(3, 32, 32), outputs=7)
    foreign = Teacher(network, "foreign", None, (), "0", 0)
    setup = live_with()
    method = registry.load_method("kf")
    student = method.make_student(setup.task, [foreign], torch.Generator())
    loop = Supervised(dataclasses.replace(setup, method=method, student=student, teachers=[foreign]))
    for _ in loop:
        pass
    assert loop.curve[-1]["share/student"] > 0


@pytest.mark.parametrize("form", ["map", "channels_last", "vector"])
@pytest.mark.parametrize("with_bias", [True, False])
def test_the_mix_has_the_gradient_of_its_formula(form: str, with_bias: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    size = () if form == "vector" else (3, 2)

    def drawn(*shape: int) -> Tensor:
        made = torch.randn(shape, generator=generator, dtype=torch.float64)
        return made.to(memory_format=torch.channels_last) if form == "channels_last" and len(shape) == 4 else made

    own, share, features = drawn(4, 5, *size), drawn(1)[0], [drawn(4, 2, *size), drawn(4, 3, *size)]
    weights, bias = [drawn(5, 2), drawn(5, 3)], drawn(5) if with_bias else None
    learned = [each.requires_grad_() for each in (own, share, *([bias] if bias is not None else []), *weights)]
    wanted = share * own + sum(torch.einsum("oc,bc...->bo...", w, z) for w, z in zip(weights, features, strict=True))
    if bias is not None:
        wanted = wanted + bias.view(5, *(1 for _ in size))
    made = Mix.apply(own, share, bias, *features, *weights)
    torch.testing.assert_close(made, wanted)
    slope = drawn(*made.shape)
    torch.testing.assert_close(torch.autograd.grad(made, learned, slope), torch.autograd.grad(wanted, learned, slope))


@pytest.mark.parametrize(("taken", "made"), SHAPES)
def test_a_mix_of_any_shapes_is_the_weighted_sum(taken: tuple[int, ...], made: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    q, norm = Transform(taken, made), Norm(taken[0])
    features, own, weight = torch.randn(3, *taken), torch.randn(3, *made), torch.tensor(0.3)
    norm.measure(features)
    assert_close = torch.testing.assert_close
    assert_close(mix(own, torch.tensor(0.7), [(q, features, weight, None)]), 0.7 * own + 0.3 * q(features))
    assert_close(mix(own, torch.tensor(0.7), [(q, features, weight, norm)]), 0.7 * own + 0.3 * q(norm(features)))


def test_features_of_large_maps_are_measured_over_fewer_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of 2,000 images of 224 pixels would take tens of GB; the statistics are those of the images held."""
    loop, student, batch = begun(normalise=True)
    held = student.ask(loop.setup.teachers, batch)
    monkeypatch.setattr(mixing, "HELD", sum(features.numel() for features in held.values()) + 1)
    given = iter([batch] * 5)
    student.measure(loop.setup.teachers, given)
    assert len(list(given)) == 3
    for place, features in held.items():
        torch.testing.assert_close(cast(Norm, student._norm(place)).mean, features.transpose(0, 1).flatten(1).mean(1))


def spoken(student: MixedStudent, name: str) -> dict[str, float]:
    return {place: value for place, value in student.numbers().items() if place.startswith(f"{name}/")}


def test_influence_is_the_ratio_of_root_mean_squares() -> None:
    """Of p_k Q_k(z_k) over p_0 h, in the latest mixed pass."""
    loop, student, batch = begun(teachers=["digits/low/cnn-8"])
    layer = student.network.layers[1]
    key = layer.replace(".", "/")
    with torch.no_grad():
        student.shares.logits[key].copy_(torch.tensor([0.3, -0.2]))
    student.eval()
    features = student.ask(loop.setup.teachers, batch)
    with torch.no_grad(), taps.read(student.network, [layer]) as mixed:
        student(batch.images, features)
        influence = student.numbers()[f"influence/{layer}/{student.names[0]}"]
        student.shares.logits[key].copy_(torch.tensor([60.0, -60.0]))
        whole = mixed[layer].double().numpy()
        student(batch.images, features)
    weights = softmax(np.array([0.3, -0.2]))
    own = weights[0] * mixed[layer].double().numpy()
    wanted = np.sqrt(np.mean((whole - own) ** 2)) / np.sqrt(np.mean(own**2))
    assert influence == pytest.approx(wanted, rel=1e-4)


def test_nothing_has_influence_after_the_cut() -> None:
    loop, student, batch = begun(cut=0.5, restart=False)
    setup = loop.setup
    assert spoken(student, "influence")
    setup.method.losses(student, setup.teachers, batch, setup.task, 0.7)
    assert not spoken(student, "influence") and spoken(student, "share")


def test_a_matched_share_is_an_influence_whatever_the_scale_of_q() -> None:
    loop, student, batch = begun(matched=True, teachers=["digits/low/cnn-8"])
    setup = loop.setup
    with torch.no_grad():
        for transform in student.transforms.values():
            transform[0].weight.mul_(7.0)  # type: ignore[index]
    setup.method.losses(student, setup.teachers, batch, setup.task, 0.1)
    numbers = student.numbers()
    for layer in student.links:
        own, theirs = student.shares(layer.replace(".", "/")).tolist()
        assert numbers[f"influence/{layer}/{student.names[0]}"] == pytest.approx(theirs / own, rel=1e-4)


def test_a_matched_mix_is_scaled_to_the_students_own_features_and_its_gradient_holds_q() -> None:
    torch.manual_seed(0)
    own, z = torch.randn(6, 4, 5, 5), 3 * torch.randn(6, 2, 5, 5)
    q, matched = Transform((2, 5, 5), (4, 5, 5)), Matched(1)
    mixed = matched(own, torch.tensor(0.0), [(q, z, torch.tensor(1.0), None)])
    assert rms(mixed).item() == pytest.approx(rms(own).item(), rel=1e-5)
    (mixed * torch.randn_like(mixed)).sum().backward()
    assert q.weight.grad is not None  # a change of Q's scale changes nothing: its gradient is orthogonal to it
    assert (q.weight.grad * q.weight).sum().item() == pytest.approx(0.0, abs=1e-4)


def test_where_the_students_features_have_died_a_matched_mix_adds_nothing_and_has_a_finite_gradient() -> None:
    """Their root mean square is 0, and the root has no slope there: once, that ended a run with a loss of nan."""
    own, z = torch.zeros(6, 4, 5, 5, requires_grad=True), torch.randn(6, 2, 5, 5)
    q = Transform((2, 5, 5), (4, 5, 5))
    mixed = Matched(1)(own.relu(), torch.tensor(0.5), [(q, z, torch.tensor(0.5), None)])
    assert not mixed.any()
    mixed.sum().backward()
    assert q.weight.grad is not None and not q.weight.grad.any() and own.grad is not None and own.grad.isfinite().all()


def test_evaluating_a_matched_mix_does_not_depend_on_the_batch() -> None:
    loop, student, batch = begun(matched=True)
    student.eval()
    features = student.ask(loop.setup.teachers, batch)
    with torch.no_grad():
        whole = student(batch.images, features).logits
        first = student(batch.images[:1], {place: z[:1] for place, z in features.items()}).logits
    torch.testing.assert_close(first, whole[:1], rtol=1e-4, atol=1e-5)
