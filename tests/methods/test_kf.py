"""Knowledge Flow against numpy written from its formula, and what must hold whatever the settings."""

import dataclasses
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from kfbench import networks, registry
from kfbench.conformance import checks, tiny
from kfbench.errors import KfbenchError
from kfbench.methods import Batch
from kfbench.networks import taps
from kfbench.networks.network import Network
from kfbench.running import command, resolve, stand_in
from kfbench.teachers import Teacher
from kfbench.train.supervised import Supervised
from kfbench.transfer import mixing
from kfbench.transfer.candidates import Matched, Mix, Norm, Transform, mix, rms
from kfbench.transfer.mixing import MixedStudent, parse_links

ROWS = 48
TEACHERS = ["digits/low/cnn-8", "digits/high/mlp-30"]


def live_with(teachers: list[str] | None = None, **settings: object) -> stand_in.Setup:
    spec = resolve.resolve(
        "kf",
        "digits",
        budget="smoke",
        teachers=teachers or TEACHERS,
        recipe={"network": "cnn-4", "batch_size": 16, "epochs": 4},
        settings=settings,  # type: ignore[arg-type]
    )
    return stand_in.setup(spec, rows=ROWS)


def begun(**settings: object) -> tuple[Supervised, MixedStudent, Batch]:
    loop = Supervised(live_with(**settings))
    next(iter(loop))
    assert isinstance(loop.setup.student, MixedStudent)
    return loop, loop.setup.student, loop.batch()


def softmax(values: np.ndarray) -> np.ndarray:
    raised = np.exp(values - values.max())
    return raised / raised.sum()


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


def test_dependency_is_the_formula() -> None:
    _, student, _ = begun()
    rows = []
    for n, weight in enumerate(student.shares.logits.values()):
        with torch.no_grad():
            weight.copy_(torch.tensor([0.1 * n, -0.4, 0.9]))
        rows.append(-np.log(softmax(np.array([0.1 * n, -0.4, 0.9]))[0]))
    assert student.shares.dependency().item() == pytest.approx(np.mean(rows), rel=1e-6)


@pytest.mark.parametrize("progress", [0.0, 0.45, 0.675, 0.9 - 1e-9])
def test_dependency_rises_with_its_schedule(progress: float) -> None:
    loop, student, batch = begun(dep=0.5, dep_start=0.45, dep_end=0.9, cut=0.9)
    setup = loop.setup
    _, parts = setup.method.losses(student, setup.teachers, batch, setup.task, progress)
    ramp = min(1.0, max(0.0, (progress - 0.45) / 0.45))
    assert parts["dependency"].item() == pytest.approx(0.5 * ramp * student.shares.dependency().item(), abs=1e-6)


def test_kl_is_the_formula_over_images_seen_before() -> None:
    loop, student, batch = begun(kl=0.3)
    setup = loop.setup
    assert batch.index is not None
    assert student.last is not None
    student.last.seen[:] = False
    student.last.seen[batch.index[:5]] = True
    student.last.logits.normal_()
    before = student.last.logits[batch.index].double().numpy()
    output, parts = setup.method.losses(student, setup.teachers, batch, setup.task, 0.2)
    now = output.logits.detach().double().numpy()
    each = [np.sum(softmax(p) * (np.log(softmax(p)) - np.log(softmax(q)))) for p, q in zip(before, now, strict=True)]
    assert parts["kl"].item() == pytest.approx(0.3 * np.mean(each[:5]), rel=1e-4)
    assert torch.equal(student.last.logits[batch.index], output.logits.detach())
    assert bool(student.last.seen[batch.index].all())


@pytest.mark.parametrize("previous", ["last", "attached"])
def test_after_the_cut_kl_is_to_the_last_output_or_to_the_last_with_teachers(previous: str) -> None:
    loop, student, batch = begun(kl=0.3, previous=previous, cut=0.5)
    setup = loop.setup
    assert student.last is not None and batch.index is not None
    attached, _ = setup.method.losses(student, setup.teachers, batch, setup.task, 0.4)
    alone = [setup.method.losses(student, setup.teachers, batch, setup.task, 0.6) for _ in range(2)]
    kept = attached if previous == "attached" else alone[0][0]
    assert torch.equal(student.last.logits[batch.index], kept.logits.detach())
    assert alone[0][1]["kl"].item() > 1e-3  # the mixed student said something else
    assert (alone[1][1]["kl"].item() > 1e-3) is (previous == "attached")


def test_kl_to_a_snapshot_is_zero_right_after_it_is_taken() -> None:
    loop, student, batch = begun(previous="snapshot", refresh=3)
    setup = loop.setup
    student.take_snapshots()
    parts = setup.method.losses(student, setup.teachers, batch, setup.task, 0.2)[1]
    assert parts["kl"].item() == pytest.approx(0.0, abs=1e-6)
    with torch.no_grad():
        for weight in student.network.parameters():
            weight.add_(0.3)
    assert setup.method.losses(student, setup.teachers, batch, setup.task, 0.2)[1]["kl"].item() > 1e-4


