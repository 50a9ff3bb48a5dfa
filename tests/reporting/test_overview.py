"""The top of a page: who won, by how much, and whether that is decided."""

import re
from dataclasses import replace

import numpy as np
import pytest
from gains import made, only, without_reference

from kfbench.reporting import claims, grid, overview
from kfbench.studies import definition

UNMADE = "7 of 60 runs are not made yet."


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


def test_a_study_whose_tasks_are_still_to_be_run_says_so_at_the_top(cells):
    """As whole tasks without a run would else be taken for level."""
    begun = {at: cell for at, cell in cells.cells.items() if at[1] == "cifar100"}
    empty = {at: replace(cell, records=(None,) * len(cell.records)) for at, cell in cells.cells.items()}
    of = top(replace(cells, cells=empty | begun))
    assert of.tasks == 1 and re.search(r" This is over 1 of 4 tasks; \d\d of 60 runs are not made yet\.$", of.headline)


def test_the_winner_is_named_with_its_interval(cells):
    of = top(cells)
    assert [standing.row for standing in of.standings] == ["kf", "pathnet", "kd, T 4"]
    assert [standing.gap.mark for standing in of.standings] == ["▲", "▲", "▼"]
    best = of.standings[0]
    assert of.headline.startswith(f"Best on average: kf, {best.text} points of the normalised score over scratch.")
    assert of.headline.endswith(f"It is clearly ahead of all others. {UNMADE}") and best.tasks == of.tasks == 4
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
    assert (
        of.headline
        == "No method is better than scratch on average, and all are clearly worse. 8 of 60 runs are not made yet."
    )


def test_a_winner_that_keeps_more_is_said_to(cells):
    def larger(row, record):
        return {"cost": {**record.cost, "parameters": record.cost["parameters"] * (3 if row == "kf" else 1)}}

    of = top(changed(cells, larger))
    assert of.standings[0].is_larger and not of.standings[1].is_larger
    assert "It keeps 3.0 times scratch's parameters; best of those that keep about as much: pathnet" in of.headline


def test_what_keeps_more_is_named_where_others_were_named_between():
    level = made({"good": {"cifar10": GOOD}, "level": {"cifar10": [GOOD[1], GOOD[0] + 0.1, GOOD[2] - 0.2]}})
    for (row, _), cell in level.cells.items():
        for record in cell.done:
            record.cost["parameters"] = 3e5 if row == "good" else 1e5
    assert (
        "level cannot be told from it. good keeps 3.0 times scratch's parameters; best of those that keep about as "
        "much: level, +2.0 [" in top(level).headline
    )


def test_an_interval_beyond_the_scale_is_not_drawn_as_if_it_ended_there(cells):
    wide = top(made({"noisy": {"cifar10": NOISY}, "good": {"cifar10": GOOD}}))
    [noisy] = [standing for standing in wide.standings if standing.row == "noisy"]
    assert wide.fades and wide.is_cut(noisy.gap.low) and wide.is_cut(noisy.gap.high)
    assert wide.place(noisy.gap.low) == 0 and not wide.is_cut(noisy.gap.value)
    near = top(made({"good": {"cifar10": GOOD}, "bad": {"cifar10": BAD}}))
    assert not near.fades and all(0 < near.place(end) < 100 for s in near.standings for end in s.gap.interval)


NOISY, GOOD, BAD = [10.0, -5.0, 5.0], [2.0, 1.9, 2.2], [-2.0, -2.3, -1.8]


def test_a_clear_gain_is_not_hidden_by_a_larger_one_that_is_not():
    of = top(made({"noisy": {"cifar10": NOISY}, "good": {"cifar10": GOOD}}))
    assert [standing.gap.mark for standing in of.standings] == ["", "▲"]
    assert of.headline == (
        "Best of what is clearly better than scratch: good, +2.0 [+1.7, +2.4] points of accuracy over scratch. Higher, "
        "but not clearly: noisy, +3.3 [−15.6, +22.3]. noisy cannot be told from it."
    )


def test_a_clear_gain_on_fewer_tasks_is_told_with_them():
    of = top(made({"bad": {"cifar10": BAD, "cifar100": BAD}, "good": {"cifar10": GOOD}}))
    assert of.headline == (
        "Over 2 tasks no method is clearly better than scratch; on 1 of them: good, +2.0 [+1.7, +2.4] points of "
        "accuracy over scratch. It is clearly ahead of all others."
    )
    level = [0.1, -0.2, 0.0]
    of = top(made({"bad": {"cifar10": BAD, "cifar100": BAD}, "level": {"cifar10": level}, "lucky": {"cifar10": NOISY}}))
    assert of.headline == (
        "No method is better than scratch on average over 2 tasks. lucky and level cannot be told from it on "
        "fewer tasks."
    )


def test_ties_and_rivals_on_fewer_tasks_are_said_to_have_them():
    other = [GOOD[1], GOOD[0] + 0.1, GOOD[2] - 0.2]
    part, ahead, apart = {"cifar10": other}, {"cifar10": [9.0, 9.3, 8.8]}, {"cifar100": [None, None, 1.0]}
    whole = {"good": {"cifar10": GOOD, "cifar100": [4.0, 4.2, None]}}
    of = top(made(whole | {"part": part}))
    assert of.headline.endswith("part cannot be told from it on fewer tasks. good is clearly ahead of the rest.")
    of = top(made(whole | {"part": part, "ahead": ahead, "apart": apart}))
    assert of.headline.startswith("Best on average over 2 tasks: good")
    assert of.headline.endswith(
        "ahead beats it on fewer tasks. apart cannot be compared with it. part cannot be told from it on fewer tasks."
    )


def test_a_row_of_one_run_is_neither_level_with_the_best_nor_behind_it():
    """One pair has no interval: it cannot say that a row far behind is level."""
    of = top(made({"good": {"cifar10": GOOD}, "begun": {"cifar10": [-9.0, None, None]}}))
    assert of.headline.endswith("scratch. begun cannot be compared with it from so few runs.")


def test_a_game_without_a_normalised_score_is_left_out_and_named(cells):
    of, whole = top(without_reference(cells)), top(cells)
    told = " All this is over 3 of 4 tasks: Carnival has no human-normalised score."
    assert of.headline.endswith(f"{told} {UNMADE}") and of.tasks == 3 and told not in whole.headline
    unlike = without_reference(cells)
    nobodys = unlike.study.model_copy(update={"baseline": "nobody"})
    assert top(grid.Grid(nobodys, unlike.cells)).headline == ""
    assert top(grid.join(unlike.study, [cell.planned for cell in unlike.cells.values()], [])).headline == (
        "No run has finished yet."
    )


def test_one_game_without_a_normalised_score_is_compared_by_its_points(cells):
    lone = only("Carnival", without_reference(cells))
    of = top(lone)
    best = of.standings[0]
    gaps = lone.scores("kf", ["Carnival"]) - lone.scores("scratch", ["Carnival"])
    assert best.row == "kf" and best.gap.value == pytest.approx(gaps.mean())
    assert of.headline.startswith(f"Best on average: kf, {best.text} game points over scratch")
    assert "human-normalised" not in of.headline
    assert top(only("atari/krull", cells)).unit == "points of the normalised score"


def test_without_runs_or_baseline_there_is_no_winner(cells):
    empty = grid.join(cells.study, [cell.planned for cell in cells.cells.values()], [])
    assert top(empty).headline == "No run has finished yet." and top(empty).standings == []
    lone = grid.Grid(cells.study.model_copy(update={"baseline": "nobody"}), cells.cells)
    assert top(lone).standings == [] and top(lone).headline == ""
