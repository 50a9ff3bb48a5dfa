"""Jump-start and QDagger: who plays, whose steps are learned from, and what a return changes."""

import dataclasses
from typing import Any, cast

import numpy as np
import pytest
import torch
from playing import copied, equal, make_setup, trained
from torch import Tensor

from kfbench import registry
from kfbench.errors import KfbenchError
from kfbench.methods import Batch, Method
from kfbench.spec import GameRecipe
from kfbench.train.actor_critic import ActorCritic
from kfbench.train.objective import Objective
from kfbench.train.setup import Setup
from kfbench.transfer.companion import WithCompanions


def setup(method: str, game: str = "road_runner", recipe: dict[str, Any] | None = None, **settings: Any) -> Setup:
    """A small run with one untrained teacher of the same game, whose policy is far from the student's."""
    live = make_setup(cast(Method, registry.load_method(method, settings)), game, teachers=1, **(recipe or {}))
    with torch.no_grad():
        live.teachers[0].network.get_submodule("body.policy").weight.mul_(50)  # untrained policies are all alike
    return live


def images(rows: int) -> Tensor:
    return torch.rand(rows, 4, 84, 84, generator=torch.Generator().manual_seed(3))


def act(live: Setup, ages: list[int], progress: float) -> tuple[Any, Any, Tensor, Tensor]:
    """What a method does, and what teacher and student alone would say."""
    seen = images(len(ages))
    with torch.no_grad():
        acting = Batch(seen, live.rng, age=torch.tensor(ages))
        output, extras = live.method.act(live.student, live.teachers, acting, progress)
        theirs, own = live.teachers[0].network(seen).logits, cast(WithCompanions, live.student).network(seen).logits
    return output, extras, theirs, own


def test_the_guide_plays_the_first_steps_of_an_episode_and_fewer_at_each_level() -> None:
    live = setup("jumpstart", horizon=10, levels=5, until=1.0)
    ages = [0, 5, 7, 8, 9, 10, 300]
    curriculum = cast(Any, cast(WithCompanions, live.student).parts["curriculum"])
    for level, own_rows in ((0, [False] * 5 + [True] * 2), (1, [False] * 3 + [True] * 4), (5, [True] * 7)):
        curriculum.level.fill_(level)
        output, extras, theirs, own = act(live, ages, 0.0)
        assert extras["own"].bool().tolist() == own_rows
        wanted = torch.where(torch.tensor(own_rows)[:, None], own, theirs)
        assert torch.allclose(output.logits, wanted, atol=1e-6)
        assert torch.allclose(output.value, cast(WithCompanions, live.student).network(images(7)).value, atol=1e-5)


def test_the_guide_is_gone_at_the_latest_when_it_must_be() -> None:
    live = setup("jumpstart", horizon=10, until=0.5)
    assert act(live, [0, 4, 5, 6], 0.25)[1]["own"].tolist() == [0, 0, 1, 1]
    assert act(live, [0, 4, 5, 6], 0.5)[1] == {} and not live.method.is_attached(0.5)


def test_a_curriculum_goes_on_when_the_mean_is_not_below_the_best() -> None:
    live = setup("jumpstart", window=2, tolerance=0.1, levels=2)
    curriculum = cast(Any, cast(WithCompanions, live.student).parts["curriculum"])
    levels = []
    for scores in ([100.0, 100.0], [80.0], [98.0], [91.0, 90.0], [300.0, 300.0], [290.0, 290.0]):
        live.method.observe(live.student, scores)
        levels.append(float(curriculum.level))
    assert levels == [0, 0, 0, 1, 2, 2]  # the first sets the mark; 89 is too low; 90.5 will do; no level above the last
    assert float(curriculum.best) == 300
    assert live.method.metrics(live.student) == {"guide/level": 2.0}


