"""Methods of fine-tuning, against numbers from their authors' code and what their stages and exports must be."""

from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from tuning import ROWS, THEIRS, module, numbers_task, parts_of, setup, trained, values, wave

from kfbench import registry
from kfbench.conformance import tiny
from kfbench.errors import KfbenchError
from kfbench.networks import taps
from kfbench.networks.network import Network
from kfbench.running import resolve, stand_in
from kfbench.teachers import Teacher
from kfbench.transfer.companion import WithCompanions


def test_the_smallest_singular_values_are_the_authors() -> None:
    features = torch.sin(torch.arange(1, 25, dtype=torch.float32) ** 2 * 0.37).view(6, 4).requires_grad_()
    found = module("bss").weakest(features, 2)
    found.backward()
    theirs, slopes = THEIRS["bss"]
    assert float(found.detach()) == pytest.approx(theirs, rel=1e-5)
    assert features.grad is not None
    assert features.grad.flatten()[[0, 5, 10, 23]].tolist() == pytest.approx(slopes, rel=1e-4)
    matrix = features.detach().double().numpy()
    assert theirs == pytest.approx(np.linalg.eigvalsh(matrix.T @ matrix)[:2].sum(), rel=1e-5)


def test_features_that_diverged_have_no_penalty_that_is_a_number() -> None:
    """So that the run ends as one that diverged: torch's own error is about a matrix."""
    for strange in (torch.nan, torch.inf):
        assert module("bss").weakest(torch.full((6, 4), strange), 2).isnan()


def test_the_penalty_is_on_what_enters_the_head() -> None:
    live = setup("bss", weight=0.5, smallest=3)
    batch = trained(live, 2).batch()
    taken: list[Tensor] = []
    head = cast(Network, live.student).get_submodule("body.head")
    handle = head.register_forward_pre_hook(lambda _module, given: taken.append(given[0]))
    found = parts_of(live, batch)["spectrum"]
    handle.remove()
    smallest = np.linalg.svd(taken[0].detach().double().numpy(), compute_uv=False)[-3:]
    assert float(found.detach()) == pytest.approx(0.5 * (smallest**2).sum(), rel=1e-3)


def test_stochastic_normalisation_is_the_authors_but_for_statistics_moved_under_the_gradient() -> None:
    norm = nn.BatchNorm2d(4)
    with torch.no_grad():
        norm.weight.copy_(1 + 0.1 * wave(4))
        norm.bias.copy_(0.2 * wave(4, pace=0.9))
        norm.running_mean.copy_(0.1 * wave(4, pace=2.1))  # type: ignore[union-attr]
        norm.running_var.copy_(1 + 0.5 * wave(4, pace=1.1))  # type: ignore[union-attr]
    drawn = torch.tensor([0.1, 0.9, 0.9, 0.1])  # channels 0 and 3 by the batch
    images = wave(3, 4, 2, 2, pace=0.37).requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kfbench.seeding.uniform", lambda *_shape, **_where: drawn)
        with module("stochnorm").stochastic(norm, 0.5, torch.Generator()):
            made = norm(images)
    (made * wave(3, 4, 2, 2, pace=1.3)).sum().backward()
    theirs = THEIRS["stochnorm"]
    assert made.flatten()[[0, 5, 21, 47]].tolist() == pytest.approx(theirs["made"], rel=1e-4)
    assert norm.running_mean is not None and norm.running_var is not None
    assert norm.running_mean.tolist() == pytest.approx(theirs["mean"], rel=1e-4, abs=1e-6)
    assert norm.running_var.tolist() == pytest.approx(theirs["var"], rel=1e-5)
    assert images.grad is not None and norm.weight.grad is not None and norm.bias.grad is not None
    by_batch = [0, 47]  # elements of channels 0 and 3
    assert images.grad.flatten()[by_batch].tolist() == pytest.approx([theirs["slopes"][i] for i in (0, 3)], rel=1e-4)
    assert norm.bias.grad.tolist() == pytest.approx(theirs["bias"], rel=1e-4)
    # channels 1 and 2, by history: z = weight (x - mean) / sqrt(var + eps) + bias, of the statistics before the batch
    slope = wave(3, 4, 2, 2, pace=1.3).double().numpy()
    scale = (1 + 0.1 * wave(4)).double().numpy() / np.sqrt((1 + 0.5 * wave(4, pace=1.1)).double().numpy() + 1e-5)
    for channel in (1, 2):
        exact = slope[:, channel] * scale[channel]
        assert images.grad[:, channel].double().numpy() == pytest.approx(exact, rel=1e-4)


def test_stochastic_normalisation_leaves_no_hooks_and_at_p_1_is_fine_tuning() -> None:
    live, plain = setup("stochnorm", p=1.0), setup("finetune")
    trained(live)
    trained(plain)
    ours, theirs = values(live.student), values(plain.student)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in live.student.modules())
    half = setup("stochnorm")
    trained(half)
    assert not torch.equal(values(half.student)["body.head.weight"], theirs["body.head.weight"])


