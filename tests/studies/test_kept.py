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


def test_ranks_without_a_score_are_a_line(tmp_path: Path) -> None:
    for text in ('{"cifar10": [1]}', '{"cifar10": {"digits": 1}}', '{"cifar10": {"digits": {"scores": {"logme": 1}}}}'):
        (tmp_path / "ranks.json").write_text(text)
        with pytest.raises(KfbenchError, match="ranks.json' lacks scores of cifar10, .*; delete it, and teachers are"):
            promises.read(tmp_path)
