"""Tables: what is bold, flagged or missing, and what is compared with what."""

from dataclasses import replace
from pathlib import Path

import gains
import numpy as np
import pytest

from kfbench.cli import summary
from kfbench.games import reference
from kfbench.reporting import grid, render, score_plots, stats, tables
from kfbench.running import records
from kfbench.studies import definition


def cell(table, row, column):
    return dict(zip(table.head, dict(table.rows)[row], strict=True))[column]


def test_a_cell_is_mean_deviation_and_seeds(made):
    table = tables.tables(made)[0]
    values = made.scores("kf", ["cifar100"])[:, 0]
    shown = cell(table, "kf", "cifar100")
    assert shown.text == f"{values.mean():.1f} ± {values.std(ddof=1):.1f} (4)"
    assert len(shown.keys) == 4


def test_the_best_is_bold_with_what_cannot_be_told_from_it(made):
    table = tables.tables(made)[0]
    assert [row for row in made.rows if cell(table, row, "cifar100").is_best] == ["kf"]
    assert cell(table, "kf", "cifar100").mark == "▲" and cell(table, "kd, T 4", "cifar100").mark == "▼"
    assert cell(table, "scratch", "cifar100").mark == ""


def test_one_seed_makes_nothing_bold(made):
    lone = made.study.model_copy(update={"seeds": [0]})
    table = tables.tables(grid.join(lone, [c.planned for c in made.cells.values()], made.done()))[0]
    assert cell(table, "kf", "cifar100").text.endswith("(1)")
    assert not any(shown.is_best or shown.mark for _, row in table.rows for shown in row)


def bold(grid):
    table = tables.tables(grid)[0]
    return {row for row, shown in table.rows if shown[0].is_best}


def test_one_lucky_seed_takes_nobodys_bold():
    some = {"a": {"cifar10": [5.0, 4.9, 5.2]}, "b": {"cifar10": [5.1, 4.9, 5.0]}}
    assert bold(gains.made(some)) == {"a", "b"}
    assert bold(gains.made(some | {"lucky": {"cifar10": [9.0, None, None]}})) == {"a", "b"}


def test_a_difference_without_an_interval_takes_nobodys_bold():
    """All pairs differ by the same, or a single one is there: neither tells a row from the best."""
    best = [5.0, 4.9, 5.2, None]
    rows = {"best": best, "same": [4.5, 4.4, 4.7, None], "one": [None, None, 3.0, 2.9], "low": [1.0, 0.8, 1.3, None]}
    assert bold(gains.made({row: {"cifar10": values} for row, values in rows.items()})) == {"best", "same", "one"}


def test_two_rows_that_are_equal_in_every_pair_are_both_the_best():
    same = [5.0, 4.9, 5.2]
    made = gains.made({"a": {"cifar10": same}, "b": {"cifar10": same}}, scratch=[50.0, 49.9, 60.0])
    assert bold(made) == {"a", "b"}


def test_easy_seeds_alone_make_no_row_bold():
    """On the seeds that both ran b is clearly better; its mean is worse, as it ran the hard ones too."""
    rows = {"a": {"cifar10": [None, None, 2.0, 1.8]}, "b": {"cifar10": [5.0, 4.9, 4.1, 4.2]}}
    made = gains.made(rows, scratch=[50.0, 49.9, 60.0, 59.9])
    means = {row: made.better(row, ["cifar10"]) for row in rows}
    assert np.nanmean(means["a"]) > np.nanmean(means["b"]) and bold(made) == {"b"}


def test_missing_failed_and_impossible_cells_say_so(made):
    table = tables.tables(made)[0]
    missing = cell(table, "pathnet", "cifar100")
    assert missing.text == "–" and not missing.keys
    assert missing.note == "not run yet: kfbench study reports/small (--row and --column for a part)"
    failed = cell(table, "pathnet", "cifar10, 250 images")
    asked = "kfbench study reports/small --row pathnet --column 'cifar10, 250 images'"
    assert "(2 of 4)" in failed.text
    assert failed.note == f"1 failed (Diverged: loss is nan at step 40), 1 not run yet: {asked}"
    assert cell(table, "kd, T 4", "atari/krull").note == "n/a, because method 'kd' is for images"


