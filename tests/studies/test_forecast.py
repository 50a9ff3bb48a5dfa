"""What a dry run says of time: recorded here, measured, or recorded elsewhere, in this order."""

from pathlib import Path

import pytest
import torch
from console import Console

from kfbench import machine, networks
from kfbench.running import estimate, records, resolve
from kfbench.running.records import RunRecord
from kfbench.spec import RunSpec, digest
from kfbench.studies import forecast

STUDY = 'title = "One"\nbudget = "smoke"\nseeds = 2\nmethods = ["scratch"]\ntasks = ["digits"]\n'


@pytest.mark.parametrize(
    ("place", "patience", "told"),
    [
        ({}, 60.0, 50.0),  # made here
        ({"processor": "Another"}, 60.0, 90.0),
        ({"threads": 2}, 60.0, 90.0),
        ({"device": "cuda"}, 60.0, 90.0),
        ({"processor": "Another"}, 0.0, 50.0),  # better than nothing
    ],
)
def test_what_was_recorded_on_another_machine_tells_less_than_a_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: dict[str, object], patience: float, told: float
) -> None:
    monkeypatch.setattr(estimate, "seconds", lambda spec, tried: 90.0)
    monkeypatch.setattr(forecast, "PATIENCE", patience)
    spec = resolve.resolve("scratch", "digits", budget="smoke")
    identity = {"spec": spec.to_json(), "data": "of another time"}
    here = {"processor": machine.processor(), "device": "cpu", "threads": 1}
    made = RunRecord(
        key=digest(identity),
        spec=spec.to_json(),
        identity=identity,
        status="done",
        scores={"last": {"error": 1.0}},
        curve=[],
        cost={"seconds": 50.0},
        provenance=here | place,
    )
    records.write(tmp_path / "results", made)
    (tmp_path / "study.toml").write_text(STUDY)
    found = forecast.tell(
        tmp_path, results=tmp_path / "results", row=None, column=None, say=lambda _: None, note=lambda _: None
    )
    assert {entry["seconds"] for entry in found["to_make"]} == {told}


def test_a_method_that_fails_is_told_of_beside_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(spec: RunSpec, tried: int) -> float:
        if spec.method == "kd":
            raise RuntimeError("mat1 and mat2 shapes\ncannot be multiplied")
        return 90.0

    monkeypatch.setattr(estimate, "seconds", seconds)
    (tmp_path / "study.toml").write_text(STUDY.replace('"scratch"', '"scratch", "kd"'))
    lines: list[str] = []
    found = forecast.tell(
        tmp_path, results=tmp_path / "results", row=None, column=None, say=lines.append, note=lambda _: None
    )
    assert [(entry["row"], entry["seconds"]) for entry in found["to_make"]] == [
        ("scratch", 90.0), ("scratch", 90.0), ("kd", None), ("kd", None)
    ]  # fmt: skip
    why = "RuntimeError: mat1 and mat2 shapes"
    assert found["to_make"][2]["trouble"] == why and found["not_counted"] == 2
    assert f"kd · digits: seeds 0, 1: time unknown a run; its first steps failed here: {why}" in lines


def test_runs_and_teachers_with_few_steps_are_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "seconds", lambda spec, tried: 90.0)
    text = STUDY.replace("smoke", "small").replace('"scratch"', '"scratch", "kd"')
    for size, count in ((96, 30), (1290, None)):
        (tmp_path / "study.toml").write_text(text.replace('["digits"]', f'[{{task = "digits", train_size = {size}}}]'))
        notes: list[str] = []
        forecast.tell(
            tmp_path, results=tmp_path / "results", row=None, column=None, say=lambda _: None, note=notes.append
        )
        assert [f"makes {count} optimiser steps in all" in note for note in notes] == ([True, True] if count else [])
        if notes:
            assert notes[0].startswith("note: scratch on digits") and "--set-recipe epochs=" in notes[0]
            assert notes[1].startswith("note: teacher digits/cnn-32@small makes") and "@small:epochs=" in notes[1]


