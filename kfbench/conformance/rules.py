"""Conformance rules of methods: what goes wrong in published suites is looked for in every file.

Each rule trains a method for a few steps, on made-up images or in a game with untrained teachers, and raises `Broken`
if it is broken.
"""

import copy
import dataclasses
import io
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from kfbench import registry
from kfbench.batch import Batch
from kfbench.conformance import fake_gpu
from kfbench.errors import KfbenchError
from kfbench.networks.network import Network, Output
from kfbench.run import resolve, stand_in
from kfbench.run.prepare import make_loop
from kfbench.spec import GameRecipe, RunSpec
from kfbench.train.setup import Setup

Rule = Callable[[RunSpec], None]
ROWS, BATCH, STEPS = 48, 16, 12
PLAY: dict[str, Any] = {
    "algorithm": "a2c",
    "optimizer": "adam",  # moves a weight however small its gradient
    "environments": 2,
    "rollout": 4,
    "frames": STEPS * 2 * 4 * 4,
    "noops": 0,
    "episode_frames": 160,
    "evaluations": 2,
    "evaluation_environments": 1,
    "test_episodes": 1,
    "evaluation_frames": 80,
}


class Broken(KfbenchError):
    """A method or task breaks a rule; the text says what was seen."""


def spec_of(name: str, settings: dict[str, Any] | None = None, *, kind: str = "images") -> RunSpec:
    """Return a tiny run of a method on the task `digits` or the game Pong, 12 steps long, for `stand_in.setup`."""
    made = registry.load_method(name, settings or {})
    teachers: list[str] | None
    if kind == "games":
        task, recipe, teachers = "atari/pong", PLAY, ["random:atari/pong"] * made.teachers[0]
    else:
        task = "digits"
        recipe = {"network": "cnn-4", "batch_size": BATCH, "epochs": STEPS * BATCH / ROWS, "evaluations": 2}
        takes_outputs = made.needs == "outputs" and made.teachers[0] > 0
        teachers = ["digits/cnn-8"] * made.teachers[0] if takes_outputs else None
    if registry.split(name)[1] in made.instead_of_teachers:
        teachers = []  # as long as any other run here
    return resolve.resolve(name, task, budget="smoke", teachers=teachers, recipe=recipe, settings=settings)


def _live(spec: RunSpec) -> Setup:
    return stand_in.setup(spec, rows=ROWS)


def _trained(setup: Setup, steps: int = STEPS) -> Any:
    """Return a loop after so many optimiser steps."""
    loop = make_loop(setup)
    for _ in zip(range(steps), loop, strict=False):
        pass
    return loop


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    return [name for name in one if name not in other or not torch.equal(one[name], other[name])]


def teachers_stay_frozen(spec: RunSpec) -> None:
    """Teachers are bit-equal afterwards, buffers too, in evaluation mode and without gradients."""
    setup = _live(spec)
    before = [_state(teacher.network) for teacher in setup.teachers]
    for _ in make_loop(setup):
        for teacher in setup.teachers:
            if any(module.training for module in teacher.network.modules()):
                raise Broken(f"teacher '{teacher.name}' was left in training mode: its BatchNorm drifts")
            if any(weight.requires_grad or weight.grad is not None for weight in teacher.network.parameters()):
                raise Broken(f"teacher '{teacher.name}' receives gradients")
    for teacher, was in zip(setup.teachers, before, strict=True):
        if changed := _differing(was, teacher.network.state_dict()):
            raise Broken(f"'{changed[0]}' of teacher '{teacher.name}' was changed")


def only_named_parameters_move(spec: RunSpec) -> None:
    """Every parameter of `parameter_groups` moves; others, and buffers of frozen modules, do not."""
    setup = _live(spec)
    loop: Any = make_loop(setup)
    moved: set[str] = set()
    wanted: set[str] = set()
    stage, was, named, frozen = -1, _state(setup.student), set[int](), set[str]()
    for _ in loop:
        if loop.stage != stage:  # what `begin` did is not training: look from one step into the stage on
            stage, was = loop.stage, _state(setup.student)
            groups = setup.method.parameter_groups(setup.student)
            named = {id(weight) for group in groups for weight in group["params"]}
            names = {name for name, weight in setup.student.named_parameters() if id(weight) in named}
            wanted |= {name for name, w in setup.student.named_parameters() if name in names and w.requires_grad}
            frozen = {n for n, w in setup.student.named_parameters() if id(w) not in named} | _frozen_buffers(
                setup.student
            )
        changed = set(_differing(was, dict(setup.student.state_dict())))
        moved |= changed
        if held := sorted(changed & frozen):
            raise Broken(f"'{held[0]}' of the student moved, though it is frozen or in no parameter group")
    if setup.method.trains_a_part:
        return
    if still := sorted(wanted - moved):
        raise Broken(f"parameter '{still[0]}' is in a group but never moved")


def _frozen_buffers(student: nn.Module) -> set[str]:
    names = set()
    for place, module in student.named_modules():
        own = list(module.parameters(recurse=False))
        if own and not any(weight.requires_grad for weight in own):
            names |= {f"{place}.{name}" for name, _ in module.named_buffers(recurse=False)}
    return names


