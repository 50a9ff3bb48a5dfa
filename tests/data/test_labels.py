"""Images whose classes a table names, in the forms in which labs and Kaggle have them."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from console import Console
from PIL import Image

from kfbench.data import packs
from kfbench.data.importing import import_images
from kfbench.errors import KfbenchError

RNG = np.random.default_rng(0)


@pytest.fixture
def pets(tmp_path: Path) -> dict[str, str]:
    """Forty pictures in images/ and in class folders, and the class of each: {name: class}."""
    classes = {}
    for number in range(40):
        label = ("cat", "dog")[number % 2]
        for path in (tmp_path / "images" / f"{number:03}.png", tmp_path / "sorted" / label / f"{number:03}.png"):
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.parent.name == "images":
                picture = Image.fromarray(RNG.integers(0, 256, (5, 4, 3), np.uint8))
            picture.save(path)
        classes[f"{number:03}.png"] = label
    return classes


def table(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_table_is_as_good_as_class_folders(tmp_path: Path, type_in: Console, pets: dict[str, str]) -> None:
    wanted = import_images("sorted", [tmp_path / "sorted"], test=0.2, val=0.1).checksum
    plain = [f"{name},{label}" for name, label in pets.items()]
    stems = [f"{name.removesuffix('.png')}\t{label}" for name, label in pets.items()]
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for name in pets:
            archive.write(tmp_path / "images" / name, f"all/images/{name}")
    forms = {
        "head": table(tmp_path / "labels.csv", "file,label", *plain),
        "none": table(tmp_path / "none.csv", *plain),
        "twice": table(tmp_path / "twice.csv", "file,label", *plain, plain[0], ""),
        "mark": table(tmp_path / "mark.csv", "\ufeffimage;species", *(line.replace(",", ";") for line in plain)),
        "more": table(tmp_path / "more.csv", "label,age,id", *(f"{pets[n]},{n[:2]},{n[:3]}" for n in pets)),
        "stems": table(tmp_path / "stems.tsv", "id\tbreed", *stems),
        "paths": table(
            tmp_path / "paths.csv", "path,label", *(f'"./images/{line}'.replace(",", '",') for line in plain)
        ),
        "slashes": table(tmp_path / "slashes.csv", "path,label", *(f"images\\{line}" for line in plain)),
    }
    for name, file in forms.items():
        images = tmp_path if name in ("paths", "slashes") else tmp_path / "images"
        if images == tmp_path:  # the pictures must be there once
            for copies in ("sorted", "images.zip"):
                path = tmp_path / copies
                path.exists() and path.rename(tmp_path / f".{copies}")
        done = type_in("data", "import", name, images, "--labels", file, "--test", "0.2", "--val", "0.1")
        assert done.code == 0 and done.err == "", (name, done.err)
        assert packs.open_pack(packs.data_folder() / name).checksum == wanted, name
    (tmp_path / ".images.zip").rename(tmp_path / "images.zip")
    words = ("--labels", "labels.csv", "--test", "0.2", "--val", "0.1", "--label", "label")
    assert type_in("data", "import", "zipped", "images.zip", *words).code == 0
    assert packs.open_pack(packs.data_folder() / "zipped").checksum == wanted


def test_paths_may_begin_with_the_folder_that_was_given(tmp_path: Path, pets: dict[str, str]) -> None:
    wanted = import_images("sorted", [tmp_path / "sorted"], test=0.2).checksum
    (tmp_path / "link").symlink_to("images")
    for where, before in (
        ("images", "images"),
        ("images", "./images"),
        ("images", str(tmp_path / "images")),
        ("link", "images"),
        ("link", str(tmp_path / "link")),
    ):
        file = table(tmp_path / "labels.csv", *(f"{before}/{name},{label}" for name, label in pets.items()))
        assert import_images("pets", [tmp_path / where], tables=[file], test=0.2).checksum == wanted, before
    (tmp_path / "images" / "images").mkdir()  # what lies below the folder comes first
    (tmp_path / "images" / "images" / "000.png").write_bytes((tmp_path / "images" / "001.png").read_bytes())
    file = table(tmp_path / "one.csv", "images/000.png,cat", *(f"{name},{pets[name]}" for name in [*pets][1:]))
    found = import_images("pets", [tmp_path / "images"], tables=[file], test=0.2)
    assert sum(found.counts.values()) == 40 and found.checksum != wanted


def test_the_numbers_that_pandas_puts_before_are_no_names(tmp_path: Path, pets: dict[str, str]) -> None:
    """They are names of images too, without their suffix, but of others: rows are sorted as text."""
    for name in pets:
        (tmp_path / "images" / name).rename(tmp_path / "images" / f"{int(name[:3])}.png")
    plain = {f"{int(name[:3])}.png": label for name, label in pets.items()}
    rows = [f"{row},{name},{plain[name]}" for row, name in enumerate(sorted(plain))]
    wanted = import_images("sorted", [tmp_path / "sorted"], test=0.2).checksum
    file = table(tmp_path / "labels.csv", ",filename,label", *rows)
    assert import_images("pets", [tmp_path / "images"], tables=[file], test=0.2).checksum == wanted
    file = table(tmp_path / "labels.csv", ",filename,label", *(row.replace(".png", "_x.png") for row in rows))
    with pytest.raises(KfbenchError, match="no column of .* names the images that were given"):
        import_images("pets", [tmp_path / "images"], tables=[file], test=0.2)


def test_classes_that_are_numbers_stand_in_their_order(tmp_path: Path, pets: dict[str, str]) -> None:
    """As arrays have them, and as code has them that was trained on the table's numbers."""
    folder = tmp_path / "images"
    rows = [f"{name},{number % 12 + 1}" for number, name in enumerate(pets)]
    made = import_images("numbers", [folder], tables=[table(tmp_path / "labels.csv", *rows)], test=0.3)
    assert made.classes == tuple(f"{number:02}" for number in range(1, 13))
    mixed = [row.replace(",12", ",twelve") for row in rows]
    made = import_images("mixed", [folder], tables=[table(tmp_path / "labels.csv", *mixed)], test=0.3)
    assert made.classes == tuple(sorted([*map(str, range(1, 12)), "twelve"]))