def test_runs_whose_teacher_cannot_be_used_are_not_counted_as_runs_to_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file, or one that does not say how its images were normalised; the text and the values count alike."""
    monkeypatch.setattr(estimate, "seconds", lambda spec, tried: 90.0)
    bare = tmp_path / "bare.pth"
    weights = networks.make("cnn-8", shape=(1, 8, 8), outputs=10).state_dict()
    torch.save({name: value for name, value in weights.items() if name not in ("mean", "std")}, bare)
    bare.with_name("bare.pth.json").write_text('{"network": "cnn-8", "shape": [1, 8, 8], "outputs": 10}')
    rows = [
        f'{{ method = "kd", label = "{path.stem}", teachers = ["file:{path}"] }}' for path in (tmp_path / "x", bare)
    ]
    (tmp_path / "study.toml").write_text(STUDY.replace('"scratch"', ", ".join(['"scratch"', *rows])))
    lines: list[str] = []
    found = forecast.tell(
        tmp_path, results=tmp_path / "results", row=None, column=None, say=lines.append, note=lambda _: None
    )
    assert [(entry["row"], entry["seed"]) for entry in found["to_make"]] == [("scratch", 0), ("scratch", 1)]
    assert [(entry["row"], entry["seed"]) for entry in found["refused"]] == [
        ("x", 0), ("x", 1), ("bare", 0), ("bare", 1)
    ]  # fmt: skip
    assert "no weights" in found["refused"][0]["reason"] and "mean" in found["refused"][2]["reason"]
    assert found["multiply_adds_not_counted"] == 0 and "not counted" not in "".join(lines)
    assert any(line.startswith("6 runs, 2 to make, 4 refused: about 3 min for") for line in lines)


def test_a_dry_run_ends_as_the_study_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, type_in: Console, packed_digits: Path
) -> None:
    """1 where a run would be refused, not for a cell without runs; 2 for options that cannot be had here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(estimate, "seconds", lambda spec, tried: 90.0)
    (tmp_path / "study.toml").write_text(STUDY.replace('"digits"', '"atari/pong"').replace('"scratch"', '"delta"'))
    done = type_in("study", tmp_path, "--dry-run")
    assert done.code == 0 and "n/a" in done.out
    missing = '{ method = "kd", teachers = ["file:none.pt"] }'
    (tmp_path / "study.toml").write_text(STUDY.replace('"scratch"', f'"scratch", {missing}'))
    assert type_in("study", tmp_path, "--dry-run", "--row", "scratch").code == 0
    for words in ([], ["--json"], ["--row", "kd"]):
        done = type_in("study", tmp_path, "--dry-run", *words)
        assert done.code == 1 and "no weights" in done.out
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for words, said in (
        (["--gpus-per-run", "1"], "error: --gpus-per-run 1: torch sees no GPU on this machine; leave it out\n"),
        (["--device", "cuda:3"], "error: no GPU 'cuda:3': torch sees 0; use --device cpu\n"),
        (["--on", "slurm", "--slurm", "timeout_min=1h"], "timeout_min is a whole number\n"),
        (["--on", "slurm", "--gpus-per-run", "0.5"], "SLURM gives whole GPUs"),
    ):
        done = type_in("study", tmp_path, "--dry-run", *words)
        assert done.code == 2 and said in done.err and not done.out


def test_what_is_measured_for_a_dry_run_serves_other_tasks(
    tmp_path: Path, packed_digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KFBENCH_DATA", str(packed_digits))
    asked: list[RunSpec] = []
    monkeypatch.setattr(estimate, "seconds", lambda spec, tried: asked.append(spec) or 90.0)
    (tmp_path / "study.toml").write_text(
        'title = "Two"\nbudget = "smoke"\nseeds = 2\nmethods = ["scratch", "kf"]\n[[tasks]]\ntask = "digits/high"\n'
        'teachers = ["digits/low"]\n[[tasks]]\ntask = "digits/low"\nteachers = ["digits/high"]\n'
    )
    lines: list[str] = []
    asking = {"results": tmp_path / "results", "row": None, "column": None}
    found = forecast.tell(tmp_path, **asking, say=lines.append, note=lines.append)
    # teachers have another network than students: they are runs of another length
    assert [(spec.method, spec.task) for spec in asked] == [
        ("scratch", "digits/low"),
        ("scratch", "digits/high"),
        ("kf", "digits/high"),
    ]
    cells = [f"{row} · digits/{part}" for row in ("scratch", "kf") for part in ("high", "low")]
    assert lines[2:6] == [f"{cell}: seeds 0, 1: about 1 min 30 s a run" for cell in cells]
    assert lines[6] == "8 runs, 8 to make: about 15 min for one job here"
    assert (found["seconds"], found["not_counted"]) == (90.0 * 10, 0) and len(found["to_make"]) == 8
