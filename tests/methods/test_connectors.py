"""Methods that join maps of two widths by learned modules, against their sources' code; and what each stage trains."""

from typing import Any, cast

import pytest
import torch
from golden import fill, leaf, numbers, same, wave
from torch import nn

from kfbench import networks, registry
from kfbench.conformance import tiny
from kfbench.errors import KfbenchError
from kfbench.running import resolve, stand_in
from kfbench.teachers import Teacher
from kfbench.train.supervised import Supervised
from kfbench.transfer import maps
from kfbench.transfer.companion import WithCompanions

OWN, LARGE = 2 * wave(8, 6, 5, 5), 2 * wave(8, 9, 5, 5, step=1.3)
PAIR = maps.Pair("", "", (6, 5, 5), (9, 5, 5))
MARGINS = [-0.7978846, -0.621922, -0.15, -1.7713118, -2.0217004, -0.5175011, -1.4272609, -0.3346182, -2.0034893]
overhaul, boundaries, factor, mgd, simkd = (
    registry.load_module("methods", name)
    for name in ("overhaul", "activation_boundaries", "factor_transfer", "mgd", "simkd")
)


def trained(method: str, steps: int, **settings: Any) -> Supervised:
    loop = Supervised(stand_in.setup(tiny.spec_of(method, settings or None), rows=48))
    for _ in zip(range(steps), loop, strict=False):
        pass
    return loop


def moved(before: dict[str, torch.Tensor], module: nn.Module) -> set[str]:
    return {name for name, weight in module.named_parameters() if not torch.equal(weight, before[name])}


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in module.named_parameters()}


def test_margins_are_the_overhauls() -> None:
    """clovaai/overhaul-distillation, CIFAR-100/distiller.py, get_margin_from_BN; the third is three deviations."""
    norm = nn.BatchNorm2d(9)
    norm.weight.data, norm.bias.data = 1 + 0.6 * wave(9, step=0.9), 2 * wave(9, step=1.7)
    norm.weight.data[2], norm.bias.data[2] = 0.05, 1.0
    assert overhaul.margin(norm).tolist() == pytest.approx(MARGINS, rel=1e-5)


def test_the_partial_distance_is_the_overhauls() -> None:
    """clovaai/overhaul-distillation, CIFAR-100/distiller.py, distillation_loss over the batch's size."""
    own = leaf(OWN)
    connected = overhaul.Connected(PAIR, torch.tensor(MARGINS))
    fill(connected.connector)
    told = [771.697998, 270.625182, -2.21502292, 167.814086, -34.2815197, 493.88187, 183.910841]
    same(numbers(connected(own, LARGE), own, *connected.parameters()), [*told, 394.117552, 162.044055])


def test_what_lies_below_the_margin_on_both_sides_costs_nothing() -> None:
    own, theirs = torch.full((2, 3, 2, 2), -5.0), torch.full((2, 3, 2, 2), -4.0)
    target = torch.maximum(theirs, torch.tensor(-1.0))
    assert float(overhaul.partial_distance(own, target)) == 0
    assert float(overhaul.partial_distance(torch.zeros_like(own), target)) == 12


@pytest.mark.parametrize(
    ("network", "norms"),
    [
        ("cnn-4", [f"body.blocks.{i}.norm" for i in range(4)]),
        ("resnet8", [f"body.stages.{i}.0.norm2" for i in range(3)]),
        ("vgg8", [f"body.stages.{i}.norm1" for i in range(5)]),
        ("wrn-10-1", ["body.stages.1.0.norm1", "body.stages.2.0.norm1", "body.norm"]),
        ("densenet-10-4", ["body.transitions.0.norm", "body.transitions.1.norm", "body.norm"]),
    ],
)
def test_margins_come_from_the_norm_before_the_layer(network: str, norms: list[str]) -> None:
    made = networks.make(network, shape=(3, 16, 16), outputs=5).eval()
    assert [overhaul.norm_before(made, layer) for layer in made.layers] == [made.get_submodule(n) for n in norms]


def test_a_teacher_without_norms_is_refused() -> None:
    made = networks.make("mlp-30", shape=(3, 8, 8), outputs=5)
    with pytest.raises(KfbenchError, match="no BatchNorm before layer 'body.relu1' of network 'mlp-30'"):
        overhaul.norm_before(made, made.layers[0])


def test_boundaries_are_the_authors() -> None:
    """bhheo/AB_distillation, cifar10_AB_distillation.py, criterion_alternative_L2 over the batch's size."""
    own, connector = leaf(OWN), maps.connector(6, 9)
    fill(connector)
    told = [703.166138, 297.014894, -5.52456845, 177.032031, -21.0517239, 367.785702, 128.931692]
    found = numbers(boundaries.boundaries(connector(own), LARGE, 1.0), own, *connector.parameters())
    same(found, [*told, 391.231125, 152.320412])


