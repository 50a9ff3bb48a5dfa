"""Published photographs: small archives with the true names and formats, as a user has them, through to a run."""

import dataclasses
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from console import Console
from PIL import Image
from scipy.io import savemat

from kfbench import registry
from kfbench.data import images, packs, published, sources
from kfbench.data.photos import PHOTOS
from kfbench.data.unpacking import unpack
from kfbench.errors import KfbenchError
from kfbench.running import budgets
from kfbench.spec import Recipe

Files = dict[str, bytes]


@pytest.fixture(autouse=True)
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KFBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    # torchvision checks the md5 of Flowers-102's lists, which small ones cannot have
    monkeypatch.setattr("torchvision.datasets.flowers102.check_integrity", lambda path, md5=None: Path(path).is_file())
    return tmp_path / "data"


def colour(label: int, number: int) -> tuple[int, int, int]:
    """What the middle of an image has: the class in red, the number in green."""
    return 5 + 10 * label, 10 * number + 5, 200


def picture(label: int, number: int, *, size: tuple[int, int] = (40, 60), foot: int = 0) -> bytes:
    """A JPEG whose middle square is of one colour and whose sides are white; `foot` rows are added below."""
    height, width = size
    made = Image.new("RGB", (width, height + foot), "white")
    side = min(size)
    corner = ((width - side) // 2, (height - side) // 2)
    made.paste(colour(label, number), (*corner, corner[0] + side, corner[1] + side))
    buffer = io.BytesIO()
    made.save(buffer, "jpeg", quality=100, subsampling=0)
    return buffer.getvalue()


def matlab(**values: object) -> bytes:
    buffer = io.BytesIO()
    savemat(buffer, values)
    return buffer.getvalue()


def tarred(files: Files) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def zipped(files: Files) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def lines(*rows: str) -> bytes:
    return ("\n".join(rows) + "\n").encode()


def flowers() -> Files:
    """Images 1.. in 102 classes, MATLAB lists; in train, val and test each class once."""
    count = 3 * 102
    labels = [(number - 1) % 102 + 1 for number in range(1, count + 1)]
    jpegs = {f"jpg/image_{n:05}.jpg": picture(labels[n - 1] % 20, (n - 1) // 102) for n in range(1, count + 1)}
    thirds = np.arange(1, count + 1).reshape(3, 102)
    return {
        "102flowers.tgz": tarred(jpegs),
        "imagelabels.mat": matlab(labels=np.array([labels], np.uint8)),
        "setid.mat": matlab(trnid=thirds[:1], valid=thirds[1:2], tstid=thirds[2:]),
    }


def pets() -> Files:
    """Names hold the breed and a number; cats begin with a capital. The lists count classes from 1."""
    breeds = ("Abyssinian", "american_bulldog")
    jpegs, lists = {}, {"trainval": ["# Image CLASS-ID SPECIES BREED ID"][:0], "test": []}
    for split, numbers in (("trainval", (0, 1, 2)), ("test", (3,))):
        for label, breed in enumerate(breeds):
            for number in numbers:
                jpegs[f"images/{breed}_{number + 1}.jpg"] = picture(label, number)
                lists[split].append(f"{breed}_{number + 1} {label + 1} {1 if breed[0].isupper() else 2} 1")
    annotations = {f"annotations/{split}.txt": lines(*rows) for split, rows in lists.items()}
    return {"images.tar.gz": tarred(jpegs), "annotations.tar.gz": tarred(annotations)}


def textures() -> Files:
    content: Files = {}
    for number, split in enumerate(("train", "val", "test")):
        names = [f"{label}/{label}_{number:04}.jpg" for label in ("banded", "zigzagged")]
        content[f"dtd/labels/{split}1.txt"] = lines(*names)
        content |= {f"dtd/images/{name}": picture(label, number) for label, name in enumerate(names)}
    return {"dtd-r1.0.1.tar.gz": tarred(content)}


def satellites() -> Files:
    names = [(label, kind, number) for label, kind in enumerate(("AnnualCrop", "SeaLake")) for number in range(5)]
    content = {f"2750/{kind}/{kind}_{n + 1}.jpg": picture(label, n, size=(64, 64)) for label, kind, n in names}
    return {"EuroSAT.zip": zipped(content)}


def aeroplanes() -> Files:
    """Names of variants have spaces and slashes; a banner of 20 rows is at the foot."""
    variants = ("707-320", "F/A-18", "Cessna 172")
    content: Files = {"data/variants.txt": lines(*variants)}
    for place, (split, numbers) in enumerate((("trainval", (0, 1, 2)), ("test", (3,)))):
        rows = []
        for label, variant in enumerate(variants):
            for number in numbers:
                name = f"{place}{label}{number:05}"
                content[f"data/images/{name}.jpg"] = picture(label, number, foot=20)
                rows.append(f"{name} {variant}")
        content[f"data/images_variant_{split}.txt"] = lines(*rows)
    return {"fgvc-aircraft-2013b.tar.gz": tarred({f"fgvc-aircraft-2013b/{n}": c for n, c in content.items()})}


def cars() -> Files:
    names = np.array(["AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012"], object)
    files: Files = {}
    annotations = {}
    kind = [(part, object) for part in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")]
    for split, numbers in (("train", (0, 1, 2)), ("test", (3, 4))):
        rows, jpegs = [], {}
        for label in (0, 1):
            for number in numbers:
                name = f"{len(rows) + 1:05}.jpg"
                rows.append((1, 1, 9, 9, label + 1, name))
                jpegs[f"cars_{split}/{name}"] = picture(label, number)
        annotations[split] = matlab(annotations=np.array([rows and tuple(row) for row in rows], kind)[None])
        files[f"cars_{split}.tgz"] = tarred(jpegs)
    devkit = {"devkit/cars_train_annos.mat": annotations["train"], "devkit/cars_meta.mat": matlab(class_names=names)}
    return files | {"car_devkit.tgz": tarred(devkit), "cars_test_annos_withlabels.mat": annotations["test"]}


def birds() -> Files:
    kinds = ("001.Black_footed_Albatross", "002.Laysan_Albatross")
    content: Files = {}
    rows: dict[str, list[str]] = {"images": [], "image_class_labels": [], "train_test_split": []}
    key = 0
    for label, kind in enumerate(kinds):
        for number in range(4):
            key += 1
            name = f"{kind}/{kind[4:]}_{number:04}_{key}.jpg"
            content[f"CUB_200_2011/images/{name}"] = picture(label, number)
            rows["images"].append(f"{key} {name}")
            rows["image_class_labels"].append(f"{key} {label + 1}")
            rows["train_test_split"].append(f"{key} {int(number != 3)}")
    content |= {f"CUB_200_2011/{name}.txt": lines(*values) for name, values in rows.items()}
    content["CUB_200_2011/classes.txt"] = lines(*(f"{n + 1} {kind}" for n, kind in enumerate(kinds)))
    return {"CUB_200_2011.tgz": tarred(content | {"attributes.txt": b"1 has_bill_shape::curved\n"})}


def dishes() -> Files:
    content: Files = {}
    lists: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for label, dish in enumerate(("apple_pie", "waffles")):
        for number in range(4):
            name = f"{dish}/{1000 * label + number}"
            content[f"food-101/images/{name}.jpg"] = picture(label, number)
            lists["test" if number == 3 else "train"].setdefault(dish, []).append(name)
    content |= {f"food-101/meta/{split}.json": json.dumps(rows).encode() for split, rows in lists.items()}
    return {"food-101.tar.gz": tarred(content)}


def things() -> Files:
    """An archive in an archive, with a class of clutter that is none; one image is grey."""
    content = {}
    for label, kind in enumerate(("Faces", "accordion")):
        for number in range(33):
            content[f"101_ObjectCategories/{kind}/image_{number + 1:04}.jpg"] = picture(label, number % 20)
    grey = io.BytesIO()
    Image.new("L", (50, 50), 128).save(grey, "jpeg")
    content["101_ObjectCategories/accordion/image_0033.jpg"] = grey.getvalue()
    content["101_ObjectCategories/BACKGROUND_Google/image_0001.jpg"] = picture(9, 9)
    inner = {"caltech-101/101_ObjectCategories.tar.gz": tarred(content), "caltech-101/show_annotation.m": b"%"}
    return {"caltech-101.zip": zipped({**inner, "__MACOSX/caltech-101/._x": b"-"})}


def tiny() -> Files:
    wnids = ("n02124075", "n01443537")  # the list is not sorted; labels are those of the sorted one
    words = lines("n01443537\tgoldfish, Carassius auratus", "n02124075\tEgyptian cat", "n00001740\tentity")
    content: Files = {"wnids.txt": lines(*wnids), "words.txt": words}
    rows = []
    for label, wnid in enumerate(sorted(wnids)):
        for number in range(3):
            content[f"train/{wnid}/images/{wnid}_{number}.JPEG"] = picture(label, number, size=(64, 64))
        content[f"train/{wnid}/{wnid}_boxes.txt"] = b"x\t0\t0\t1\t1\n"
        content[f"val/images/val_{label}.JPEG"] = picture(label, 3, size=(64, 64))
        rows.append(f"val_{label}.JPEG\t{wnid}\t0\t32\t44\t62")
    content["val/val_annotations.txt"] = lines(*rows)
    content["test/images/test_0.JPEG"] = picture(7, 7, size=(64, 64))
    return {"tiny-imagenet-200.zip": zipped({f"tiny-imagenet-200/{name}": file for name, file in content.items()})}


# what is published, training and test images of the small copy, class names
SMALL: dict[str, tuple[Callable[[], Files], tuple[int, int], tuple[str, ...]]] = {
    "flowers102": (flowers, (204, 102), ()),
    "oxford-pets": (pets, (6, 2), ("Abyssinian", "American Bulldog")),
    "dtd": (textures, (4, 2), ("banded", "zigzagged")),
    "eurosat": (satellites, (8, 2), ("AnnualCrop", "SeaLake")),
    "aircraft": (aeroplanes, (9, 3), ("707-320", "F/A-18", "Cessna 172")),
    "cars": (cars, (6, 4), ("AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012")),
    "cub200": (birds, (6, 2), ("Black footed Albatross", "Laysan Albatross")),
    "food101": (dishes, (6, 2), ("apple_pie", "waffles")),
    "caltech101": (things, (60, 6), ("Faces", "accordion")),
    "tiny-imagenet": (tiny, (6, 2), ("goldfish", "Egyptian cat")),
}


def given(name: str, folder: Path) -> list[Path]:
    """Write the published files of a data set, small, and return them in the order in which the remedy names them."""
    folder.mkdir(parents=True, exist_ok=True)
    files = SMALL[name][0]()
    for file, content in files.items():
        (folder / file).write_bytes(content)
    assert set(PHOTOS[name].files.split()) == set(files)
    return [folder / file for file in PHOTOS[name].files.split()]


@pytest.fixture
def shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the small copies pass for the data sets."""
    for name, (_, counts, _) in SMALL.items():
        monkeypatch.setitem(PHOTOS, name, dataclasses.replace(PHOTOS[name], counts=counts))


def test_every_published_data_set_has_its_task_and_its_small_copy() -> None:
    assert set(SMALL) == set(PHOTOS) <= set(registry.names("tasks"))
    for name, photos in PHOTOS.items():
        task = registry.load_task(name)
        assert task.dataset == name and task.shape == (3, photos.side, photos.side) and not task.sources
        smaller = task.variants.get("64")
        assert (smaller is None) == (photos.side == 64)
        if smaller:
            part = registry.load_task(f"{name}/64")
            assert part.dataset == f"{name}-64" and part.shape == (3, 64, 64) and part.classes == task.classes
        rows = photos.counts[0] - min(photos.counts[0] // 10, 5000)
        paper = budgets.recipe(task, "paper")
        assert isinstance(paper, Recipe)
        assert abs(paper.epochs * rows / 64 - 9000) < 200  # steps of the source's recipe
        assert (paper.batch_size, paper.lr, paper.crop, paper.flip, paper.milestones) == (
            64,
            0.01,
            0.08,
            True,
            (5 / 9,),
        )
        for budget in budgets.BUDGETS:
            for each in [task] if smaller is None else [task, registry.load_task(f"{name}/64")]:
                recipe = budgets.recipe(each, budget)
                assert isinstance(recipe, Recipe) and recipe.crop == 0.08
                assert recipe.train_size is None or task.classes <= recipe.train_size <= rows


@pytest.mark.parametrize("name", SMALL)
def test_the_published_files_become_a_pack(name: str, tmp_path: Path, type_in: Console, shrunk: None) -> None:
    paths = given(name, tmp_path / "my files")
    done = type_in("data", "import", name, *paths, "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    _, counts, classes = SMALL[name]
    side = PHOTOS[name].side
    assert (told["train"], told["test"], told["shape"]) == (*counts, [3, side, side])
    assert tuple(told["classes"]) == classes or (name == "flowers102" and told["classes"][0] == "pink primrose")
    pack = sources.find(name)
    seen: dict[str, set[tuple[int, int]]] = {"train": set(), "test": set()}
    for split, pairs in seen.items():
        pixels, labels = pack.read("train" if split == "train" else "test")
        for image, label in zip(pixels.float(), labels.tolist(), strict=True):
            red, green, blue = image.mean((1, 2)).tolist()
            if name == "caltech101" and abs(red - 128) < 2 and abs(green - 128) < 2:
                continue  # the grey one
            assert image[2].std() < 4 and abs(blue - 200) < 6, "more than the middle square is shown"
            known = label % 20 if name != "flowers102" else (label + 1) % 20
            assert abs(red - colour(known, 0)[0]) < 4, "an image of another class"
            pairs.add((label, round((green - 5) / 10)))
    if name not in ("eurosat", "caltech101"):  # these two have no published split
        expected = {number for _, number in seen["train"]}, {number for _, number in seen["test"]}
        assert not expected[0] & expected[1], "training images among the test images"
    assert sorted(path.name for path in packs.data_folder().iterdir()) == [".locks", name]
    assert type_in("data", "import", name, *reversed(paths)).code == 0 and sources.find(name) == pack


@pytest.mark.parametrize("name", ["flowers102", "cars", "cub200", "caltech101", "aircraft"])
def test_a_folder_where_the_files_lie_unpacked_is_the_same(name: str, tmp_path: Path, shrunk: None) -> None:
    pack = published.import_published(name, given(name, tmp_path / "files"))
    root = tmp_path / "torchvision"
    for path in given(name, tmp_path / "files"):
        unpack(path, root / PHOTOS[name].folder)
    inner = next(path for path in root.iterdir() if path.is_dir())
    for folder in (root, inner):
        assert published.import_published(name, [folder]).checksum == pack.checksum


def test_a_pack_at_224_gives_one_at_64(tmp_path: Path, type_in: Console, shrunk: None) -> None:
    assert "made of 'oxford-pets'; type: kfbench data download oxford-pets" in sources.remedy("oxford-pets-64")
    done = type_in("run", "--method", "scratch", "--task", "oxford-pets/64", "--budget", "smoke")
    assert done.code == 2 and "kfbench data import oxford-pets images.tar.gz annotations.tar.gz" in done.err
    pack = published.import_published("oxford-pets", given("oxford-pets", tmp_path / "files"))
    small = sources.find("oxford-pets-64")
    assert small.shape == (3, 64, 64) and small.counts == pack.counts and small.classes == pack.classes
    large = pack.read("train")[0].float()
    wanted = torch.nn.functional.interpolate(large, (64, 64), mode="bilinear", antialias=True).round().byte()
    assert {image.numpy().tobytes() for image in wanted} == {
        image.numpy().tobytes() for image in small.read("train")[0]
    }
    assert "nothing to type" in sources.remedy("oxford-pets-64")
    assert sources.download("oxford-pets-64") == sources.find("oxford-pets-64")


def test_a_published_data_set_goes_to_a_run(tmp_path: Path, type_in: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flowers-102 has all its classes in the small copy, so its task takes it."""
    monkeypatch.setitem(PHOTOS, "flowers102", dataclasses.replace(PHOTOS["flowers102"], counts=(204, 102)))
    published.import_published("flowers102", given("flowers102", tmp_path / "files"))
    words = ("--task", "flowers102/64", "--budget", "smoke", "--network", "cnn-4", "--json")
    done = type_in("run", "--method", "scratch", *words)
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["spec"]["recipe"]["crop"] == 0.08 and record["scores"]["last"]["error"] > 0
    done = type_in("run", "--method", "kd", *words, "--teachers", "flowers102/64/cnn-4", "--views", "2")
    assert done.code == 0, done.err
    assert json.loads(done.out)["cost"]["teacher_rows_asked"] > 0
    for method in ("kf", "finetune"):
        done = type_in("run", "--method", method, *words)
        assert done.code == 2 and "which has no default ones; give" in done.err and len(done.lines) == 1
    assert "--teachers cifar10/cnn-4, run:KEY" in done.err
    words = ("--method", "finetune", "--task", "flowers102/64", "--network", "torchvision:resnet18")
    assert "--teachers torchvision:resnet18:pretrained, run:KEY" in type_in("run", *words).err


def test_other_data_are_refused_in_a_line(tmp_path: Path, type_in: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = given("cub200", tmp_path / "files")
    done = type_in("data", "import", "cub200", *paths)
    assert done.code == 2 and len(done.lines) == 1
    assert (
        "these 6 training and 2 test images are not 'cub200', which has 5,994 and 5,794; give CUB_200_2011.tgz"
        in done.err
    )
    (tmp_path / "cut.tgz").write_bytes(paths[0].read_bytes()[:-3000])
    (tmp_path / "no.tgz").write_bytes(tarred({"readme.txt": b"none"}))
    (tmp_path / "empty").mkdir()
    flowers102 = given("flowers102", tmp_path / "flowers")
    for words, said in (
        (("cub200", "cut.tgz"), "'cut.tgz' is no sound archive"),
        (("cub200", "no.tgz"), "does not hold 'cub200' as published .*; give CUB_200_2011.tgz"),
        (("cub200", "empty"), "'empty' does not hold 'cub200' as published"),
        (("cub200", "nowhere.tgz"), "no file or folder 'nowhere.tgz'; give CUB_200_2011.tgz"),
        (("flowers102", flowers102[0]), "does not hold 'flowers102' as published"),
        (("caltech101", "empty"), "'empty' does not hold 'caltech101' as published"),
        (("cars", "empty"), "'empty' does not hold 'cars' as published .*; give cars_train.tgz"),
        (("cub200", paths[0], "--size", "32x32"), "'cub200' is packed as published, at 224×224; leave --size"),
    ):
        done = type_in("data", "import", *words)
        assert done.code == 2 and len(done.lines) == 1
        with pytest.raises(KfbenchError, match=said):
            raise KfbenchError(done.err)
    assert not packs.packed() and not list((tmp_path / "empty").iterdir())
    assert not list(packs.data_folder().iterdir())


def test_an_image_that_is_missing_is_named(tmp_path: Path, shrunk: None) -> None:
    folder = tmp_path / "files"
    unpack(given("cub200", folder)[0], folder)
    next((folder / "CUB_200_2011" / "images").rglob("*_0002_3.jpg")).unlink()
    with pytest.raises(KfbenchError, match=r"cub200: image 2' cannot be read \(.*No such file.*_0002_3.jpg"):
        published.import_published("cub200", [folder])


def test_archives_do_not_write_outside_their_folder(tmp_path: Path) -> None:
    evil = tarred({"../../outside.txt": b"x", "/absolute.txt": b"x", "a/../b.txt": b"x"})
    (tmp_path / "evil.tgz").write_bytes(evil)
    unpack(tmp_path / "evil.tgz", tmp_path / "in")
    assert sorted(path.name for path in (tmp_path / "in").rglob("*.txt")) == ["absolute.txt", "b.txt", "outside.txt"]
    assert not (tmp_path / "outside.txt").exists() and not Path("/absolute.txt").exists()


def test_what_can_be_downloaded_says_so() -> None:
    assert sources.remedy("dtd") == (
        "type: kfbench data download dtd, or with a copy: kfbench data import dtd dtd-r1.0.1.tar.gz"
    )
    assert sources.remedy("cub200") == "type: kfbench data import cub200 CUB_200_2011.tgz"
    with pytest.raises(
        KfbenchError, match="'cars' is not offered for download any more; type: kfbench data import cars"
    ):
        sources.download("cars")
    with pytest.raises(KfbenchError, match="no download for data set 'flower102'; did you mean 'flowers102'"):
        sources.download("flower102")


def test_a_download_that_fails_names_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    def refused(*words: object, **more: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(datasets.DTD, "_download", refused)
    with pytest.raises(
        KfbenchError, match=r"cannot download 'dtd' \(Network is unreachable\); .* dtd dtd-r1.0.1.tar.gz"
    ):
        sources.download("dtd")
    assert not list(packs.data_folder().glob("*"))


def test_a_large_pack_is_read_from_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shrunk: None) -> None:
    published.import_published("flowers102", given("flowers102", tmp_path / "files"))
    monkeypatch.setattr(images, "room", lambda device: 10)
    monkeypatch.setattr("kfbench.data.splits.room", lambda device: 10)
    data = images.load(registry.load_task("flowers102"), 102)
    assert data.train.rows is not None and len(data.train) == 102
    batch = next(images.batches(data.train, batch_size=4, seed=0, flip=True, crop=0.08))
    assert batch.images.shape == (4, 3, 224, 224) and batch.images.dtype == torch.uint8
