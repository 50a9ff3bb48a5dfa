"""The top of a page: who won, by how much, and whether that is decided."""

import numpy as np
import pytest

from kfbench.reporting import claims, grid, overview
from kfbench.studies import definition


@pytest.fixture(scope="module")
def cells(reported):
    folder, results = reported
    return grid.load(folder, definition.load(folder), results)


def changed(cells, change):
    """The same study with other records: `change` gives a record's new fields."""
    every = [record.model_copy(update=change(row, record)) for (row, _), c in cells.cells.items() for record in c.done]
    return grid.join(cells.study, [cell.planned for cell in cells.cells.values()], every)


def top(cells):
    return overview.of(cells, claims.verdicts(cells))


def test_the_winner_is_named_with_its_interval(cells):
    of = top(cells)
    assert [standing.row for standing in of.standings] == ["kf", "pathnet", "kd, T 4"]
    assert [standing.mark for standing in of.standings] == ["▲", "▲", "▼"]
    best = of.standings[0]
    assert of.headline.startswith(f"Best on average: kf, {best.text} points of the normalised score over scratch.")
    assert of.headline.endswith("It is clearly ahead of all others.") and best.tasks == of.tasks == 4
    assert [standing.tasks for standing in of.standings] == [4, 3, 3]
    assert of.words == [("reproduced", 3), ("undecided", 1)]


def test_every_standing_is_on_the_scale(cells):
    of = top(cells)
    low, high = of.scale
    for standing in of.standings:
        assert low < standing.gap.value < high and 0 < of.place(standing.gap.value) < 100
    assert of.place(low - 1) == 0 and of.place(high + 1) == 100


def test_rows_that_cannot_be_told_apart_are_said_to_be_so(cells):
    noise = np.random.default_rng(0)

    def scores(row, record):
        metric = next(iter(record.scores["last"]))
        gain = 0 if row == "scratch" else 5
        value = 50 - gain + noise.normal(0, 0.2) if metric == "error" else 3000 + 100 * gain + noise.normal(0, 2)
        return {"scores": {"last": {metric: value}}}

    of = top(changed(cells, scores))
    assert "cannot be told from it" in of.headline


def test_no_gain_is_said_plainly(cells):
    noise = np.random.default_rng(0)

    def worse(row, record):
        metric = next(iter(record.scores["last"]))
        loss = {"scratch": 0, "kf": 10, "kd, T 4": 20, "pathnet": 30}[row]
        return {"scores": {"last": {metric: 50 + loss + noise.normal() if metric == "error" else 3000 - 20 * loss}}}

    of = top(changed(cells, worse))
    assert of.headline == "No method is better than scratch on average, and all are clearly worse."


def test_a_winner_that_keeps_more_is_said_to(cells):
    def larger(row, record):
        return {"cost": {**record.cost, "parameters": record.cost["parameters"] * (3 if row == "kf" else 1)}}

    of = top(changed(cells, larger))
    assert of.standings[0].is_larger and not of.standings[1].is_larger
    assert "It keeps 3.0 times scratch's parameters; best of those that keep no more: pathnet" in of.headline


def test_without_runs_or_baseline_there_is_no_winner(cells):
    empty = grid.join(cells.study, [cell.planned for cell in cells.cells.values()], [])
    assert top(empty).headline == "No run has finished yet." and top(empty).standings == []
    lone = grid.Grid(cells.study.model_copy(update={"baseline": "nobody"}), cells.cells)
    assert top(lone).standings == [] and top(lone).headline == ""
