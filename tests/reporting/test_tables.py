"""Tables: what is bold, flagged, missing or published, their three text forms, and the way back to the runs."""

import csv
import io
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import gains
import numpy as np
import pytest

from kfbench.cli import summary
from kfbench.errors import KfbenchError
from kfbench.games import reference
from kfbench.reporting import claims, grid, overview, render, score_plots, stats, tables
from kfbench.running import records
from kfbench.studies import definition


@pytest.fixture
def made(small):
    folder, results = small
    return grid.load(folder, definition.load(folder), results)


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


def test_games_are_normalised_by_human_scores(made):
    assert made.normalised("scratch", ["atari/krull"])[0, 0] == pytest.approx(
        (made.scores("scratch", ["atari/krull"])[0, 0] - 1598.0) / (2665.5 - 1598.0)
    )


def test_markdown_has_every_cell_and_its_notes(made):
    table = tables.tables(made)[0]
    text = render.markdown(table)
    body = [line for line in text.splitlines() if line.startswith("|")]
    assert len(body) == 2 + len(made.rows) and len({line.count("|") for line in body}) == 1
    assert "(published 27.5)" in text and "Published: somebody 2020, table 1." in text
    assert "[^scores-1]:" in text and "**" in text


@pytest.mark.parametrize(("value", "shown"), [(1234567.891, "1234567.891"), (999383.0, "999383"), (27.5, "27.5")])
def test_a_published_number_stands_as_it_was_entered(made, value, shown):
    known = made.study.reference[0].model_copy(update={"value": value})
    table = tables.tables(replace(made, study=made.study.model_copy(update={"reference": [known]})))[0]
    assert f"(published {shown})" in render.markdown(table)
    published = {line["published"] for line in csv.DictReader(io.StringIO(render.as_csv(table)))}
    assert published == {"", shown}


def test_csv_is_unrounded_and_names_the_runs(made):
    table = tables.tables(made)[0]
    lines = list(csv.DictReader(io.StringIO(render.as_csv(table))))
    assert len(lines) == 16
    line = next(line for line in lines if line["row"] == "kf" and line["column"] == "cifar100")
    assert float(line["mean"]) == made.scores("kf", ["cifar100"]).mean()
    assert len(line["keys"].split()) == 4


def test_provenance_leads_to_the_records(made, small):
    _, results = small
    for table in tables.tables(made):
        for label, columns in table.provenance().items():
            for keys in columns.values():
                methods = {records.locate(results, key)[1].spec["method"] for key in keys}
                assert methods == {made.study.row(label).method}


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


