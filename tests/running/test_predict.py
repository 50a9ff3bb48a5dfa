"""Predictions of a kept network on images that lie anywhere: those of its own test split are scored as the run was."""

import csv
import io
import json
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import kfbench
from kfbench.running import records

CLASSES = ("dark", "light")


def picture(path: Path, *, value: int, seed: int, size: tuple[int, int] = (24, 18), mode: str = "RGB") -> None:
    draw = np.random.default_rng(seed)
    shape = (size[1], size[0], 3)
    pixels = np.clip(draw.normal(value, 60, shape), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with images `own/<class>/`, packed with --size in `data`, and `results` of a run on them; its key."""
    from kfbench.data.decode import Form
    from kfbench.data.importing import import_images

    place = tmp_path_factory.mktemp("predicted")
    for number, label in enumerate(CLASSES):
        for row in range(20):
            value = 115 + 25 * number
            picture(place / "own" / label / f"{row:02d}.png", value=value, seed=100 * number + row)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KFBENCH_DATA", str(place / "data"))
        import_images("shades", [place / "own"], form=Form(8, 8), test=0.5)
        record = kfbench.run(
            "scratch",
            "imagefolder/shades",
            network="cnn-4",
            budget="smoke",
            epochs=4,
            batch_size=4,
            threads=1,
            results=place / "results",
            progress=False,
        )
    return place, record.key


@pytest.fixture(autouse=True)
def here(trained: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place, _ = trained
    monkeypatch.setenv("KFBENCH_DATA", str(place / "data"))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(place / "own", "own")
    shutil.copytree(place / "results", "results")


def test_what_the_test_split_was_made_of_is_scored_as_in_the_record(trained: tuple[Path, str]) -> None:
    from kfbench.data.decode import Form, decode, formed
    from kfbench.data.packs import data_folder, open_pack

    images, _ = open_pack(data_folder() / "shades").read("test")
    tested = {image.numpy().tobytes() for image in images}
    frame = kfbench.predict(trained[1], "own", progress=False)
    pixels = [formed(decode(Path(file).read_bytes()), Form(8, 8)).tobytes() for file in frame["file"]]
    rows = frame[[each in tested for each in pixels]]
    assert len(frame) == 40 and len(rows) == 20
    wrong = (rows["class"] != rows["file"].str.split("/").str[1]).mean()
    [record] = records.records(Path("results"))
    assert 100 * wrong == pytest.approx(record.scores["last"]["error"])


def test_every_form_of_paths_says_the_same(trained: tuple[Path, str], type_in: Any) -> None:
    with zipfile.ZipFile("own.zip", "w") as archive:
        for file in sorted(Path("own").rglob("*.png")):
            archive.write(file)
    shutil.make_archive("packed", "gztar", ".", "own")
    by = {path: kfbench.predict(trained[1], path, progress=False) for path in ("own", "own.zip", "packed.tar.gz")}
    for path, frame in by.items():
        assert list(frame["class"]) == list(by["own"]["class"]), path
    done = type_in("predict", trained[1][:6], "own/light/03.png", "own/dark", "--probabilities")
    again = type_in("predict", trained[1][:6], "own/light/03.png", "own/dark", "own/dark/03.png", "--probabilities")
    assert again.out == done.out, "paths that overlap"
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert done.code == 0 and len(rows) == 21 and rows[0]["file"] == "own/light/03.png"
    assert set(rows[0]) == {"file", "class", "probability", "p(dark)", "p(light)"}
    assert all(float(row["p(dark)"]) + float(row["p(light)"]) == pytest.approx(1, abs=1e-4) for row in rows)
    assert "note: 21 of 21 images had another size: stretched to 8×8" in done.err


def test_images_that_cannot_be_read_cost_no_other(trained: tuple[Path, str], type_in: Any) -> None:
    for name in ("broken", "worse"):
        Path(f"own/dark/{name}.png").write_bytes(b"no picture")
    Path("own/notes.txt").write_text("by hand")
    done = type_in("predict", trained[1], "own", "--out", "new/out.csv")
    assert (done.code, done.out) == (1, "new/out.csv: 40 images\n"), done
    for name in ("broken", "worse"):
        assert f"'own/dark/{name}.png' cannot be read (no image that Pillow knows)" in done.err
    assert "left out, no images: own/notes.txt" in done.err
    assert len(Path("new/out.csv").read_text().splitlines()) == 41
    told = json.loads(type_in("predict", trained[1], "own/dark", "--json").out)
    assert told["classes"] == list(CLASSES) and len(told["images"]) == 20 and len(told["unreadable"]) == 2
    with pytest.warns(kfbench.KfbenchWarning, match="cannot be read"):
        frame = kfbench.predict(trained[1], "own/dark", progress=False)
    assert len(frame) == 20 and frame.attrs["unreadable"] == told["unreadable"]


def test_images_below_a_dot_are_left_out_and_said_and_rows_go_by_name(trained: tuple[Path, str], type_in: Any) -> None:
    Path("own/.old").mkdir()
    with zipfile.ZipFile("some.zip", "w") as file:
        for name in ("b/2.png", "a.png", "../c.png", ".old/d.png", "__MACOSX/._a.png", "b/1.png"):
            file.write("own/dark/00.png", name)
    done = type_in("predict", trained[1], "some.zip")
    assert [row["file"] for row in csv.DictReader(io.StringIO(done.out))] == [
        f"some.zip/{name}" for name in ("a.png", "b/1.png", "b/2.png")
    ]
    assert "left out, hidden by a dot before a name: some.zip/../c.png and 1 more" in done.err
    done = type_in("predict", trained[1], "own")
    assert len(done.out.splitlines()) == 41 and "left out, hidden by a dot before a name: own/.old/\n" in done.err


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("", "no run is named"),
        ("zzzz", "'zzzz' is no key, which has 0 to 9 and a to f, and no teacher: teacher 'zzzz': no task"),
        ("3f2g", "is no key, which has 0 to 9 and a to f, and no teacher: teacher '3f2g': no task"),
    ],
)
def test_a_mistyped_key_is_told(key: str, said: str, trained: tuple[Path, str], type_in: Any) -> None:
    done = type_in("predict", key, "own")
    assert done.code == 2 and said in done.err and len(done.lines) == 1


def test_a_key_may_be_written_as_a_teacher_is_and_an_ending_in_capitals(
    trained: tuple[Path, str], type_in: Any
) -> None:
    done = type_in("export", f"run:{trained[1][:6]}", "out/S.PT2")
    assert done.code == 0 and done.out.splitlines() == ["out/S.PT2", "out/S.PT2.json"], done
    torch.export.load("out/S.PT2")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are Unicode")
def test_a_name_that_is_no_utf8_is_spelled(trained: tuple[Path, str], type_in: Any) -> None:
    Path("odd").mkdir()
    shutil.copy("own/dark/00.png", b"odd/lat\xe9.png".decode(errors="surrogateescape"))
    done = type_in("predict", trained[1], "odd", "--out", "odd.csv")
    assert done.code == 0 and Path("odd.csv").read_text().splitlines()[1].startswith("odd/lat\\xe9.png,")


@pytest.mark.parametrize("paths", [None, [], 3, [None], np.zeros((300, 300))])
def test_what_is_no_path_is_one_line(paths: Any, trained: tuple[Path, str]) -> None:
    with pytest.raises(kfbench.KfbenchError, match="paths cannot be") as raised:
        kfbench.predict(trained[1], paths, progress=False)
    assert len(str(raised.value)) < 200 and "\n" not in str(raised.value)


def test_how_images_were_resized_goes_with_the_student(trained: tuple[Path, str], type_in: Any) -> None:
    """An exported student says it where the data set is not."""
    for name in ("student.safetensors", "student.pt2"):
        assert type_in("export", trained[1], name).out.split() == [name, f"{name}.json"]
        told = json.loads(Path(f"{name}.json").read_text())
        assert (told["shape"], told["classes"], told["resized"]) == ([3, 8, 8], list(CLASSES), "stretched")
        assert ("floats in 0..1" in told.get("takes", "")) == name.endswith(".pt2")
        network = kfbench.load(trained[1])
        assert told["mean"] == network.mean.flatten().tolist() and told["std"] == network.std.flatten().tolist()
    shutil.rmtree("results")
    here = type_in("predict", "file:student.safetensors", "own")
    assert here.code == 0 and "stretched to 8×8" in here.err
    other = type_in("predict", "file:student.safetensors", "own", "--resized", "cropped")
    assert "cut out, at 8×8" in other.err and other.out != here.out


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "1", "P", "I;16"])
def test_a_network_of_grey_or_colour_takes_images_of_any_mode(mode: str, type_in: Any, packed_digits: Path) -> None:
    for teacher, size in (("random:digits/cnn-4", "8x8"), ("random:imagefolder/shades/cnn-4", "8x8")):
        path = Path("data" if "digits" in teacher else "own") / "new.png"
        picture(path, value=128, seed=3, size=(8, 8), mode="L" if mode == "I;16" else mode)
        if mode == "I;16":
            with Image.open(path) as grey:
                Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(path)
        done = type_in("predict", teacher, path)
        assert done.code == 0 and len(done.out.splitlines()) == 2 and not done.err, (teacher, size, done)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("KEY", "nowhere"), "no file or folder 'nowhere'"),
        (("KEY", "empty"), "no image in 'empty'; give images, or folders or archives of them"),
        (("KEY", "notes.txt"), "'notes.txt' is no image (webp, png, "),
        (("KEY", "broken.zip"), "'broken.zip' is no sound zip archive"),
        (("KEY", "broken.png"), "'broken.png' cannot be read (no image that Pillow knows)"),
        (("KEY", "own", "--resized", "croped"), "no way to resize 'croped'; did you mean 'cropped'?"),
        (("KEY", "own", "--out", "a.xlsx"), "'a.xlsx' must end in .csv"),
        (("KEY", "own", "--out", "own/dark/00.png/a.csv"), "cannot write"),
        (("0123456789ab", "own"), "no run in 'results'"),
        (("random:atari/pong", "own"), "plays 'atari/pong'"),
        (
            ("torchvision:resnet18", "own"),
            "is made for a run's images: kfbench run --method finetune --network torchvision:resnet18",
        ),
    ],
)
def test_what_cannot_be_predicted_is_one_line(
    words: tuple[str, ...], said: str, trained: tuple[Path, str], type_in: Any
) -> None:
    Path("empty").mkdir()
    Path("notes.txt").write_text("by hand")
    for ending in ("png", "zip"):
        Path(f"broken.{ending}").write_bytes(b"no picture")
    done = type_in("predict", *(trained[1] if word == "KEY" else word for word in words))
    assert done.code == 2 and done.lines[-1].startswith("error: ") and said in done.lines[-1], done
