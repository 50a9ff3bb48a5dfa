"""Folders and archives as people have them: which is a split, which a class, odd names, links, what is no image."""

import json
import shutil
import tarfile
import unicodedata
import zipfile
from pathlib import Path

import pytest
from console import Console
from pictures import SPLITS, folder, picture, zip_of

from kfbench.data import packs
from kfbench.data.importing import import_images
from kfbench.errors import KfbenchError


@pytest.mark.parametrize(
    ("names", "inside", "test"),
    [
        (SPLITS, "", None),
        (SPLITS, "pets/images/of 2024", None),  # as an archive of a folder in a folder has it
        (("Train/a", "Train/b", "TEST/a", "TEST/b"), "", None),
        (("training/a", "training/b", "testing/a", "testing/b"), "", None),
        (("a", "b"), "", 0.5),
        (("a", "b"), "pets", 0.5),
        (("a/small/young", "a/large", "b/small"), "", 0.5),  # what lies below a class folder is of the class
    ],
)
@pytest.mark.parametrize("form", ["", "zip", "tar", "gztar"])
def test_layouts(names: tuple[str, ...], inside: str, test: float | None, form: str, tmp_path: Path) -> None:
    folder(tmp_path / "given" / inside, *names)
    where = Path(shutil.make_archive(str(tmp_path / "made"), form, tmp_path / "given")) if form else tmp_path / "given"
    pack = import_images("pets", [where], test=test)
    assert pack.classes == ("a", "b") and sum(pack.counts.values()) == 10 * len(names)


def test_the_splits_may_be_given_one_by_one(tmp_path: Path) -> None:
    where = folder(tmp_path / "pets", *SPLITS)
    pack = import_images("pets", [where / "train", where / "test"])
    assert pack.counts == {"train": 20, "test": 20} and pack.classes == ("a", "b")
    archives = [zip_of(where / split, tmp_path / f"{split}.zip") for split in ("train", "test")]
    assert import_images("zipped", archives).checksum == pack.checksum
    tars = [Path(shutil.make_archive(str(where / split), "gztar", where / split)) for split in ("train", "test")]
    assert [path.name for path in tars] == ["train.tar.gz", "test.tar.gz"]
    assert import_images("tarred", tars).checksum == pack.checksum
    assert import_images("both", [archives[0], tars[1]]).checksum == pack.checksum
    plain = [path.rename(tmp_path / path.name.removesuffix(".tar.gz")) for path in tars]  # known by its content
    assert import_images("plain", plain).checksum == pack.checksum
    made = ["both", "pets", "plain", "tarred", "zipped"]
    assert sorted(path.name for path in packs.data_folder().iterdir()) == [".locks", *made]


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training_set", "test_set"),
        ("Train-Images", "test images"),
        ("train", "testset"),
        ("seg_train", "seg_test"),
        ("my pets-training", "my pets-test-set"),
    ],
)
@pytest.mark.parametrize("inside", ["", "kaggle"])
def test_folders_that_are_called_like_splits_are_splits_side_by_side(
    train: str, test: str, inside: str, tmp_path: Path
) -> None:
    names = [f"{split}/{label}" for split in (train, test) for label in ("cats", "dogs")]
    where = folder(tmp_path / "given" / inside, *names)
    pack = import_images("pets", [tmp_path / "given"])
    assert pack.classes == ("cats", "dogs") and pack.counts == {"train": 20, "test": 20}
    assert import_images("parts", [where / train, where / test]).checksum == pack.checksum