def test_stochastic_normalisation_wants_something_to_normalise() -> None:
    recipe = {"network": "mlp-30", "batch_size": 16, "epochs": 4}
    spec = resolve.resolve("stochnorm", "digits/high", budget="smoke", teachers=["digits/low/mlp-30"], recipe=recipe)
    with pytest.raises(KfbenchError, match="'mlp-30' has no batch normalisation"):
        stand_in.setup(spec, rows=ROWS)


@pytest.mark.parametrize("method", ["delta", "lwf", "co_tuning"])
def test_what_the_student_began_as_sees_images_of_the_students_size(method: str) -> None:
    """A network that pools goes over to larger images: what is held to its start has to see these, not smaller ones."""
    spec = resolve.resolve(method, "mnist", budget="smoke", teachers=["digits/cnn-4"], recipe=tiny.IMAGES)
    live = stand_in.setup(spec, rows=ROWS)
    teacher, shape = live.teachers[0], live.task.shape
    assert teacher.network.shape == (1, 8, 8) and shape == (1, 28, 28)
    start = cast(Any, live.student).network.clone()
    small, large = seen_by(teacher), seen_by(teacher.at(shape))
    loop = trained(live, 8)
    assert set(large) == {shape} and not small
    batch = loop.batch()
    with torch.no_grad(), taps.read(start, start.layers) as found:
        start(batch.images)
    answers = teacher.at(shape).features(batch, start.layers)
    assert all(torch.equal(answers[layer], found[layer]) for layer in start.layers)
    assert teacher.at((1, 8, 8)) is teacher


def seen_by(teacher: Teacher) -> list[tuple[int, ...]]:
    """Return a list that takes up the shape of every image batch the teacher's body is given."""
    seen: list[tuple[int, ...]] = []
    teacher.network.body.register_forward_pre_hook(lambda _, taken: seen.append(tuple(taken[0].shape[1:])))
    return seen


@pytest.mark.parametrize("name", ["bss", "lwf", "co_tuning", "bi_tuning"])
def test_what_reads_below_a_head_refuses_one_that_reads_maps(name: str) -> None:
    """torchvision's SqueezeNets end so: the vector below their head is none."""
    task, teacher = numbers_task()
    body = nn.Sequential()
    body.add_module("fc", nn.Conv2d(3, 4, 1))
    body.add_module("head", nn.Conv2d(4, 3, 1))
    body.add_module("flat", nn.Flatten())
    network = Network(body, name="maps", shape=(3, 1, 1), outputs=3, layers=("body.fc",), heads=("body.head",))
    object.__setattr__(task, "make_network", lambda: network)
    rest = teacher.name, teacher.task, teacher.classes, teacher.digest
    with pytest.raises(KfbenchError, match=r"^the head of network 'maps' is a convolution; this method needs"):
        registry.load_method(name).make_student(task, [Teacher(network, *rest)], torch.Generator())


@pytest.mark.parametrize("method", ["lp_ft", "wise_ft"])
def test_a_probe_moves_the_head_alone_and_tuning_goes_on_from_it(method: str) -> None:
    live = setup(method, probe=0.5)
    network = live.student if isinstance(live.student, Network) else cast(WithCompanions, live.student).network
    before = values(network)
    loop = trained(live, 6)
    probed = values(network)
    moved = {name for name, value in probed.items() if not torch.equal(value, before[name])}
    assert moved == {"body.head.weight", "body.head.bias"}
    for _ in zip(range(1), loop, strict=False):
        pass
    after = values(network)
    assert float((after["body.head.weight"] - probed["body.head.weight"]).abs().max()) < 0.1
    assert not torch.equal(after["body.blocks.0.conv.weight"], probed["body.blocks.0.conv.weight"])


@pytest.mark.parametrize(("method", "moves"), [("lp_ft", False), ("lp_ft/moving", True)])
def test_lp_ft_keeps_the_teachers_statistics(method: str, moves: bool) -> None:
    live = setup(method)
    before = values(live.student)
    trained(live)
    after = values(live.student)
    name = "body.blocks.1.norm.running_mean"
    assert torch.equal(before[name], after[name]) is not moves
    assert not torch.equal(before["body.blocks.1.norm.weight"], after["body.blocks.1.norm.weight"])


def test_the_second_stage_has_a_rate_of_its_own() -> None:
    live = setup("lp_ft", rate=0.1)
    loop = trained(live, 6)
    assert [group["lr_scale"] for group in loop._optimizer.param_groups] == [1.0]
    trained_on = trained(live, 7)
    assert [group["lr_scale"] for group in trained_on._optimizer.param_groups] == [0.1]


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_what_wise_ft_keeps_lies_between_the_probe_and_the_tuned_network(alpha: float) -> None:
    live = setup("wise_ft", alpha=alpha, probe=0.5)
    student = cast(WithCompanions, live.student)
    loop = trained(live, 6)
    probed = values(student.network)
    assert live.method.export(student) is student.network
    for _ in loop:
        pass
    tuned, kept = values(student.network), values(live.method.export(student))
    for name, value in kept.items():
        wanted = (1 - alpha) * probed[name].double() + alpha * tuned[name].double()
        if value.is_floating_point():
            assert torch.allclose(value.double(), wanted, atol=1e-6), name
    assert torch.equal(values(student.network)["body.head.weight"], tuned["body.head.weight"])