def test_deeper_layers_count_twice_as_much() -> None:
    for method, scale, distance in (
        ("activation_boundaries", 3e-3, lambda own, theirs, _: boundaries.boundaries(own, theirs, 1.0)),
        ("overhaul", 1e-3, lambda own, theirs, connected: connected(own, theirs)),
    ):
        loop = trained(method, 1, **({"share": 0.5} if method == "activation_boundaries" else {}))
        live, batch = loop.setup, loop.batch()
        student = cast(WithCompanions, live.student).requires_grad_(False)
        _, parts = live.method.losses(student, live.teachers, batch, live.task, 0.1)
        _, couples = maps.read(student.network, live.teachers[0], batch, position="pre")
        total = 0.0
        for j, (own, theirs) in enumerate(couples):
            connected = cast(nn.ModuleList, student.parts["connectors"])[j]
            own = connected(own) if method == "activation_boundaries" else own
            total += scale * float(distance(own, theirs, connected)) / 2 ** (len(couples) - 1 - j)
        assert len(couples) == 4
        # BatchNorm's statistics move with each pass, its outputs in training do not
        assert float(list(parts.values())[-1]) == pytest.approx(total, rel=1e-5)


def test_boundaries_train_the_body_and_then_the_task_everything_but_the_connectors() -> None:
    loop = trained("activation_boundaries", 1, share=0.5)
    student = loop.setup.student
    before = weights(student)
    for _ in zip(range(5), loop, strict=False):
        pass
    assert moved(before, student) == {name for name in before if "head" not in name}
    next(iter(loop))
    before = weights(student)
    for _ in loop:
        pass
    assert moved(before, student) == {name for name in before if not name.startswith("parts")}
    _, parts = loop.setup.method.losses(student, loop.setup.teachers, loop.batch(), loop.setup.task, 1.0)
    assert set(parts) == {"cross-entropy"}


def test_factors_are_the_authors() -> None:
    """Jangho-Kim/Factor-Transfer-pytorch, Models/FeatureProjection.py, utils.py, train_student.py."""
    encoder, decoder = factor.coder(9, 9, 4, 4), factor.coder(4, 4, 9, 9, up=True)
    fill(nn.ModuleList([encoder, decoder]))
    error = (decoder(encoder(LARGE)) - LARGE).square().mean()
    told = [4.14554834, 11.2137763, -0.0832304042, 0.0700988168, 0.0421188501, 10.819457, 0.360068748]
    told += [0.0758637055, 0.0569420899, 4.45408786, 0.30925212, 0.0601984467, 0.0451738272, 11.7703212, -1.02324715]
    told += [0.282900259, 0.0928854563, 60.8995709, 0.966081282, 1.70379419, 0.517986106, 181.263613, 5.76260111]
    same(numbers(error, *encoder.parameters(), *decoder.parameters()), [*told, 2.36209095, 0.584189569])
    own, translator = leaf(OWN), factor.coder(6, 6, 4, 4)
    fill(translator)
    told = [0.0619354881, 0.0475083414, 0.00113551339, 0.286796812, 0.0117532362, 0.00255106186, 0.0020719292]
    told += [0.349720475, 0.00159996667, 0.00422311929, 7.21901098e-05, 0.42457218, -0.00870314645, 0.0112158917]
    apart = factor.factors(translator(own), encoder(LARGE).detach())
    same(numbers(apart, own, *translator.parameters()), [*told, -0.00581759462])


def test_the_paraphraser_learns_alone_and_then_stays() -> None:
    loop = trained("factor_transfer", 0, share=0.5)
    student = loop.setup.student
    before = weights(student)
    buffers = {name: value.clone() for name, value in student.named_buffers()}
    for _ in zip(range(6), loop, strict=False):
        pass
    paraphraser = {name for name in before if "coder" in name}
    assert moved(before, student) == paraphraser
    assert all(torch.equal(value, buffers[name]) for name, value in student.named_buffers())
    before = weights(student)
    for _ in loop:
        pass
    assert moved(before, student) == set(before) - paraphraser
    _, parts = loop.setup.method.losses(student, loop.setup.teachers, loop.batch(), loop.setup.task, 1.0)
    assert set(parts) == {"cross-entropy", "factors"}


def test_a_generated_map_is_the_authors() -> None:
    """yzd-v/cls_KD, mmcls/models/dis_losses/mgd.py, alpha_mgd 0.0012, with these channels hidden."""
    own, generator = leaf(wave(8, 6, 5, 5)), mgd.Generator(6, 9)
    fill(generator.align)
    fill(generator.generate)
    kept = (wave(8, 9, step=2.1) + 1) / 2 >= 0.15
    error = (generator(own, kept) - wave(8, 9, 5, 5, step=1.3)).square().flatten(1).sum(1).mean()
    told = [0.844404101, 0.428332984, 0.00181737552, 0.262701635, 0.0487473398, 0.412002163, 0.0341759013]
    told += [30.8952227, 1.49684897, 0.570082715, 0.177894353, 55.7507618, 2.6428189, 0.734530471, 0.330928643]
    same(numbers(0.0012 * error, own, *generator.parameters()), told)