@pytest.mark.parametrize("matched", [False, True])
@pytest.mark.parametrize("refresh", [1, 2])
def test_kl_to_a_snapshot_is_to_weights_of_an_earlier_step(matched: bool, refresh: int) -> None:
    """Never to the present ones; and where no weight has moved it is 0, whatever the batches are."""
    loop, student, _ = begun(previous="snapshot", refresh=refresh, matched=matched)
    setup, found = loop.setup, []
    student.train()
    student.take_snapshots()
    for moved in (0.0, 0.0, 0.05, 0.05, 0.05):
        with torch.no_grad():
            for number, weight in enumerate(student.network.parameters()):
                weight.add_(moved * (number + 1))
        parts = setup.method.losses(student, setup.teachers, loop.batch(), setup.task, 0.2)[1]
        found.append(parts["kl"].item())
    assert found[:2] == pytest.approx([0, 0], abs=1e-6) and min(found[2:]) > 1e-5


def test_shares_sum_to_one_and_name_every_candidate() -> None:
    _, student, _ = begun(share_floor=0.2)
    for key in student.shares.logits:
        weights = student.shares(key)
        assert weights.sum().item() == pytest.approx(1.0)
        assert weights[0].item() >= 0.2
    shares = student.numbers()
    for layer in student.network.layers:
        own = [value for name, value in shares.items() if name.startswith(f"share/{layer}/")]
        assert len(own) == 3
        assert sum(own) == pytest.approx(1.0)


def test_a_floor_that_leaves_the_share_no_way_down_is_refused() -> None:
    """It would begin where softmax has no slope, and stay there for all L_dep says."""
    for settings in ({"share_floor": 0.5}, {"share_floor": 0.3, "initial_share": 0.3, "share": "scheduled"}):
        with pytest.raises(
            KfbenchError, match=r"share_floor 0\.[35] is not below initial_share 0\.[34].*; lower the one"
        ):
            live_with(**settings)


@pytest.mark.parametrize(("share", "floor"), [(0.47, 0.0), (0.8, 0.3), (0.05, 0.0)])
def test_the_first_share_is_what_was_asked(share: float, floor: float) -> None:
    setup = live_with(initial_share=share, share_floor=floor)
    assert setup.student.numbers()["share/student"] == pytest.approx(share, abs=1e-5)  # type: ignore[operator]


def test_with_share_one_the_mix_is_the_plain_student() -> None:
    loop, student, batch = begun(share="scheduled", initial_share=1.0)
    student.eval()
    with torch.no_grad():
        mixed = student(batch.images, student.ask(loop.setup.teachers, batch), [1.0] * len(student.links))
        assert torch.equal(mixed.logits, student(batch.images).logits)


@pytest.mark.parametrize("method", checks.method_names("kf"))
def test_exported_student_is_scratch_in_size_and_free_of_hooks(method: str) -> None:
    spec = dataclasses.replace(tiny.spec_of(method))
    setup = stand_in.setup(spec, rows=ROWS)
    for _ in Supervised(setup):
        pass
    kept = setup.method.export(setup.student)
    assert isinstance(kept, Network)
    scratch = setup.task.make_network()
    assert sum(p.numel() for p in kept.parameters()) == sum(p.numel() for p in scratch.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in kept.modules())


def test_teachers_are_not_run_after_the_cut() -> None:
    loop, student, batch = begun(cut=0.5)
    setup = loop.setup
    for teacher in setup.teachers:
        teacher.network.register_forward_pre_hook(lambda *_: pytest.fail("a teacher was run after the cut"))
    _, parts = setup.method.losses(student, setup.teachers, batch, setup.task, 0.5)
    assert set(parts) == {"cross-entropy", "kl"}
    setup.method.act(student, setup.teachers, batch, 0.75)


def test_a_teacher_is_run_once_and_no_deeper_than_its_last_link() -> None:
    loop, student, _ = begun(teachers=["digits/low/cnn-8"], links="body.blocks.0.relu=0:body.blocks.1.relu")
    calls = []
    teacher = loop.setup.teachers[0].network
    for name in ("body.blocks.0", "body.blocks.1", "body.blocks.2", "body.head"):
        teacher.get_submodule(name).register_forward_hook(lambda *_, name=name: calls.append(name))
    loop.setup.method.losses(student, loop.setup.teachers, loop.batch(), loop.setup.task, 0.1)
    assert calls == ["body.blocks.0"] or calls == ["body.blocks.0", "body.blocks.1"]


