"""The methods of games: what they learn from, what fades, and what is dropped."""

import dataclasses
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from kfbench import networks, registry, seeding
from kfbench.errors import KfbenchError
from kfbench.methods import Batch, Stage
from kfbench.running import execute, prepare, resolve, stand_in
from kfbench.teachers import Teacher
from kfbench.train.setup import Setup
from kfbench.train.training import training_of
from kfbench.transfer.companion import WithCompanions
from kfbench.transfer.pathways import Modules

TINY = {
    "frames": 4 * 4 * 8 * 4,
    "environments": 4,
    "rollout": 8,
    "minibatches": 2,
    "evaluations": 1,
    "evaluation_environments": 1,
    "test_episodes": 1,
    "evaluation_frames": 80,
    "full_actions": True,
}
GAME, OTHER, PONG = "atari/road_runner", "atari/krull", "atari/pong"


def setup(method: str, settings: dict[str, Any], **recipe: Any) -> Setup:
    """What the loop works with; the one teacher, of another game, is not trained."""
    spec = resolve.resolve("scratch", GAME, recipe={**TINY, **recipe})
    declared = registry.load_task(spec.task)
    task = training_of(declared.kind).make_task(spec, declared, None)
    chosen = registry.load_method(method, settings)
    teachers = []
    if chosen.teachers[0]:
        with seeding.global_stream(1, "teacher"):
            teachers = [Teacher(task.make_network(), "teacher", OTHER, task.classes, "")]
    rng = seeding.stream(0, "method")
    return Setup(spec, chosen, chosen.make_student(task, teachers, rng), teachers, task, torch.device("cpu"), rng, None)


def batch(made: Setup, rows: int = 6, progress: float = 0.0) -> Batch:
    """A batch as the loop makes it: what `act` gave comes back with the rows."""
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (rows, 4, 84, 84), generator=generator, dtype=torch.uint8)
    acting = Batch(images=images, rng=made.rng)
    with torch.no_grad():
        output, extras = made.method.act(made.student, made.teachers, acting, progress)
    return Batch(
        images=images,
        rng=made.rng,
        actions=torch.randint(0, made.task.outputs, (rows,), generator=generator),
        returns=torch.randn(rows, generator=generator),
        advantages=torch.randn(rows, generator=generator),
        output=output,
        extras=extras,
    )


def begin(made: Setup, stage: Stage) -> None:
    made.method.begin(made.student, made.teachers, stage, [], made.rng)


def test_kickstarting_follows_the_teacher_less_and_less_and_then_no_more() -> None:
    made = setup("kickstarting", {"weight": 2.0, "until": 0.5})
    parts = []
    for progress in (0.0, 0.25, 0.5):
        taken = batch(made, progress=progress)
        _, found = made.method.losses(made.student, made.teachers, taken, made.task, progress)
        parts.append({name: part.detach() for name, part in found.items()})
        assert {"policy", "value", "entropy"} <= set(found)
    assert float(parts[1]["teacher 0"]) == pytest.approx(float(parts[0]["teacher 0"]) / 2)
    assert "teacher 0" not in parts[2]
    said = made.teachers[0](batch(made)).logits.softmax(1)
    own = made.student(batch(made).images).logits.log_softmax(1)
    assert float(parts[0]["teacher 0"]) == pytest.approx(2 * float(-(said * own.detach()).sum(1).mean()), rel=1e-5)


def test_policy_distillation_plays_as_its_teacher_and_ends_as_it() -> None:
    made = setup("policy_distillation", {})
    with torch.no_grad():
        made.teachers[0].network.get_submodule("body.policy").weight.mul_(50)  # untrained policies are all alike
    taken = batch(made)
    said = made.teachers[0](taken)
    assert taken.output is not None and torch.equal(taken.output.logits, said.logits)
    _, parts = made.method.losses(made.student, made.teachers, taken, made.task, 0.0)
    assert set(parts) == {"distillation"} and float(parts["distillation"].detach()) > 1e-4
    made.student.load_state_dict(made.teachers[0].network.state_dict())
    _, parts = made.method.losses(made.student, made.teachers, taken, made.task, 0.0)
    assert float(parts["distillation"].detach()) == pytest.approx(0, abs=1e-6)


def test_policy_distillation_may_let_the_student_play() -> None:
    made = setup("policy_distillation", {"actor": "student"})
    taken = batch(made)
    assert taken.output is not None and torch.equal(taken.output.logits, made.student(taken.images).logits)


