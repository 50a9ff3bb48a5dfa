"""Each conformance rule catches a method file that breaks it, and lets a sound one pass."""

from pathlib import Path

import pytest
from broken_methods import BROKEN, HEAD, SOUND

from kfbench.conformance import checks, rules, tiny
from kfbench.errors import KfbenchError

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
