"""Records: written and read, of other versions, damaged."""

import json
import warnings
from pathlib import Path

import pytest

from kfbench.cli import listing
from kfbench.errors import KfbenchError, KfbenchWarning
from kfbench.running import records
from kfbench.running.files import record_files


def first(results: Path) -> Path:
    return next(path for path in sorted(results.rglob("*.json")) if len(path.stem) == 12)


def changed(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_what_is_written_is_read(small: tuple[Path, Path]) -> None:
    for record in records.records(small[1]):
        path = records.write(small[1], record)
        assert records.read(path) == record


def test_records_in_folders_that_are_links_are_found_and_each_once(small: tuple[Path, Path]) -> None:
    results = small[1]
    there = [path.relative_to(results) for path in record_files(results)]
    linked = results / there[0].parts[0]
    linked.rename(results.parent / "elsewhere")
    linked.symlink_to(results.parent / "elsewhere")
    (results / "round").symlink_to(results)
    assert there and [path.relative_to(results) for path in record_files(results)] == there


def test_a_field_of_a_newer_version_is_told_and_the_rest_read(small: tuple[Path, Path]) -> None:
    path = first(small[1])
    record = records.read(path)
    changed(path, energy={"joules": 3.0})
    with pytest.warns(KfbenchWarning, match="newer kfbench \\(energy\\)"):
        newer = records.read(path)
    assert newer.scores == record.scores
    records.write(small[1], newer)
    assert json.loads(path.read_text())["energy"] == {"joules": 3.0}  # what is not understood is not lost
    changed(path, format=records.FORMAT + 1)
    with pytest.warns(KfbenchWarning):
        records.read(path)


def test_the_schema_describes_every_committed_record() -> None:
    schema = records.RunRecord.model_json_schema()
    assert set(schema["required"]) == {"key", "spec", "identity", "status"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = Path(__file__).parents[2] / "results"  # a study that runs here notes its progress in .cache
        for path in sorted(kept.rglob("*.json")):
            if ".cache" not in path.parts[len(kept.parts) :]:
                records.read(path)


def test_a_renamed_record_is_told_by_all_that_read_it(small: tuple[Path, Path]) -> None:
    path = first(small[1])
    other = path.rename(path.with_name("my-first-run.json"))
    with pytest.raises(KfbenchError, match=f"was renamed: it is record '{path.stem}'; call it {path.stem}.json"):
        records.locate(small[1], "my-first")
    [row] = [row for row in listing.records(small[1]) if row["status"] == "damaged"]
    assert row["file"] == str(other) and row["why"] == f"renamed: call it {path.stem}.json"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"status": "half"}, "'status': input should be 'done' or 'failed'"),
        ({"scores": [1]}, "'scores'"),
        ({"identity": {"spec": 1}}, "changed by hand"),
    ],
)
def test_a_damaged_record_is_told_in_a_line(small: tuple[Path, Path], fields: dict[str, object], said: str) -> None:
    path = first(small[1])
    changed(path, **fields)
    with pytest.raises(KfbenchError, match=said) as caught:
        records.read(path)
    assert "\n" not in str(caught.value)