@pytest.mark.parametrize(
    ("train", "test"), [("training_set", "test_set"), ("train", "test"), ("seg_train", "seg_test")]
)
@pytest.mark.parametrize("zipped", [False, True])
def test_a_split_in_a_folder_of_its_own_name_is_that_split(
    train: str, test: str, zipped: bool, tmp_path: Path, type_in: Console
) -> None:
    """As Kaggle packs them; what lies beside the inner folder is no class of it, and one may be called as the split."""
    names = [f"{split}/{split}/{label}" for split in (train, test) for label in (train, "dogs")]
    folder(tmp_path / "given", *names)
    picture(tmp_path / "given" / "predict" / "predict" / "1.png")
    where = zip_of(tmp_path / "given", tmp_path / "given.zip") if zipped else tmp_path / "given"
    done = type_in("data", "import", "pets", where)
    assert done.code == 0 and done.out.splitlines()[1] == f"classes: dogs, {train}"
    assert "pets: 20 training and 20 test images" in done.out and "predict/predict/1.png" in done.err
    plain = folder(tmp_path / "plain", *(f"{split}/{label}" for split in ("train", "test") for label in "ab"), count=2)
    picture(plain / "train" / "train" / "a" / "1.png")
    done = type_in("data", "import", "odd", plain)
    assert done.code == 2 and "class 'train' is in train/ and not in test/" in done.err


def test_folders_that_only_end_like_splits_are_classes(tmp_path: Path) -> None:
    where = folder(tmp_path / "odd", "steam_train", "blood_test", "dog")
    assert import_images("odd", [where], test=0.2).classes == ("blood_test", "dog", "steam_train")


def test_the_classes_are_told(tmp_path: Path, type_in: Console) -> None:
    names = [f"{split}/{kind}/{label}" for split in ("train", "test") for kind in "xy" for label in ("cat", "dog")]
    done = type_in("data", "import", "nest", folder(tmp_path / "nest", *names, count=2))
    assert done.code == 0 and done.out.splitlines()[1] == "classes: x, y"
    folder(tmp_path / "many", *(f"{number:02}" for number in range(13)), count=3)
    told = type_in("data", "import", "many", "many", "--test", "0.2").out
    assert told.endswith("classes: 00, 01, 02, 03, 04, 05, 06, 07, 08, 09, 10, 11, …\n")


def test_a_folder_around_the_images_of_one_path_only_may_be_a_class(tmp_path: Path, type_in: Console) -> None:
    folder(tmp_path / "parts", "cats/cat/in", "cats/cat/out", "dogs/dog/in", "dogs/dog/out", "more/in", "more/out")
    for others in (["parts/dogs"], ["parts/more"]):
        done = type_in("data", "import", "pets", "parts/cats", *others, "--test", "0.2")
        assert done.code == 2 and "'parts/cats' has all its images in a folder 'cat' and another path has" in done.err
    assert import_images("pets", [tmp_path / "parts"], test=0.2).classes == ("cats", "dogs", "more")
    folder(tmp_path / "half" / "cats" / "cat", "new")
    pack = import_images("pets", [tmp_path / "parts" / "cats", tmp_path / "half" / "cats"], test=0.2)
    assert pack.classes == ("in", "new", "out")  # 'cat' is around all images of both


ODD = ["Größe 2", "100 %", "naïve/x"[:5], "a'b", "日本", "a,b;c", "#1", "-rf", "con fusion "]


@pytest.mark.parametrize("zipped", [False, True])
def test_class_names_may_be_anything(zipped: bool, tmp_path: Path, type_in: Console) -> None:
    where = folder(tmp_path / "my pictures (1) ä", *(f"{split}/{name}" for split in ("train", "test") for name in ODD))
    path = zip_of(where, tmp_path / "my pictures.zip") if zipped else where
    told = json.loads(type_in("data", "import", "odd", path, "--json").out)
    assert told["classes"] == sorted(ODD)
    assert type_in("data", "list").code == 0


def test_a_macs_names_are_those_of_linux(tmp_path: Path) -> None:
    folder(tmp_path / "one", unicodedata.normalize("NFD", "train/bär"), "train/fuß")
    folder(tmp_path / "two", unicodedata.normalize("NFC", "test/bär"), "test/fuß")
    assert import_images("pets", [tmp_path / "one", tmp_path / "two"]).classes == ("bär", "fuß")


