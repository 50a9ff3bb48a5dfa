"""The command `rank`: which teacher to take, without training."""

from typing import Annotated, Any

from kfbench.cli import complete, options
from kfbench.cli.options import DEFAULT_RESULTS, AsJson, option, tell
from kfbench.ranking.names import DEFAULT, SCORES


def rank(
    task: options.Task,
    teachers: Annotated[
        str | None,
        option(
            "--teachers",
            help=f"{options.FORMS} Default: all in the store that were trained on other images.",
            offers=complete.teachers,
            callback=options.known_teachers,
        ),
    ] = None,
    train_size: options.TrainSize = None,
    by: Annotated[
        str,
        option(
            "--by",
            help=f"Sort by a score: {', '.join(SCORES)}.",
            offers=complete.scores,
            callback=options.one_of(SCORES, "score"),
        ),
    ] = DEFAULT,
    budget: options.Budget = "small",
    results: options.Results = DEFAULT_RESULTS,
    device: options.Device = "cpu",
    threads: options.Threads = None,
    as_json: AsJson = False,
) -> None:
    """Rank teachers for a task, without training.

    Higher is better in every column; probe is a linear classifier's accuracy on validation images. See docs/rank.md.
    """
    from kfbench import library

    table = library.rank(
        task,
        teachers=teachers,
        train_size=train_size,
        by=by,
        budget=budget,
        results=results,
        device=device,
        threads=threads,
    )
    rows = [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
    tell(rows, text(rows), as_json=as_json)


def text(rows: list[dict[str, Any]]) -> str:
    """Return a table of teachers, one a line."""
    left = ("teacher",)
    columns = [name for name in rows[0] if name not in ("network", "trained_on", "outputs")]
    cells = [columns, *([_cell(name, row[name]) for name in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if name in left else cell.rjust(width)
            for name, cell, width in zip(columns, line, widths, strict=True)
        ).rstrip()
        for line in cells
    )


def _cell(name: str, value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.1f}" if name in ("parc", "probe", "seconds") else f"{value:.3f}"
