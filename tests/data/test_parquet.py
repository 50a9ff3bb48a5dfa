"""Images in Parquet files, written as the Hugging Face hub's library writes them, and as pandas does."""

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from console import Console
from PIL import Image
from pyarrow import parquet

from kfbench.data import packs
from kfbench.data.importing import import_images

RNG = np.random.default_rng(0)
NAMES = ["a/b", "cat", "dog"]  # a class may be called as no folder can


def picture(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def pictures(count: int) -> np.ndarray:
    return RNG.integers(0, 256, (count, 5, 4, 3), np.uint8)


def as_hub(path: Path, images: Sequence[bytes | None], **labels: Sequence[int]) -> Path:
    """Write a file as `datasets.Dataset.to_parquet` does; every column of labels is a ClassLabel of NAMES."""
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    features |= {name: {"names": NAMES, "_type": "ClassLabel"} for name in labels}
    columns: dict[str, Any] = {"image": [{"bytes": each, "path": f"{i}.png"} for i, each in enumerate(images)]}
    table = pa.table(columns | {name: pa.array(values, pa.int64()) for name, values in labels.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    parquet.write_table(table.replace_schema_metadata(about), path, row_group_size=4)
    return path


def test_the_hubs_files_are_a_data_set(tmp_path: Path, type_in: Console) -> None:
    train, test = pictures(18), pictures(6)
    for shard in (0, 1):
        as_hub(
            tmp_path / "pets" / "data" / f"train-{shard:05}-of-00002-1359597a978bc4f{shard}.parquet",
            [picture(each) for each in train[9 * shard : 9 * shard + 9]],
            label=[0, 1, 2] * 3,
        )
    as_hub(tmp_path / "pets" / "data" / "test-00000-of-00001.parquet", [*map(picture, test)], label=[0, 1, 2] * 2)
    (tmp_path / "pets" / "README.md").write_text("what it is")
    picture_of_it = tmp_path / "pets" / "assets" / "look" / "all.png"
    picture_of_it.parent.mkdir(parents=True)
    picture_of_it.write_bytes(picture(test[0]))
    done = type_in("data", "import", "pets", "pets")
    assert done.code == 0 and done.err == "" and "classes: a/b, cat, dog" in done.out
    pack = packs.open_pack(packs.data_folder() / "pets")
    assert pack.counts == {"train": 18, "test": 6} and pack.classes == ("a/b", "cat", "dog")
    for split, given in (("train", train), ("test", test)):
        images, labels = pack.read(split)  # type: ignore[arg-type]
        for label in range(3):
            there = {image.permute(1, 2, 0).numpy().tobytes() for image in images[labels == label]}
            assert there == {each.tobytes() for each in given[label::3]}
    converted = [  # the layout of the hub's own conversion
        as_hub(tmp_path / "hub" / split / "0000.parquet", [*map(picture, given)], label=[0, 1, 2] * (len(given) // 3))
        for split, given in (("train", train), ("test", test))
    ]
    assert import_images("again", converted).checksum == pack.checksum
    assert import_images("once_more", [tmp_path / "hub"]).checksum == pack.checksum
    done = type_in("data", "import", "held", converted[0], "--test", "0.2", "--val", "0.2", "--size", "3x3")
    assert done.code == 0 and "held: 12 training, 3 validation and 3 test images, 3×3×3" in done.out
    done = type_in("data", "import", "held", tmp_path / "hub", "--test", "0.2")
    assert done.code == 2 and "has test images; leave --test out" in done.err
    made = ["again", "held", "once_more", "pets"]
    assert sorted(path.name for path in packs.data_folder().iterdir()) == [".locks", *made]


def test_a_share_is_held_out_of_a_file_without_a_split(tmp_path: Path) -> None:
    images = [*map(picture, pictures(30))]
    whole = as_hub(tmp_path / "whole.parquet", images, label=[0, 1, 2] * 10)
    pack = import_images("pets", [whole], test=0.2)
    assert pack.counts == {"train": 24, "test": 6}
    part = as_hub(tmp_path / "train.parquet", images, label=[0, 1, 2] * 10)
    assert import_images("part", [part], test=0.2).checksum == pack.checksum


def test_files_of_others_have_bytes_and_words(tmp_path: Path) -> None:
    pixels = pictures(12)
    for split, chosen in (("train", slice(0, 8)), ("valid", slice(8, 10)), ("test", slice(10, 12))):
        given = pixels[chosen]
        words = ["cat", "dog"] * (len(given) // 2)
        table = {"id": [*range(len(given))], "picture": [*map(picture, given)], "Label": words}
        parquet.write_table(pa.table(table), tmp_path / f"{split}.parquet")
    pack = import_images("pets", sorted(tmp_path.glob("*.parquet")))
    assert pack.classes == ("cat", "dog") and pack.counts == {"train": 8, "val": 2, "test": 2}
    assert import_images("ids", [tmp_path / "train.parquet"], column="Label", test=0.25).classes == ("cat", "dog")


@pytest.mark.parametrize(
    "called", ["{}_0", "{}-00000", "{}2", "cells_{}", "{}_part-1", "partial-{}", "my_{}-00000-of-00001-0a1b2c3d"]
)
def test_files_are_of_the_split_that_they_are_called_by(called: str, tmp_path: Path) -> None:
    for split, count in (("train", 12), ("test", 6)):
        images = [*map(picture, pictures(count))]
        as_hub(tmp_path / f"{called.format(split)}.parquet", images, label=[0, 1, 2] * (count // 3))
    assert import_images("bugs", sorted(tmp_path.glob("*.parquet"))).counts == {"train": 12, "test": 6}


def test_the_only_column_beside_the_pictures_holds_the_classes(tmp_path: Path) -> None:
    table = {"picture": [*map(picture, pictures(12))], "kind of bug": ["ant", "bee", "cricket"] * 4}
    parquet.write_table(pa.table(table), tmp_path / "bugs.parquet")
    assert import_images("bugs", [tmp_path / "bugs.parquet"], test=0.25).classes == ("ant", "bee", "cricket")


def test_the_column_of_classes_is_chosen(tmp_path: Path, type_in: Console) -> None:
    images = [*map(picture, pictures(12))]
    as_hub(tmp_path / "train.parquet", images, fine_label=[0, 1, 2] * 4, coarse_label=[0, 1] * 6)
    words = ("data", "import", "pets", "train.parquet", "--test", "0.25")
    done = type_in(*words)
    assert (
        done.code == 2 and "has the columns fine_label, coarse_label; say which holds the classes: --label" in done.err
    )
    assert "no column 'fine'; did you mean 'fine_label'" in type_in(*words, "--label", "fine").err
    assert type_in(*words, "--label", "coarse_label").code == 0
    assert packs.open_pack(packs.data_folder() / "pets").classes == ("a/b", "cat")


def test_that_files_of_a_set_are_not_there_is_told(tmp_path: Path, type_in: Console) -> None:
    """As after a fetch that broke off; sets that are whole, counted from 0 or from 1, are not spoken of."""
    images = [*map(picture, pictures(6))]
    for name in ("train-00000-of-00003", "train-00002-of-00003", "test-1-of-2", "test-2-of-2"):
        as_hub(tmp_path / "pets" / f"{name}.parquet", images, label=[0, 1, 2] * 2)
    as_hub(tmp_path / "pets" / "val-00000-of-00001-0a1b2c3d.parquet", images, label=[0, 1, 2] * 2)
    done = type_in("data", "import", "pets", "pets")
    said = "note: 1 of 3 Parquet files of a set are not there, as 'pets/train-00001-of-00003.parquet'\n"
    assert done.code == 0 and [line for line in done.err.splitlines() if "of a set" in line] == [said.strip()]
    done = type_in("data", "import", "few", "pets/train-00000-of-00003.parquet", "pets/test-2-of-2.parquet")
    assert "note: 2 of 3 Parquet" in done.err and "note: 1 of 2 Parquet" in done.err and "pets/test-1-of-2" in done.err


def test_what_is_wrong_is_told_in_a_line(tmp_path: Path, type_in: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [*map(picture, pictures(6))]
    good = as_hub(tmp_path / "train.parquet", images, label=[0, 1, 2] * 2)
    as_hub(tmp_path / "secret" / "test.parquet", images, label=[-1] * 6)
    as_hub(tmp_path / "empty" / "train.parquet", [*images[:5], None], label=[0, 1, 2] * 2)
    as_hub(tmp_path / "odd" / "train.parquet", [*images[:5], b"no picture"], label=[0, 1, 2] * 2)
    parquet.write_table(pa.table({"label": [1, 2]}), tmp_path / "blind.parquet")
    parquet.write_table(pa.table({"a": [b"x"], "b": [b"x"], "label": [1]}), tmp_path / "two.parquet")
    (tmp_path / "cut.parquet").write_bytes(good.read_bytes()[:-20])
    (tmp_path / "nothing.parquet").write_bytes(b"")
    content = bytearray(good.read_bytes())
    content[4:200] = bytes(196)
    (tmp_path / "flipped.parquet").write_bytes(content)
    parquet.write_table(pa.table({"image": images, "label": [[0, 1]] * 6}), tmp_path / "several.parquet")
    parquet.write_table(pa.table({"image": images}), tmp_path / "bare.parquet")
    monkeypatch.setattr(f"{__name__}.NAMES", ["a", "b", "a"])
    as_hub(tmp_path / "same.parquet", images, label=[0, 1, 2] * 2)
    (tmp_path / "pets" / "train" / "a").mkdir(parents=True)
    (tmp_path / "pets" / "train" / "a" / "1.png").write_bytes(images[0])
    for given, said in (
        (
            ["secret", "train.parquet"],
            "'secret/test.parquet: row 0' has no class, as test images whose labels are kept",
        ),
        (
            ["several.parquet"],
            "'several.parquet: row 0' has no class, as test images whose labels are kept secret, or several",
        ),
        (["bare.parquet"], "'bare.parquet' has no column beside its pictures; add one of their classes"),
        (["flipped.parquet"], "'flipped.parquet' is no sound Parquet file"),
        (["same.parquet"], "two classes of 'same.parquet' are called 'a'; rename one"),
        (["empty"], "'empty/train.parquet: row 5' has no picture in the file"),
        (["odd", "--test", "0.5"], "'odd/train.parquet: row 5' cannot be read (no image that Pillow knows)"),
        (["blind.parquet"], "'blind.parquet' has no column of pictures"),
        (["two.parquet"], "'two.parquet' has several columns of pictures (a, b)"),
        (["cut.parquet"], "'cut.parquet' is no sound Parquet file"),
        (["nothing.parquet"], "'nothing.parquet' is no sound Parquet file"),
        (["train.parquet"], "no test images in 'train.parquet'; give the archive or folder with them as well, or hold"),
        (["train.parquet", "pets"], "some of the paths are Parquet files or arrays and some are not"),
        (["pets", "--label", "x"], "--label names a column of a table"),
    ):
        done = type_in("data", "import", "pets", *given)
        assert done.code == 2 and len(done.lines) == 1 and said in done.err, (given, done.err)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "needs pyarrow: pip install 'kfbench[parquet]'" in type_in("data", "import", "pets", "train.parquet").err
    assert not list(packs.data_folder().iterdir())
