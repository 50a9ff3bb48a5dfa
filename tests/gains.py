"""A study without a plan or files: whatever gains over scratch a test of the reporting half needs."""

from kfbench.reporting import grid
from kfbench.running.records import RunRecord
from kfbench.spec import Recipe, RunSpec, digest
from kfbench.studies import definition
from kfbench.studies.plan import Planned

Gains = dict[str, dict[str, list[float | None]]]  # by row and column, one a seed; None: not run


def made(gains: Gains, *, scratch: list[float | None] | None = None) -> grid.Grid:
    """Return a study on tasks of images, whose `scratch` has the accuracy 50 % unless given, one a seed.

    A gain is over that of the seed, or over 50 % where scratch did not run.
    """
    columns = list(dict.fromkeys(column for of_columns in gains.values() for column in of_columns))
    seeds = list(range(len(next(iter(next(iter(gains.values())).values())))))
    base = scratch or [50.0] * len(seeds)
    study = definition.Study(
        title="Gains",
        methods=[definition.Row(method="scratch", label=row) for row in ("scratch", *gains)],
        tasks=[definition.Column(task=column, label=column) for column in columns],
        seeds=seeds,
        baseline="scratch",
    )
    accuracies = {("scratch", column): base for column in columns} | {
        (row, column): [
            None if gain is None else gain + (start or 50.0) for gain, start in zip(values, base, strict=True)
        ]
        for row, of_columns in gains.items()
        for column, values in of_columns.items()
    }
    return grid.Grid(study, {place: _cell(*place, values) for place, values in accuracies.items()})


def without_reference(game: grid.Grid) -> grid.Grid:
    """Return a study of Krull and others with a game in its place that has no human-normalised score."""
    tasks = [
        column.model_copy(update={"task": "atari/carnival", "label": "Carnival"})
        if column.task == "atari/krull"
        else column
        for column in game.study.tasks
    ]
    cells = {(row, column.replace("atari/krull", "Carnival")): cell for (row, column), cell in game.cells.items()}
    return grid.Grid(game.study.model_copy(update={"tasks": tasks}), cells)


def only(column: str, of: grid.Grid) -> grid.Grid:
    """Return a study of one of its columns, without claims."""
    tasks = [each for each in of.study.tasks if each.label == column]
    study = of.study.model_copy(update={"tasks": tasks, "claims": []})
    return grid.Grid(study, {at: cell for at, cell in of.cells.items() if at[1] == column})


def _cell(row: str, column: str, accuracies: list[float | None]) -> grid.Cell:
    records = []
    for seed, accuracy in enumerate(accuracies):
        spec = {"method": "scratch", "task": column, "seed": seed, "row": row}
        scores = {} if accuracy is None else {"last": {"error": 100 - accuracy}}
        record = RunRecord(key=digest(spec), spec=spec, identity={"spec": spec}, status="done", scores=scores)
        records.append(None if accuracy is None else record)
    return grid.Cell(Planned(row, column, RunSpec(method="scratch", task=column, recipe=Recipe())), tuple(records))
