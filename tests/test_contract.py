"""Every rule over every method, each of its variants, and every task: a file that is dropped in is tested unasked."""

from collections.abc import Iterator

import pytest
import torch

from kfbench import checks, registry
from kfbench.checks import Rule, TaskRule

METHODS = [variant for name in registry.names("methods") for variant in checks.method_names(name)]
CASES = [(name, rule) for name in METHODS for rule in checks.case(name)[1]]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # nothing here is large enough for two
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("name", "rule"), CASES, ids=[f"{name}-{rule.__name__}" for name, rule in CASES])
def test_method(name: str, rule: Rule) -> None:
    spec, _ = checks.case(name)
    rule(spec)


@pytest.mark.parametrize("rule", checks.TASK_RULES, ids=[rule.__name__ for rule in checks.TASK_RULES])
@pytest.mark.parametrize("name", registry.names("tasks"))
def test_task(name: str, rule: TaskRule) -> None:
    rule(name)
