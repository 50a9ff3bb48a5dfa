"""Each conformance rule catches a method file that breaks it, and lets a sound one pass."""

import sys
from pathlib import Path

import pytest

from kfbench.conformance import checks, rules, tiny
from kfbench.errors import KfbenchError

HEAD = '''"""A method made for a test.

Source: none.
Differs: nothing known.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from kfbench.transfer import losses
from kfbench.methods import Method, Stage


class Wrapped(nn.Module):
    def __init__(self, network, extra=None):
        super().__init__()
        self.network, self.extra = network, extra

    def forward(self, images):
        return self.network(images)


@dataclass(frozen=True)
class Made(Method):
    """A method."""

    weight: float = 0.5

    kinds = ("images",)
    teachers = (1, 1)
    needs = "features"

    def losses(self, student, teachers, batch, task, progress):
        output = student(batch.images)
        return output, task.loss(output, batch)

    def export(self, student):
        return student.network if isinstance(student, Wrapped) else student
'''
SOUND = """
    def losses(self, student, teachers, batch, task, progress):
        output = student(batch.images)
        layer = teachers[0].network.layers[0]
        far = teachers[0].features(batch, [layer])[layer].mean() - output.logits.mean()
        return output, task.loss(output, batch) | {"near": self.weight * far.square()}
"""
BROKEN = {
    "describes_itself": [
        ("has 'image', no kind of task; did you mean 'images'", HEAD.replace('("images",)', '("image",)')),
        ("has no line 'Differs:'", HEAD.replace("Differs: nothing known.\n", "")),
        ("search space 'wieght' is of no setting", HEAD + '    search = {"wieght": {"low": 0.1, "high": 1.0}}\n'),
        ("search space 'weight'", HEAD + '    search = {"weight": {"low": 0.1}}\n'),
        ("does not hold what the default has, 0.5", HEAD + '    search = {"weight": {"low": 1.0, "high": 2.0}}\n'),
        ("a space for 'heavy', which is no variant", HEAD + '    variant_search = {"heavy": {}}\n'),
        ("no recipe's optimizer; did you mean 'sgd'", HEAD + '    by_optimizer = {"sdg": {"weight": 0.1}}\n'),
        ("has no setting 'wieght'", HEAD + '    by_optimizer = {"sgd": {"wieght": 0.1}}\n'),
        (
            "does not hold what the default has with sgd, 2.0",
            HEAD + '    search = {"weight": {"low": 0.1, "high": 1.0}}\n    by_optimizer = {"sgd": {"weight": 2.0}}\n',
        ),
        (
            "a range of 'weight', which 'search' has not",
            HEAD + '    search_by_optimizer = {"sgd": {"weight": {"low": 0.1, "high": 1.0}}}\n',
        ),
        ("has no setting 'wieght'", HEAD + '    variants = {"light": {"wieght": 0.1}}\n'),
        ("cannot be 'heavy'", HEAD + '    variants = {"heavy": {"weight": "heavy"}}\n'),
    ],
    "teachers_stay_frozen": [
        (
            "left in training mode",
            HEAD
            + """
    def begin(self, student, teachers, stage, batches, rng):
        teachers[0].network.train()
""",
        ),
        (
            "receives gradients",
            HEAD
            + """
    def begin(self, student, teachers, stage, batches, rng):
        teachers[0].network.requires_grad_(True)
""",
        ),
        (
            "was changed",
            HEAD
            + """
    def losses(self, student, teachers, batch, task, progress):
        with torch.no_grad():
            next(iter(teachers[0].network.buffers())).add_(1)
        return super().losses(student, teachers, batch, task, progress)
""",
        ),
    ],
    "only_named_parameters_move": [
        (
            "is in a group but never moved",
            HEAD
            + """
    def make_student(self, task, teachers, rng):
        return Wrapped(task.make_network(), nn.Linear(2, 2))
""",
        ),
        (
            "moved, though it is frozen or in no parameter group",
            HEAD
            + """
    def losses(self, student, teachers, batch, task, progress):
        with torch.no_grad():
            list(student.parameters())[0].add_(1)
        return super().losses(student, teachers, batch, task, progress)

    def parameter_groups(self, student):
        return [{"params": list(student.parameters())[1:]}]
""",
        ),
    ],
    "student_trains_in_training_mode": [
        (
            "left in evaluation mode",
            HEAD
            + """
    def losses(self, student, teachers, batch, task, progress):
        student.eval()
        return super().losses(student, teachers, batch, task, progress)
""",
        )
    ],
    "losses_are_finite_means": [
        (
            "take a mean over the batch, not a sum",
            HEAD
            + """
    def losses(self, student, teachers, batch, task, progress):
        output = student(batch.images)
        return output, task.loss(output, batch) | {"much": output.logits.square().sum()}
""",
        ),
        (
            "not a finite scalar",
            HEAD
            + """
    def losses(self, student, teachers, batch, task, progress):
        output = student(batch.images)
        return output, task.loss(output, batch) | {"void": (output.logits.mean() - 1e9).log()}
""",
        ),
        (
            "has shape .1.; return its mean over the batch, a scalar",
            HEAD
            + """
    def losses(self, student, teachers, batch, task, progress):
        output = student(batch.images)
        parts = task.loss(output, batch)
        return output, {name: part[None] for name, part in parts.items()}
""",
        ),
    ],
    "starts_from_the_plain_network": [
        (
            "differs from the plain network's at step 0",
            HEAD
            + """
    def make_student(self, task, teachers, rng):
        from kfbench import networks
        return networks.make(task.network, shape=task.shape, outputs=task.outputs)
""",
        )
    ],
    "resumes_to_the_bit": [
        (
            "some state is not in the student",
            HEAD
            + """
    seen: ClassVar[list[int]] = [0]

    def losses(self, student, teachers, batch, task, progress):
        self.seen[0] += 1
        output = student(batch.images)
        return output, {name: part * (1 + 0.1 * self.seen[0]) for name, part in task.loss(output, batch).items()}
""",
        ),
        (
            "cannot be restored",
            HEAD
            + """
    def losses(self, student, teachers, batch, task, progress):
        if not hasattr(student, "age"):
            student.register_buffer("age", torch.zeros(()))
        student.age += 1
        return super().losses(student, teachers, batch, task, progress)
""",
        ),
    ],
    "export_stands_alone": [
        (
            "export changes the live student",
            HEAD
            + """
    def export(self, student):
        with torch.no_grad():
            next(student.parameters()).mul_(0.5)
        return student
""",
        ),
        (
            "export changes the live student",
            HEAD
            + """
    def export(self, student):
        return student.eval()
""",
        ),
        (
            "not the plain network",
            HEAD
            + """
    def make_student(self, task, teachers, rng):
        return Wrapped(task.make_network())

    def export(self, student):
        return student
""",
        ),
        (
            "outputs change when its teachers are deleted",
            HEAD
            + """
    def make_student(self, task, teachers, rng):
        network, theirs = task.make_network(), teachers[0].network
        network.register_forward_hook(
            lambda module, taken, made: made._replace(logits=made.logits + theirs(taken[0]).logits.mean())
        )
        return network
""",
        ),
    ],
    "waits_for_no_gpu": [
        (
            r"losses waits for the GPU, whose values it reads, at made.py:\d+",
            HEAD
            + """
    def losses(self, student, teachers, batch, task, progress):
        output = student(batch.images)
        parts = task.loss(output, batch)
        if output.logits.mean() > 100:
            parts["large"] = output.logits.mean()
        return output, parts
""",
        ),
        (
            r"losses waits for the GPU, whose values it reads, at made.py:\d+",
            HEAD
            + """
    def losses(self, student, teachers, batch, task, progress):
        output = student(batch.images)
        known = output.logits[batch.labels < 5]
        return output, task.loss(output, batch) | {"known": known.square().sum() / len(output.logits)}
""",
        ),
        (
            r"losses waits for the GPU, for a copy from cpu to cuda of shape \[16, 10\], at made.py:\d+",
            HEAD
            + """
    def losses(self, student, teachers, batch, task, progress):
        output = student(batch.images)
        noise = torch.rand(output.logits.shape, generator=batch.rng).to(batch.images.device)
        return output, task.loss(output, batch) | {"noise": (noise * output.logits).mean()}
""",
        ),
        (
            r"losses waits for the GPU, for an argument of aten.index_put_ that is on the CPU, at made.py:\d+",
            HEAD
            + """
    def losses(self, student, teachers, batch, task, progress):
        output = student(batch.images)
        present = torch.zeros_like(output.logits[0])
        present[batch.labels] = torch.tensor(1.0)  # a bare 1.0 waits up to torch 2.14, and no longer
        return output, task.loss(output, batch) | {"present": (present * output.logits).square().mean()}
""",
        ),
        (
            r"losses fails on a GPU at made.py:\d+: .*cuda",
            HEAD
            + """
    def losses(self, student, teachers, batch, task, progress):
        output = student(batch.images)
        weights = torch.ones(output.logits.shape[1])
        return output, task.loss(output, batch) | {"even": (weights * output.logits).mean()}
""",
        ),
        (
            r"act waits for the GPU, for an argument of aten.index that is on the CPU, at made.py:\d+",
            HEAD
            + """
    def act(self, student, teachers, batch, progress):
        output = student(batch.images)
        return output._replace(logits=output.logits[torch.arange(len(output.logits))]), {}
""",
        ),
    ],
}