def test_splits_are_a_column_or_tables(tmp_path: Path, type_in: Console, pets: dict[str, str]) -> None:
    split = {name: ("train", "Test", "validation", "train")[int(name[:3]) // 10] for name in pets}
    rows = [f"{name},{label},{split[name]}" for name, label in pets.items()]
    table(tmp_path / "whole.csv", "file,label,split", *rows)
    assert type_in("data", "import", "column", "images", "--labels", "whole.csv").code == 0
    options = []
    for kind, called in (("train", "train"), ("Test", "test"), ("validation", "val")):
        table(
            tmp_path / f"{called}.csv",
            "file,label",
            *(f"{name},{label}" for name, label in pets.items() if split[name] == kind),
        )
        options += ["--labels", f"{called}.csv"]
    done = type_in("data", "import", "tables", "images", *options)
    assert done.code == 0 and done.err == ""
    one, other = (packs.open_pack(packs.data_folder() / name) for name in ("column", "tables"))
    assert one.checksum == other.checksum and one.counts == {"train": 20, "test": 10, "val": 10}
    done = type_in("data", "import", "some", "images", *options[:2], "--test", "0.2")
    assert done.code == 0 and "left out, not in the table: images: 010.png and 19 more" in done.err


def test_what_is_wrong_is_told_in_a_line(tmp_path: Path, type_in: Console, pets: dict[str, str]) -> None:
    rows = [f"{name},{label}" for name, label in pets.items()]
    (tmp_path / "latin.csv").write_bytes("file,label\n000.png,Bär\n".encode("latin-1"))
    (tmp_path / "both" / "train").mkdir(parents=True)
    (tmp_path / "both" / "test").mkdir()
    for folder in ("train", "test"):
        (tmp_path / "both" / folder / "000.png").write_bytes((tmp_path / "images" / "000.png").read_bytes())
    for lines, more, said in (
        (
            ["file,label", *rows],
            ["both"],
            "'000.png' of 'labels.csv' is 'both: test/000.png' and 'both: train/000.png'",
        ),
        (
            ["file,label", *rows, "none.png,cat"],
            [],
            "'none.png' that was not given; leave the row out, or give it as well (paths are read below the folder",
        ),
        (
            ["file,label", "x,cat"],
            [],
            "no column of 'labels.csv' names the images that were given; its first row is: x, cat",
        ),
        (["file,label"], [], "no column of 'labels.csv' names the images"),
        (["file,label", *rows, "000.png,"], [], "gives '000.png' no class"),
        (["file,label", *rows, "000.png,dog"], [], "'000.png' has a second class or split in 'labels.csv', 'dog'"),
        (["file,label", *rows, "000.png"], [], "row 41 of 'labels.csv' has 1 cells, its first line 2"),
        (
            ["file,a,b", *(f"{row},1" for row in rows)],
            [],
            "has the columns a, b; say which holds the classes: --label NAME",
        ),
        (
            [
                "file,cat,dog",
                *(f"{row.partition(',')[0]},{number % 2},{1 - number % 2}" for number, row in enumerate(rows)),
            ],
            [],
            "has a column a class (cat, dog), 1 in one of them; write one column of the classes' names: in pandas",
        ),
        (["file,label,split", *(f"{row},dev" for row in rows)], [], "has a split 'dev'; call it train, val or test"),
        (["file,breed", *rows], ["--label", "bred"], "has no column 'bred'; did you mean 'breed'"),
        (["file", *pets], [], "'labels.csv' is no table of two columns or more"),
        (
            ["file,label", *rows],
            [],
            "no test images in 'images'; give the archive or folder with them as well, or hold",
        ),
        (["file,label", *rows], ["--labels", "latin.csv"], "'latin.csv' cannot be read as a table in UTF-8"),
        (["file,label", *rows], ["--labels", "no.csv"], "no file or folder 'no.csv'"),
        (["file,label", *rows], ["--labels", "images"], "'images' cannot be read as a table"),
    ):
        table(tmp_path / "labels.csv", *lines)
        given = [more.pop(0)] if more[:1] == ["both"] else ["images"]
        done = type_in("data", "import", "pets", *given, "--labels", "labels.csv", *more)
        assert done.code == 2 and len(done.lines) == 1 and said in done.err, (lines[0], more, done.err)
    done = type_in("data", "import", "cub200", "images", "--labels", "labels.csv")
    assert done.code == 2 and "'cub200' is packed as published; leave --labels and --label out" in done.err
    assert not list((tmp_path / "data").glob("*"))


@pytest.mark.parametrize("called", ["{}_labels.csv", "labels-{}.csv", "{}_0.csv", "{}.csv"])
def test_tables_are_of_the_split_that_they_are_called_by(called: str, tmp_path: Path, pets: dict[str, str]) -> None:
    rows = [f"{name},{label}" for name, label in pets.items()]
    tables = [
        table(tmp_path / called.format(split), "file,label", *chosen)
        for split, chosen in (("train", rows[:30]), ("test", rows[30:]))
    ]
    assert import_images("pets", [tmp_path / "images"], tables=tables).counts == {"train": 30, "test": 10}


def test_a_table_that_is_called_a_test_split_is_none_alone(tmp_path: Path, pets: dict[str, str]) -> None:
    rows = [f"{name},{label}" for name, label in pets.items()]
    path = table(tmp_path / "blood_test.csv", "file,label", *rows)
    for share in (None, 0.2):
        with pytest.raises(KfbenchError, match="'.*blood_test.csv': all of it is of the split test, by its name"):
            import_images("pets", [tmp_path / "images"], tables=[path], test=share)
    path = path.rename(tmp_path / "blood-results.csv")
    assert import_images("pets", [tmp_path / "images"], tables=[path], test=0.25).counts["test"] == 10
