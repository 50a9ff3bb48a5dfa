"""Methods of fine-tuning, against numbers from their authors' code and what their stages and exports must be.

The constants named `THEIRS` were printed by that code (thuml/Transfer-Learning-Library 0.4, thuml/CoTuning,
microsoft/LoRA) for the inputs that `wave` makes.
"""

from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kfbench import registry
from kfbench.conformance import tiny
from kfbench.errors import KfbenchError
from kfbench.methods import Batch
from kfbench.networks import taps
from kfbench.networks.network import Network
from kfbench.running import resolve, stand_in
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.train.setup import Setup
from kfbench.train.supervised import Supervised
from kfbench.transfer.companion import WithCompanions
from kfbench.transfer.transplant import is_head

ROWS = 48


def wave(*shape: int, pace: float = 1.7) -> Tensor:
    """Numbers in -1..1 that any library makes alike."""
    count = int(np.prod(shape))
    return torch.sin(torch.arange(1, count + 1, dtype=torch.float32) * pace).view(*shape)


def module(name: str) -> Any:
    return registry.load_module("methods", name)


def setup(method: str, **settings: Any) -> Setup:
    """A run of 12 steps on made-up digits with untrained teachers."""
    return stand_in.setup(tiny.spec_of(method, settings or None), rows=ROWS)


def trained(live: Setup, steps: int = 12) -> Supervised:
    loop = Supervised(live)
    for _ in zip(range(steps), loop, strict=False):
        pass
    return loop


def values(of: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in of.state_dict().items()}


def parts_of(live: Setup, batch: Batch, progress: float = 0.5) -> dict[str, Tensor]:
    return live.method.losses(live.student, live.teachers, batch, live.task, progress)[1]


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


def test_the_relationship_of_classes_is_the_authors() -> None:
    answers, labels = torch.softmax(2 * wave(8, 3), 1), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    found = module("co_tuning").direct(answers, labels, 3)
    assert found.flatten().tolist() == pytest.approx(THEIRS["direct"], rel=1e-5)


def noisy(rows: int, classes: int, pace: float) -> tuple[Tensor, Tensor]:
    """Answers of four old classes that lean towards the new one, [rows, 4], and the new classes."""
    labels = torch.arange(rows) % classes
    return torch.softmax(1.5 * wave(rows, 4, pace=pace) + 1.2 * torch.eye(4)[labels], 1), labels


def test_the_relationship_turned_round_is_the_authors() -> None:
    found = module("co_tuning").reverse(*noisy(60, 3, 0.73), *noisy(20, 3, 1.19))
    # the calibration is another minimiser of the same convex cost, so the third digit may differ
    assert found.flatten().tolist() == pytest.approx(THEIRS["reverse"], rel=0.02, abs=2e-4)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_relationship_is_a_distribution_for_each_class(classes: int) -> None:
    found = module("co_tuning").learned(*noisy(90, classes, 0.73), torch.Generator().manual_seed(0))
    assert tuple(found.shape) == (classes, 4)
    assert found.sum(1).tolist() == pytest.approx([1] * classes, rel=1e-5)
    assert found.argmax(1).tolist() == list(range(classes))
    few = module("co_tuning").learned(*noisy(3 * classes, classes, 0.73), torch.Generator().manual_seed(0))
    assert few.sum(1).tolist() == pytest.approx([1] * classes, rel=1e-5)


def test_a_relationship_of_answers_that_are_easy_to_tell_apart_is_finite() -> None:
    """The scale then runs to its bound, and target classes that are nobody's first have a probability of 0."""
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(5).repeat_interleave(10)
        centres = torch.randn(5, 2, generator=generator) * 3
        answers = torch.softmax(centres[labels] + 1e-3 * torch.randn(50, 2, generator=generator), dim=1)
        found = module("co_tuning").learned(answers, labels, generator)
        assert found.sum(1).tolist() == pytest.approx([1] * 5, rel=1e-5)


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


