"""The command `rank`: which teacher to take, without training."""

from typing import Annotated, Any

from kfbench.cli import complete, options
from kfbench.cli.options import DEFAULT_RESULTS, AsJson, option, tell
from kfbench.ranking.names import DEFAULT, SCORES


def rank(
    task: options.Task,
    teachers: Annotated[
        list[str] | None,
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
    """Return a table of teachers; where scores have no room beside the names, they stand below them."""
    from kfbench.reporting.lines import columns

    told = [name for name in rows[0] if name not in ("teacher", "network", "trained_on", "outputs")]
    cells = [told, *([_cell(name, row[name]) for name in told] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(told))]
    scores = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
    names = ["teacher", *(str(row["teacher"]) for row in rows)]
    wide = max(map(len, names))
    if wide + 2 + len(scores[0]) <= columns():
        return "\n".join(f"{name:<{wide}}  {line}" for name, line in zip(names, scores, strict=True))
    return "\n".join(f"{name}\n  {line}" for name, line in zip(names, scores, strict=True))


def _cell(name: str, value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.1f}" if name in ("parc", "probe", "seconds") else f"{value:.3f}"
