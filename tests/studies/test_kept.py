"""The files a study keeps beside its study.toml: a damaged one is a line that says what to do, never a traceback."""

from pathlib import Path

import pytest

from kfbench.errors import KfbenchError
from kfbench.studies import picks, plan, promises


@pytest.mark.parametrize(
    ("read", "name"), [(picks.read, "teachers.json"), (promises.read, "ranks.json"), (plan.chosen, "tuned.json")]
)
@pytest.mark.parametrize(("text", "said"), [("{", "is not JSON"), ("[1]", "holds a list"), ("\xff", "is not JSON")])
def test_a_damaged_file_is_a_line(read, name, text, said, tmp_path: Path) -> None:
    assert read(tmp_path) == {}
    (tmp_path / name).write_bytes(text.encode("latin1"))
    with pytest.raises(KfbenchError, match=f"{name}' {said}.*; delete it, and ") as told:
        read(tmp_path)
    assert "\n" not in str(told.value)