@pytest.mark.parametrize("method", ["co_tuning", "co_tuning/direct"])
@pytest.mark.parametrize("classes", [1, 3])
def test_co_tuning_takes_a_split_that_lacks_classes(method: str, classes: int) -> None:
    """As a few rows do that stand in for the data when a run's time is estimated."""
    made = setup(method)
    student, batch = cast(WithCompanions, made.student), next(Supervised(made)._ordered())
    few = Batch(images=batch.images[:12], labels=torch.arange(12) % classes + 2, rng=made.rng)
    made.method.begin(student, made.teachers, made.method.stages[0], [few], made.rng)
    table = cast(Tensor, student.parts["relationship"].table)
    assert torch.allclose(table.sum(1), torch.ones(len(table))) and bool((table >= 0).all())
    assert torch.equal(table[0], torch.full_like(table[0], 1 / table.shape[1]))
    assert not torch.equal(table[2], table[0])


@pytest.mark.parametrize("method", ["co_tuning", "co_tuning/direct"])
def test_co_tuning_is_the_cross_entropy_to_the_row_of_the_label(method: str) -> None:
    live = setup(method, weight=2.0)
    batch = trained(live, 2).batch()
    student = cast(WithCompanions, live.student)
    table = cast(Any, student.parts["relationship"]).table
    assert table.sum(1).tolist() == pytest.approx([1] * len(table), rel=1e-5) and float(table.std()) > 0
    taken: list[Tensor] = []
    handle = student.network.get_submodule("body.head").register_forward_pre_hook(lambda _m, x: taken.append(x[0]))
    found = parts_of(live, batch)["old"]
    handle.remove()
    with torch.no_grad():
        logged = student.parts["old"](taken[0]).log_softmax(1).double().numpy()
    wanted = table[batch.labels].double().numpy()
    assert float(found.detach()) == pytest.approx(2 * float(np.mean(-(wanted * logged).sum(1))), rel=1e-4)


def test_the_loss_of_co_tuning_is_the_authors() -> None:
    from kfbench.transfer import losses

    logits = wave(5, 3).requires_grad_()
    found = losses.cross_entropy(torch.softmax(wave(5, 3, pace=0.6), 1), logits)
    found.backward()
    theirs, slopes = THEIRS["co_tuning"]
    assert float(found.detach()) == pytest.approx(theirs, rel=1e-5)
    assert logits.grad is not None and logits.grad.flatten()[[0, 7, 14]].tolist() == pytest.approx(slopes, rel=1e-4)


def numbers_task(classes: int = 3) -> tuple[Task, Teacher]:
    """A task of three numbers an image, four features and as many classes, and a teacher with its own head."""
    body = nn.Sequential()
    body.add_module("flat", nn.Flatten())
    body.add_module("fc", nn.Linear(3, 4))
    body.add_module("head", nn.Linear(4, classes))
    network = Network(body, name="tiny", shape=(3, 1, 1), outputs=classes, layers=("body.fc",), heads=("body.head",))
    network.normalise_by(torch.zeros(3), torch.ones(3))
    made = Task("tiny", "images", (3, 1, 1), tuple("abc"), "tiny", 0, 6, 1, lambda _output, _batch: {})
    object.__setattr__(made, "make_network", lambda: network)
    return made, Teacher(network, "teacher", "tiny", tuple("abc"), "")


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


