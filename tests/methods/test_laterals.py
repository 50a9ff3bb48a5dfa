"""MIKT and CAT: the mix, the embedding and its gradient, the split by usefulness, against numpy from their formulas.

Their public code is for TensorFlow 1, so nothing here was printed by it.
"""

import dataclasses
from typing import Any, cast

import numpy as np
import pytest
import torch
from playing import make_setup
from torch import Tensor

from kfbench import registry
from kfbench.errors import KfbenchError
from kfbench.methods import Batch, Method, Output
from kfbench.networks import taps
from kfbench.spec import GameRecipe
from kfbench.teachers import Teacher
from kfbench.train.actor_critic import ActorCritic
from kfbench.train.returns import generalised_advantages
from kfbench.train.setup import Setup
from kfbench.transfer import laterals
from kfbench.transfer.laterals import Laterals


def setup(method: str, teachers: int = 2, **settings: Any) -> Setup:
    """A small run on Road Runner with untrained teachers of the same game."""
    return make_setup(cast(Method, registry.load_method(method, settings)), teachers=teachers)


def images(rows: int = 8) -> Tensor:
    return torch.rand(rows, 4, 84, 84, generator=torch.Generator().manual_seed(3))


def batch(live: Setup, rows: int = 8, progress: float = 0.0) -> Batch:
    """A batch as the loop makes it: what `act` gave comes back with the rows."""
    generator = torch.Generator().manual_seed(4)
    seen = images(rows)
    with torch.no_grad():
        output, extras = live.method.act(live.student, live.teachers, Batch(seen, live.rng), progress)
    return Batch(
        seen,
        live.rng,
        actions=torch.randint(0, live.task.outputs, (rows,), generator=generator),
        returns=torch.randn(rows, generator=generator),
        advantages=torch.randn(rows, generator=generator),
        output=output,
        extras=extras,
    )


def parts_of(live: Setup, taken: Batch, progress: float) -> dict[str, Tensor]:
    return live.method.losses(live.student, live.teachers, taken, live.task, progress)[1]


def softmax(logits: list[float]) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum()


def test_the_students_share_starts_as_in_the_source() -> None:
    for teachers in (1, 2, 3):
        shares = cast(Laterals, setup("mikt", teachers).student).of("body/trunk/relu1")
        assert shares.tolist() == pytest.approx(softmax([-0.1] + [0.01] * teachers).tolist(), rel=1e-5)
        played = make_setup("cat", teachers=teachers, environments=2 * teachers)  # half of them by teachers
        split = cast(Laterals, played.student).of("body/trunk/relu1").tolist()
        own, theirs = softmax([-0.1, 0.01])
        assert split == pytest.approx([own] + [theirs / teachers] * teachers, rel=1e-5)


@pytest.mark.parametrize("method", ["mikt", "cat"])
def test_a_layer_mixes_pre_activations_of_the_embedding_by_the_shares(method: str) -> None:
    live = setup(method)
    student = cast(Any, live.student)
    with torch.no_grad():
        for embedding in student.embeddings:
            embedding.last.weight.normal_(0, 0.05)
        for logits in [*student.shares.values(), *student.weights.values()]:
            logits.copy_(torch.linspace(-0.5, 0.9, len(logits)))
        seen, first = images(3), "body.trunk.relu1"
        shown = student.embed(seen)
        assert not torch.allclose(shown[0], seen)
        features = student.ask(live.teachers, shown)
        plain = live.task.make_network()
        plain.load_state_dict(student.network.state_dict())
        with taps.read(plain, [first], "pre") as alone:
            plain(seen)
        with taps.read(student.network, [first]) as mixed:
            student(seen, features)
    if method == "mikt":
        shares = softmax(torch.linspace(-0.5, 0.9, 3).tolist())
    else:
        own, theirs = softmax([-0.5, 0.9])
        shares = np.array([own, *(theirs * softmax([-0.5, 0.9]))])
    wanted = shares[0] * alone[first].double().numpy()
    for k, teacher in enumerate(live.teachers):
        with torch.no_grad(), taps.read(teacher.network, [first], "pre") as theirs_found:
            teacher.network(shown[k % len(shown)])
        u = student.transforms["body/trunk/relu1"][k].weight.detach().double().numpy()[:, :, 0, 0]
        wanted = wanted + shares[1 + k] * np.einsum("oc,bchw->bohw", u, theirs_found[first].double().numpy())
    assert mixed[first].numpy() == pytest.approx(np.maximum(wanted, 0), abs=1e-4)


@pytest.mark.parametrize("method", ["mikt", "cat"])
def test_the_games_loss_reaches_the_embedding_through_frozen_teachers(method: str) -> None:
    live = setup(method)
    taken = batch(live)
    parts = parts_of(live, taken, 0.1)
    (parts["policy"] + parts["value"]).backward()  # type: ignore[no-untyped-call]
    for embedding in cast(Any, live.student).embeddings:
        assert float(embedding.last.weight.grad.abs().sum()) > 0
    assert all(weight.grad is None for teacher in live.teachers for weight in teacher.network.parameters())


