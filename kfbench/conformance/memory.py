"""Rules about what a run remembers: all of it in the student's state, none of it from what is only evaluated."""

import copy
import dataclasses
import io

import torch
from torch import Tensor

from kfbench.batch import Batch
from kfbench.conformance.tiny import STEPS, Broken, differing, live, state, trained
from kfbench.networks.network import Network, Output
from kfbench.running.prepare import make_loop
from kfbench.spec import GameRecipe, RunSpec
from kfbench.train.actor_critic import ActorCritic
from kfbench.train.setup import Setup


def resumes_to_the_bit(spec: RunSpec) -> None:
    """A run stopped at a third, two thirds or the end (games: half) of its steps ends, resumed, as if never stopped."""
    whole = trained(live(spec))
    for stop in (STEPS // 3, 2 * STEPS // 3, STEPS - 1) if not whole.setup.task.acts else (STEPS // 2,):
        file = io.BytesIO()
        torch.save(trained(live(spec), stop).state(), file)
        file.seek(0)
        resumed = make_loop(live(spec))
        try:
            resumed.restore(torch.load(file, weights_only=True))
        except RuntimeError as error:
            raise Broken(f"a checkpoint at step {stop} cannot be restored: {error}") from error
        for _ in resumed:
            pass
        if changed := differing(state(whole.setup.student), state(resumed.setup.student)):
            raise Broken(f"'{changed[0]}' differs after a resume at step {stop}: some state is not in the student")
        if [_untimed(row) for row in whole.curve] != [_untimed(row) for row in resumed.curve]:
            raise Broken(f"the curve differs after a resume at step {stop}: some state is not in the student")


def _untimed(row: dict[str, float]) -> dict[str, float]:
    clocks = ("seconds", "images_per_second", "frames_per_second")
    return {name: value for name, value in row.items() if name not in clocks}


def acts_from_its_state_alone(spec: RunSpec) -> None:
    """Acting changes nothing in the student; another with the same state dict, as `overlap` has it, acts the same."""
    recipe = dataclasses.replace(GameRecipe.of(spec), overlap=1)
    for stop in (1, STEPS // 2):  # a method may act otherwise in its first stage
        loop = trained(live(dataclasses.replace(spec, recipe=recipe)), stop)
        assert isinstance(loop, ActorCritic)
        images, progress = loop.batch().images, loop.position / loop.total  # now both students have the same state
        learner, actor = (_said(setup, images, progress) for setup in (loop.setup, loop._acting))
        if not torch.equal(learner.logits, actor.logits):
            raise Broken("a student with the same state dict acts otherwise: some state is not in it")


def _said(setup: Setup, images: Tensor, progress: float) -> Output:
    """Return what a student says when acting, if that leaves it as it was. Raises Broken."""
    before = state(setup.student.eval())
    with torch.no_grad():
        batch = Batch(images, torch.Generator().manual_seed(0))
        output, _ = setup.method.act(setup.student, setup.teachers, batch, progress)
    if changed := differing(before, state(setup.student)):
        raise Broken(f"act changes '{changed[0]}' of the student; it may run beside learning: use losses or observe")
    return output


def export_stands_alone(spec: RunSpec) -> None:
    """Exporting leaves the live student as it was; what is exported works without teachers, or the method says not."""
    setup = live(spec)
    loop = trained(setup)
    before, modes = state(setup.student), [module.training for module in setup.student.modules()]
    kept = copy.deepcopy(setup.method.export(setup.student))
    if differing(before, dict(setup.student.state_dict())) or modes != [m.training for m in setup.student.modules()]:
        raise Broken("export changes the live student")
    if setup.method.keeps_teachers:
        return
    if not isinstance(kept, Network) or kept.name != setup.task.network:
        raise Broken(f"export gives a {type(kept).__name__}, not the plain network; or say keeps_teachers = True")
    with torch.no_grad():
        images = loop.batch().images
        first: Output = kept.eval()(images)
        plain: Output = kept.clone()(images)
        for teacher in setup.teachers:
            for value in teacher.network.state_dict().values():
                value.zero_()
        again: Output = setup.method.export(setup.student).eval()(images)
    if not torch.equal(first.logits, again.logits):
        raise Broken("the exported student's outputs change when its teachers are deleted")
    if not torch.equal(first.logits, plain.logits):
        raise Broken(f"a plain '{kept.name}' with the exported weights says something else: a hook was left in it")


def evaluation_leaves_no_trace(spec: RunSpec) -> None:
    """Images that are only evaluated change nothing in the student: no memory bank or statistic takes them in."""
    setup = live(spec)
    loop = trained(setup, STEPS // 2)
    setup.student.eval()

    def see(images: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            setup.method.act(setup.student, setup.teachers, Batch(images, setup.rng), loop.position / loop.total)
            setup.method.export(setup.student).eval()(images)
        return state(setup.student)

    some, others = loop.batch().images, loop.batch().images
    if changed := differing(see(some), see(others)):
        raise Broken(f"'{changed[0]}' of the student takes in images that are only evaluated: test data leak into it")