def test_bi_tuning_is_the_authors() -> None:
    task, teacher = numbers_task()
    method = registry.load_method("bi_tuning", {"queue": 4, "momentum": 0.9, "dimensions": 5, "shift": 0})
    student = cast(WithCompanions, method.make_student(task, [teacher], torch.Generator().manual_seed(0)))
    student.network.requires_grad_(True)
    own, projection, queues = (
        cast(Any, each) for each in (student.network.body, student.parts["projection"], student.parts["queues"])
    )
    with torch.no_grad():
        own.fc.weight.copy_(wave(4, 3))
        own.fc.bias.copy_(0.1 * wave(4))
        own.head.weight.copy_(wave(3, 4, pace=0.4))
        own.head.bias.copy_(0.3 * wave(3))
        projection.weight.copy_(wave(5, 4, pace=2.3))
        projection.bias.copy_(0.2 * wave(5))
        for name, followed in (("encoder", student.network), ("follower", projection)):
            for kept, value in zip(student.parts[name].buffers(), followed.state_dict().values(), strict=True):
                kept.copy_(value)
        queues.features.copy_(nn.functional.normalize(wave(5, 3, 4, pace=0.83), dim=0))
        queues.projections.copy_(nn.functional.normalize(wave(5, 3, 4, pace=1.41), dim=0))
        queues.place.copy_(torch.tensor([3, 0, 1]))
        own.fc.weight += 0.05 * wave(4, 3, pace=3.1)  # the key encoder lags behind
        projection.weight += 0.05 * wave(5, 4, pace=0.2)
    labels = torch.tensor([0, 1, 0, 2, 0, 1])
    batch = Batch(wave(6, 3, pace=0.51).view(6, 3, 1, 1), torch.Generator(), labels=labels)
    _, parts = method.losses(student.train(), [teacher], batch, task, 0.0)
    torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
    theirs = THEIRS["bi_tuning"]
    found = [float(parts[name].detach()) for name in ("projections", "scores")]
    assert found == pytest.approx(theirs["losses"], rel=1e-4)
    assert own.fc.weight.grad.flatten()[[0, 5, 11]].tolist() == pytest.approx(theirs["body"], rel=1e-3, abs=1e-5)
    assert projection.weight.grad.flatten()[[0, 7, 19]].tolist() == pytest.approx(theirs["projection"], rel=1e-3)
    assert own.head.weight.grad is None
    assert queues.place.tolist() == theirs["place"]
    for kept, of in ((queues.features, "features"), (queues.projections, "projections")):
        assert kept.flatten()[[0, 13, 30, 59]].tolist() == pytest.approx(theirs[of][:4], rel=1e-3, abs=1e-5)
        assert float(kept.sum()) == pytest.approx(theirs[of][4], rel=1e-3)


def test_a_queue_keeps_the_latest_keys_of_a_class_that_fills_it_twice() -> None:
    queues = module("bi_tuning").Queues(2, 3, 2, 2)
    keys = wave(8, 2)
    queues.take(torch.zeros(8, dtype=torch.int64), keys, keys)
    before = queues.features[:, 1].clone()
    assert torch.equal(queues.features[:, 0], keys[[6, 7, 5]].T)  # places 0 and 1 were written again, by 6 and 7
    assert queues.place.tolist() == [2, 0] and torch.equal(queues.features[:, 1], before)


def test_a_second_view_is_the_first_moved() -> None:
    images = torch.arange(5.0).view(1, 1, 1, 5).expand(4, 2, 3, 5).contiguous()
    made = module("bi_tuning").shifted(images, 2, torch.Generator().manual_seed(1))
    rows = {tuple(row) for row in made[:, 0, 0].tolist()}
    assert rows <= {(0, 0, 0, 1, 2), (0, 0, 1, 2, 3), (0, 1, 2, 3, 4), (1, 2, 3, 4, 4), (2, 3, 4, 4, 4)}
    assert len(rows) > 1 and torch.equal(made[:, 0], made[:, 1])


def test_keys_follow_by_momentum_with_statistics_of_their_own() -> None:
    live = setup("bi_tuning", momentum=0.5)
    student = cast(WithCompanions, live.student)
    encoder = cast(Any, student.parts["encoder"])
    before = {name: value.clone() for name, value in encoder._state().items()}
    loop = trained(live, 2)
    batch, live_now = loop.batch(), values(student.network)
    parts_of(live, batch)
    after = encoder._state()
    name, mean = "body.blocks.0.conv.weight", "body.blocks.0.norm.running_mean"
    assert not torch.equal(after[name], before[name]) and not torch.equal(after[name], live_now[name])
    assert not torch.equal(after[mean], before[mean]) and not torch.equal(after[mean], live_now[mean])
    assert not any(weight.requires_grad for weight in encoder.parameters()) and not list(encoder.parameters())


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