@pytest.mark.parametrize("recipe", [{"algorithm": "ppo"}, {"algorithm": "a2c", "minibatches": 1}])
def test_only_the_students_own_steps_are_learned_from(recipe: dict[str, Any]) -> None:
    live = setup("jumpstart", recipe=recipe)
    generator = torch.Generator().manual_seed(0)
    output, extras, _, _ = act(live, [0, 500, 3, 500, 500, 9], 0.0)
    taken = Batch(
        images(6),
        live.rng,
        actions=torch.randint(0, live.task.outputs, (6,), generator=generator),
        returns=torch.randn(6, generator=generator),
        advantages=torch.randn(6, generator=generator),
        output=output,
        extras=extras,
    )

    def slopes(batch: Batch) -> list[Tensor]:
        parts = live.method.losses(live.student, live.teachers, batch, live.task, 0.0)[1]
        weights = list(live.student.parameters())
        return list(torch.autograd.grad(torch.stack(list(parts.values())).sum(), weights))

    own = torch.tensor([1, 3, 4])

    def rows(value: Any) -> Any:
        return value[own] if isinstance(value, Tensor) else value

    alone = Batch(**{field.name: rows(getattr(taken, field.name)) for field in dataclasses.fields(taken)})
    alone = dataclasses.replace(alone, extras={}, output=type(output)(output.logits[own], output.value[own]), memo={})
    for found, wanted in zip(slopes(taken), slopes(alone), strict=True):
        assert torch.allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("algorithm", ["a2c", "ppo"])
def test_counts_of_one_change_nothing_and_of_zero_leave_nothing(algorithm: str) -> None:
    from playing import rows

    logits, value, batch = rows()
    objective = Objective(GameRecipe(algorithm=algorithm))  # type: ignore[arg-type]
    from kfbench.networks.network import Output

    output = Output(logits, value)
    whole = objective(output, batch)
    ones = objective(output, dataclasses.replace(batch, counts=torch.ones(len(logits))))
    for name, part in whole.items():
        assert float(ones[name].detach()) == pytest.approx(float(part.detach()), rel=1e-5)
    none = objective(output, dataclasses.replace(batch, counts=torch.zeros(len(logits))))
    assert all(float(part.detach()) == 0 for part in none.values())


class Aged(Method):
    """Remembers what it was told of the episodes' ages."""

    def act(self, student: Any, teachers: Any, batch: Batch, progress: float) -> Any:
        return student(batch.images), {"age": cast(Tensor, batch.age)}


def test_ages_count_agent_steps_and_begin_again_with_an_episode() -> None:
    live = make_setup(Aged(), episode_frames=40, noops=0)  # an episode has 10 steps, a rollout 8
    loop = ActorCritic(live)
    loop._begin(0)
    ages = torch.cat([loop._play(number).extras["age"].view(8, 4) for number in range(3)])
    assert ages[:, 0].tolist() == [n % 10 for n in range(24)]


def test_a_run_with_a_guide_resumes_to_the_bit() -> None:
    settings = {"horizon": 12, "until": 1.0}
    recipe = {"episode_frames": 80}
    whole = trained(ActorCritic(setup("jumpstart", recipe=recipe, **settings)))
    loop = ActorCritic(setup("jumpstart", recipe=recipe, **settings))
    for _ in zip(range(3), loop, strict=False):
        pass
    resumed = ActorCritic(setup("jumpstart", recipe=recipe, **settings))
    resumed.restore(copied(loop.state()))
    assert torch.equal(resumed._actor.age, loop._actor.age) and int(loop._actor.age.max()) > 0
    assert equal(trained(resumed), whole)


