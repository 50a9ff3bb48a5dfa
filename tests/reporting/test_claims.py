"""Verdicts on claims: what decides one, over which columns, and what is left open."""

from dataclasses import replace

import gains
import pytest

from kfbench.reporting import claims, grid, overview


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
