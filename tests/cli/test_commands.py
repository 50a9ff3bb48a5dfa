"""What holds for every command: how paths and repeated options are read."""

from pathlib import Path
from typing import Any

import pytest
import typer

from kfbench.cli import main
from kfbench.cli.commands import Told
from kfbench.cli.options import known_teachers
from kfbench.studies.place import Place


def commands(group: Any) -> list[Any]:
    """Return all commands of a group, and of the groups within it."""
    inner = getattr(group, "commands", {}).values()
    return [command for each in inner for command in commands(each)] if inner else [group]


def test_every_command_is_read_so() -> None:
    every = commands(typer.main.get_command(main.app))
    assert len(every) > 20 and all(isinstance(command, Told) for command in every)


def test_a_shell_may_leave_the_home_to_be_found(
    type_in: Any, recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(recorded.parent))
    monkeypatch.setenv("USERPROFILE", str(recorded.parent))
    here = f"--results=~/{recorded.name}"
    assert "scratch on digits" in type_in("list", "runs", here).out
    assert type_in("study", "~/nowhere").err.startswith(f"error: no study '{recorded.parent / 'nowhere'}'")
    assert type_in("report", "~/nowhere", here).err.startswith(f"error: no study '{recorded.parent / 'nowhere'}'")
    assert type_in("data", "import", "bugs", "--labels=~/no.csv", ".").err == (
        f"error: no file or folder '{recorded.parent / 'no.csv'}'\n"
    )
    assert f"no file '{recorded.parent / 'no.py'}'" in type_in("run", "--method=~/no.py", "--task", "digits").err
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    assert type_in("new", "study", "mine", "--folder=~/reports").code == 0
    assert (tmp_path / "home/reports/mine/study.toml").is_file() and not Path("~").exists()
    assert (
        Place(tmp_path, storage="sqlite:///~/trials.db").url == f"sqlite:///{(tmp_path / 'home').as_posix()}/trials.db"
    )


def test_teachers_are_joined_and_flags_and_lists_may_be_repeated() -> None:
    given = known_teachers(["digits/low, digits/high", " random:digits"])
    assert given == ["digits/low", "digits/high", "random:digits"]
    assert known_teachers([]) is None and known_teachers([","]) == [""]
    run = next(each for each in commands(typer.main.get_command(main.app)) if each.name == "run")
    words = ["--method", "kf", "--task", "digits", "--json", "--json", "--set", "a=1", "--set", "b=2"]
    params = run.make_context("run", [*words, "--teachers", "digits", "--teachers=digits/low"]).params
    assert params["teachers"] == ["digits", "digits/low"] and [*params["set_"]] == ["a=1", "b=2"]
