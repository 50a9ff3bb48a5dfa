"""`kfbench clean`, `delete`, `data delete` and `teacher delete`: what goes, what stays, what is asked."""

import io
import json
import os
import platform
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from console import TINY, key_of

from kfbench.running import housekeeping, records, status


def answering(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(words))


def untidy(recorded: Path) -> dict[str, Path]:
    """A results folder with something of every kind."""
    shutil.copytree(recorded, "results")
    results = Path("results")
    made = {
        "checkpoints": results / ".checkpoints" / "0123456789ab.ckpt",
        "teachers' checkpoints": results / "teachers" / ".checkpoints" / "0123456789ab.ckpt",
        "checkpoints of studies": results / ".cache" / "runs" / "kd-0" / "checkpoint.ckpt",
        "memory": results / ".cache" / "memory" / "ab" / "logits.bin",
        "logs": results / ".cache" / "logs" / "x.log",
        "logs of curves": results / ".cache" / "tensorboard" / "run" / "events.out",
        "status": status.place(results) / "0123456789ab.json",
        "leftovers": results / "digits" / ".tmp-abc",
        "teachers' leftovers": results / "teachers" / "digits" / ".tmp-abc",
        "a database": results / ".cache" / "optuna.db",
    }
    for path in made.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"0" * 5000)
    return made


