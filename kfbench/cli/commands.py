"""What holds for every command's words: of an option given twice the last counts, and ~ begins a path at the home."""

import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand

from kfbench.errors import KfbenchWarning
from kfbench.folders import at_home

F = TypeVar("F", bound=Callable[..., Any])


class Told(TyperCommand):
    """A command that tells of an option given twice: the last counts, so that a script can add one to those it has."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words; warn of an option that takes one value and has two."""
        if not ctx.resilient_parsing:  # the shell asks while a line is typed
            _, _, given = self.make_parser(ctx).parse_args(list(args))
            options: list[Any] = [each for each in given if each.param_type_name == "option"]
            for option in dict.fromkeys(options):
                takes_one = not (option.multiple or option.is_flag or option.count)
                if takes_one and options.count(option) > 1:
                    warnings.warn(f"'{option.opts[0]}' is given twice: the last counts", KfbenchWarning, stacklevel=2)
        return super().parse_args(ctx, args)


class Commands(typer.Typer):
    """A group whose commands are read so."""

    def command(self, name: str | None = None, **more: Any) -> Callable[[F], F]:
        """Return what adds a function as a command."""

        def add(function: F) -> F:
            super(Commands, self).command(name, cls=Told, **more)(_from_home(function))
            return function

        return add


def group(about: str, *, completes: bool = False) -> Commands:
    """Return a group of commands, whose help is printed as it is written.

    Without `rich_markup_mode=None` a text like TASK[/network] is read as Rich markup: a bracket is lost or an error.
    """
    return Commands(
        help=about,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        add_completion=completes,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )


def _from_home(function: F) -> F:
    """Return a command whose paths are whole: a shell leaves the ~ of `--results=~/r` as it stands."""

    @functools.wraps(function)
    def whole(**given: Any) -> Any:
        return function(**{name: _whole(value) for name, value in given.items()})

    return whole  # type: ignore[return-value]  # of the same signature, which typer reads


def _whole(value: Any) -> Any:
    if isinstance(value, list):
        return [_whole(each) for each in value]
    return at_home(str(value)) if isinstance(value, Path) else value