def student_trains_in_training_mode(spec: RunSpec) -> None:
    """Between steps, and after an evaluation, what is trained is in training mode."""
    setup = _live(spec)
    for _ in make_loop(setup):
        for name, module in setup.student.named_modules():
            own = list(module.parameters(recurse=False))
            if own and any(weight.requires_grad for weight in own) and not module.training:
                raise Broken(f"'{name}' of the student was left in evaluation mode")


def losses_are_finite_means(spec: RunSpec) -> None:
    """Each part of the loss is a finite scalar, and twice the rows do not give twice the loss."""
    setup = _live(spec)
    loop = _trained(setup, STEPS // 3)
    batch = loop.batch()
    kept, rng = _state(setup.student), setup.rng.get_state()
    progress = loop.position / loop.total

    def parts(repeated: int) -> dict[str, float]:
        setup.student.load_state_dict(kept)
        setup.rng.set_state(rng)
        again = _repeated(batch, repeated)
        torch.manual_seed(0)  # the same dropout, where there is any
        _, found = setup.method.losses(setup.student, setup.teachers, again, setup.task, progress)
        for name, part in found.items():
            if part.shape != () or not bool(part.isfinite()):
                raise Broken(f"loss part '{name}' is {part.detach()}, not a finite scalar")
        return {name: float(part.detach()) for name, part in found.items()}

    with torch.random.fork_rng():
        once, twice = parts(1), parts(2)
    for name, value in once.items():
        if abs(value) > 1e-4 and not 0.67 < twice[name] / value < 1.5:
            raise Broken(
                f"loss part '{name}' is {value:.4g} for {BATCH} rows and {twice[name]:.4g} for the same rows twice: "
                "take a mean over the batch, not a sum"
            )


def _repeated(batch: Batch, times: int) -> Batch:
    """Return a batch with all its rows so many times, and nothing remembered."""

    def more(value: Any) -> Any:
        if isinstance(value, Tensor):
            return torch.cat([value] * times)
        if isinstance(value, Output):
            return Output(*(more(part) for part in value))
        return {name: more(part) for name, part in value.items()} if isinstance(value, dict) else value

    rows = {field.name: more(getattr(batch, field.name)) for field in dataclasses.fields(batch)}
    return Batch(**{**rows, "memo": {}})


def starts_from_the_plain_network(spec: RunSpec) -> None:
    """At step 0 the student's network is the task's, to the bit, unless the method starts from a teacher."""
    setup = _live(spec)
    if setup.method.starts_from_teacher or setup.method.keeps_teachers:
        return
    plain = setup.task.make_network().state_dict()
    if changed := _differing(plain, setup.method.export(setup.student).state_dict()):
        raise Broken(f"'{changed[0]}' differs from the plain network's at step 0: call task.make_network() first")


def resumes_to_the_bit(spec: RunSpec) -> None:
    """A run stopped at a third, two thirds or the end (games: half) of its steps ends, resumed, as if never stopped."""
    whole = _trained(_live(spec))
    for stop in (STEPS // 3, 2 * STEPS // 3, STEPS - 1) if whole.setup.task.kind == "images" else (STEPS // 2,):
        file = io.BytesIO()
        torch.save(_trained(_live(spec), stop).state(), file)
        file.seek(0)
        resumed: Any = make_loop(_live(spec))
        try:
            resumed.restore(torch.load(file, weights_only=True))
        except RuntimeError as error:
            raise Broken(f"a checkpoint at step {stop} cannot be restored: {error}") from error
        for _ in resumed:
            pass
        if changed := _differing(_state(whole.setup.student), _state(resumed.setup.student)):
            raise Broken(f"'{changed[0]}' differs after a resume at step {stop}: some state is not in the student")
        if [_untimed(row) for row in whole.curve] != [_untimed(row) for row in resumed.curve]:
            raise Broken(f"the curve differs after a resume at step {stop}: some state is not in the student")


def acts_from_its_state_alone(spec: RunSpec) -> None:
    """Acting changes nothing in the student; another with the same state dict, as `overlap` has it, acts the same."""
    recipe = dataclasses.replace(cast(GameRecipe, spec.recipe), overlap=1)
    loop = _trained(_live(dataclasses.replace(spec, recipe=recipe)), STEPS // 2)
    images, progress = loop.batch().images, loop.position / loop.total  # now both students have the same state
    said: list[Output] = []
    for setup in (loop.setup, loop._acting):
        before = _state(setup.student.eval())
        with torch.no_grad():
            rng = torch.Generator().manual_seed(0)
            said.append(setup.method.act(setup.student, setup.teachers, Batch(images, rng), progress)[0])
        if changed := _differing(before, _state(setup.student)):
            raise Broken(
                f"act changes '{changed[0]}' of the student; it may run beside learning: use losses or observe"
            )
    if not torch.equal(said[0].logits, said[1].logits):
        raise Broken("a student with the same state dict acts otherwise: some state is not in it")


def _untimed(row: dict[str, float]) -> dict[str, float]:
    clocks = ("seconds", "images_per_second", "frames_per_second")
    return {name: value for name, value in row.items() if name not in clocks}


def export_stands_alone(spec: RunSpec) -> None:
    """Exporting leaves the live student as it was; what is exported works without teachers, or the method says not."""
    setup = _live(spec)
    loop = _trained(setup)
    before, modes = _state(setup.student), [module.training for module in setup.student.modules()]
    kept = copy.deepcopy(setup.method.export(setup.student))
    if _differing(before, dict(setup.student.state_dict())) or modes != [m.training for m in setup.student.modules()]:
        raise Broken("export changes the live student")
    if setup.method.keeps_teachers:
        return
    if not isinstance(kept, Network) or kept.name != setup.task.network:
        raise Broken(f"export gives a {type(kept).__name__}, not the plain network; or say keeps_teachers = True")
    with torch.no_grad():
        images = loop.batch().images
        first: Output = kept.eval()(images)
        for teacher in setup.teachers:
            for value in teacher.network.state_dict().values():
                value.zero_()
        again: Output = setup.method.export(setup.student).eval()(images)
    if not torch.equal(first.logits, again.logits):
        raise Broken("the exported student's outputs change when its teachers are deleted")


def evaluation_leaves_no_trace(spec: RunSpec) -> None:
    """Images that are only evaluated change nothing in the student: no memory bank or statistic takes them in."""
    setup = _live(spec)
    loop = _trained(setup, STEPS // 2)
    setup.student.eval()

    def see(images: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            setup.method.act(setup.student, setup.teachers, Batch(images, setup.rng), loop.position / loop.total)
            setup.method.export(setup.student).eval()(images)
        return _state(setup.student)

    some, others = setup.data.val.images[: 2 * BATCH].float().div(255).chunk(2)
    if changed := _differing(see(some), see(others)):
        raise Broken(f"'{changed[0]}' of the student takes in images that are only evaluated: test data leak into it")


def soft_targets_keep_their_size(spec: RunSpec) -> None:
    """Twice a high temperature leaves the gradient's size: the loss has its T², or the docstring says "without T²"."""
    setup = _live(spec)
    stem, _ = registry.split(spec.method) if not spec.method.endswith(".py") else (spec.method, None)
    if not hasattr(setup.method, "temperature") or "without T²" in (
        registry.load_module("methods", stem).__doc__ or ""
    ):
        return
    for steps in (STEPS // 2, STEPS - 1):  # a teacher may have left before the end
        _soft_targets(_live(spec), steps)


def _soft_targets(setup: Setup, steps: int) -> None:
    loop = _trained(setup, steps)
    batch, kept = loop.batch(), _state(setup.student)
    weights = [weight for weight in setup.student.parameters() if weight.requires_grad]

    def sizes(temperature: float) -> dict[str, float]:
        setup.student.load_state_dict(kept)
        hot = dataclasses.replace(cast(Any, setup.method), temperature=temperature)
        progress = loop.position / loop.total
        _, parts = hot.losses(setup.student, setup.teachers, dataclasses.replace(batch, memo={}), setup.task, progress)
        found = {}
        for name, part in parts.items():
            slopes = torch.autograd.grad(part, weights, retain_graph=True, allow_unused=True)
            found[name] = sum(float(slope.square().sum()) for slope in slopes if slope is not None) ** 0.5
        return found

    once, twice = sizes(20.0), sizes(40.0)
    for name, size in once.items():
        if size > 1e-7 and not 0.5 < twice[name] / size < 2:
            raise Broken(
                f"the gradient of '{name}' is {size:.3g} at temperature 20 and {twice[name]:.3g} at 40: multiply the "
                'loss by T², or say "without T²" in the docstring if its source has none'
            )


def waits_for_no_gpu(spec: RunSpec) -> None:
    """On a GPU a step mixes no devices and never waits: no value is read, nothing copied to or from the device."""
    for steps in (1, STEPS - 1):
        setup = _live(spec)
        staying = fake_gpu.own_tensors(setup.student)
        loop = _trained(setup, steps)
        if found := fake_gpu.complaint(setup, loop.batch(), loop.position / loop.total, staying=staying):
            raise Broken(f"{found}; make tensors on the device of the images, and read values in metrics or observe")


RULES: tuple[Rule, ...] = (
    teachers_stay_frozen,
    only_named_parameters_move,
    student_trains_in_training_mode,
    losses_are_finite_means,
    starts_from_the_plain_network,
    resumes_to_the_bit,
    export_stands_alone,
    evaluation_leaves_no_trace,
    soft_targets_keep_their_size,
    waits_for_no_gpu,
)
GAME_RULES: tuple[Rule, ...] = (  # acting, which is half of a game's loop, leaves the student in evaluation mode
    teachers_stay_frozen,
    only_named_parameters_move,
    losses_are_finite_means,
    starts_from_the_plain_network,
    acts_from_its_state_alone,
    resumes_to_the_bit,
    export_stands_alone,
    waits_for_no_gpu,
)
