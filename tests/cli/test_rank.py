"""The command `rank`: a table, JSON, and one line for what cannot be ranked."""

import json
from typing import Any

import pytest

from kfbench.cli import rank

TEACHERS = "random:digits/cnn-4,random:digits/high/cnn-4"
WORDS = ["rank", "--task", "digits/low", "--budget", "smoke", "--threads", "1"]


def test_a_table_and_json_say_the_same(type_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    done = type_in(*WORDS, "--teachers", TEACHERS, "--train-size", "60", "--by", "probe", "--json")
    assert done.code == 0, done.err
    rows = json.loads(done.out)
    assert len(rows) == 2 and rows[0]["probe"] >= rows[1]["probe"] and rows[0]["dimensions"] == 32
    table = type_in(*WORDS, "--teachers", TEACHERS, "--train-size", "60", "--by", "probe").out.splitlines()
    assert table[0].split()[:3] == ["teacher", "dimensions", "logme"] and len(table) == 3
    assert [line.split()[0] for line in table[1:]] == [row["teacher"] for row in rows]
    assert table[1].split()[2] == f"{rows[0]['logme']:.3f}"
    wide = rank.text(rows)
    monkeypatch.setenv("COLUMNS", "80")
    narrow = rank.text(rows)
    assert wide.split() == narrow.split() and max(map(len, narrow.splitlines())) <= 80 < max(
        map(len, wide.splitlines())
    )


def test_mistakes_are_one_line(type_in: Any) -> None:
    for words, told in (
        ([*WORDS, "--teachers", TEACHERS, "--by", "logm"], "did you mean 'logme'?"),
        ([*WORDS], "no teachers of other tasks than 'digits/low'"),
        (["rank", "--task", "atari/pong"], "teachers are ranked for images, and task 'atari/pong' is of games"),
        ([*WORDS, "--teachers", "digits/cnn-4"], "make it: kfbench teacher train"),
        ([*WORDS, "--teachers", TEACHERS, "--train-size", "3"], "3 training images leave some without"),
    ):
        done = type_in(*words)
        assert done.code == 2 and len(done.lines) == 1 and told in done.err, done