def test_information_is_the_gaussians_surprise() -> None:
    generator = torch.Generator().manual_seed(0)
    seen, mean = (torch.rand(5, 4, 6, 6, generator=generator) for _ in range(2))
    logarithm = torch.tensor([-0.3, 0.0, 0.4, -1.0])
    found = laterals.surprise(seen, mean, logarithm[:, None, None])
    sigma = logarithm.double().exp().numpy()[:, None, None]
    wanted = np.log(sigma) + (seen.double().numpy() - mean.double().numpy()) ** 2 / (2 * sigma**2)
    assert float(found) == pytest.approx(wanted.mean(), rel=1e-5)
    decoder = laterals.Decoder(4, 3)
    with torch.no_grad():
        assert float(decoder(seen, seen)) == pytest.approx(0, abs=1e-6)  # sigma begins at 1
        decoder.spread.fill_(-50)
        assert float(decoder(seen, seen)) == pytest.approx(np.log(0.05), rel=1e-5)  # told exactly, and bounded
        decoder.spread.fill_(-6)
    decoder(seen, seen + 0.3).backward()
    assert (decoder.spread.grad < 0).all()  # where it tells less well again it widens again


def test_a_teachers_worth_does_not_depend_on_how_advantages_are_made() -> None:
    """A teacher that earns 0.02 a step more than the student's values say gains 2 in 100 steps, by A2C and by PPO."""
    steps_held = registry.load_module("methods", "cat").steps_held
    for recipe in (GameRecipe(algorithm="a2c"), GameRecipe(algorithm="ppo"), GameRecipe(trace=0.0)):
        rewards, values = torch.full((recipe.rollout, 1), 0.02), torch.zeros(recipe.rollout, 1)
        found = generalised_advantages(
            rewards, torch.ones_like(rewards), torch.zeros(1), values, gamma=recipe.gamma, trace=recipe.trace
        )
        assert 100 * float(found.mean()) / steps_held(recipe) == pytest.approx(2.0, rel=1e-4)


def test_the_old_policy_holds_back_rows_that_count() -> None:
    generator = torch.Generator().manual_seed(0)
    now, then = (torch.randn(6, 3, generator=generator) for _ in range(2))
    actions, counts = torch.tensor([0, 2, 1, 1, 0, 2]), torch.tensor([1.0, 0, 1, 1, 0, 1])
    each = [
        0.5 * float(np.log(softmax(now[b].tolist())[a]) - np.log(softmax(then[b].tolist())[a])) ** 2
        for b, a in enumerate(actions.tolist())
    ]
    assert float(laterals.near_old(Output(now), Output(then), actions)) == pytest.approx(np.mean(each), rel=1e-4)
    found = float(laterals.near_old(Output(now), Output(then), actions, counts))
    assert found == pytest.approx(np.mean([each[b] for b in (0, 2, 3, 5)]), rel=1e-4)


@pytest.mark.parametrize("method", ["mikt", "cat"])
def test_dependency_is_ramped_and_the_teachers_leave_at_the_cut(method: str) -> None:
    live = setup(method)
    found = [parts_of(live, batch(live, progress=at), at) for at in (0.3, 0.675, 0.95)]
    full = -np.log(softmax([-0.1, 0.01, 0.01] if method == "mikt" else [-0.1, 0.01])[0])
    assert [float(parts["dependency"].detach()) for parts in found[:2]] == pytest.approx([0, full / 2], rel=1e-4)
    assert set(found[2]) == {"policy", "value", "entropy", "kl"} and not batch(live, progress=0.95).extras
    assert {"information", "kl"} <= set(found[0])
    with torch.no_grad():
        alone = live.method.export(live.student)(images()).logits
    assert torch.allclose(batch(live, progress=0.95).output.logits, alone, atol=1e-5)  # type: ignore[union-attr]


def test_a_teacher_of_cat_plays_an_environment_of_its_own_by_the_names_of_its_actions() -> None:
    live = setup("cat", teachers=1)
    teacher = live.teachers[0]
    renamed = dataclasses.replace(
        teacher, classes=("noop", "x", "left", *(f"Y{n}" for n in range(len(teacher.classes) - 3)))
    )
    places = registry.load_module("methods", "cat").same_actions(renamed, live.task).tolist()
    wanted = [{"noop": 0, "left": 2}.get(name, -1) for name in live.task.classes]
    assert places == wanted and wanted.count(-1) == len(wanted) - 2
    live.teachers[0] = renamed
    live.student = live.method.make_student(live.task, live.teachers, live.rng)
    with torch.no_grad():
        output, extras = live.method.act(live.student, live.teachers, Batch(images(4), live.rng), 0.0)
        theirs = renamed.network(images(4)[:1]).logits[0].softmax(0)
    played = output.logits[0].softmax(0)
    both = torch.tensor([wanted.index(0), wanted.index(2)])
    assert float(played[both].sum()) == pytest.approx(1)
    assert played[both].tolist() == pytest.approx((theirs[[0, 2]] / theirs[[0, 2]].sum()).tolist(), rel=1e-4)
    assert extras["player"].tolist() == [0, 1, 2, 3]