ALL = {rule.__name__ for rule in (checks.describes_itself, *rules.RULES)}


def written(folder: Path, text: str) -> str:
    path = folder / "made.py"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("rule", "said", "text"),
    [(rule, *each) for rule, made in BROKEN.items() for each in made],
    ids=[f"{rule}: {said}" for rule, made in BROKEN.items() for said, _ in made],
)
def test_a_broken_method_is_caught(rule: str, said: str, text: str, tmp_path: Path) -> None:
    name = written(tmp_path, text)
    with pytest.raises(KfbenchError, match=said):
        if rule == checks.describes_itself.__name__:
            checks.describes_itself(name)
        else:
            next(each for each in rules.RULES if each.__name__ == rule)(tiny.spec_of(name))


def test_a_broken_method_breaks_one_rule_and_passes_the_others(tmp_path: Path) -> None:
    said, text = BROKEN["losses_are_finite_means"][0]
    found = {rule: broken for _, rule, broken in checks.check_method(written(tmp_path, text))}
    assert said in (found.pop("losses_are_finite_means") or "") and set(found.values()) == {None}


def test_every_rule_is_seen_to_catch_something() -> None:
    elsewhere = {"evaluation_leaves_no_trace", "soft_targets_keep_their_size"}  # in test_checks_more.py
    assert set(BROKEN) | elsewhere == ALL


