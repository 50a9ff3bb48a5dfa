"""Knowledge Flow's loss, shares and stages against numpy written from its formula, and what holds in any setting."""

import dataclasses

import numpy as np
import pytest
import torch
from flowing import ROWS, TEACHERS, begun, live_with, softmax

from kfbench import registry
from kfbench.conformance import checks, tiny
from kfbench.errors import KfbenchError
from kfbench.networks.network import Network
from kfbench.running import command, resolve, stand_in
from kfbench.train.supervised import Supervised
from kfbench.transfer.mixing import MixedStudent


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


@pytest.mark.parametrize(
    ("optimizer", "asked", "rate"), [("adamw", {}, 10.0), ("sgd", {}, 0.01), ("sgd", {"mix_rate": 10.0}, 10.0)]
)
def test_the_mixing_weights_rate_is_the_optimisers(optimizer: str, asked: dict[str, float], rate: float) -> None:
    """With SGD, ten times the network's rate sends the shares to the student before a teacher is heard."""
    spec = resolve.resolve("kf", "digits", teachers=TEACHERS, recipe={"optimizer": optimizer}, settings=asked)
    assert spec.settings["mix_rate"] == rate
    assert ("mix_rate=10" in " ".join(command.run(spec))) is bool(asked)  # told only where it is not the default


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
