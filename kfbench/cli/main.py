"""The command `kfbench`: a thin layer from arguments to functions, which imports inside commands: `list` is instant."""

import io
import json
import os
import sys
from typing import Annotated, Any

import typer

from kfbench.cli import data, study, tools
from kfbench.cli.options import DEFAULT_RESULTS, AsJson, Results, group, pairs
from kfbench.errors import KfbenchError

app = group("Compare knowledge-transfer methods: Knowledge Flow beside its baselines, on images and games.")
app.add_typer(data.app, name="data")
tools.register(app)
study.register(app)

state = {"debug": False}
UsageError: Any = typer.BadParameter.__base__  # click's, or typer's own copy of it in its newer versions


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Compare knowledge-transfer methods: Knowledge Flow beside its baselines, on images and games."""
    state["debug"] = debug


@app.command("list")
def list_all(
    what: Annotated[str, typer.Argument(help="methods, tasks, networks, teachers, budgets or runs.")] = "",
    results: Results = DEFAULT_RESULTS,
    as_json: AsJson = False,
) -> None:
    """List methods, tasks, networks, teachers, budgets; with `runs`, what is recorded."""
    from kfbench.cli import listing

    found = listing.listing(what, results)
    typer.echo(json.dumps(found, indent=1) if as_json else listing.text(found))


@app.command()
def run(
    method: Annotated[str, typer.Option(help="Method, or method/variant: see kfbench list methods.")],
    task: Annotated[str, typer.Option(help="Task, or task/variant: see kfbench list tasks.")],
    teachers: Annotated[
        str | None,
        typer.Option(
            help="TASK[/network][@budget], random:TASK, run:KEY, imported:NAME, file:PATH, timm:NAME; by commas."
        ),
    ] = None,
    budget: Annotated[str, typer.Option(help="smoke, small, standard or paper.")] = "small",
    seed: Annotated[int, typer.Option(min=0, help="Of initialisation, batch order and augmentation.")] = 0,
    network: Annotated[str | None, typer.Option(help="The student's network.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the training images.")] = None,
    train_size: Annotated[int | None, typer.Option(help="Training images, balanced over classes.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32 or bf16.")] = None,
    views: Annotated[
        int | None, typer.Option(help="Fixed augmentations an image; what teachers say to them is remembered.")
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="A setting of the method: name=value.")] = None,
    recipe: Annotated[
        list[str] | None, typer.Option("--set-recipe", help="Another field of the training recipe: name=value.")
    ] = None,
    results: Results = DEFAULT_RESULTS,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; bits depend on it.")] = None,
    compiled: Annotated[bool, typer.Option("--compile", help="Let torch.compile have networks without hooks.")] = False,
    forgets: Annotated[
        bool, typer.Option("--no-memory", help="With --views: run teachers in every step all the same.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Run again what is recorded.")] = False,
    checkpoint_seconds: Annotated[float, typer.Option(help="Time between checkpoints.")] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Run one method on one task: train missing teachers, train the student, test it alone, record it."""
    given = {"network": network, "epochs": epochs, "train_size": train_size, "views": views}
    given |= {"batch_size": batch_size, "precision": precision}
    changes = {name: value for name, value in given.items() if value is not None} | pairs(recipe, "--set-recipe")
    from kfbench.cli import summary
    from kfbench.run import execute, resolve
    from kfbench.run.device import set_threads, torch_device
    from kfbench.run.progress import Bar
    from kfbench.spec import GameRecipe

    spec = resolve.resolve(
        method,
        task,
        budget=budget,
        teachers=None if teachers is None else teachers.split(","),
        seed=seed,
        recipe=changes,
        settings=pairs(set_, "--set"),
    )
    set_threads(threads, games=isinstance(spec.recipe, GameRecipe))
    bar = Bar()
    torch_device(device)
    execute.check_room(results)
    summary.announce(spec, results=results, device=device, say=bar.say, force=force)
    record = execute.run(
        spec,
        results=results,
        device=device,
        force=force,
        compiled=compiled,
        remember=not forgets,
        checkpoint_seconds=checkpoint_seconds,
        watcher=bar,
    )
    typer.echo(json.dumps(summary.as_json(record), indent=1) if as_json else summary.text(record, results))


@app.command()
def show(
    key: Annotated[str, typer.Argument(help="The key of a run, or how it begins.")],
    results: Results = DEFAULT_RESULTS,
    as_json: AsJson = False,
) -> None:
    """Show a recorded run: scores, shares, cost, settings and where it was made."""
    from kfbench.cli import summary
    from kfbench.run import records

    folder, record = records.locate(results, key)
    typer.echo(json.dumps(summary.as_json(record), indent=1) if as_json else summary.text(record, folder, whole=True))


def main() -> None:
    """Run the command line: a user's mistake is one line and exit code 2, Ctrl-C is 130, a closed pipe is fine."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without × or … shows a question mark
    try:
        code = app(prog_name="kfbench", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # else Python complains when it flushes at its end
        code = 0
    except (KeyboardInterrupt, typer.Abort):
        code = _told("stopped", 130)
    except Exception as error:
        if state["debug"]:
            raise
        code = _judge(error)
    sys.exit(code if isinstance(code, int) else 0)


def _judge(error: Exception) -> int:
    """Print a user's mistake in one line and return the exit code; a fault of ours is raised again."""
    if isinstance(error, KfbenchError):
        return _told(f"error: {error}", error.exit_code)
    if isinstance(error, OSError) and error.filename is not None:  # no permission, no room, a folder for a file
        return _told(f"error: cannot use '{error.filename}' ({error.strerror})", 2)
    if isinstance(error, UsageError):
        if "\n" in error.format_message():  # a group without a command: its help
            print(error.format_message())
            return 2
        where = error.ctx.command_path if error.ctx else "kfbench"
        return _told(f"error: {error.format_message().rstrip('.')}; see {where} --help", 2)
    raise error


def _told(line: str, code: int) -> int:
    print(" ".join(line.split()), file=sys.stderr)
    return code