def test_failed_runs_do_not_spoil_an_aggregate(made):
    summary = next(table for table in tables.tables(made) if table.name == "summary")
    shown = cell(summary, "pathnet", "IQM")
    values = made.normalised("pathnet", made.columns)
    assert len({*stats.counts(values)}) > 2  # one column has none, one lacks a run
    assert shown.values["value"] == pytest.approx(stats.iqm(values))
    assert cell(summary, "pathnet", "columns").text == "3 of 4"


def test_an_iqm_that_trims_nothing_is_left_out_and_an_accuracy_has_no_interval_beyond_its_ends():
    three = tables.summary(gains.made({"a": {"cifar10": [49.0, -40.0, 20.0]}}))
    four = tables.summary(gains.made({"a": {"cifar10": [49.0, -40.0, 20.0, 20.0]}}))
    assert cell(three, "a", "IQM").text == "–" and cell(three, "a", "mean").text == "0.597 [0.000, 1.000]"
    assert cell(four, "a", "IQM").values["value"] == pytest.approx(0.7)


def test_a_summary_says_what_its_numbers_are_over():
    part = {"whole": {"cifar10": [1.0, 2.0], "cifar100": [1.0, 2.0]}, "some": {"cifar10": [None, 2.0]}}
    made = gains.made(part, scratch=[50.0, None])
    lone = gains.made(part)
    del lone.cells["scratch", "cifar100"]
    assert cell(tables.summary(made), "whole", "columns").note == ""
    assert cell(tables.summary(made), "scratch", "columns").note == "2 of 4 runs"
    assert cell(tables.summary(made), "some", "columns").note == (
        "over 1 column, others over 2: IQM and mean do not compare; 1 of 2 runs"
    )
    assert (
        cell(tables.summary(made), "whole", "difference to scratch").note == "without 2 runs whose seed scratch lacks"
    )
    for head in ("difference to scratch", "P(better than scratch)", "transfer ▲ / · / ▼"):
        assert cell(tables.summary(lone), "whole", head).note == "over the 1 column that scratch has too"
        assert cell(tables.summary(lone), "some", head).note == ""


def test_tables_over_tasks_say_which_have_no_common_scale(made):
    unlike, told = gains.without_reference(made), "Carnival has no human-normalised score"
    for table in (tables.summary(unlike), tables.learning(unlike)):
        assert cell(table, "kf", "columns").text == "3 of 4" and cell(table, "kf", "columns").note == told
    keys = {record.key for record in unlike.cells["kf", "Carnival"].done}
    assert keys and not keys & {*cell(tables.summary(unlike), "kf", "mean").keys}
    lone = gains.only("Carnival", unlike)
    for table in (tables.summary(lone), tables.learning(lone)):
        assert cell(table, "kf", "columns").text == "0 of 1" and cell(table, "kf", "columns").note == told
        assert {shown.text for _, shown in table.rows[1:] for shown in shown[1:]} == {"–"}


def test_no_area_is_set_over_a_base_that_may_be_zero(made):
    """Where scratch stands at the random return, its area is one seed's luck, and a ratio to it says nothing."""
    cells = dict(made.cells)
    for row, factor in (("scratch", 0.01), ("kf", 1.0)):
        records = [
            record.model_copy(
                update={"curve": [{**r, "val_return": 1598 + factor * r["val_return"] * luck} for r in record.curve]}
            )
            for record, luck in zip(made.cells[row, "atari/krull"].records, (-3, 1, 1, 2), strict=True)
        ]
        cells[row, "atari/krull"] = replace(made.cells[row, "atari/krull"], records=tuple(records))
    shown = cell(tables.learning(replace(made, cells=cells)), "kf", "area ÷ scratch's")
    images = tables.learning(replace(made, cells={at: c for at, c in made.cells.items() if at[1] != "atari/krull"}))
    assert shown.values == cell(images, "kf", "area ÷ scratch's").values
    assert shown.note == "without 1 column on which scratch's area is not clearly above zero"
    game = {at: c for at, c in cells.items() if at[1] == "atari/krull"}
    assert cell(tables.learning(replace(made, cells=game)), "kf", "area ÷ scratch's").text == "–"


