"""Commands for many runs: `study`, `search`, `worker`, `report`, `verify`."""

from pathlib import Path
from typing import Annotated

import typer

from kfbench.cli import options
from kfbench.cli.options import DEFAULT_RESULTS, Results, pairs

Storage = Annotated[str, typer.Option("--storage", help="postgresql://… for many machines; default: a SQLite file.")]
Jobs = Annotated[int, typer.Option("--jobs", min=1, help="Processes on this machine, spread over its GPUs.")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda (each job the next GPU) or cuda:N.")]
Threads = Annotated[int, typer.Option("--threads", min=1, help="CPU threads a job; bits depend on it.")]
Heartbeat = Annotated[int, typer.Option("--heartbeat", hidden=True, min=1)]
Grace = Annotated[int, typer.Option("--grace", hidden=True, min=1)]
REPORTS = Path("reports")


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (study, search, worker, report, verify):
        app.command()(command)


def study(
    folder: Annotated[Path, typer.Argument(help="Folder with a study.toml, as in reports/quick.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would run, with an estimate.")] = False,
    row: Annotated[str | None, typer.Option(help="Only this row (its label).")] = None,
    column: Annotated[str | None, typer.Option(help="Only this column (its label).")] = None,
    jobs: Jobs = 1,
    storage: Storage = "",
    results: Results = DEFAULT_RESULTS,
    device: Device = "cpu",
    threads: Threads = 1,
    heartbeat: Heartbeat = 15,
    grace: Grace = 60,
) -> None:
    """Run what a study lacks, and make its report.

    Teachers come first; started again it goes on.
    """
    from rich.console import Console

    from kfbench.report import page
    from kfbench.study import driver
    from kfbench.study.runner import Place, default_storage

    console = Console(stderr=True, highlight=False)
    if dry_run:
        driver.dry(folder, results=results, row=row, column=column, console=console)
        return
    place = Place(results, storage or default_storage(results), jobs, device, threads, heartbeat, grace)
    failed = driver.full(folder, place, row=row, column=column, console=console)
    made = page.make(folder, place.results)
    console.print(f"{folder / 'index.html'}: {made.done} of {made.planned} runs")
    raise typer.Exit(1 if failed else 0)


def search(
    method: Annotated[str, typer.Option(help="Method, or method/variant, with a search space.")],
    task: Annotated[str, typer.Option(help="Task, or task/variant.")],
    trials: Annotated[int, typer.Option(min=1, help="How many settings to try.")] = 25,
    seeds_per_trial: Annotated[int, typer.Option(min=1, help="Above 1: Wilcoxon pruning across seeds.")] = 1,
    seeds: Annotated[int, typer.Option(min=0, help="Fresh seeds to run the best settings on.")] = 3,
    budget: Annotated[str, typer.Option(help="smoke, small, standard or paper.")] = "small",
    teachers: Annotated[str | None, typer.Option(help="As in kfbench run.")] = None,
    network: Annotated[str | None, typer.Option(help="The student's network.")] = None,
    train_size: Annotated[int | None, typer.Option(help="Training images, balanced over classes.")] = None,
    set_recipe: Annotated[
        list[str] | None, typer.Option("--set-recipe", help="A field of the recipe: name=value.")
    ] = None,
    jobs: Jobs = 1,
    storage: Storage = "",
    results: Results = DEFAULT_RESULTS,
    device: Device = "cpu",
    threads: Threads = 1,
    heartbeat: Heartbeat = 15,
    grace: Grace = 60,
) -> None:
    """Choose a method's settings on validation data.

    Optuna tries them; the best is then run on fresh seeds.
    """
    from rich.console import Console

    from kfbench.run import resolve
    from kfbench.study import driver
    from kfbench.study.runner import Place, default_storage
    from kfbench.study.search import Search

    recipe = {"network": network, "train_size": train_size}
    spec = resolve.resolve(
        method,
        task,
        budget=budget,
        teachers=None if teachers is None else teachers.split(","),
        recipe={name: value for name, value in recipe.items() if value is not None} | pairs(set_recipe, "--set-recipe"),
    )
    place = Place(results, storage or default_storage(results), jobs, device, threads, heartbeat, grace)
    text = driver.tune(
        Search(spec, trials, seeds_per_trial),
        place,
        seeds=list(range(seeds)),
        console=Console(stderr=True, highlight=False),
    )
    typer.echo(text)


def worker(
    name: Annotated[str, typer.Argument(help="A study's name, as in reports/NAME, or a search's.")],
    storage: Storage = "",
    results: Results = DEFAULT_RESULTS,
    device: Device = "cpu",
    threads: Threads = 1,
    heartbeat: Heartbeat = 15,
    grace: Grace = 60,
) -> None:
    """Help with a study that another process started: claim its runs until none is open."""
    import torch

    from kfbench.study import queue, runner
    from kfbench.study import worker as working

    torch.set_num_threads(threads)
    made = queue.open_storage(storage or runner.default_storage(results), heartbeat=heartbeat, grace=grace)
    working.work(made, name, results=results, device=device, poll=min(2.0, heartbeat))


def report(
    folders: Annotated[list[Path] | None, typer.Argument(help="Studies; none: all below reports/.")] = None,
    results: Results = DEFAULT_RESULTS,
) -> None:
    """Make tables, plots and pages from the records alone."""
    from kfbench.errors import KfbenchError
    from kfbench.report import page as making

    chosen = folders or sorted(path.parent for path in REPORTS.glob("*/study.toml"))
    if not chosen:
        raise KfbenchError(f"no study below '{REPORTS}'; name a folder with a study.toml")
    for folder in chosen:
        page = making.make(folder, results)
        typer.echo(f"{folder / 'index.html'}: {page.done} of {page.planned} runs")
    for parent in dict.fromkeys(folder.resolve().parent for folder in chosen):
        every = sorted(path.parent for path in parent.glob("*/study.toml") if (path.parent / "plan.json").is_file())
        pages = []
        for folder in every:
            try:
                pages.append(making.page_of(folder, results))
            except KfbenchError as error:  # a neighbour's fault costs only its own line
                typer.echo(f"left out of {parent / 'index.html'}: {error}", err=True)
        making.index(parent, pages)


def verify(
    key: options.Key,
    results: Results = DEFAULT_RESULTS,
    device: Device = "cpu",
) -> None:
    """Run a recorded run again: are the numbers the same?

    Weights that are missing are put back.
    """
    from kfbench.run import records
    from kfbench.run import verify as checking
    from kfbench.run.progress import Bar

    folder, record = records.locate(results, key)
    new = checking.again(record, folder, results=results, device=device, watcher=Bar())
    found = checking.compare(record, new, checking.siblings(record, folder))
    typer.echo(f"{record.key}: {found.word}; {found.told}")
    for line in found.where[:20]:
        typer.echo(f"  {line}")
    raise typer.Exit(0 if found.word != "different" else 1)
