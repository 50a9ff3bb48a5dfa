"""What holds for every command: how paths and repeated options are read."""

from pathlib import Path
from typing import Any

import pytest
import typer

from kfbench.cli import main
from kfbench.cli.commands import Once
from kfbench.studies.place import Place


def commands(group: Any) -> list[Any]:
    """Return all commands of a group, and of the groups within it."""
    inner = getattr(group, "commands", {}).values()
    return [command for each in inner for command in commands(each)] if inner else [group]


def test_every_command_is_read_so() -> None:
    every = commands(typer.main.get_command(main.app))
    assert len(every) > 20 and all(isinstance(command, Once) for command in every)


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