def test_a_low_rank_adapter_is_the_authors() -> None:
    adapter = module("lora").Adapter
    linear, convolution = nn.Linear(4, 3), nn.Conv2d(3, 2, 3, padding=1)
    for layer, images, key, places in (
        (linear, wave(5, 4, pace=0.3), "lora", ([0, 7, 14], [0, 3, 7], [0, 3, 5])),
        (convolution, wave(2, 3, 4, 4, pace=0.3), "lora 3x3", ([0, 17, 63], [0, 20, 53], [0, 20, 35])),
    ):
        weight = wave(*layer.weight.shape)
        added = adapter(weight, 2, 3 / 2)
        with torch.no_grad():
            added.narrow.copy_(wave(*added.narrow.shape, pace=0.7))
            added.widen.copy_(wave(*added.widen.shape, pace=1.9))
            layer.bias.copy_(wave(*layer.bias.shape))
        made = torch.func.functional_call(layer, {"weight": weight + added()}, images)
        (made * wave(*made.shape)).sum().backward()
        theirs = THEIRS[key]
        assert added.narrow.grad is not None and added.widen.grad is not None
        for found, place, wanted in zip((made, added.narrow.grad, added.widen.grad), places, theirs, strict=True):
            assert found.flatten()[place].tolist() == pytest.approx(wanted, rel=1e-4)
    with torch.no_grad():
        added = adapter(wave(3, 4), 2, 3 / 2)
        added.narrow.copy_(wave(2, 4, pace=0.7))
        added.widen.copy_(wave(3, 2, pace=1.9))
        assert (wave(3, 4) + added()).flatten()[[0, 5, 11]].tolist() == pytest.approx(THEIRS["lora merged"], rel=1e-4)


def test_adapters_begin_as_nothing_and_are_merged_into_the_kept_network() -> None:
    live = setup("lora")
    student, start = cast(Any, live.student), live.teachers[0].network.state_dict()
    images = trained(live, 0).batch().images
    with torch.no_grad():
        assert torch.allclose(student(images).logits, student.network(images).logits, atol=1e-6)
    trained(live)
    body = [name for name, _ in student.network.named_parameters() if not is_head(student.network, name)]
    assert body and all(torch.equal(student.network.state_dict()[name], start[name]) for name in body)
    kept = live.method.export(student.eval())
    with torch.no_grad():
        assert torch.allclose(kept(images).logits, student(images).logits, atol=1e-5)
        assert not torch.allclose(kept(images).logits, student.network(images).logits, atol=1e-3)
    assert sum(w.numel() for w in kept.parameters()) == sum(w.numel() for w in student.network.parameters())


def test_a_weight_that_layers_share_has_one_adapter_and_a_layer_under_two_names_is_put_back() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flat = nn.Flatten()
            self.first, self.other, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
            self.again, self.other.weight = self.first, self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            made: Tensor = self.head(self.other(self.again(self.first(self.flat(x)))))
            return made

    network = Network(Shared(), name="shared", shape=(1, 2, 2), outputs=3, layers=("body.first",), heads=("body.head",))
    lora, images = module("lora"), torch.rand(5, 1, 2, 2)
    adapted = lora.Adapted(network, lora.adaptable(network), rank=2, scale=1.0)
    assert list(adapted.adapters) == ["body/first"]
    nn.init.normal_(adapted.adapters["body/first"].widen)
    plain, live = network(images).logits, list(network.parameters())
    adapted(images)
    assert torch.equal(network(images).logits, plain)
    assert [id(weight) for weight in network.parameters()] == [id(weight) for weight in live]
    with torch.no_grad():
        said = adapted(images).logits
        live[0].copy_(adapted.merged()["body.first.weight"])
    assert torch.allclose(network(images).logits, said, atol=1e-6)


def test_keys_of_layers_that_share_a_weight_follow_it() -> None:
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight  # type: ignore[assignment]
    follower, x = module("bi_tuning").Follower(tied), torch.rand(2, 3)
    with torch.no_grad():
        assert torch.equal(follower(tied, x), tied(x))
        tied[0].weight.add_(1)  # type: ignore[operator]
        follower.follow(tied, 0.0)
        assert torch.equal(follower(tied, x), tied(x))


def test_adapters_go_where_they_are_asked_to_go() -> None:
    live = setup("lora", only="blocks.1+blocks.3")
    assert set(cast(Any, live.student).adapters) == {"body/blocks/1/conv", "body/blocks/3/conv"}
    with pytest.raises(
        KfbenchError, match="no layer of network 'cnn-4' has 'attn' in its name; there are: body.blocks"
    ):
        setup("lora", only="attn")