def test_clean_shows_asks_and_deletes(type_in: Any, recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = untidy(recorded)
    kept = {path for path in Path("results").rglob("*") if path.is_file()} - {*files.values()}
    for answer in ("n\n", "\n", ""):
        answering(answer, monkeypatch)
        done = type_in("clean")
        assert done.code == 2 and len(done.lines) == 1, done
        assert done.lines[0] == ("error: nothing was done" if answer else "error: nobody answered; give --yes")
        assert all(path.is_file() for path in files.values())
    lines = done.out.splitlines()
    assert lines[0].startswith("    15 kB  checkpoints: of runs that were stopped") and lines[-1].startswith(
        "delete 45 kB?"
    )
    answering("y\n", monkeypatch)
    assert type_in("clean").out.endswith("deleted 45 kB\n")
    assert {path for path in Path("results").rglob("*") if path.is_file()} == kept | {files["a database"]}
    assert type_in("clean").out == "nothing to clean in 'results'\n"


def test_clean_of_one_kind(type_in: Any, recorded: Path) -> None:
    files = untidy(recorded)
    assert type_in("clean", "memory", "--yes").code == 0
    assert [name for name, path in files.items() if not path.exists()] == ["memory"]
    done = type_in("clean", "memroy", "--yes")
    assert done.code == 2 and "nothing to clean called 'memroy'; did you mean 'memory'?" in done.err
    assert type_in("clean", "--results", "nowhere", "--yes").err.startswith("error: no folder 'nowhere'")


def test_clean_tells_programs_what_goes(type_in: Any, recorded: Path) -> None:
    files = untidy(recorded)
    for words, deleted in (((), False), (("--yes",), True)):
        told = json.loads(type_in("clean", "memory", "status", "--json", *words).out)
        memory, told_status = told["piles"]
        assert (told["deleted"], told["left_alone"], memory["kind"]) == (deleted, [], "memory")
        assert told_status == {"kind": "status", "paths": [str(files["status"])], "bytes": 5000}
        assert files["status"].exists() is not deleted and files["logs"].exists()
    assert json.loads(type_in("clean", "memory", "--json").out)["piles"] == []


def test_delete_tells_programs_what_goes(type_in: Any, recorded: Path) -> None:
    shutil.copytree(recorded, "results")
    key = key_of(Path("results"))
    for words, deleted in (((), False), (("--yes",), True)):
        told = json.loads(type_in("delete", key, "--json", *words).out)
        paths = [Path(row["path"]) for row in told["files"]]
        assert (told["deleted"], told["key"], len(paths)) == (deleted, key, 2) and all(
            row["bytes"] for row in told["files"]
        )
        assert all(path.exists() is not deleted for path in paths)


def test_nothing_is_cleaned_below_a_run(type_in: Any, recorded: Path) -> None:
    files = untidy(recorded)
    told = {"run": "0123456789ab", "label": "kf on digits, seed 0", "state": "running", "updated": time.time()}
    told |= {"pid": os.getpid(), "node": platform.node()}
    files["status"].write_text(json.dumps(told))
    done = type_in("clean", "--yes")
    assert done.code == 2 and "kf on digits, seed 0 is running with its results in 'results'" in done.err
    assert all(path.exists() for path in files.values())


def test_what_slurm_may_have_is_left_alone(type_in: Any, recorded: Path) -> None:
    """The driver is dead, its jobs live on: the next one finds them, their checkpoints and what they left."""
    files = untidy(recorded)
    bag = Path("results/.cache/runs/live")
    for name in ("job", "x.ckpt", "outcome.json", ".tmp-half", "../../logs/live.log"):
        (bag / name).parent.mkdir(parents=True, exist_ok=True)
        (bag / name).write_text("7")
    done = type_in("clean", "--yes")
    assert done.code == 0 and "left alone: 1 runs in 'results/.cache/runs' that SLURM may have" in done.out
    assert sorted(path.name for path in bag.iterdir()) == [".tmp-half", "job", "outcome.json", "x.ckpt"]
    assert (bag / "../../logs/live.log").is_file()
    assert {name for name, path in files.items() if path.exists()} == {"memory", "a database"}
    (bag / "job").unlink()
    assert "left alone" not in type_in("clean", "--yes").out and not bag.exists()


def test_a_run_elsewhere_that_is_silent_may_live(type_in: Any, recorded: Path) -> None:
    """Its clock may be another, its evaluation long: `status` takes it for gone after minutes, `clean` does not."""
    files = untidy(recorded)
    told = {"run": "0123456789ab", "label": "kf on digits, seed 0", "state": "running", "pid": 1, "node": "elsewhere"}
    for hours, code in ((2, 2), (25, 0)):
        files["status"].write_text(json.dumps({**told, "updated": time.time() - 3600 * hours}))
        assert status.read(Path("results"))[0]["state"] == "lost"
        done = type_in("clean", "--yes")
        assert done.code == code
        assert code == 0 or f"on 'elsewhere', silent for 2 h; if it is not, delete '{files['status']}'" in done.err
    assert not files["checkpoints"].exists()


def test_delete_takes_the_record_and_its_weights(type_in: Any, recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(recorded, "results")
    key = key_of(Path("results"))
    before = {path for path in Path("results").rglob("*") if path.is_file()}
    answering("no\n", monkeypatch)
    assert type_in("delete", key).code == 2 and {p for p in Path("results").rglob("*") if p.is_file()} == before
    answering("yes\n", monkeypatch)
    done = type_in("delete", key[:6])
    assert done.code == 0 and f"deleted '{key}'" in done.out and f"digits/scratch/{key}.safetensors" in done.out
    gone = before - {path for path in Path("results").rglob("*") if path.is_file()}
    assert {path.name for path in gone} == {f"{key}.json", f"{key}.safetensors"}
    assert "teachers" not in {part for path in gone for part in path.parts}
    assert type_in("delete", "zzzz", "--yes").err.startswith("error: no run in 'results' with a key that begins")


def test_a_run_that_taught_others_stays_unless_forced(type_in: Any, recorded: Path) -> None:
    shutil.copytree(recorded, "results")
    key = key_of(Path("results"))
    words = ["run", "--method", "kf", "--task", "digits", "--teachers", f"run:{key}", *TINY, "--json"]
    pupil = json.loads(type_in(*words).out)["key"]
    done = type_in("delete", key, "--yes")
    assert done.code == 2 and len(done.lines) == 1 and f"taught '{pupil}' (kf on digits)" in done.err
    assert "give --force" in done.err and len(list(records.records(Path("results")))) == 2
    assert type_in("delete", key, "--yes", "--force").code == 0
    assert [record.key for record in records.records(Path("results"))] == [pupil]
    assert type_in("delete", pupil, "--yes").code == 0  # a pupil may go


def test_a_run_that_teaches_is_noted_by_its_whole_key(type_in: Any, recorded: Path) -> None:
    shutil.copytree(recorded, "results")
    key = key_of(Path("results"))
    words = ["run", "--method", "kf", "--task", "digits", "--teachers", f"run:{key[:5]}", *TINY, "--json"]
    assert json.loads(type_in(*words).out)["spec"]["teachers"] == [f"run:{key}"]
    assert type_in("delete", key, "--yes").code == 2  # it taught


def test_a_teacher_of_the_store_that_taught_stays(type_in: Any) -> None:
    words = ["run", "--method", "kf", "--task", "digits", "--teachers", "digits/low/cnn-4@smoke:epochs=1", *TINY]
    assert type_in(*words).code == 0
    [teacher] = records.records(Path("results/teachers"))
    done = type_in("delete", teacher.key, "--yes")
    assert done.code == 2 and f"run '{teacher.key}' taught" in done.err


def pack_bits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data folder of one's own with the digits, and with made-up images under the name "bits"."""
    from kfbench.data import packs
    from kfbench.data.rows import Raw, Rows

    shutil.copytree(os.environ["KFBENCH_DATA"], folder / "data")
    monkeypatch.setenv("KFBENCH_DATA", str(folder / "data"))
    rows = Rows(torch.zeros(10, 1, 8, 8, dtype=torch.uint8), torch.arange(10) % 5)
    packs.write("bits", Raw(rows, rows, tuple("abcde")), source="made up")


def test_a_data_set_is_deleted(type_in: Any, recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(recorded, "results")
    pack_bits(tmp_path, monkeypatch)
    bits = tmp_path / "data" / "bits"
    answering("no\n", monkeypatch)
    done = type_in("data", "delete", "bits")
    assert done.code == 2 and "nothing was done" in done.err and (bits / "train.safetensors").is_file()
    assert done.out.startswith("bits: 10 training and 10 test images, from made up\n") and str(bits) in done.out
    told = json.loads(type_in("data", "delete", "bits", "--json").out)
    assert (told["deleted"], told["name"], [row["path"] for row in told["files"]]) == (False, "bits", [str(bits)])
    assert bits.is_dir() and "'bits'" in type_in("data", "delete", "bts").err
    (bits / "pack.json").write_text("{")  # damaged: it may go as well
    done = type_in("data", "delete", "bits", "--yes")
    assert done.code == 0 and done.out.endswith("deleted 'bits'\n") and not bits.exists()
    [record] = records.records(Path("results"))
    done = type_in("data", "delete", "digits", "--yes")
    assert done.code == 2 and len(done.lines) == 1
    assert f"data set 'digits' taught '{record.key}' (scratch on digits) and 1 more, which could not" in done.err
    assert "give --force" in done.err and (tmp_path / "data" / "digits").is_dir()
    for words in (("digits", "--json"), ("digits",)):
        done = type_in("data", "delete", *words, "--results", "elsewhere")
        assert done.code == (0 if "--json" in words else 2)
        assert (
            "no folder 'elsewhere' in which to look for runs of it" in done.err and (tmp_path / "data/digits").is_dir()
        )
    assert type_in("data", "delete", "digits", "--yes", "--force").code == 0
    assert not (tmp_path / "data" / "digits").exists()


def test_data_of_an_untrained_teacher_stay(
    type_in: Any, recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its network is made for their images, and settled on them."""
    shutil.copytree(recorded, "results")
    pack_bits(tmp_path, monkeypatch)
    words = ["--teachers", "random:imagefolder/bits/cnn-4", *TINY, "--train-size", "60", "--json"]
    key = json.loads(type_in("run", "--method", "kf", "--task", "digits", *words).out)["key"]
    done = type_in("data", "delete", "bits", "--yes")
    assert done.code == 2 and f"data set 'bits' taught '{key}' (kf on digits)" in done.err


def test_data_stay_while_a_run_goes_on(type_in: Any, recorded: Path) -> None:
    untidy(recorded)
    told = {"run": "0123456789ab", "label": "kf on digits, seed 0", "state": "running", "updated": time.time()}
    told |= {"pid": os.getpid(), "node": platform.node()}
    (status.place(Path("results")) / "0123456789ab.json").write_text(json.dumps(told))
    assert "kf on digits, seed 0 is running" in type_in("data", "delete", "digits", "--yes", "--force").err


def test_a_teacher_is_deleted(type_in: Any, recorded: Path) -> None:
    shutil.copytree(recorded, "results")
    [teacher] = records.records(Path("results/teachers"))
    weights = Path("results/teachers/digits/scratch") / f"{teacher.key}.safetensors"
    shutil.copy(weights, "theirs.safetensors")
    words = ("teacher", "import", "theirs.safetensors", "--network", "cnn-4", "--task", "digits")
    assert type_in(*words).code == 0
    theirs = Path("results/teachers/imported/theirs.safetensors")

    for name in ("imported:thiers", "imported:digits/cnn-4@smoke"):
        done = type_in("teacher", "delete", name, "--yes")
        assert done.code == 2 and f"no teacher '{name}' in 'results/teachers'" in done.err, done
    assert "did you mean 'imported:theirs'?" in type_in("teacher", "delete", "imported:thiers").err
    assert "'digits/cnn-4@smoke'" in type_in("teacher", "delete", "digts/cnn-4@smoke").err

    run = ("run", "--method", "kf", "--task", "digits", "--teachers", "imported:theirs", *TINY, "--json")
    pupil = json.loads(type_in(*run).out)["key"]
    done = type_in("teacher", "delete", "theirs", "--yes")
    assert done.code == 2 and f"teacher 'imported:theirs' taught '{pupil}' (kf on digits), which" in done.err
    assert type_in("delete", pupil, "--yes").code == 0
    told = json.loads(type_in("teacher", "delete", "theirs", "--yes", "--json").out)
    assert (told["deleted"], told["name"], theirs.exists()) == (True, "imported:theirs", False)

    done = type_in("teacher", "delete", "digits/cnn-4@smoke", "--yes")
    assert done.code == 0 and done.out.endswith(f"deleted '{teacher.key}'\n") and not weights.exists()
    assert [record.key for record in records.records(Path("results"))] == [teacher.key]  # the run of this key stays


def test_a_teacher_is_deleted_by_its_key_or_its_whole_name(type_in: Any, recorded: Path) -> None:
    for name in ("digits/cnn-4@smoke:epochs=1+batch_size=256", "key"):
        shutil.copytree(recorded, "results", dirs_exist_ok=True)
        [teacher] = records.records(Path("results/teachers"))
        assert type_in("teacher", "delete", teacher.key[:7] if name == "key" else name, "--yes").code == 0
        assert not list(records.records(Path("results/teachers")))


def test_sizes_as_people_say_them(tmp_path: Path) -> None:
    assert [housekeeping.spoken_size(size) for size in (0, 1, 1500, 2_400_000, 3_000_000_000)] == [
        "0 kB",
        "1 kB",
        "2 kB",
        "2.4 MB",
        "3.0 GB",
    ]
    with (tmp_path / "holes").open("wb") as file:
        file.truncate(10**9)
    assert housekeeping.size_of(tmp_path / "holes") < 10**6
