"""Progressive networks and PathNet, and a stage that trains on another task."""

from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kfbench import registry
from kfbench.conformance import tiny
from kfbench.errors import KfbenchError
from kfbench.running import outcome, resolve, stand_in
from kfbench.train.setup import Setup
from kfbench.train.supervised import Supervised
from kfbench.transfer import pathways
from kfbench.transfer.pathways import Modules, mutated

ROWS = 48


def setup(method: str, **settings: Any) -> Setup:
    """A run of 12 steps on made-up digits with untrained teachers."""
    return stand_in.setup(tiny.spec_of(method, settings or None), rows=ROWS)


def trained(made: Setup, steps: int) -> Supervised:
    loop = Supervised(made)
    for _ in zip(range(steps), loop, strict=False):
        pass
    return loop


def test_an_adapter_is_the_papers_formula() -> None:
    adapter = registry.load_module("methods", "progressive").Adapter([(3,), (2,)], (4,), (5,), flat=False)
    one, other = torch.randn(6, 3), torch.randn(6, 2)
    a, b = adapter.scale.detach().double().tolist()
    assert {round(a, 2), round(b, 2)} <= {1.0, 0.1, 0.01}
    read = np.concatenate([a * one.double().numpy(), b * other.double().numpy()], axis=1)
    narrow, widen = (layer.weight.detach().double().numpy() for layer in (adapter.narrow, adapter.widen))
    inner = np.maximum(0, read @ narrow.T + adapter.narrow.bias.detach().double().numpy())
    assert adapter([one, other]).detach().numpy() == pytest.approx(inner @ widen.T, abs=1e-5)


@pytest.mark.parametrize(
    ("taken", "middle", "made", "flat"),
    [
        ([(3, 8, 8), (5, 4, 4)], (4, 4, 4), (6, 2, 2), True),
        ([(3, 8, 8)], (4, 4, 4), (6, 8, 8), True),
        ([(3, 8, 8), (7,)], (4,), (6,), True),
        ([(3, 8, 8)], (4, 4, 4), (6,), True),
        ([(3, 8, 8)], (4, 4, 4), (6,), False),
    ],
)
def test_adapters_meet_any_shapes(
    taken: list[tuple[int, ...]], middle: tuple[int, ...], made: tuple[int, ...], flat: bool
) -> None:
    adapter = registry.load_module("methods", "progressive").Adapter(taken, middle, made, flat=flat)
    assert tuple(adapter([torch.randn(2, *shape) for shape in taken]).shape) == (2, *made)


def test_a_vector_cannot_enter_a_map() -> None:
    with pytest.raises(KfbenchError, match="cannot enter a map"):
        registry.load_module("methods", "progressive").Adapter([(7,)], (4, 4, 4), (6,), flat=True)


def test_columns_are_what_the_column_was_with_its_teachers_and_leave_no_hooks() -> None:
    made = setup("progressive")
    loop = trained(made, 4)
    made.student.eval()
    batch = loop.batch()
    with torch.no_grad():
        attached, _ = made.method.act(made.student, made.teachers, batch, 0.5)
        kept = made.method.export(made.student).eval()
        assert torch.allclose(kept(batch.images).logits, attached.logits, atol=1e-6)
        plain = cast(Any, made.student).network(batch.images).logits
    assert not torch.allclose(plain, attached.logits, atol=1e-3)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in kept.modules())
    cost = outcome.measure(kept, made.task.shape, torch.device("cpu"))
    frozen = sum(w.numel() for teacher in made.teachers for w in teacher.network.parameters())
    assert cost["parameters"] == frozen + sum(w.numel() for w in made.student.parameters())


def test_every_column_is_read() -> None:
    made = setup("progressive")
    assert len(made.teachers) == 2
    batch = trained(made, 2).batch()
    made.student.eval()

    def said() -> Tensor:
        batch.memo.clear()
        with torch.no_grad():
            return made.method.act(made.student, made.teachers, batch, 0.0)[0].logits

    before = said()
    for teacher in made.teachers:
        for weight in teacher.network.parameters():
            weight.mul_(1.5)
        now = said()
        assert not torch.equal(before, now)
        before = now


