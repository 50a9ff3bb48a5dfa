"""The help of every command is what is written in the code, to the last bracket."""

from collections.abc import Iterator
from typing import Any

import pytest
import typer
from console import in_a_process

from kfbench.cli import main


def walk(command: Any, *words: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield (words, command) of every group and command."""
    yield words, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from walk(inner, *words, name)


COMMANDS = dict(walk(typer.main.get_command(main.app)))


def squeezed(text: str | None) -> str:
    """Return a text without its blanks: help is wrapped anywhere, at hyphens too."""
    return "".join((text or "").split())


def test_the_walk_sees_the_commands_within_groups() -> None:
    assert {(), ("run",), ("data", "import"), ("teacher", "train"), ("new", "method")} <= set(COMMANDS)


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_says_all_that_is_written(
    words: tuple[str, ...], columns: int, type_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    done, command = type_in(*words, "--help"), COMMANDS[words]
    assert (done.code, done.err) == (0, ""), done
    shown = squeezed(done.out)
    assert command.help and squeezed(command.help) in shown
    for parameter in command.params:
        if not getattr(parameter, "hidden", False):
            assert parameter.help and squeezed(parameter.help) in shown, parameter.name
            assert parameter.param_type_name == "argument" or all(option in shown for option in parameter.opts)
    for name, inner in getattr(command, "commands", {}).items():
        assert name in shown and inner.help, name


def test_help_is_the_same_where_a_user_types_it() -> None:
    done = in_a_process("run", "--help")
    assert done.code == 0 and "TASK[/network][@budget], random:TASK" in done.out and not done.err


@pytest.mark.parametrize("words", [words for words, command in COMMANDS.items() if hasattr(command, "commands")])
def test_a_group_alone_shows_its_help(words: tuple[str, ...], type_in: Any) -> None:
    done = type_in(*words)
    assert done.code == 2 and done.out == type_in(*words, "--help").out and not done.err