def test_a_score_of_cut_episodes_has_a_note(made):
    """In a table, and in what `run` and `show` print of one run; none where no episode was cut."""
    at = "scratch", "atari/krull"
    assert cell(tables.tables(made)[0], *at).note == ""
    ours = [_with_episodes(record, capped) for record, capped in zip(made.cells[at].records, (2, 0, 1, 0), strict=True)]
    cut = replace(made, cells={**made.cells, at: replace(made.cells[at], records=tuple(ours))})
    table = tables.tables(cut)[0]
    note = "3 of 16 episodes cut at 18,000 frames"
    assert cell(table, *at).note == note and note in render.markdown(table) and note in render.latex(table, "s")
    fewer = replace(cut, cells={**cut.cells, at: replace(cut.cells[at], records=(*ours[:3], None))})
    assert "1 not run yet" in cell(tables.tables(fewer)[0], *at).note
    assert cell(tables.tables(fewer)[0], *at).note.endswith("; 3 of 12 episodes cut at 18,000 frames")
    told = summary.text(ours[0], Path("results"))
    assert "2 of 4 episodes cut at 18,000 frames" in told and "cut at" not in summary.text(ours[1], Path("results"))


def _with_episodes(record, capped):
    scores = {"episodes": 4.0, "episodes_capped": float(capped)}
    recipe = {**record.spec["recipe"], "evaluation_frames": 18_000}
    both = {which: {**row, **scores} for which, row in record.scores.items()}
    return record.model_copy(update={"scores": both, "spec": {**record.spec, "recipe": recipe}})


def on(made, places):
    """The same study with the (processor, threads, seconds, latency) of some runs, by row and seed."""
    cells = dict(made.cells)
    for (row, column), old in made.cells.items():
        records = list(old.records)
        for seed, (processor, threads, seconds, latency) in enumerate(places.get(row, ())):
            told = {"processor": processor, "device": "cpu", "threads": threads}
            costs = {**records[seed].cost, "seconds": seconds, "latency_ms": latency}
            records[seed] = records[seed].model_copy(update={"cost": costs, "provenance": told})
        cells[row, column] = replace(old, records=tuple(records))
    return replace(made, cells=cells)


MACHINES = {
    "scratch": [("A", 1, 100.0, 0.5), ("A", 1, 80.0, 0.4), ("B", 1, 10.0, 0.1), ("B", 1, 10.0, 0.1)],
    "kf": [("A", 1, 150.0, 0.45), ("A", 1, 200.0, 0.6), ("A", 1, 900.0, 0.7), ("B", 2, 900.0, 0.1)],
    "kd, T 4": [("B", 1, 50.0, 0.2), ("B", 1, 50.0, 0.2), ("A", 1, 50.0, 0.9), ("A", 1, 50.0, 0.8)],
}


def test_times_are_compared_on_one_kind_of_machine_only(made):
    """Of kf the first two seeds had scratch's processor and threads, of kd none: so has the plot."""
    images = {at: c for at, c in made.cells.items() if at[1] == "cifar100" and at[0] != "pathnet"}
    mixed = on(replace(made, cells=images), MACHINES)
    table, head = tables.cost(mixed), "training ÷ scratch"
    ours = cell(table, "kf", head)
    assert ours.text == "× 1.94 (1.50–2.50)" and ours.values["ratio"] == pytest.approx(350 / 180)
    assert ours.note == "over 2 of 4 pairs of runs: the others had two kinds of machine"
    none = cell(table, "kd, T 4", head)
    assert (none.text, none.note, none.keys) == ("–", "no seed was run on the same kind of machine as scratch's", ())
    assert cell(table, "scratch", head).text == "× 1.00" and "load" in table.caption
    _, caption, figure = score_plots.cost(mixed)
    drawn = {line.get_label(): line.get_xdata()[0] for line in figure.axes[0].lines if line.get_label()[:1] != "_"}
    assert drawn == {"scratch": 1, "kf": pytest.approx(350 / 180)} and "load" in caption
    assert score_plots.cost(on(replace(made, cells=images), MACHINES | {"kf": MACHINES["kd, T 4"]})) is None