def test_a_genotype_stays_in_range_distinct_and_mutates_at_the_papers_rate() -> None:
    rng, path = torch.Generator().manual_seed(0), torch.tensor([[0, 7, 14], [1, 2, 3], [17, 18, 19]])
    changed = 0
    for _ in range(600):
        made = mutated(path, 20, rng)
        assert all(len(set(row)) == 3 and min(row) >= 0 and max(row) < 20 for row in made.tolist())
        moved = (made != path).sum()
        changed += int(moved)
        far = (made - path)[0].remainder(20)  # genes this far apart never meet, so none goes on to the next free one
        assert set(far.tolist()) <= {0, 1, 2, 18, 19}
    assert changed / 600 == pytest.approx(4 / 5, rel=0.2)  # nine genes, each 1/9, a fifth of the steps is 0


def test_a_path_sums_its_modules_after_their_relus() -> None:
    modules = [nn.Linear(3, 4) for _ in range(3)]
    head = nn.ModuleDict({"logits": nn.Identity()})
    x = torch.randn(5, 3)
    expected = sum(torch.relu(module(x)) for module in modules)
    assert torch.allclose(pathways.follow(x, [modules], head).logits, cast(Tensor, expected), atol=1e-6)
    convolutions = [nn.Conv2d(2, 4, 3, 2, 1) for _ in range(3)]
    maps = torch.randn(5, 2, 8, 8)
    expected = sum(torch.relu(module(maps)) for module in convolutions)
    assert torch.allclose(
        pathways.follow(maps, [convolutions], head).logits, cast(Tensor, expected).flatten(1), atol=1e-5
    )


def test_only_the_modules_of_the_present_path_are_trained() -> None:
    made = setup("pathnet", batches=100)
    student = cast(Modules, made.student)
    before = {name: weight.detach().clone() for name, weight in student.named_parameters()}
    trained(made, 4)
    present = student.paths[student.pair[student.turn]].tolist()
    active = {f"layers.{i}.{m}" for i, genes in enumerate(present) for m in genes}
    moved = {name for name, weight in student.named_parameters() if not torch.equal(weight, before[name])}
    assert {name.rpartition(".")[0] for name in moved if name.startswith("layers")} == active
    assert {name for name in moved if name.startswith("heads")} == {
        f"heads.source digits/low.logits.{part}" for part in ("weight", "bias")
    }


def test_the_winner_overwrites_the_loser() -> None:
    made = setup("pathnet", population=6)
    student, rng = cast(Modules, made.student), made.rng
    student.draw(rng)
    first, second = student.pair
    paths_before = student.paths.clone()
    student.note(torch.tensor(0.2))
    student.next_path(rng)
    assert student.turn == 1
    student.note(torch.tensor(0.6))
    student.next_path(rng)
    assert torch.equal(student.winner, paths_before[second])
    assert torch.equal(student.paths[second], paths_before[second])
    others = [k for k in range(6) if k not in (first, second)]
    assert torch.equal(student.paths[others], paths_before[others])
    assert int((student.paths[first] != paths_before[second]).sum()) <= 4 and student.tournaments == 1


def test_after_the_source_task_its_path_is_frozen_and_all_else_is_new() -> None:
    made = setup("pathnet", batches=2)
    student = cast(Modules, made.student)
    loop = trained(made, 6)
    winner = student.winner.tolist()
    before = {name: weight.detach().clone() for name, weight in student.named_parameters()}
    next(iter(loop))
    kept = {f"layers.{i}.{m}" for i, genes in enumerate(winner) for m in genes}
    for name, weight in student.named_parameters():
        if name.startswith("layers"):
            assert torch.equal(weight, before[name]) == (name.rpartition(".")[0] in kept), name
    for _ in loop:
        pass
    for name, weight in student.named_parameters():
        if name.rpartition(".")[0] in kept:
            assert torch.equal(weight, before[name]), f"{name} is frozen and moved"
    assert made.method.metrics(student)["tournaments"] > 0


def test_a_stage_trains_on_its_own_task_and_is_validated_on_the_runs() -> None:
    made = setup("pathnet")
    loop = trained(made, 2)
    assert loop.task.name == "digits/low" and loop.task.outputs == 5 and loop.train is not made.data.train
    assert int(cast(Tensor, loop.batch().labels).max()) < 5
    for _ in loop:
        pass
    assert loop.task is made.task and loop.train is made.data.train
    assert int(cast(Tensor, loop.batch().labels).max()) >= 5


def test_the_source_task_is_filled_in_and_refused_where_it_does_not_fit() -> None:
    assert resolve.resolve("pathnet", "cifar100").settings["source"] == "cifar10"
    with pytest.raises(KfbenchError, match="not a task of images"):
        resolve.resolve("pathnet", "cifar100", settings={"source": "atari/pong"})
    with pytest.raises(KfbenchError, match="cannot be drawn from 4"):
        setup("pathnet", modules=4, active=5)
