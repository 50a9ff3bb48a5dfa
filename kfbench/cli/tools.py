"""Commands that make something of runs and files: bench, export, predict, push, play, teacher train|list|delete."""

import csv
import functools
import io
from pathlib import Path
from typing import Annotated, Any

import typer

from kfbench.cli import complete, options, teacher_import
from kfbench.cli.commands import group
from kfbench.cli.housekeeping import delete_teacher
from kfbench.cli.options import DEFAULT_RESULTS, AsJson, argument, option, tell
from kfbench.errors import KfbenchError
from kfbench.running.files import EXPORTS, FILMS, TABLES, require_ending, write_text

teacher_app = group("Train, import, list and delete teachers.")


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(bench)
    app.command()(export)
    app.command()(predict)
    app.command()(push)
    app.command()(play)
    app.add_typer(teacher_app, name="teacher")
    teacher_import.register(teacher_app)
    teacher_app.command("delete")(delete_teacher)


def bench(
    method: Annotated[
        list[str] | None,
        option(
            "--method",
            help="Methods to time, by commas or one an option; none: all for the task's kind.",
            offers=complete.methods_by_commas,
            callback=options.methods_by_commas,
        ),
    ] = None,
    task: Annotated[
        str,
        option(
            "--task",
            help="Gives the image shape and classes; a game times its loop.",
            offers=complete.tasks,
            callback=options.known_task,
        ),
    ] = "cifar100",
    network: Annotated[
        str | None,
        option(
            "--network",
            help="The student, on images: default resnet8x4.",
            offers=complete.networks,
            callback=options.known_network,
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        option(
            "--teacher",
            help="Each teacher, on images: default resnet32x4.",
            offers=complete.networks,
            callback=options.known_network,
        ),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Images a step: default 64.")] = None,
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    repeats: Annotated[int, typer.Option(min=3, help="Interleaved repeats.")] = 20,
    device: options.Device = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Time each method's training step over its floor.

    The floor is the network passes that the method cannot avoid, and the optimiser.
    """
    import torch

    from kfbench import registry
    from kfbench.bench import games
    from kfbench.bench import images as timing
    from kfbench.tasks import GAMES, IMAGES

    torch.set_num_threads(threads)
    kind = registry.kind_of(task)
    if kind not in (IMAGES, GAMES):
        raise KfbenchError(f"task '{task}' is of {kind.name}; bench times images and games")
    if kind is GAMES:
        if network or teacher or batch_size:
            raise KfbenchError("games are timed with the a3c network; leave --network, --teacher and --batch-size out")
        times = games.measure(
            task,
            methods=method,
            precision=precision,
            repeats=repeats,
            device=device,
            threads=threads,
            say=functools.partial(typer.echo, err=True),
        )
        tell(times, games.text(times), as_json=as_json)
        return
    rows = timing.measure(
        method or timing.methods(),
        task=task,
        network=network or "resnet8x4",
        teacher=teacher or "resnet32x4",
        batch_size=batch_size or 64,
        precision=precision,
        repeats=repeats,
        device=device,
    )
    tell(rows, timing.text(rows), as_json=as_json)


def export(
    key: options.Key,
    path: Annotated[Path, typer.Argument(help="Ends in .safetensors, or in .pt2 for a program that needs no kfbench.")],
    results: options.Records = DEFAULT_RESULTS,
    as_json: AsJson = False,
) -> None:
    """Write the student that a run kept."""
    require_ending(path, EXPORTS)
    options.require_run(results, key)
    from kfbench.running import export as exporting

    written = [str(file) for file in exporting.export(key, path, results=results)]
    tell({"files": written}, "\n".join(written), as_json=as_json)


def predict(
    key: Annotated[str, argument(help="The key of a run, or how it begins; or a teacher.", offers=complete.keys)],
    paths: Annotated[list[Path], typer.Argument(help="Images; folders, zip or tar archives of them.")],
    out: Annotated[Path | None, option("--out", help="Write the table to a CSV file instead.")] = None,
    probabilities: Annotated[bool, option("--probabilities", help="Add a column p(CLASS) a class.")] = False,
    resized: Annotated[
        str,
        option(
            "--resized",
            help="How images of another size are brought to the network's: stretched, or cropped to the middle. "
            "Default: as its training images were.",
            callback=options.one_of(("stretched", "cropped"), "way to resize"),
        ),
    ] = "",
    results: options.Records = DEFAULT_RESULTS,
    device: options.Device = "cpu",
    threads: options.Threads = None,
    as_json: AsJson = False,
) -> None:
    """Say what a kept network sees in images.

    Prints CSV: file, class, probability. Exit code 1: some images could not be read.
    """
    from kfbench.running import predict as predicting  # torch
    from kfbench.running.device import set_threads
    from kfbench.tasks import IMAGES

    if out is not None:
        require_ending(out, TABLES)
    set_threads(threads, kind=IMAGES)
    found = predicting.predict(key, paths, results=results, resized=resized, device=device, quiet=as_json)
    for line in [*found.notes(), *found.faults]:
        typer.echo(f"note: {line}", err=True)
    rows = found.rows(whole=probabilities)
    if out is not None:
        try:
            write_text(out, csv_text(rows))
        except OSError as error:
            raise KfbenchError(f"cannot write '{out}' ({error.strerror})") from error
    told = f"{out}: {len(rows):,} images" if out is not None else csv_text(rows).rstrip("\n")
    values = {"classes": found.classes, "resized": found.resized, "images": rows, "unreadable": found.faults}
    tell(values, told, as_json=as_json)
    raise typer.Exit(1 if found.faults else 0)


def csv_text(rows: list[dict[str, Any]]) -> str:
    """Return a table as CSV."""
    whole = io.StringIO()
    table = csv.DictWriter(whole, list(rows[0]), lineterminator="\n")
    table.writeheader()
    for row in rows:
        table.writerow({name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()})
    return whole.getvalue()


def push(
    key: options.Key,
    repository: Annotated[str, argument(help="ORG/NAME on the Hugging Face hub; it is made if it is not there.")],
    private: Annotated[bool, option("--private", help="Make it for yourself only.")] = False,
    licence: Annotated[str, option("--license", help="As the hub names it: mit, apache-2.0, cc-by-4.0.")] = "",
    results: options.Records = DEFAULT_RESULTS,
    as_json: AsJson = False,
) -> None:
    """Put the student that a run kept on the Hugging Face hub.

    A card is made from its record.

    Needs kfbench[hub] and a login: hf auth login, or $HF_TOKEN. It is then the teacher hf:ORG/NAME.
    """
    options.require_run(results, key)
    from kfbench.running import hub

    commit, name = hub.push(key, repository, results=results, private=private, licence=licence), f"hf:{repository}"
    tell({"commit": commit, "teacher": name}, f"{commit}\nuse: --teachers {name}", as_json=as_json)


def play(
    key: options.Key,
    out: Annotated[Path, typer.Option(help="Ends in .gif, or in .mp4 (pip install 'kfbench[mp4]').")] = Path(
        "game.gif"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Of the emulator and of the policy's draws.")] = 0,
    seconds: Annotated[
        float, typer.Option(min=0.1, help="Show at most this much play.", callback=options.finite)
    ] = 60.0,
    speed: Annotated[int, typer.Option(min=1, help="Multiple of the console's own speed.")] = 1,
    results: options.Records = DEFAULT_RESULTS,
) -> None:
    """Film an episode of the agent that a run kept."""
    require_ending(out, FILMS)
    options.require_run(results, key)
    from kfbench.running import film as playing

    episode = playing.play(key, results=results, out=out, seed=seed, seconds=seconds, speed=speed)
    typer.echo(f"{out}: {'longer than what is shown' if episode is None else f'score {episode.score:g}'}")


@teacher_app.command("train")
def train_teacher(
    name: Annotated[str, argument(help="TASK[/variant][/network][@budget[:field=value+…]].", offers=complete.tasks)],
    budget: Annotated[str, option("--budget", help="If the name has none.", offers=complete.budgets)] = "small",
    results: options.Results = DEFAULT_RESULTS,
    device: options.Device = "cpu",
    threads: options.Threads = None,
    as_json: AsJson = False,
) -> None:
    """Train a teacher, if the store does not have it."""
    from kfbench import registry
    from kfbench.running import teacher_names

    asked = teacher_names.read(name, budget=budget)
    if asked.kind != "trained":
        raise KfbenchError(f"'{name}' is not trained; give TASK[/network][@budget]")
    from kfbench.running import execute
    from kfbench.running.device import set_threads
    from kfbench.running.progress import Bar

    set_threads(threads, kind=registry.kind_of(asked.task))
    execute.check_room(results)
    record = execute.teacher(asked.spec(), results=results, device=device, watcher=Bar())
    text = f"{asked}  {record.provenance['weights'][:12]}  {record.cost['seconds']:.0f} s to train"
    tell({"teacher": str(asked), **record.model_dump()}, text, as_json=as_json)


@teacher_app.command("list")
def list_teachers(results: options.Records = DEFAULT_RESULTS, as_json: AsJson = False) -> None:
    """List the teachers in the store."""
    from kfbench.cli import listing

    rows = listing.listing("teachers", results)
    tell(rows, listing.text(rows), as_json=as_json)