@pytest.mark.parametrize("text", [HEAD, HEAD + SOUND], ids=["plain", "with a teacher"])
def test_a_sound_method_passes(text: str, tmp_path: Path) -> None:
    rows = checks.check_method(written(tmp_path, text))
    assert {rule for _, rule, _ in rows} == ALL
    assert [broken for _, _, broken in rows] == [None] * len(rows)


def test_the_variants_of_a_file_are_checked_too(tmp_path: Path) -> None:
    rows = checks.check_method(written(tmp_path, HEAD + '    variants = {"light": {"weight": 0.1}}\n'))
    assert {Path(name).name for name, _, _ in rows} == {"made.py", "light"} and len(rows) == 2 * len(ALL)


@pytest.mark.parametrize(
    ("rule", "said", "text"),
    [
        ("teachers_stay_frozen", "left in training mode", BROKEN["teachers_stay_frozen"][0][1]),
        ("losses_are_finite_means", "take a mean over the batch, not a sum", BROKEN["losses_are_finite_means"][0][1]),
        (
            "acts_from_its_state_alone",
            "act changes 'body.policy.bias' of the student",
            HEAD
            + """
    def act(self, student, teachers, batch, progress):
        student.body.policy.bias += 1e-3
        return student(batch.images), {}
""",
        ),
        (
            "acts_from_its_state_alone",
            "some state is not in it",
            HEAD
            + """
    def losses(self, student, teachers, batch, task, progress):
        student.steps = getattr(student, "steps", 0) + 1
        output = student(batch.images)
        return output, task.loss(output, batch)

    def act(self, student, teachers, batch, progress):
        output = student(batch.images)
        return output._replace(logits=output.logits * (1 + getattr(student, "steps", 0))), {}
""",
        ),
        (
            "resumes_to_the_bit",
            "some state is not in the student",
            HEAD
            + """
    def begin(self, student, teachers, stage, batches, rng):
        object.__setattr__(self, "asked", 0)

    def losses(self, student, teachers, batch, task, progress):
        object.__setattr__(self, "asked", self.asked + 1)
        output = student(batch.images)
        return output, task.loss(output, batch) | {"counted": self.asked * output.logits.square().mean()}
""",
        ),
    ],
)
def test_a_method_that_breaks_in_games_is_caught(rule: str, said: str, text: str, tmp_path: Path) -> None:
    text = text.replace('kinds = ("images",)', 'kinds = ("games",)')
    spec = tiny.spec_of(written(tmp_path, text), kind="games")
    with pytest.raises(KfbenchError, match=said):
        next(each for each in rules.ACTING_RULES if each.__name__ == rule)(spec)