def test_a_transformer_of_timm_is_adapted() -> None:
    pytest.importorskip("timm")
    network = "timm:vit_tiny_patch16_224"
    recipe = {"network": network, "batch_size": 4, "epochs": 1, "evaluations": 1}
    spec = resolve.resolve(
        "lora", "cifar10", budget="smoke", teachers=[network], recipe=recipe, settings={"only": "qkv"}
    )
    live = stand_in.setup(spec, rows=8)
    student = cast(Any, live.student)
    assert len(student.adapters) == 12
    batch = Supervised(live).batch()
    live.method.begin(student, live.teachers, live.method.stages[0], [], live.rng)
    torch.stack(list(parts_of(live, batch).values())).sum().backward()  # type: ignore[no-untyped-call]
    assert all(adapter.widen.grad is not None for adapter in student.adapters.values())
    with torch.no_grad():
        for adapter in student.adapters.values():
            adapter.widen.add_(0.02 * wave(*adapter.widen.shape))
        said, kept = student.eval()(batch.images).logits, live.method.export(student)(batch.images).logits
    assert torch.allclose(said, kept, atol=1e-4)


THEIRS: dict[str, Any] = {
    "bss": (0.9906826019287109, [-0.07870152592658997, -0.2890499532222748, -0.31292134523391724, -0.5110890865325928]),
    "stochnorm": {
        "made": [-0.13452567160129547, 0.9214615821838379, 1.0553408861160278, -0.35245630145072937],
        "slopes": [2.7434494495391846, 0.8633571863174438, -0.2766241431236267, -2.0621349811553955],
        "weight": [0.5789377689361572, 0.2748791575431824, -0.2262081503868103, 3.520617961883545],
        "bias": [-0.1947219967842102, -0.1825583577156067, 0.02365666627883911, 0.2047232985496521],
        "mean": [0.1243855357170105, -0.000330410897731781, -0.031018493697047234, -0.007096894085407257],
        "var": [1.3182941675186157, 1.2701787948608398, 0.8493840098381042, 0.47547656297683716],
    },
    "co_tuning": (1.2616527080535889, [0.08880429714918137, 0.048522964119911194, 0.059847619384527206]),
    "direct": [
        0.5100370645523071, 0.17891733348369598, 0.3110455572605133,
        0.22419218719005585, 0.49640193581581116, 0.2794059216976166,
        0.4752075672149658, 0.3695574998855591, 0.1552349478006363,
    ],
    "reverse": [
        0.5518766045570374, 0.00031424398184753954, 2.7022939320886508e-05, 0.44778209924697876,
        0.0013379044830799103, 0.811992347240448, 7.393206033157185e-06, 0.18666233122348785,
        0.2998378574848175, 2.8792223361051583e-07, 0.7000986337661743, 6.326709262793884e-05,
    ],
    "bi_tuning": {
        "losses": [9.759015083312988, 3.588566780090332],
        "body": [0.12293101102113724, -0.1242518275976181, 0.41168734431266785],
        "projection": [0.07578306645154953, -0.2275294065475464, 0.29716968536376953],
        "place": [2, 2, 2],
        "features": [0.4920307099, 0.0391611122, 0.3677708507, -0.2618238330, 4.845186233520508],
        "projections": [0.2786612809, 0.0863732845, -0.1667603850, 0.1380927116, -0.23027148842811584],
    },
    "lora": (
        [5.131900310516357, -0.16875965893268585, -2.896207332611084],
        [0.3006643056869507, 3.5887951850891113, 1.7782256603240967],
        [8.257776260375977, -5.085097312927246, 10.214027404785156],
    ),
    "lora 3x3": (
        [3.1337997913360596, -2.452136516571045, -0.4926445484161377],
        [1.9434493780136108, 2.913019895553589, 0.13003194332122803],
        [3.5592761039733887, 0.5434671640396118, -1.0063683986663818],
    ),
    "lora merged": [2.228044033050537, -2.7793073654174805, 1.832543134689331],
}  # fmt: skip
