"""`kfbench teacher import|show|verify`: networks that others trained, as teachers."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kfbench.cli import complete, options
from kfbench.cli.options import DEFAULT_RESULTS, AsJson, Results, json_text, option
from kfbench.errors import KfbenchError
from kfbench.networks import header

Name = Annotated[str, typer.Argument(help="The teacher's name, with or without imported: before it.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `kfbench teacher`."""
    app.command("import")(import_teacher)
    app.command("show")(show_teacher)
    app.command("verify")(verify_teacher)


def import_teacher(
    file: Annotated[Path, typer.Argument(help="Weights: what torch.save wrote (.pth, .pt), or safetensors.")],
    network: Annotated[
        str,
        option(
            "--network",
            help="The network they are of: see kfbench list networks.",
            offers=complete.networks,
            callback=options.known_network,
        ),
    ],
    task: Annotated[
        str,
        option(
            "--task",
            help="The task it was trained on: its classes are the network's outputs.",
            offers=complete.tasks,
            callback=options.known_task,
        ),
    ],
    name: Annotated[str, typer.Option(help="What to call the teacher; none: as the file.")] = "",
    from_: Annotated[
        str, typer.Option("--from", help="The code base, repdistiller or mdistiller: states mean and std.")
    ] = "",
    mean: Annotated[str, typer.Option(help="Of the input, a number a channel by commas, images in 0..1.")] = "",
    std: Annotated[str, typer.Option(help="Likewise; none: those of the task's training images.")] = "",
    part: Annotated[
        str, typer.Option(help="Which weights, where the file holds several: state_dict_ema, student.")
    ] = "",
    classes: Annotated[
        str,
        typer.Option(help="Of its outputs, names by commas in their order; none: as the file or the task has them."),
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace a teacher of this name.")] = False,
    results: Results = DEFAULT_RESULTS,
    device: options.Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Take weights that others trained into the store.

    They are scored on validation images.
    """
    statistics = {"mean": _numbers(mean, "--mean"), "std": _numbers(std, "--std")}
    header.require(file)
    from kfbench.running import execute, imported  # torch
    from kfbench.running.device import torch_device

    execute.check_room(results)
    taken, about = imported.take_in(
        file,
        network=network,
        task=task,
        results=results,
        name=name,
        part=part,
        origin=from_,
        **statistics,
        classes=[each.strip() for each in classes.split(",")] if classes else [],
        device=str(torch_device(device)),
        force=force,
        say=lambda line: typer.echo(f"note: {line}", err=True),
    )
    _tell(taken, about, as_json)
    guessing = about["val_error_guessing"]
    if about["val_error"] > 0.95 * guessing:
        typer.echo(
            f"note: hardly better than always saying the commonest class ({guessing:.1f} %): the network that "
            "the weights are of may compute otherwise, its classes may be in another order, or --mean and "
            "--std may be others",
            err=True,
        )


def show_teacher(name: Name, results: options.Records = DEFAULT_RESULTS, as_json: AsJson = False) -> None:
    """Show an imported teacher.

    Where it came from, how its input is normalised, its score.
    """
    from kfbench.running import imported

    plain = name.removeprefix("imported:")
    _, about = imported.load(plain, results)
    _tell(plain, about, as_json)


def verify_teacher(
    name: Name, results: options.Records = DEFAULT_RESULTS, device: options.Device = "cpu", as_json: AsJson = False
) -> None:
    """Check that an imported teacher is as it was.

    Its weights are compared, and it is scored again.
    """
    from kfbench.running import imported
    from kfbench.running.device import torch_device

    plain = name.removeprefix("imported:")
    network, about = imported.load(plain, results)
    differs = imported.changed(about, network, device=str(torch_device(device)))
    text = f"imported:{plain}: {f'different; {differs}' if differs else 'equal: its weights, and its score'}"
    found = {"name": f"imported:{plain}", "word": "different" if differs else "equal", "where": differs}
    options.tell(found, text, as_json=as_json)
    raise typer.Exit(1 if differs else 0)


def _numbers(text: str, option: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",") if number.strip()]
    except ValueError as error:
        raise KfbenchError(f"{option} '{text}' is not numbers; write a number a channel, as 0.5,0.5,0.5") from error


def _tell(name: str, about: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json_text({"name": f"imported:{name}", **about}))
        return
    mean, std = (",".join(f"{number:.4f}" for number in about[each]) for each in ("mean", "std"))
    origin = f", as {about['from']} has it" if about["from"] else ""
    typer.echo(
        f"imported:{name}  {about['network']} on {about['task']}, {len(about['classes'])} classes\n"
        f"  validation  {about['val_error']:.2f} % error\n"
        f"  input       mean {mean}, std {std}{origin}\n"
        f"  file        {about['file']}, sha256 {about['file_sha256'][:12]}…\n"
        f"  digest      {about['digest'][:12]}…\n"
        f"  use         --teachers imported:{name}"
    )