def test_a_sound_method_passes_in_games(tmp_path: Path) -> None:
    rows = checks.check_method(written(tmp_path, HEAD.replace('kinds = ("images",)', 'kinds = ("games",)')))
    assert [rule for _, rule, _ in rows[1:]] == [f"games: {rule.__name__}" for rule in rules.ACTING_RULES]
    assert [broken for _, _, broken in rows] == [None] * len(rows)


def test_a_method_that_raises_is_reported_by_every_rule_that_runs_it(tmp_path: Path) -> None:
    text = HEAD + "\n    def begin(self, student, teachers, stage, batches, rng):\n        raise ValueError('oh')\n"
    found = {rule: broken for _, rule, broken in checks.check_method(written(tmp_path, text))}
    line = text[: text.index("raise ")].count("\n") + 1
    assert found["describes_itself"] is None
    assert found["teachers_stay_frozen"] == f"raised ValueError: oh (made.py:{line})"


def test_a_method_that_keeps_something_itself_is_told_where_to(tmp_path: Path) -> None:
    text = HEAD + "\n    def begin(self, student, teachers, stage, batches, rng):\n        self.seen = 0\n"
    found = {rule: broken for _, rule, broken in checks.check_method(written(tmp_path, text))}
    assert "register a buffer on the module that 'make_student' returns" in (found["teachers_stay_frozen"] or "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("class A:\n    pass\n", "defines 0 subclasses of Method"),
        (HEAD + "\n\n@dataclass(frozen=True)\nclass Second(Method):\n    pass\n", "defines 2 subclasses of Method"),
        ("import nowhere_to_be_found\n", "cannot be imported: ModuleNotFoundError"),
        ("class Made(:\n", "cannot be imported: SyntaxError"),
        ("import torch\n\n\nlayers = torch.ons(3)\n", r"AttributeError: .*torch.* \(made.py:4\)$"),
    ],
)
def test_a_file_that_is_no_method_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(KfbenchError, match=said) as raised:
        checks.check_method(written(tmp_path, text))
    assert "\n" not in str(raised.value)


TASK = '''"""A task made for a test.

Source: none.
"""

from kfbench.tasks import ImageTask

TASK = ImageTask(
    classes=10,
    shape=(1, 8, 8), dataset="digits", budgets={"all": {"train_size": "all"}},
)
'''


