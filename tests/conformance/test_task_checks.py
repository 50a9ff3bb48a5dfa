"""The rules of tasks find what is wrong with a task's file or its variants, and its line."""

import sys
from pathlib import Path

import pytest

from kfbench.conformance import checks

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
