"""Every rule over every method, each of its variants, and every task: a file that is dropped in is tested unasked."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from kfbench import registry
from kfbench.conformance import checks
from kfbench.conformance.checks import TaskRule
from kfbench.conformance.tiny import Rule, spec_of

METHODS = [variant for name in registry.names("methods") for variant in checks.method_names(name)]
CASES = [
    (name, kind, rule)
    for name in METHODS
    for kind, _, rules in checks.cases(name)
    if kind == "images" or "/" not in name  # emulators start slowly: variants are checked on images only
    for rule in rules
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # nothing here is large enough for two
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_describes_itself(name: str) -> None:
    checks.describes_itself(name)


@pytest.mark.parametrize(
    ("name", "kind", "rule"), CASES, ids=[f"{name}-{kind}-{rule.__name__}" for name, kind, rule in CASES]
)
def test_method(name: str, kind: str, rule: Rule) -> None:
    rule(spec_of(name, kind=kind))


@pytest.mark.parametrize("rule", checks.TASK_RULES, ids=[rule.__name__ for rule in checks.TASK_RULES])
@pytest.mark.parametrize("name", registry.names("tasks"))
def test_task(name: str, rule: TaskRule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFBENCH_DATA", str(tmp_path))  # data that a package carries are packed there
    rule(name)