def test_policy_distillation_learns_from_a_teacher_that_values_nothing() -> None:
    """Nothing of its loss reads a value, and kfbench trains no such teacher: someone's imported policy is one."""
    made = setup("policy_distillation", {})
    network = networks.make("cnn-4", shape=made.task.shape, outputs=made.task.outputs)
    made.teachers[:] = [Teacher(network, "policy", GAME, made.task.classes, "")]
    taken = batch(made)
    assert taken.output is not None and taken.output.value is not None and not taken.output.value.any()
    _, parts = made.method.losses(made.student, made.teachers, taken, made.task, 0.0)
    assert float(parts["distillation"].detach()) > 0


@pytest.mark.parametrize(
    ("method", "teachers", "recipe", "said"),
    [
        (
            "cat",
            [PONG, OTHER, GAME],
            {},
            "each of cat's 3 teachers plays one environment, but there are 4; --set-recipe",
        ),
        ("actor_mimic", [PONG, PONG], {}, "two teachers of actor_mimic were trained on 'atari/pong'; give one expert"),
        (
            "kf",
            [PONG],
            {"network": "cnn-4"},
            "the student's network has no value head, which games need; use --network",
        ),
    ],
)
def test_what_cannot_be_played_is_refused_before_teachers_are_trained(
    method: str, teachers: list[str], recipe: dict[str, Any], said: str, tmp_path: Path
) -> None:
    names = [f"random:{name}@:full_actions=true" for name in teachers]
    spec = resolve.resolve(method, "atari/boxing", teachers=names, recipe={**TINY, **recipe})
    with pytest.raises(KfbenchError, match=said):
        stand_in.require_student(spec, results=tmp_path)


def test_actor_mimic_drops_its_heads_and_keeps_the_rest() -> None:
    made = setup("actor_mimic", {"source": OTHER, "rounds": 2})
    assert [stage.task for stage in made.method.stages] == [OTHER, OTHER, None]
    assert isinstance(made.student, WithCompanions)
    begin(made, made.method.stages[0])
    taken = batch(made)
    _, parts = made.method.losses(made.student, made.teachers, taken, made.task, 0.0)
    assert set(parts) == {"mimic", "features"}
    before = {name: value.clone() for name, value in made.student.network.state_dict().items()}
    begin(made, made.method.stages[2])
    after = made.student.network.state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed and all(name.startswith(("body.policy", "body.value")) for name in changed)
    _, parts = made.method.losses(made.student, made.teachers, batch(made), made.task, 0.6)
    assert set(parts) == {"policy", "value", "entropy"}


def test_actor_mimics_features_are_the_sources_sum_over_units() -> None:
    """Its gradient by a unit of f(h) is b (f(h) - h_E), a mean over the batch, as the authors' code has it."""
    made = setup("actor_mimic", {"source": OTHER, "features": 0.01})
    begin(made, made.method.stages[0])
    taken = batch(made)
    assert isinstance(made.student, WithCompanions)
    (learned,) = cast(nn.ModuleList, made.student.parts["maps"])
    found: list[Tensor] = []
    handle = learned.register_forward_hook(lambda _module, _taken, put: found.append(put))
    _, parts = made.method.losses(made.student, made.teachers, taken, made.task, 0.0)
    handle.remove()
    slope = torch.autograd.grad(parts["features"], found[0])[0]
    torch.testing.assert_close(slope, 0.01 * (found[0] - taken.extras["hidden"]).detach() / len(slope))


def test_actor_mimic_names_a_game_without_expert() -> None:
    made = setup("actor_mimic", {"source": "atari/pong"})
    begin(made, made.method.stages[0])
    with pytest.raises(KfbenchError, match="no teacher was trained on 'atari/pong'"):
        batch(made)


def test_a_source_goes_by_the_games_own_name_and_needs_a_teacher_where_there_are_some() -> None:
    """Found out when the run is asked for: its teachers train for hours before `act` looks for an expert."""
    full: dict[str, Any] = {"full_actions": True}
    given: dict[str, Any] = {"teachers": ["atari/riverraid@small:full_actions=true"], "recipe": full}
    mimic = resolve.resolve("actor_mimic", GAME, settings={"source": "atari/river_raid"}, **given)
    assert mimic.settings["source"] == "atari/riverraid"
    with pytest.raises(KfbenchError, match="source 'atari/pong' is the task of no teacher; give --teachers atari/pong"):
        resolve.resolve("actor_mimic", GAME, settings={"source": "atari/pong"}, **given)
    assert resolve.resolve("actor_mimic", GAME, settings={"source": "atari/pong"}, teachers=["run:0"], recipe=full)
    made = resolve.resolve("pathnet", GAME, settings={"source": "atari/river_raid"})
    assert made.settings["source"] == "atari/riverraid"