def test_offline_the_teacher_plays_and_its_policy_and_values_are_learned() -> None:
    live = setup("qdagger")
    offline, online = live.method.stages
    live.method.begin(live.student, live.teachers, offline, [], live.rng)
    output, extras, theirs, own = act(live, [0] * 4, 0.0)
    assert torch.allclose(output.logits, theirs) and torch.equal(extras["teacher"], output.logits)
    generator = torch.Generator().manual_seed(0)
    taken = Batch(
        images(4),
        live.rng,
        actions=torch.randint(0, live.task.outputs, (4,), generator=generator),
        returns=torch.randn(4, generator=generator),
        advantages=torch.randn(4, generator=generator),
        output=output,
        extras=extras,
    )
    parts = live.method.losses(live.student, live.teachers, taken, live.task, 0.0)[1]
    assert set(parts) == {"value", "distillation"}
    p, q = theirs.double().softmax(1).numpy(), own.double().softmax(1).numpy()
    assert float(parts["distillation"].detach()) == pytest.approx(3 * (p * np.log(p / q)).sum(1).mean(), rel=1e-4)
    live.method.begin(live.student, live.teachers, online, [], live.rng)
    assert torch.allclose(act(live, [0] * 4, 0.3)[0].logits, own, atol=1e-6)
    whole = live.method.losses(live.student, live.teachers, taken, live.task, 0.3)[1]
    assert set(whole) == {"policy", "value", "entropy", "distillation"}
    assert torch.equal(whole["distillation"], parts["distillation"])  # no return is known yet


def test_the_weight_falls_as_the_students_return_nears_the_teachers() -> None:
    live = setup("qdagger", window=2, random_return=10.0)
    student = cast(WithCompanions, live.student)
    offline, online = live.method.stages

    def left() -> float:
        return live.method.metrics(student)["distillation/left"]

    live.method.begin(student, live.teachers, offline, [], live.rng)
    live.method.observe(student, [100.0, 120.0])  # of the teacher: 110 in the mean
    assert left() == 1
    live.method.begin(student, live.teachers, online, [], live.rng)
    found = []
    for score in (10.0, 110.0, 60.0, 200.0):
        live.method.observe(student, [score])
        found.append(left())
    assert found == pytest.approx([1, 0.5, 0.25, 0])  # means of the last two: 10, 60, 85, 130
    taught = setup("qdagger", random_return=10.0)
    taught.method.begin(taught.student, taught.teachers, offline, [], taught.rng)
    taught.method.observe(taught.student, [5.0])
    taught.method.begin(taught.student, taught.teachers, online, [], taught.rng)
    taught.method.observe(taught.student, [-3.0])
    assert taught.method.metrics(taught.student) == {"distillation/left": 0.0}  # a teacher below chance


@pytest.mark.parametrize("overlap", [0, 1])
def test_episodes_that_the_teacher_began_are_its_wherever_they_end(overlap: int) -> None:
    """Else the student is thought as good as its teacher when it has not ended an episode of its own."""
    recipe = {"overlap": overlap, "environments": 3, "minibatches": 1, "episode_frames": 4000}
    live = setup("qdagger", recipe=recipe, window=2, random_return=10.0)
    loop = ActorCritic(live, threads=1)
    loop._begin(0)
    loop.advance()  # with overlap the student that learns never acts; no episode ends
    assert loop.episodes == 0
    loop._begin(1)
    found = []
    for scores in ([100.0, 110.0], [120.0, 10.0], [60.0]):
        live.method.observe(live.student, scores)
        found.append(live.method.metrics(live.student)["distillation/left"])
    assert found == pytest.approx([1, 1, 0.75])  # the teacher's is 110, the student's then 10, then 35


def test_the_teacher_of_qdagger_is_gone_after_its_share_of_the_online_steps() -> None:
    live = setup("qdagger", offline=0.5, until=0.5)
    live.method.begin(live.student, live.teachers, live.method.stages[1], [], live.rng)
    assert "teacher" in act(live, [0], 0.74)[1] and act(live, [0], 0.75)[1] == {}


def test_the_random_return_is_the_published_one_or_asked_for() -> None:
    returns = cast(Any, cast(WithCompanions, setup("qdagger", "krull").student).parts["returns"])
    assert float(returns.chance) == 1598.0
    with pytest.raises(KfbenchError, match="no return of a random policy is known of 'atari/carnival'"):
        setup("qdagger", "carnival")
    assert float(cast(Any, setup("qdagger", "carnival", random_return=5.0).student.parts)["returns"].chance) == 5.0