def test_a_network_has_one_latency_on_one_kind_of_machine(made):
    images = {at: c for at, c in made.cells.items() if at[1] == "cifar100" and at[0] != "pathnet"}
    table = tables.cost(on(replace(made, cells=images), MACHINES))
    assert {cell(table, row, "latency, ms").text for row in MACHINES} == {"0.4"}
    assert "measured on A, cpu, 1 thread" in table.caption
    larger = [
        r.model_copy(update={"cost": r.cost | {"parameters": 1e6}}) for r in images["kd, T 4", "cifar100"].records
    ]
    images["kd, T 4", "cifar100"] = replace(images["kd, T 4", "cifar100"], records=tuple(larger))
    elsewhere = {"kf": [("A", 1, 50.0, 0.2)] * 4, "kd, T 4": [("B", 1, 50.0, 0.2)] * 3}
    unknown = cell(tables.cost(on(replace(made, cells=images), MACHINES | elsewhere)), "kd, T 4", "latency, ms")
    assert unknown.text == "–" and unknown.note == "not all that it keeps was measured on A, cpu, 1 thread"


def test_layouts_choose_rows_and_columns(made):
    layout = definition.Table(name="images", title="Images", rows=["kf", "scratch"], columns=["cifar100"])
    table = tables.scores(made, layout)
    assert [row for row, _ in table.rows] == ["kf", "scratch"] and table.head == ("cifar100",)


def test_how_runs_learn_is_measured_on_their_curves(made):
    """Against the definitions by hand, on a column of images and on a game."""
    table = next(table for table in tables.tables(made) if table.name == "learning")
    column, base = "first look: over scratch", "budget until scratch's end"
    every = [column for column in made.columns if made.cells["kf", column].done]

    def score(record, look):
        if "val_error" in record.curve[look]:
            return 100 - record.curve[look]["val_error"]
        return 100 * reference.human_normalised("krull", record.curve[look]["val_return"])

    for head, look in ((column, 0), ("last look: over scratch", -1)):
        gaps = [
            np.mean([score(r, look) for r in made.cells["kf", c].done])
            - np.mean([score(r, look) for r in made.cells["scratch", c].done])
            for c in every
        ]
        assert cell(table, "kf", head).values["value"] == pytest.approx(np.mean(gaps))
    ratios = []
    for c in every:
        areas = [
            np.mean([np.trapezoid([score(r, n) for n in range(11)], dx=0.1) for r in made.cells[row, c].done])
            for row in ("kf", "scratch")
        ]
        ratios.append(areas[0] / areas[1])
    assert cell(table, "kf", "area ÷ scratch's").values["value"] == pytest.approx(np.mean(ratios))
    assert cell(table, "kf", base).values["reached"] > cell(table, "kd, T 4", base).values["reached"]
    assert 0 < cell(table, "kf", base).values["value"] < cell(table, "kd, T 4", base).values["value"] <= 1
    assert cell(table, "scratch", column).text == "·" and cell(table, "scratch", base).text != "·"
    assert cell(table, "pathnet", "columns").text == "3 of 4"
    empty = grid.join(made.study, [c.planned for c in made.cells.values()], [])
    assert {shown.text for _, row in tables.tables(empty)[2].rows for shown in row} == {"0 of 4", "–"}


def test_a_row_without_a_column_in_common_with_the_baseline_has_no_difference(small):
    folder, results = small
    for record in list(records.records(results)):
        if record.spec["method"] == "scratch" and record.spec["task"] != "atari/krull":
            records.path_of(results, record.key, record.run_spec()).unlink()
    summary = render.markdown(tables.summary(grid.load(folder, definition.load(folder), results)))
    [row] = [line for line in summary.splitlines() if line.startswith("| kd")]
    assert row.count("–") == 3