def test_an_archive_with_the_separators_of_windows(tmp_path: Path) -> None:
    where = folder(tmp_path / "given", "train/a", "test/a", "train/b", "test/b")
    with zipfile.ZipFile(tmp_path / "windows.zip", "w") as archive:
        for file in sorted(where.rglob("*.png")):
            name = str(file.relative_to(where)).replace("/", "\\")
            info = zipfile.ZipInfo("x")
            info.filename = name  # as it is in the file: the constructor would mend it on Windows
            archive.writestr(info, file.read_bytes())
    assert import_images("pets", [tmp_path / "windows.zip"]).checksum == import_images("same", [where]).checksum


def test_folders_beside_the_one_that_holds_the_images_are_no_classes(tmp_path: Path) -> None:
    where = folder(tmp_path / "pets" / "images", "a", "b").parent
    (where / "annotations" / "xmls").mkdir(parents=True)
    (where / "annotations" / "xmls" / "1.xml").write_text("<a/>")
    assert import_images("pets", [where], test=0.2).classes == ("a", "b")


def test_a_zip_without_the_flag_for_utf_8(tmp_path: Path) -> None:
    where = zip_of(folder(tmp_path / "given", "train/bär", "test/bär", "train/c", "test/c"), tmp_path / "flagged.zip")
    content = bytearray(where.read_bytes())
    for signature, place in ((b"PK\1\2", 8), (b"PK\3\4", 6)):  # as a Mac's archiver writes it
        start = content.find(signature)
        while start >= 0:
            content[start + place + 1] &= ~8
            start = content.find(signature, start + 4)
    (tmp_path / "mac.zip").write_bytes(content)
    assert import_images("pets", [tmp_path / "mac.zip"]).classes == ("bär", "c")


def test_what_is_no_image_is_left_out_and_told(tmp_path: Path, type_in: Console) -> None:
    where = folder(tmp_path / "pets", *SPLITS, "__MACOSX/train/a", ".git/train/c", "train/.cache")
    for name in ("train/a/notes.txt", "train/a/.DS_Store", "train/a/Thumbs.db", "train/labels.csv", "train/a/._1.png"):
        (where / name).write_bytes(b"none")
    done = type_in("data", "import", "pets", where)
    assert done.code == 0 and "20 training and 20 test images" in done.out
    assert done.err == f"left out, no image in a class folder: {where}: train/a/notes.txt and 1 more\n"


def test_links_are_followed_and_circles_are_not(tmp_path: Path, type_in: Console) -> None:
    folder(tmp_path / "all", "a", "b")
    for split in ("train", "test"):
        (tmp_path / "pets" / split).mkdir(parents=True)
        for label in "ab":
            (tmp_path / "pets" / split / label).symlink_to(tmp_path / "all" / label)
    (tmp_path / "all" / "a" / "up").symlink_to(tmp_path / "pets")
    assert import_images("pets", [tmp_path / "pets"]).counts == {"train": 20, "test": 20}
    (tmp_path / "pets" / "train" / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    done = type_in("data", "import", "pets", "pets")
    assert done.code == 2 and "test/a/gone.png' cannot be read" in done.err and "No such file" in done.err


def test_links_in_an_archive_are_followed(tmp_path: Path) -> None:
    where = folder(tmp_path / "pets", *SPLITS)
    inside = where / "train" / "a"
    first, *_ = sorted(inside.iterdir())
    (inside / "soft.png").symlink_to(first.name)
    (inside / "hard.png").hardlink_to(first)
    (where / "again").symlink_to("train")
    with tarfile.open(tmp_path / "pets.tar.gz", "w:gz") as archive:
        archive.add(where, "pets")
    assert import_images("pets", [tmp_path / "pets.tar.gz"]).counts == {"train": 22, "test": 20}
    (inside / "gone.png").symlink_to("nowhere.png")
    with tarfile.open(tmp_path / "pets.tar", "w") as archive:
        archive.add(where, "pets")
    with pytest.raises(KfbenchError, match="'pets/train/a/gone.png' is a link to 'nowhere.png', which is not in it"):
        import_images("pets", [tmp_path / "pets.tar"])
