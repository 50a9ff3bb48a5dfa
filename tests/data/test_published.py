"""Published photographs, from their archives as a user has them through to a run."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from console import Console
from published_files import SMALL, colour, tarred

from kfbench import registry
from kfbench.data import images, packs, published, sources
from kfbench.data.photos import PHOTOS
from kfbench.data.unpacking import unpack
from kfbench.errors import KfbenchError
from kfbench.running import budgets
from kfbench.spec import Recipe


@pytest.fixture(autouse=True)
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KFBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    # torchvision checks the md5 of Flowers-102's lists, which small ones cannot have
    monkeypatch.setattr("torchvision.datasets.flowers102.check_integrity", lambda path, md5=None: Path(path).is_file())
    return tmp_path / "data"


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
