"""Commands for many runs: `study`, `search`, `report`, `verify`."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from kfbench.cli import complete, options
from kfbench.cli.options import DEFAULT_RESULTS, AsJson, Results, json_text, pairs, recipe_of, tell
from kfbench.errors import KfbenchError
from kfbench.running.files import require_folder
from kfbench.studies.engines import ENGINES
from kfbench.studies.place import CHECKPOINT_MB, unheeded

On = Annotated[
    str,
    typer.Option(
        "--on",
        help="local; ray: $RAY_ADDRESS or this machine; slurm. See docs/cluster.md.",
        callback=options.one_of(ENGINES, "engine"),
    ),
]
Jobs = Annotated[int | None, typer.Option("--jobs", "--at-once", min=1, help="Runs at once; locally 1 by default.")]
Device = Annotated[
    str,
    typer.Option("--device", help="cpu, cuda (each job the next GPU) or cuda:N.", callback=options.known_device),
]
Threads = Annotated[int, typer.Option("--threads", min=1, help="CPUs and threads a run; bits depend on it.")]
Gpus = Annotated[
    float,
    typer.Option("--gpus-per-run", min=0, help="On ray also a part of one, as 0.25.", callback=options.finite),
]
Memory = Annotated[
    float,
    typer.Option("--memory", min=0, help="GB to ask for a run, on ray and slurm.", callback=options.finite),
]
Slurm = Annotated[
    list[str] | None, typer.Option("--slurm", help="An option of sbatch: partition=gpu, timeout_min=240.")
]
Storage = Annotated[str, typer.Option("--storage", help="Optuna's database, as postgresql://…; default: SQLite.")]
Megabytes = Annotated[
    float,
    typer.Option("--checkpoint-mb", min=0, help="Larger ones stay on their node (ray).", callback=options.finite),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (study, search, report, verify):
        app.command()(command)


def _fit(on: str, *, memory: float, slurm: list[str] | None, checkpoint_mb: float) -> None:
    """Raise KfbenchError for an option that the engine would not heed."""
    if lost := unheeded(on, memory=memory, slurm=slurm, checkpoint_mb=checkpoint_mb):
        option, engines = lost[0].replace("_", "-"), " and --on ".join(lost[1])
        raise KfbenchError(f"--{option} is for --on {engines}, and this is --on {on}")


def _folder(given: Path | list[Path] | None) -> Path | list[Path] | None:
    """Return a study's folder, or each, also where its file was given."""
    if not given:
        return given
    if isinstance(given, list | tuple):
        return [each.parent if each.name == "study.toml" else each for each in map(Path, given)]
    return Path(given).parent if Path(given).name == "study.toml" else given