def test_the_alone_pass_has_statistics_of_its_own() -> None:
    loop, student, batch = begun(alone=1.0)
    norm = student.network.get_submodule("body.blocks.0.norm")
    before = norm.running_mean.clone()
    student.train()
    with torch.no_grad():
        student(batch.images, student.ask(loop.setup.teachers, batch))
        assert torch.equal(norm.running_mean, before)  # type: ignore[arg-type]
        student(batch.images)
    assert not torch.equal(norm.running_mean, before)  # type: ignore[arg-type]


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


def test_the_stage_after_the_cut_asks_no_teacher_though_it_begins_a_step_before() -> None:
    """Of 12 steps 0.37 is 4.44: the stage begins at step 4, whose progress of 0.333 lies before the cut."""
    loop = Supervised(live_with(cut=0.37))
    steps = iter(loop)
    for _ in range(4):
        next(steps)
    attached = loop.batch()
    setup = loop.setup
    setup.method.losses(setup.student, setup.teachers, attached, setup.task, loop.position / loop.total)
    assert attached.memo
    loop._begin(1)
    alone = loop.batch()
    assert setup.method.is_attached(loop.position / loop.total)
    setup.method.losses(setup.student, setup.teachers, alone, setup.task, loop.position / loop.total)
    assert not alone.memo


def test_a_scheduled_share_is_reported_from_the_start_to_the_end() -> None:
    loop = Supervised(live_with(share="scheduled", initial_share=0.3, cut=0.5, restart=False))
    student = loop.setup.student
    assert isinstance(student, MixedStudent)
    assert student.numbers()["share/student"] == pytest.approx(0.3)
    for _ in loop:
        pass
    assert student.numbers()["share/student"] == 1
    assert all(share == 0 for name, share in student.numbers().items() if "teacher" in name)


@pytest.mark.parametrize("previous", ["last", "snapshot"])
def test_hints_reach_the_student_whatever_it_is_held_near_to(previous: str) -> None:
    loop, student, batch = begun(previous=previous, kl=0.5, hint=1.0, cut=0.9)
    student.train()
    setup = loop.setup
    _, parts = setup.method.losses(student, setup.teachers, batch, setup.task, 0.2)
    slopes = torch.autograd.grad(parts["hint"], list(student.network.parameters()), allow_unused=True)
    assert sum(float(slope.square().sum()) for slope in slopes if slope is not None) > 0


def test_the_snapshots_pass_leaves_the_statistics_of_the_live_student() -> None:
    loop = Supervised(live_with(previous="snapshot", kl=0.5, alone=1.0, cut=0.9))
    for _ in zip(range(6), loop, strict=False):
        pass
    state = loop.setup.student.state_dict()
    counts = {name: int(value) for name, value in state.items() if name.endswith("num_batches_tracked")}
    setup = {name: count for name, count in counts.items() if name.startswith(("network.", "statistics."))}
    assert any(name.startswith("statistics.") for name in setup) and set(setup.values()) == {6}


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


@pytest.mark.parametrize(
    ("optimizer", "asked", "rate"), [("adamw", {}, 10.0), ("sgd", {}, 0.01), ("sgd", {"mix_rate": 10.0}, 10.0)]
)
def test_the_mixing_weights_rate_is_the_optimisers(optimizer: str, asked: dict[str, float], rate: float) -> None:
    """With SGD, ten times the network's rate sends the shares to the student before a teacher is heard."""
    spec = resolve.resolve("kf", "digits", teachers=TEACHERS, recipe={"optimizer": optimizer}, settings=asked)
    assert spec.settings["mix_rate"] == rate
    assert ("mix_rate=10" in " ".join(command.run(spec))) is bool(asked)  # told only where it is not the default


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


def test_layers_are_withdrawn_one_after_another() -> None:
    method = registry.load_method(
        "kf", {"share": "scheduled", "initial_share": 0.2, "withdrawal": "lowest-first", "cut": 0.8}
    )
    shares = [method._scheduled(progress, 4) for progress in (0.0, 0.1, 0.3, 0.8)]  # type: ignore[attr-defined]
    np.testing.assert_allclose(shares, [[0.2] * 4, [0.6, 0.2, 0.2, 0.2], [1, 0.6, 0.2, 0.2], [1] * 4])


def test_a_warm_student_starts_as_its_teacher_below_the_head() -> None:
    setup = live_with(["digits/low/cnn-4", "digits/high/cnn-8"], start="teacher")
    student = setup.student
    assert isinstance(student, MixedStudent) and setup.method.starts_from_teacher
    theirs = setup.teachers[0].network.state_dict()
    for name, value in student.network.state_dict().items():
        assert torch.equal(value, theirs[name]) != name.startswith("body.head."), name


def test_a_warm_student_without_such_a_teacher_is_told_in_a_line() -> None:
    with pytest.raises(KfbenchError, match="needs a teacher with the student's network 'cnn-4'"):
        live_with(start="teacher")
