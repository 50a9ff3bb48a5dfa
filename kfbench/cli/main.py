"""The command `kfbench`: a thin layer from arguments to functions, which imports inside commands: `list` is instant."""

import dataclasses
import io
import os
import sys
import sysconfig
import traceback
import warnings
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

import typer

from kfbench import registry
from kfbench.cli import check, data, housekeeping, new, rank, run, study, tools
from kfbench.cli.commands import group
from kfbench.errors import KfbenchError, KfbenchWarning, near
from kfbench.folders import PACKAGE, folders
from kfbench.version import __version__

state = {"debug": False}
UsageError: Any = typer.BadParameter.__base__  # click's, or typer's own copy of it in its newer versions
app = group(
    "Compare knowledge-transfer methods: Knowledge Flow beside its baselines, on images and games.", completes=True
)
app.command()(run.run)
app.command("list")(run.list_all)
app.command()(run.show)
app.command()(run.compare)
app.command()(run.status)
app.command()(rank.rank)
study.register(app)
app.command()(check.check)
tools.register(app)
app.command()(housekeeping.clean)
app.command()(housekeeping.delete)
app.add_typer(data.app, name="data")
app.add_typer(new.app, name="new")


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"kfbench {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_say_version, is_eager=True)
    ] = False,
) -> None:
    """Set what holds for all commands; the help is the group's."""
    state["debug"] = debug


def main() -> None:
    """Run the command line: a user's mistake is one line and exit code 2, Ctrl-C is 130, a closed pipe is fine."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without × or … shows a question mark
    # how long torch's threads wait awake for each other, on Linux: by default so long that two of them on cores with
    # other work take ten times as long as one; with this three times, and on idle cores no longer than by default
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", KfbenchWarning)
            warnings.showwarning = partial(_show, warnings.showwarning)
            code = _run()
        sys.stdout.flush()
    except BrokenPipeError:
        # else Python complains when it flushes at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def _show(usual: Any, message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    """Print a warning of ours in a line; others as usual."""
    if issubclass(category, KfbenchWarning):
        print(f"note: {message}", file=sys.stderr)
    else:
        usual(message, category, *place, **more)


def _run() -> int:
    try:
        code = app(prog_name="kfbench", standalone_mode=False)
    except BrokenPipeError:
        raise
    except (KeyboardInterrupt, typer.Abort):
        return _told("stopped", 130)
    except Exception as error:
        if state["debug"]:
            raise
        return _judge(error)
    if code == 130:  # how typer tells Ctrl-C
        return _told("stopped", 130)
    return code if isinstance(code, int) else 0


def _judge(error: Exception) -> int:
    """Print a user's mistake in one line, a fault of ours or of a file of theirs whole, and return the exit code."""
    if isinstance(error, KfbenchError):
        return _told(f"error: {error}", error.exit_code)
    if isinstance(error, OSError) and error.filename is not None:  # no permission, no room, a folder for a file
        return _told(f"error: cannot use '{error.filename}' ({error.strerror})", 2)
    if isinstance(error, UsageError):
        if "Usage:" in error.format_message():  # a group without a command: its help
            print(error.format_message())
            return 2
        where = error.ctx.command_path if error.ctx else "kfbench"
        if instead := _instead(error):
            return _told(f"error: {instead}; see {where} --help", 2)
        message = error.format_message().rstrip(".").replace("'?", "'")
        return _told(f"error: {message}; see {where} --help", 2)
    traceback.print_exception(error.with_traceback(_of_interest(error.__traceback__)))
    return 1


def _of_interest(whole: TracebackType | None) -> TracebackType | None:
    """Return a traceback from the first call of a file of the user's own on; without one, of a room below the cli."""
    installed = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")]
    frames = []
    while whole is not None:
        frames.append((whole, Path(whole.tb_frame.f_code.co_filename).resolve()))
        whole = whole.tb_next
    cli = Path(__file__).resolve().parent
    ours = [PACKAGE, *(Path(folders(kind)[0]) for kind in ("methods", "tasks"))]
    others = [*installed, *ours]
    files = [(frame, file) for frame, file in frames if file.is_file()]  # not <frozen importlib>
    own = [frame for frame, file in files if not any(file.is_relative_to(other) for other in others)]
    below = [frame for frame, file in frames if file.is_relative_to(PACKAGE) and file.parent != cli]
    return next(iter([*own, *below, *(frame for frame, _ in frames)]), None)


def _instead(error: Any) -> str:
    """Say which studies there are where none is named; how to give what has no option of its own.

    That is a field of the recipe, or a setting of a method.
    """
    if type(error).__name__ == "MissingParameter" and error.ctx and error.ctx.command.name == "study":
        return _studies()
    option = getattr(error, "option_name", "")
    name = option.lstrip("-").replace("-", "_")
    there = {parameter.name for parameter in error.ctx.command.params} if option and error.ctx else set()
    recipes = [dataclasses.fields(kind.recipe) for kind in registry.kinds().values()] if "set_recipe" in there else []
    if any(name == field.name for recipe in recipes for field in recipe):
        return f"no option {option}; it is a field of the recipe: --set-recipe {name}=VALUE"
    if "set_" in there and any(name in row.get("settings", ()) for row in registry.describe_all("methods")):
        return f"no option {option}; as a setting of the method it is --set {name}=VALUE"
    return ""


def _studies() -> str:
    from kfbench.studies import definition

    there = list(map(str, definition.below(definition.REPORTS)))
    return f"which study? {near('', there)}" if there else ""


def _told(line: str, code: int) -> int:
    print(" ".join(line.split()), file=sys.stderr)
    return code
