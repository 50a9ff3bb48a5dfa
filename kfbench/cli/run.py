"""Commands for single runs: `run`, `list`, `show`, `compare`, `status`."""

from pathlib import Path
from typing import Annotated

import typer

from kfbench import registry
from kfbench.cli import complete, options
from kfbench.cli.options import DEFAULT_RESULTS, AsJson, argument, option, pairs, recipe_of, tell
from kfbench.errors import KfbenchError
from kfbench.folders import gone


def run(
    method: options.Method,
    task: options.Task,
    teachers: options.Teachers = None,
    budget: options.Budget = "small",
    seed: Annotated[
        int,
        option(
            "--seed",
            min=0,
            help="Of initialisation, batch order and augmentation; for several, a study.",
            callback=options.short,
        ),
    ] = 0,
    network: options.Network = None,
    epochs: Annotated[float | None, option("--epochs", help="Passes over the training images.")] = None,
    train_size: options.TrainSize = None,
    batch_size: Annotated[int | None, option("--batch-size", help="Images a step.")] = None,
    precision: Annotated[str | None, option("--precision", help="fp32 or bf16.")] = None,
    views: Annotated[
        str | None,
        option("--views", help="Fixed augmentations an image; what teachers say to them is remembered.", metavar="N"),
    ] = None,
    set_: options.Set = None,
    set_recipe: options.SetRecipe = None,
    results: options.Results = DEFAULT_RESULTS,
    device: options.Device = "cpu",
    threads: options.Threads = None,
    compiled: Annotated[bool, option("--compile", help="Let torch.compile have networks without hooks.")] = False,
    forgets: Annotated[
        bool, option("--no-memory", help="With --views: run teachers in every step all the same.")
    ] = False,
    force: Annotated[bool, option("--force", help="Run again what is recorded.")] = False,
    checkpoint_seconds: options.Seconds = 60.0,
    log: Annotated[
        list[str] | None,
        option(
            "--log",
            help="tensorboard, wandb or trackio: write curves there as they come.",
            offers=complete.logs,
            callback=options.one_of(complete.LOGS, "log"),
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run one method on one task.

    Trains missing teachers, trains the student, tests it alone, records it.
    """
    recipe = recipe_of(
        set_recipe,
        network=network,
        epochs=epochs,
        train_size=train_size,
        views=views,
        batch_size=batch_size,
        precision=precision,
    )
    settings = pairs(set_, "--set")
    options.require_fields(method, settings, task, recipe, budget=budget)
    from kfbench import library
    from kfbench.cli import summary

    record = library.run(
        method,
        task,
        teachers=teachers,
        budget=budget,
        seed=seed,
        settings=settings,
        recipe=recipe,
        results=results,
        device=device,
        threads=threads,
        compile=compiled,
        memory=not forgets,
        force=force,
        checkpoint_seconds=checkpoint_seconds,
        log=log or (),
    )
    tell(record.model_dump(), summary.text(record, results), as_json=as_json)


def list_all(
    what: Annotated[
        str, argument(help="methods, tasks, networks, teachers, budgets, recipe or runs.", offers=complete.sections)
    ] = "",
    task: Annotated[
        list[str] | None,
        option("--task", help="Runs on these tasks and their variants, by commas.", offers=complete.tasks_by_commas),
    ] = None,
    method: Annotated[
        list[str] | None,
        option("--method", help="Runs of these methods and their variants.", offers=complete.methods_by_commas),
    ] = None,
    newest: Annotated[int | None, option("--newest", min=1, help="So many runs, those that were made last.")] = None,
    results: options.Records = DEFAULT_RESULTS,
    as_json: AsJson = False,
) -> None:
    """List methods, tasks, networks, teachers, budgets; or fields of a recipe, or runs."""
    from kfbench.cli import listing

    chosen = listing.Chosen(options.by_commas(task, "--task"), options.by_commas(method, "--method"), newest)
    rows = listing.listing(what, results, chosen)
    tell(rows, listing.text(rows), as_json=as_json)
    for missing in filter(None, map(gone, rows)):
        typer.echo(f"note: {missing.strip(' ()')}", err=True)


def show(key: options.Key, results: options.Records = DEFAULT_RESULTS, as_json: AsJson = False) -> None:
    """Show a recorded run.

    Scores, shares, cost, settings, and where it was made.
    """
    from kfbench.cli import summary
    from kfbench.running import records

    folder, record = records.locate(results, key)
    tell(record.model_dump(), summary.text(record, folder, whole=True), as_json=as_json)


def compare(
    names: Annotated[list[str], argument(help="Keys of runs; with --task, methods.", offers=complete.compared)],
    task: Annotated[str, option("--task", help="Compare methods on this task.", offers=complete.tasks)] = "",
    all_seeds: Annotated[bool, option("--all-seeds", help="Also runs that differ in the seed only.")] = False,
    out: Annotated[Path | None, option("--out", help="Draw the curves: a name in .png, .svg or .pdf.")] = None,
    results: options.Records = DEFAULT_RESULTS,
    as_json: AsJson = False,
) -> None:
    """Compare runs, or methods on a task.

    Scores, and differences to the first over the runs that share a seed, with 95 % intervals.
    """
    from kfbench.reporting import comparison

    if task:
        tables = comparison.of_methods(results, names, task)
    elif methods := [name for name in names if registry.split(name)[0] in registry.names("methods")]:
        raise KfbenchError(f"'{methods[0]}' is a method; say with --task on which task to compare it")
    else:
        tables = [comparison.of_keys(results, names, all_seeds=all_seeds)]
    if out is not None:
        comparison.picture(tables, out)
    rows = [{"title": table.title, "rows": comparison.rows(table)} for table in tables]
    tell(rows, "\n\n".join(map(comparison.text, tables)), as_json=as_json)


def status(results: options.Records = DEFAULT_RESULTS, as_json: AsJson = False) -> None:
    """Show what runs now, how far it is, and what failed.

    Runs of this and other terminals, and studies with their workers: where, how long still, where the logs are.
    """
    from kfbench.cli import status as telling

    rows = telling.status(results)
    tell(rows, telling.text(rows, results), as_json=as_json)