def with_(more: str) -> str:
    return TASK.replace("    classes=10,", f"    classes=10,\n    {more},")


@pytest.mark.parametrize(
    ("rule", "said", "text"),
    [
        ("reads", None, TASK),
        ("finds_its_data", None, TASK),
        ("builds", None, TASK),
        ("reads", "no line 'Source:'", TASK.replace("Source: none.\n", "")),
        ("reads", "SyntaxError: * (made_for_a_test.py, line ", TASK.replace("(\n", "(\n[", 1)),
        ("reads", "TypeError: shape is (C, H, W) * not (1, 8) * (made_for_a_test.py:8)", TASK.replace("8, 8", "8")),
        ("reads", "has no TASK", TASK.replace("TASK =", "WORK =")),
        ("reads", "has no field 'epoch'", TASK.replace('"train_size": "all"', '"epoch": 3')),
        ("reads", "no task 'nowhere'", with_('sources=("nowhere",)')),
        ("reads", "no task 'nowhere'; * (made_for_a_test.py:10)", with_('variants={"v": {"sources": ("nowhere",)}}')),
        (
            "reads",
            "no field 'epoch'; * (made_for_a_test.py:12)",
            with_('variants={\n        "ok": {},\n        "v": {"budgets": {"small": {"epoch": 3}}},\n    }'),
        ),
        (
            "reads",
            "has a field 'kep', which tasks have not; did you mean 'keep'?",
            with_('variants={"v": {"kep": (0,)}}'),
        ),
        (
            "reads",
            "'v' * numbers of classes from 0, each once, * not (1, 1)",
            with_('variants={"v": {"keep": (1, 1)}}'),
        ),
        ("reads", "'v' * not ('a', 'b')", with_('variants={"v": {"keep": ("a", "b")}}')),
        ("reads", "'v' * is not written as", with_('variants={"v": 3}')),
        ("reads", "TypeError: variants is * not ('v',) (made_for_a_test.py:8)", with_('variants=("v",)')),
        ("finds_its_data", "1×8×8 in 9 classes, * 1×8×8 in 10; * (made_for_a_test.py:9)", TASK.replace("=10", "=9")),
        ("finds_its_data", "3×8×8 in 10 classes", TASK.replace("1, 8", "3, 8")),
        ("finds_its_data", "no data set 'digitz' * did you mean 'digits'", TASK.replace("digits", "digitz")),
        ("finds_its_data", "no data set 'digitz'", with_('variants={"v": {"dataset": "digitz"}}')),
        ("finds_its_data", "classes 0-9, not 0-12 (made_for_a_test.py:10)", with_('variants={"v": {"keep": (0, 12)}}')),
        ("finds_its_data", "'made_for_a_test/v' has one class", with_('variants={"v": {"keep": (3,)}}')),
        ("finds_its_data", "budget 'smoke': * 1,295 training images * asked for", TASK.replace('"all"}', "5000}")),
        ("finds_its_data", None, TASK.replace("digits", "stl10")),  # published: that it is not here is not its fault
        ("builds", "no network 'all'", TASK.replace("train_size", "network")),
        ("builds", "no network 'cnm-8'", with_('variants={"v": {"budgets": {"small": {"network": "cnm-8"}}}}')),
    ],
)
def test_tasks(
    rule: str, said: str | None, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet_machine: None
) -> None:
    (tmp_path / "made_for_a_test.py").write_text(text)
    monkeypatch.setenv("KFBENCH_TASKS", str(tmp_path))
    monkeypatch.setattr("kfbench.tasks.__path__", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "kfbench.tasks.made_for_a_test", raising=False)
    found = {name: broken for _, name, broken in checks.check_task("made_for_a_test")}
    if said is None:
        assert found[rule] is None
        return
    parts = said.split(" * ")
    places = [(found[rule] or "nothing was found").find(part) for part in parts]
    assert min(places) >= 0 and places == sorted(places), found[rule]
