"""Records as frames: a row a run, a row a point of a curve, and what pandas can do with them."""

from pathlib import Path

import pandas as pd
import pytest

from kfbench.errors import KfbenchError
from kfbench.reporting import frames
from kfbench.running import records


def test_a_run_is_a_row_with_settings_and_scores_flat(small: tuple[Path, Path]) -> None:
    _, results = small
    frame = frames.runs(results).set_index("key")
    for record in records.records(results):
        row = frame.loc[record.key]
        assert (row["method"], row["task"], row["seed"]) == tuple(record.spec[n] for n in ("method", "task", "seed"))
        assert row["teachers"] == ",".join(record.spec["teachers"]) and row["status"] == record.status
        for metric, score in record.scores.get("last", {}).items():
            assert row[f"last.{metric}"] == score
        assert row["recipe.network"] == record.spec["recipe"]["network"]
        assert row["commit"] == record.provenance["commit"]
    assert (frame["status"] == "failed").sum() == 1 and frame["error"].notna().sum() == 1


def test_columns_have_one_type_so_that_parquet_takes_them(small: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    frame = frames.runs(small[1])
    frame.to_parquet(tmp_path / "runs.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "runs.parquet"), frame)


def test_curves_are_long(small: tuple[Path, Path]) -> None:
    _, results = small
    record = next(r for r in records.records(results) if r.status == "done" and "epoch" in r.curve[0])
    frame = frames.curves(results, keys=[record.key[:8]], metrics=["val_error"])
    assert list(frame["value"]) == [row["val_error"] for row in record.curve]
    assert list(frame["epoch"]) == [row["epoch"] for row in record.curve] and "frames" not in frame
    assert set(frame["metric"]) == {"val_error"} and set(frame["key"]) == {record.key}
    everything = frames.curves(results)
    assert {"epoch", "frames", "progress"} <= set(everything.columns)
    assert everything["key"].nunique() == len(list(records.records(results)))
    with pytest.raises(KfbenchError, match="has the metric 'val_eror'; did you mean 'val_error'"):
        frames.curves(results, metrics=["val_eror"])
    with pytest.raises(KfbenchError, match="no run"):
        frames.curves(results, keys=["nothing"])


def test_a_folder_without_runs_is_an_empty_frame(tmp_path: Path) -> None:
    assert frames.runs(tmp_path / "none").empty and "key" in frames.runs(tmp_path / "none")
    assert frames.curves(tmp_path / "none").empty
