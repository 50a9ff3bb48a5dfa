"""The options that several commands share, and what they do with them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kfbench.errors import KfbenchError

Results = Annotated[Path, typer.Option("--results", help="Folder of records, weights and teachers.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
DEFAULT_RESULTS = Path("results")


def group(about: str | None = None) -> typer.Typer:
    """Return a group of commands, whose help is printed as it is written.

    Without `rich_markup_mode=None` a text like TASK[/network] is read as Rich markup: a bracket is lost or an error.
    """
    return typer.Typer(
        help=about,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )


def pairs(given: list[str] | None, option: str) -> dict[str, Any]:
    """Read ["name=value", …]. Raises KfbenchError for an entry without "="; "none" stands for no value."""
    found = {}
    for entry in given or []:
        name, equals, value = entry.partition("=")
        if not equals:
            raise KfbenchError(f"{option} '{entry}' has no value; write {option} {entry}=VALUE")
        found[name] = None if value.lower() == "none" else value
    return found
