"""The generated parts of the documentation's pages are current."""

import importlib.util
from pathlib import Path

import pytest

WRITER = Path(__file__).parents[1] / "docs" / "_write.py"
spec = importlib.util.spec_from_file_location("docs_write", WRITER)
assert spec is not None and spec.loader is not None
write = importlib.util.module_from_spec(spec)
spec.loader.exec_module(write)


@pytest.mark.parametrize(("page", "marker"), list(write.GENERATED))
def test_a_generated_part_is_what_the_code_gives(page: str, marker: str) -> None:
    there, wanted = write.current(page, marker)
    assert there == wanted, "run python docs/_write.py"
