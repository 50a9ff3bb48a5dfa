"""A study joined with its records: which of them count, and which plan or record is refused."""

import re

import pytest

from kfbench.errors import KfbenchError
from kfbench.reporting import grid
from kfbench.running import records
from kfbench.studies import definition


def test_games_are_normalised_by_human_scores(made):
    assert made.normalised("scratch", ["atari/krull"])[0, 0] == pytest.approx(
        (made.scores("scratch", ["atari/krull"])[0, 0] - 1598.0) / (2665.5 - 1598.0)
    )


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