@pytest.mark.parametrize("masked", [0.0, 0.5])
def test_the_masks_share_of_channels_is_hidden(masked: float) -> None:
    live = trained("mgd", 0, masked=masked).setup
    seen: list[torch.Tensor] = []
    generator = cast(WithCompanions, live.student).parts["generator"]
    generator.register_forward_pre_hook(lambda _module, given: seen.append(given[1]))
    loop = Supervised(live)
    for _ in loop:
        pass
    assert float(torch.cat(seen).float().mean()) == pytest.approx(1 - masked, abs=0.02)
    assert masked == 0 or not torch.equal(seen[0], seen[1])


def test_the_projector_is_the_authors() -> None:
    """DefangChen/SimKD, models/util.py, class SimKD, factor 2, and the mean squared error."""
    own, wanted = leaf(wave(8, 6, 5, 5)), wave(8, 8, 3, 3, step=1.3).relu()
    projector, head = simkd.projector(6, 8, 4), nn.Linear(8, 7)
    fill(projector)
    fill(head)
    made = projector(maps.to_size(own, (3, 3)))
    told = [1.54534769, 1.18696352, -0.0168234531, 0.384894196, -0.135025106, 0.0524557873, -0.0128448854]
    told += [0.0200500295, 0.00939047982, 2.36146276, -0.0973702353, 0.0463463264, 0.0127405816, 0.021041947]
    told += [-0.00224529162, 0.395891786, 0.0518405966, 1.51504098, 0.759187201, 1.70372668, 0.834147354]
    same(numbers((made - wanted).square().mean(), own, *projector.parameters()), told)
    said = head(made.mean((2, 3)))
    same(numbers((said * wave(8, 7)).sum(), own), [5.4538765, 27.8925306, -0.751627407])


def test_what_is_kept_is_body_projector_and_the_teachers_head_and_needs_no_teacher() -> None:
    loop = trained("simkd", 12)
    live = loop.setup
    kept = live.method.export(live.student).eval()
    head = live.teachers[0].network.get_submodule("body.head")
    assert torch.equal(kept.reader.weight, cast(nn.Linear, head).weight) and kept.reader is not head
    assert not any("network.body.head" in name for name, _ in kept.named_parameters())
    images = loop.batch().images
    with torch.no_grad():
        before = kept(images).logits
        for value in live.teachers[0].network.state_dict().values():
            value.zero_()
        assert torch.equal(kept(images).logits, before)


def test_a_projected_map_that_equals_the_teachers_says_what_the_teacher_says() -> None:
    loop = trained("simkd", 1)
    live, batch = loop.setup, loop.batch()
    layer = live.teachers[0].network.layers[-1]
    wanted = live.teachers[0].features(batch, [layer], logits=True)[layer]
    assert torch.allclose(live.student.read(wanted).logits, live.teachers[0](batch).logits, atol=1e-5)


def test_maps_meet_by_average_pooling_of_the_larger() -> None:
    own, theirs = wave(2, 3, 4, 8), wave(2, 5, 8, 4)
    one, other = maps.shrink(own, theirs)
    assert one.shape[2:] == other.shape[2:] == (4, 4)
    assert torch.allclose(one, own.unfold(3, 2, 2).mean(4)) and torch.allclose(other, theirs.unfold(2, 2, 2).mean(4))
    assert maps.to_size(own, (4, 8)) is own


def test_layers_without_maps_are_refused() -> None:
    flat = networks.make("mlp-30", shape=(3, 8, 8), outputs=5)
    teacher = Teacher(networks.make("cnn-4", shape=(3, 8, 8), outputs=5), "t", None, (), "")
    for look in (maps.pairs, maps.last):
        with pytest.raises(KfbenchError, match="maps"):
            look(flat, teacher)
    with pytest.raises(KfbenchError, match="9 x 9 or larger.*lower --set smallest"):
        maps.pairs(teacher.network, teacher, smallest=9)


def test_pairs_are_read_where_they_are_named() -> None:
    loop = trained("variational_information", 0)
    student, teacher = cast(WithCompanions, loop.setup.student).network, loop.setup.teachers[0]
    pairs, (_, couples) = maps.pairs(student, teacher), maps.read(student, teacher, loop.batch())
    assert [(p.taken, p.wanted) for p in pairs] == [(tuple(a.shape[1:]), tuple(b.shape[1:])) for a, b in couples]
    assert [pair.own for pair in pairs] == list(student.layers)


def test_a_students_vectors_are_no_maps(packed_digits: object) -> None:
    spec = resolve.resolve("overhaul", "digits", teachers=["digits/cnn-4"], recipe={"network": "mlp-30"})
    with pytest.raises(KfbenchError, match="'mlp-30' and 'cnn-4' have no layers with maps"):
        stand_in.setup(spec, rows=16)