def acted_otherwise(taken: Batch) -> Batch:
    """The batch, acted by another policy: with ratios of 1 the clipped loss is 0 for any standardised advantages."""
    assert taken.output is not None
    logits = torch.randn(taken.output.logits.shape, generator=torch.Generator().manual_seed(5))
    return dataclasses.replace(taken, output=taken.output._replace(logits=logits))


def clipped(output: Output, taken: Batch, first: int, clip: float) -> float:
    """The clipped loss of the rows from `first` on, by numpy."""
    assert taken.output is not None and taken.actions is not None
    rows, actions = np.arange(first, len(taken.actions)), taken.actions.numpy()[first:]
    now, acting = (
        np.stack([softmax(row) for row in one.detach().double().tolist()])[rows, actions]
        for one in (output.logits, taken.output.logits)
    )
    ratios, advantages = now / acting, cast(Tensor, taken.advantages).double().numpy()[first:]
    standardised = (advantages - advantages.mean()) / advantages.std()
    return -float(np.minimum(ratios * standardised, ratios.clip(1 - clip, 1 + clip) * standardised).mean())


def test_rows_of_teachers_teach_the_split_and_not_the_policy() -> None:
    live = setup("cat", memory=0.5)
    student, taken = cast(Any, live.student), acted_otherwise(batch(live))
    advantages = cast(Tensor, taken.advantages)
    first = parts_of(live, taken, 0.1)
    held = registry.load_module("methods", "cat").steps_held(live.spec.recipe)
    assert student.gains.tolist() == pytest.approx((advantages[:2] / held).tolist())
    useful = softmax((100 * advantages[:2] / held).tolist())
    assert student.usefulness(100).tolist() == pytest.approx(useful.tolist(), rel=1e-4, abs=1e-6)
    assert float(first["usefulness"].detach()) == pytest.approx(((0.5 - useful) ** 2).mean(), rel=1e-4)
    changed = dataclasses.replace(taken, advantages=advantages.clone())
    cast(Tensor, changed.advantages)[:2] += 1
    again = parts_of(live, changed, 0.1)
    assert student.gains.tolist() == pytest.approx(((advantages[:2] + 0.5) / held).tolist(), rel=1e-4)
    assert torch.equal(first["policy"], again["policy"])
    cast(Tensor, changed.advantages)[2:] += torch.arange(6.0)
    output, last = live.method.losses(live.student, live.teachers, changed, live.task, 0.1)
    for batched, parts in ((taken, first), (changed, last)):
        wanted = clipped(output, batched, 2, live.spec.recipe.clip)
        assert float(parts["policy"].detach()) == pytest.approx(wanted, rel=1e-3)
    assert abs(float((first["policy"] - last["policy"]).detach())) > 0.01
    again["usefulness"].backward()  # type: ignore[no-untyped-call]
    slopes = [weights.grad for weights in student.weights.values()]
    better = int(np.argmax(advantages[:2].numpy()))
    assert all(float(slope[better]) < 0 < float(slope[1 - better]) for slope in slopes)


def test_the_mix_gives_the_split_no_gradient() -> None:
    live = setup("cat")
    parts = parts_of(live, batch(live), 0.1)
    (parts["policy"] + parts["value"]).backward()  # type: ignore[no-untyped-call]
    student = cast(Any, live.student)
    assert all(weights.grad is None for weights in student.weights.values())
    assert all(float(logits.grad.abs().sum()) > 0 for logits in student.shares.values())


def test_cat_says_what_it_cannot_use() -> None:
    live = setup("cat", teachers=1)
    stranger = Teacher(live.teachers[0].network, "a classifier", "digits", ("0", "1"), "")
    with pytest.raises(KfbenchError, match="'a classifier' has none of the actions of 'atari/road_runner', so cat"):
        live.method.make_student(live.task, [stranger], live.rng)
    with pytest.raises(KfbenchError, match="--set-recipe environments=6 or more"):
        setup("cat", teachers=3)


def test_the_curve_has_the_shares_and_what_each_teacher_is_worth() -> None:
    live = setup("cat")
    for _ in ActorCritic(live):
        pass
    numbers = live.method.metrics(live.student)
    useful = [value for name, value in numbers.items() if name.startswith("usefulness/")]
    assert len(useful) == 2 and sum(useful) == pytest.approx(1)
    layer = [value for name, value in numbers.items() if name.startswith("share/body.trunk.relu1/")]
    assert len(layer) == 3 and sum(layer) == pytest.approx(1)
    assert 0 < numbers["share/student"] < 1