@pytest.mark.parametrize("method", ["kickstarting", "policy_distillation", "actor_mimic"])
def test_policies_are_copied_between_games_with_one_action_set_only(method: str) -> None:
    with pytest.raises(KfbenchError, match="full_actions"):
        resolve.resolve(method, "atari/pong", teachers=[OTHER])
    full = {"full_actions": True}
    made = resolve.resolve(method, "atari/pong", teachers=[f"{OTHER}@small:full_actions=true"], recipe=full)
    if method == "actor_mimic":
        assert made.settings["source"] == OTHER
    assert resolve.resolve(method, "atari/pong").teachers == ("atari/pong/a3c@small",)


@pytest.mark.parametrize("method", ["kickstarting", "policy_distillation", "actor_mimic", "jumpstart", "qdagger"])
def test_a_teacher_of_the_same_game_with_another_set_of_actions_is_refused(method: str) -> None:
    """What is advised is not what was typed, and serves."""
    whole, plain = f"{PONG}@:full_actions=true", PONG
    for given, full, advised in ((plain, True, whole), (whole, False, plain), (f"random:{plain}", True, whole)):
        said = f"copies outputs, but teacher '.*' has another set of actions; use --teachers {advised}, or a method"
        with pytest.raises(KfbenchError, match=said):
            resolve.resolve(method, PONG, teachers=[given], recipe={"full_actions": full})
        resolve.resolve(method, PONG, teachers=[advised], recipe={"full_actions": full})
    resolve.resolve(method, OTHER, teachers=[f"{OTHER}@:full_actions=true"])  # Krull understands all 18


def test_a_stored_teacher_with_another_set_of_actions_is_refused_before_the_run(tmp_path: Path) -> None:
    """A spec that was written down is judged again when its run is to begin; what is read is the stored recipe."""
    tiny = {"frames": 128, "environments": 2, "rollout": 8, "minibatches": 1, "evaluation_frames": 40}
    short = "+".join(f"{name}={value}" for name, value in tiny.items())
    spec = resolve.resolve("policy_distillation", PONG, budget="smoke", teachers=[f"{PONG}@smoke:{short}"], recipe=tiny)
    for teacher in prepare.missing_teachers(spec, results=tmp_path):
        execute.teacher(teacher, results=tmp_path)
    assert prepare.plan(spec, results=tmp_path).teachers
    other = dataclasses.replace(spec, recipe=dataclasses.replace(spec.recipe, full_actions=True))  # type: ignore[call-arg]
    with pytest.raises(KfbenchError, match=f"another set of actions; use --teachers {PONG}@:full_actions=true"):
        prepare.plan(other, results=tmp_path)
    with pytest.raises(KfbenchError, match=f"has 6 others .*; use --teachers {PONG}@:full_actions=true"):
        random = dataclasses.replace(other, teachers=(f"random:{PONG}/a3c@smoke",))
        prepare.plan(random, results=tmp_path)


@pytest.mark.parametrize(("full", "pong"), [(False, 6), (True, 18)])
def test_a_path_has_a_head_for_the_actions_of_each_game(full: bool, pong: int) -> None:
    """Krull understands all 18 actions, which must not be taken for the console's full set."""
    spec = resolve.resolve("pathnet", "atari/krull", budget="smoke", recipe={"full_actions": full})
    assert spec.settings["source"] == "atari/pong"
    student = stand_in.setup(spec).student
    heads = {name: student.heads[name]["logits"].out_features for name in student.heads}
    assert heads == {"source atari/pong": pong, "target": 18}


def test_a_column_learns_from_the_features_it_acted_on() -> None:
    made = setup("progressive", {})
    taken = batch(made)
    output, _ = made.method.losses(made.student, [], taken, made.task, 0.0)  # no teacher is asked again
    assert taken.output is not None and torch.allclose(output.logits, taken.output.logits, atol=1e-5)
    kept = made.method.export(made.student).eval()
    with torch.no_grad():
        assert torch.allclose(kept(taken.images).logits, taken.output.logits, atol=1e-5)


def test_a_path_is_changed_between_rollouts_and_never_within_one() -> None:
    made = setup("pathnet", {"source": "", "episodes": 2, "population": 4})
    student = made.student
    assert isinstance(student, Modules)
    begin(made, made.method.stages[-1])

    def present() -> Tensor:
        return student.paths[student.pair[student.turn]].clone()

    first = present()
    made.method.observe(student, [5.0])
    assert torch.equal(present(), first) and student.turn == 0
    made.method.observe(student, [5.0, 5.0])  # the rollout's last episode counts for the path that played it
    assert student.turn == 1 and student.count == 0 and not torch.equal(present(), first)
    made.method.observe(student, [1.0, 1.0])
    assert student.tournaments == 1 and torch.equal(student.winner, first)
