"""Rules about weights: who may change them, in which mode, and what they are at step 0."""

from torch import nn

from kfbench.conformance.tiny import Broken, differing, live, state
from kfbench.running.prepare import make_loop
from kfbench.spec import RunSpec


def teachers_stay_frozen(spec: RunSpec) -> None:
    """Teachers are bit-equal afterwards, buffers too, in evaluation mode and without gradients."""
    setup = live(spec)
    before = [state(teacher.network) for teacher in setup.teachers]
    for _ in make_loop(setup):
        for teacher in setup.teachers:
            if any(module.training for module in teacher.network.modules()):
                raise Broken(f"teacher '{teacher.name}' was left in training mode: its BatchNorm drifts")
            if any(weight.requires_grad or weight.grad is not None for weight in teacher.network.parameters()):
                raise Broken(f"teacher '{teacher.name}' receives gradients")
    for teacher, was in zip(setup.teachers, before, strict=True):
        if changed := differing(was, teacher.network.state_dict()):
            raise Broken(f"'{changed[0]}' of teacher '{teacher.name}' was changed")


def only_named_parameters_move(spec: RunSpec) -> None:
    """Every parameter of `parameter_groups` moves; others, and buffers of frozen modules, do not."""
    setup = live(spec)
    loop = make_loop(setup)
    moved: set[str] = set()
    wanted: set[str] = set()
    asked: set[str] = set()
    stage, was, named, frozen = -1, state(setup.student), set[int](), set[str]()
    for _ in loop:
        if loop.stage != stage:  # what `begin` did is not training: look from one step into the stage on
            stage, was = loop.stage, state(setup.student)
            groups = setup.method.parameter_groups(setup.student)
            named = {id(weight) for group in groups for weight in group["params"]}
            names = {name for name, weight in setup.student.named_parameters() if id(weight) in named}
            asked = {name for name, w in setup.student.named_parameters() if name in names and w.requires_grad}
            frozen = {n for n, w in setup.student.named_parameters() if id(w) not in named} | _frozen_buffers(
                setup.student
            )
        else:
            wanted |= asked  # of a stage of one step no movement is seen
        changed = set(differing(was, dict(setup.student.state_dict())))
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
    setup = live(spec)
    for _ in make_loop(setup):
        for name, module in setup.student.named_modules():
            own = list(module.parameters(recurse=False))
            if own and any(weight.requires_grad for weight in own) and not module.training:
                raise Broken(f"'{name}' of the student was left in evaluation mode")


def starts_from_the_plain_network(spec: RunSpec) -> None:
    """At step 0 the student's network is the task's, to the bit, unless the method starts from a teacher."""
    setup = live(spec)
    if setup.method.starts_from_teacher or setup.method.keeps_teachers:
        return
    plain = setup.task.make_network().state_dict()
    if changed := differing(plain, setup.method.export(setup.student).state_dict()):
        raise Broken(f"'{changed[0]}' differs from the plain network's at step 0: call task.make_network() first")