def study(
    folder: Annotated[
        Path,
        options.argument(
            help="Folder with a study.toml, as in reports/quick.", offers=complete.studies, callback=_folder
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would run, with an estimate.")] = False,
    row: Annotated[str | None, typer.Option(help="Only this row (its label).")] = None,
    column: Annotated[str | None, typer.Option(help="Only this column (its label).")] = None,
    on: On = "local",
    jobs: Jobs = None,
    gpus_per_run: Gpus = 0.0,
    memory: Memory = 0.0,
    slurm: Slurm = None,
    device: Device = "",
    threads: Threads = 1,
    storage: Storage = "",
    results: Results = DEFAULT_RESULTS,
    checkpoint_seconds: options.Seconds = 60.0,
    checkpoint_mb: Megabytes = CHECKPOINT_MB,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --dry-run: as JSON, a kfbench command for every run.")
    ] = False,
) -> None:
    """Run what a study lacks, and make its report.

    Teachers come first; started again it goes on. Exit code 1: runs failed or were refused; of a dry run: would be.
    """
    from kfbench.studies import definition

    _fit(on, memory=memory, slurm=slurm, checkpoint_mb=checkpoint_mb)
    where: dict[str, Any] = {
        "on": on,
        "jobs": jobs,
        "gpus_per_run": gpus_per_run,
        "memory": memory,
        "slurm": pairs(slurm, "--slurm"),
        "device": device,
        "threads": threads,
        "storage": storage,
        "results": results,
        "checkpoint_seconds": checkpoint_seconds,
        "checkpoint_mb": checkpoint_mb,
    }
    # faults of the file, or of a label, are told before torch is loaded
    definition.require(definition.load(folder), row=row, column=column)
    if as_json and not dry_run:
        raise KfbenchError("--json is for --dry-run; of the runs that were made: kfbench list runs --json")
    if dry_run:
        from kfbench.studies import engines, forecast
        from kfbench.studies.place import Place

        engines.require(Place(**where))
        say, note = partial(typer.echo, err=as_json), partial(typer.echo, err=True)
        found = forecast.tell(folder, results=results, row=row, column=column, say=say, note=note)
        if as_json:
            typer.echo(json_text(found))
        raise typer.Exit(1 if forecast.refused_runs(found) else 0)
    from kfbench import library

    page = library.study(folder, row=row, column=column, **where)
    typer.echo(f"{folder / 'index.html'}: {page.told}", err=True)
    raise typer.Exit(1 if page.failed else 0)


def search(
    method: options.Method,
    task: options.Task,
    trials: Annotated[int, typer.Option(min=1, help="How many settings to try.")] = 25,
    seeds_per_trial: Annotated[int, typer.Option(min=1, help="Above 1: Wilcoxon pruning across seeds.")] = 1,
    # from the thousandth on, seeds are the search's own
    seeds: Annotated[int, typer.Option(min=0, max=1000, help="Fresh seeds to run the best settings on.")] = 3,
    budget: options.Budget = "small",
    teachers: Annotated[
        list[str] | None,
        options.option(
            "--teachers", help="As in kfbench run.", offers=complete.teachers, callback=options.known_teachers
        ),
    ] = None,
    network: options.Network = None,
    train_size: options.TrainSize = None,
    set_recipe: options.SetRecipe = None,
    on: On = "local",
    jobs: Jobs = None,
    gpus_per_run: Gpus = 0.0,
    memory: Memory = 0.0,
    slurm: Slurm = None,
    device: Device = "",
    threads: Threads = 1,
    storage: Storage = "",
    results: Results = DEFAULT_RESULTS,
    checkpoint_seconds: options.Seconds = 60.0,
    checkpoint_mb: Megabytes = CHECKPOINT_MB,
    as_json: AsJson = False,
) -> None:
    """Choose a method's settings on validation data.

    Optuna tries them; the best is then run on fresh seeds. Exit code 1: one of these failed.
    """
    _fit(on, memory=memory, slurm=slurm, checkpoint_mb=checkpoint_mb)
    recipe = recipe_of(set_recipe, network=network, train_size=train_size)
    options.require_fields(method, {}, task, recipe, budget=budget)
    from rich.console import Console

    from kfbench.running import resolve, teacher_store
    from kfbench.studies import steps
    from kfbench.studies.place import Place
    from kfbench.studies.search import Search

    spec = resolve.resolve(
        method,
        task,
        budget=budget,
        teachers=None if teachers is None else [teacher_store.whole(each, results) for each in teachers],
        recipe=recipe,
    )
    place = Place(
        results=results,
        storage=storage,
        on=on,
        jobs=jobs,
        device=device,
        threads=threads,
        gpus_per_run=gpus_per_run,
        memory=memory,
        checkpoint_seconds=checkpoint_seconds,
        checkpoint_mb=checkpoint_mb,
        slurm=pairs(slurm, "--slurm"),
    )
    found = steps.tune(
        Search(spec, trials, seeds_per_trial),
        place,
        seeds=list(range(seeds)),
        console=Console(stderr=True, highlight=False),
    )
    tell(found, steps.told(found), as_json=as_json)
    raise typer.Exit(1 if found["failed"] else 0)


def report(
    folders: Annotated[
        list[Path] | None,
        options.argument(help="Studies; none: all below reports/.", offers=complete.studies, callback=_folder),
    ] = None,
    results: Results = DEFAULT_RESULTS,
) -> None:
    """Make tables, plots and pages from the records alone."""
    from kfbench.studies import definition

    chosen = folders or definition.below(definition.REPORTS)
    if not chosen:
        raise KfbenchError(f"no study below '{definition.REPORTS}'; name a folder with a study.toml")
    for folder in chosen:
        definition.load(folder)  # a fault of a file is told before plots are loaded and other pages made
    require_folder(results)
    from kfbench.reporting import page as making

    made = {}
    for folder in chosen:
        if not folders and not (folder / "plan.json").is_file():
            typer.echo(f"{folder}: not planned yet; kfbench study {folder} --dry-run plans it", err=True)
            continue
        made[folder.resolve()] = page = making.make(folder, results)
        typer.echo(f"{folder / 'index.html'}: {page.told}")
    for parent in dict.fromkeys(folder.resolve().parent for folder in chosen):
        making.index(parent, results, made, partial(typer.echo, err=True))


def verify(
    key: options.Key,
    results: options.Records = DEFAULT_RESULTS,
    device: options.Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Run a recorded run again: are the numbers the same?

    Weights that are missing are put back.
    """
    from kfbench.running import records

    folder, record = records.locate(results, key)
    from kfbench.running import verify as checking
    from kfbench.running.progress import Bar

    new = checking.again(record, folder, results=results, device=device, watcher=Bar())
    found = checking.compare(record, new, checking.siblings(record, folder))
    text = "\n".join([f"{record.key}: {found.word}; {found.told}", *(f"  {line}" for line in found.where[:20])])
    tell({"key": record.key, **asdict(found)}, text, as_json=as_json)
    raise typer.Exit(0 if found.word != "different" else 1)