def test_latex_escapes(made):
    text = render.latex(tables.tables(made)[0], "small")
    assert (
        r"\label{tab:small-scores}" in text
        and r"\toprule" in text
        and r"$\pm$" in text
        and text.count(r"\\") == 1 + len(made.rows)
    )


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(made, tmp_path):
    body = "\n".join(render.latex(table, made.study.name) for table in tables.tables(made))
    head = "\\documentclass{article}\n\\usepackage{booktabs,amssymb,graphicx}\n\\begin{document}\n"
    (tmp_path / "t.tex").write_text(f"{head}{body}\\end{{document}}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]


def test_verdicts(made):
    words = {v.claim.text: v for v in claims.verdicts(made)}
    beats = words["kf beats scratch on images"]
    assert beats.word == "reproduced" and beats.difference.pairs == 8 and "points of accuracy" in beats.told
    assert words["kd loses to scratch"].word == "reproduced"
    absent = words["kf beats pathnet on cifar100"]
    assert absent.word == "undecided" and absent.told == "no finished runs to compare yet"
    assert words["the student stands alone at the end"].word == "reproduced"


def test_a_claim_that_is_false_is_not_reproduced(made):
    claim = made.study.claims[0].model_copy(update={"better": "scratch", "than": "kf"})
    assert claims.verdict(claim, made).word == "not reproduced"
    margin = made.study.claims[0].model_copy(update={"margin": 50.0})
    told = claims.verdict(margin, made)
    assert told.word == "not reproduced" and told.plain.value == pytest.approx(told.difference.value + 50)
    plain = claims.verdict(made.study.claims[0], made).told.partition(" points of accuracy")
    assert told.told.startswith(f"{plain[0]}{plain[1]} (claimed: above +50.00), 95 % interval ")
    close = made.study.claims[0].model_copy(update={"margin": 3.0})
    verdict = claims.verdict(close, made)
    assert verdict.word == "undecided" and "more seed" in verdict.told
    part = made.study.claims[0].model_copy(update={"than": "pathnet", "on": ["cifar10, 1,000 images", "cifar100"]})
    assert (
        claims.verdict(part, made).word == "undecided" and "nothing yet on cifar100" in claims.verdict(part, made).told
    )


def test_a_claim_is_about_the_columns_that_its_rows_are_for(made):
    """A row that is not for a column lacks nothing there."""
    claim = made.study.claims[0].model_copy(update={"on": []})
    part = {at: cell for at, cell in made.cells.items() if at[0] != claim.better or at[1] == "cifar100"}
    verdict = claims.verdict(claim, replace(made, cells=part))
    assert verdict.columns == ("cifar100",) and not verdict.absent
    assert (
        "nothing yet on"
        in claims.verdict(claim.model_copy(update={"on": [*made.columns]}), replace(made, cells=part)).told
    )


def test_a_claim_is_decided_where_a_row_cannot_run_on_a_column(made):
    """What is n/a will never be there: nothing is waited for."""
    claim = made.study.claims[0].model_copy(update={"on": [], "better": "scratch", "than": "kd, T 4"})
    verdict = claims.verdict(claim, made)
    assert verdict.word == "reproduced" and verdict.columns == tuple(made.columns[:3]) and not verdict.absent
    asked = claims.verdict(claim.model_copy(update={"on": [*made.columns]}), made)
    assert asked.word == "undecided" and asked.told.endswith("; n/a on atari/krull")


def test_a_claim_says_what_has_no_common_scale(made):
    """No run will ever put it there: a claim that does not name it is about the rest, and none waits."""
    unlike, told = gains.without_reference(made), "Carnival has no human-normalised score"
    claim = made.study.claims[0].model_copy(update={"on": []})
    begun = unlike.cells["kf", "Carnival"]
    unlike.cells["kf", "Carnival"] = replace(begun, records=(None, *begun.records[1:]))
    verdict = claims.verdict(claim, unlike)
    assert verdict.word == "reproduced" and verdict.columns == tuple(unlike.columns[:3])
    assert verdict.told.endswith(f"; {told}") and verdict.unit == "points of the normalised score"
    asked = claims.verdict(claim.model_copy(update={"on": [*unlike.columns]}), unlike)
    assert asked.word == "undecided" and asked.told.endswith(f"; {told}; 1 run not made yet")
    alone = claims.verdict(claim.model_copy(update={"on": ["Carnival"]}), gains.without_reference(made))
    assert alone.columns == ("Carnival",) and told not in alone.told and alone.unit == "game points"


def test_of_games_that_all_lack_a_common_scale_there_is_no_mean(made):
    told = "Carnival and Carnival again have no human-normalised score"
    [game] = gains.only("Carnival", gains.without_reference(made)).study.tasks
    tasks = [game, game.model_copy(update={"label": "Carnival again"})]
    cells = {(row, task.label): made.cells[row, "atari/krull"] for row in made.rows for task in tasks}
    claim = made.study.claims[0].model_copy(update={"on": []})
    two = grid.Grid(made.study.model_copy(update={"tasks": tasks, "claims": [claim]}), cells)
    [verdict] = claims.verdicts(two)
    assert (verdict.word, verdict.told) == ("undecided", told)
    assert overview.of(two, [verdict]).headline == f"There is no mean over tasks: {told}."


def test_a_claim_is_not_decided_before_its_runs_are_made(made):
    def without(seed, failed):
        cell = made.cells["kf", "cifar100"]
        gone = cell.records[seed].model_copy(update={"status": "failed"}) if failed else None
        kept = tuple(gone if n == seed else record for n, record in enumerate(cell.records))
        return replace(made, cells={**made.cells, ("kf", "cifar100"): replace(cell, records=kept)})

    claim = made.study.claims[0].model_copy(update={"on": ["cifar100"]})
    whole, early, broken = (claims.verdict(claim, grid) for grid in (made, without(1, False), without(1, True)))
    assert whole.word == "reproduced" and early.difference.is_clear and broken.difference.is_clear
    assert early.word == "undecided" and early.told.endswith("; 1 run not made yet")
    assert broken.word == "reproduced" and broken.told.endswith("; without 1 failed run")


def test_a_curve_claim_reads_the_curve_at_its_place(made):
    values = claims.curve_values(made, "kf", ["cifar100"], "share/student", 0.5)
    assert values == pytest.approx(0.37)


def test_a_plan_older_than_its_study_is_refused(small):
    folder, results = small
    path = folder / "study.toml"
    path.write_text(path.read_text().replace("train_size = 250", "train_size = 300"))
    with pytest.raises(KfbenchError, match="is older than the rows and columns"):
        grid.load(folder, definition.load(folder), results)
    (folder / "plan.json").unlink()
    with pytest.raises(KfbenchError, match="has no plan"):
        grid.load(folder, definition.load(folder), results)


def test_a_new_label_or_claim_needs_no_new_plan(small):
    folder, results = small
    path = folder / "study.toml"
    path.write_text(path.read_text().replace("seeds = 4", "seeds = 5").replace("value = 27.5", "value = 27.6"))
    made = grid.load(folder, definition.load(folder), results)
    assert made.cells["kf", "cifar100"].missing == 1


def test_a_record_changed_by_hand_is_refused(small):
    folder, results = small
    path = next(results.rglob("*.json"))
    path.write_text(re.sub('"seed": [0-3]', '"seed": 7', path.read_text()))
    with pytest.raises(KfbenchError, match="was changed by hand"):
        for path in results.rglob("*.json"):
            records.read(path)


def test_of_two_records_of_a_spec_the_newer_revision_counts(made):
    cell = made.cells["kf", "cifar100"]
    old = cell.records[0]
    newer, newest = ({**old.identity, "method_revision": revision} for revision in (2, 3))
    new = old.model_copy(update={"key": "f" * 12, "identity": newer, "scores": {"last": {"error": 1.0}}})
    failed = old.model_copy(update={"key": "e" * 12, "identity": newest, "status": "failed"})
    joined = grid.join(made.study, [cell.planned], [new, old, failed])
    assert joined.scores("kf", ["cifar100"])[0, 0] == 1.0


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


def test_a_curve_value_that_is_the_same_in_every_run_decides_and_equal_scores_do_not(made):
    """A share of exactly 1 is above 0.9; a difference without any spread has no interval."""
    cells = {}
    for place, old in made.cells.items():
        scores = {"last": {"error": 40.0 + (place[0] == "kf")}}
        records = [
            record
            and record.model_copy(
                update={"scores": scores, "curve": [{**point, "share/student": 1.0} for point in record.curve]}
            )
            for record in old.records
        ]
        cells[place] = replace(old, records=tuple(records))
    alike = replace(made, cells=cells)
    words = {v.claim.text: v for v in claims.verdicts(alike)}
    share = words["the student stands alone at the end"]
    assert share.word == "reproduced" and "in each of 4 runs" in share.told
    beats = words["kf beats scratch on images"]
    assert beats.word == "undecided"
    assert beats.told == "−1.00 points of accuracy in each of 8 pairs of runs: without any spread there is no interval"
    for place, old in cells.items():
        if place == ("kf", "cifar10, 250 images"):
            scores = {"last": {"error": 44.0}}
            cells[place] = replace(
                old, records=tuple(r and r.model_copy(update={"scores": scores}) for r in old.records)
            )
    told = {v.claim.text: v for v in claims.verdicts(replace(made, cells=cells))}["kf beats scratch on images"].told
    assert told.startswith("−2.50 points of accuracy on average, the same in every run of a task, from 8 pairs of runs")
