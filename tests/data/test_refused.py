"""A user's images that make no data set, damaged files, full disks: a line each, and nothing stays."""

import re
import resource
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from console import Console
from pictures import SPLITS, folder, picture, zip_of
from PIL import Image

from kfbench.data import decode, packs

RNG = np.random.default_rng(0)


def empty_class(where: Path) -> None:
    (where / "train" / "c").mkdir()
    (where / "test" / "c").mkdir()


def corrupt(where: Path) -> None:
    for name in ("train/b/5.png", "train/a/3.png"):
        (where / name).write_bytes((where / name).read_bytes()[:60])


def another_case(where: Path) -> None:
    folder(where, "train/A", "test/A")


def one_class(where: Path) -> None:
    for split in ("train", "test"):
        shutil.rmtree(where / split / "b")


def no_test(where: Path) -> None:
    shutil.rmtree(where / "test")


def lone_image(where: Path) -> None:
    no_test(where)
    folder(where, "train/c", count=1)


def lone_to_train(where: Path) -> None:
    folder(where, "train/c", "test/c", count=1)


def kaggles_test(where: Path) -> None:
    """Images to be labelled by the contestant."""
    shutil.rmtree(where / "test")
    for number in range(3):
        picture(where / "test" / f"{number}.png")


def emptied(where: Path) -> None:
    shutil.rmtree(where)
    where.mkdir()


def instead(*names: str) -> Callable[[Path], None]:
    """Put other folders of images into the place."""

    def change(where: Path) -> None:
        shutil.rmtree(where)
        folder(where, *names)

    return change


def seven(where: Path) -> None:
    shutil.rmtree(where)
    where.write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(100))


def single(where: Path) -> None:
    shutil.rmtree(where)
    picture(where, form="png")


def floats(where: Path) -> None:
    Image.fromarray(np.zeros((4, 5), np.float32)).save(where / "train" / "a" / "depth.tiff")


BAD: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "empty": (
        emptied,
        "",
        "'pets' holds no images in class folders; they must lie in train/<class>/ and test/<class>/",
    ),
    "empty class": (empty_class, "", "class folder 'test/c' in 'pets' holds no images; fill it or remove it"),
    "one class": (one_class, "", "'pets' holds one class, 'a'; two are the least"),
    "another case": (another_case, "", "class folders 'A' and 'a' of 'pets' differ in case only; rename one"),
    "no test": (no_test, "", "no test/<class>/ folders in 'pets'; .* or hold a share of every class out: --test 0.2"),
    "Kaggle's test": (kaggles_test, "", "no test/<class>/ folders in 'pets'"),
    "a test twice": (lambda where: None, "--test 0.2", "'pets' has test/<class>/ folders; leave --test out"),
    "a share": (no_test, "--test 20", "--test 20 is no share of the images; give one between 0 and 1"),
    "all shares": (no_test, "--test 0.5 --val 0.5", "--test and --val take all images together"),
    "too few": (lone_image, "--test 0.2", r"class 'c' has 1 image\(s\), too few to hold out 1"),
    "one to train on": (lone_to_train, "", r"class 'c' has 1 training image\(s\); one to train on and one to validate"),
    "one left": (lone_to_train, "--val 0.2", r"class 'c' has 1 image\(s\), too few to hold out 1"),
    "corrupt": (corrupt, "", "train/a/3.png' cannot be read .*; mend or remove it; 1 more cannot be read"),
    "a lone split": (
        instead("test_set/a", "x/b"),
        "--test 0.2",
        "folder 'test_set' in 'pets' looks like a split, not a",
    ),
    "a doubtful split": (
        instead("train/a", "train/b", "dev/a"),
        "--test 0.2",
        "folder 'dev' in 'pets' looks like a split",
    ),
    "a class train": (
        instead("car", "train", "bus"),
        "--test 0.2",
        "folder 'train' in 'pets' was taken for a split, and no",
    ),
    "a class train of folders": (
        instead("train/steam", "train/diesel", "boat/sail", "car/small", "tram"),
        "--test 0.2",
        "folder 'train' in 'pets' was taken for a split, and images lie in 'boat', 'car', … beside it; rename it if",
    ),
    "splits below": (
        instead("cat/train", "cat/test", "dog/train"),
        "",
        "folder 'test' in 'pets' was taken for a split",
    ),
    "twice": (
        instead("a", "b", "pets/a", "pets/b"),
        "--test 0.2",
        "class folder 'pets' of 'pets' holds folders that are called as classes beside it, 'a' for one; leave it out",
    ),
    "another archive": (
        seven,
        "",
        "'pets' is neither a folder nor a zip or tar archive; unpack it if .* give the folder",
    ),
    "a picture": (single, "", "'pets' is neither a folder nor a zip or tar archive"),
    "floats": (floats, "", "train/a/depth.tiff' cannot be read .*floats, which have no white of their own"),
    "crop alone": (lambda where: None, "--crop", "--crop needs the size to cut to: --size HxW"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(what: str, tmp_path: Path, type_in: Console) -> None:
    change, options, said = BAD[what]
    folder(tmp_path / "pets", *SPLITS)
    change(tmp_path / "pets")
    done = type_in("data", "import", "pets", "pets", *options.split())
    assert done.code == 2 and len(done.lines) == 1 and done.err.startswith("error: "), done.err
    assert re.search(said, done.err), done.err
    assert not list((tmp_path / "data").glob("*")) and not list((tmp_path / "data").glob(".*"))


def test_a_bomb_in_a_zip_is_not_unpacked_into_memory(tmp_path: Path, type_in: Console) -> None:
    where = zip_of(folder(tmp_path / "given", *SPLITS), tmp_path / "bomb.zip")
    with zipfile.ZipFile(where, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("train/a/zeros.png", "w") as member:
        for _ in range(600):
            member.write(bytes(2**20))
    assert where.stat().st_size < 2e6
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done = type_in("data", "import", "bomb", where)
    assert done.code == 2 and len(done.lines) == 1
    assert (
        "train/a/zeros.png' cannot be read (it unpacks to more than the 256 MiB that an image file may have)"
        in done.err
    )
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 450 * 1024  # KiB


def test_a_bomb_of_pixels_is_told_with_its_bound(tmp_path: Path, type_in: Console) -> None:
    where = folder(tmp_path / "pets", *SPLITS)
    Image.new("1", (20_000, 10_000)).save(where / "train" / "a" / "wide.png")
    done = type_in("data", "import", "pets", where)
    assert done.code == 2 and "wide.png' cannot be read (it has" in done.err
    assert f"more than the {decode.PIXELS // 10**6} million that an image may have" in done.err


@pytest.mark.parametrize("allowed", [100, None])
def test_a_full_disk_is_one_line(
    allowed: int | None, tmp_path: Path, type_in: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = folder(tmp_path / "pets", *SPLITS)
    if allowed is None:  # seen before much is written
        free = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: free._replace(free=1000))
        done, said = type_in("data", "import", "pets", where), "the images need 0.0 MB in the data folder"
    else:  # in the midst of writing: the system refuses to let a file grow
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (allowed, before[1]))
        try:
            done, said = type_in("data", "import", "pets", where), "cannot write to the data folder"
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert done.code == 2 and said in done.err and "KFBENCH_DATA" in done.err and len(done.lines) == 1
    assert not list((tmp_path / "data").glob("*")) and not list((tmp_path / "data").glob(".*"))


def test_a_tar_that_is_damaged_is_named(tmp_path: Path, type_in: Console) -> None:
    folder(tmp_path / "pets", *SPLITS)
    whole = Path(shutil.make_archive(str(tmp_path / "pets"), "gztar", tmp_path / "pets")).read_bytes()
    picture(tmp_path / "pets" / "train" / "a" / "0.png").write_bytes(b"no picture")
    shutil.make_archive(str(tmp_path / "odd"), "tar", tmp_path / "pets")
    flipped = whole[:-8] + bytes(8)  # gzip's own checksum
    bz2 = bytearray(Path(shutil.make_archive(str(tmp_path / "pets"), "bztar", tmp_path / "pets")).read_bytes())
    bz2[len(bz2) // 2 :] = bytes(len(bz2) - len(bz2) // 2)
    damaged = {
        "cut.tar.gz": whole[:-300],
        "flipped.tar.gz": flipped,
        "none.tgz": b"none",
        "empty.tar": b"",
        "p.tbz2": bz2,
    }
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        done = type_in("data", "import", "pets", name)
        assert done.code == 2 and len(done.lines) == 1 and f"'{name}' is no sound archive" in done.err
    done = type_in("data", "import", "pets", "odd.tar")
    assert done.code == 2 and "'odd.tar: train/a/0.png' cannot be read (no image that Pillow knows)" in done.err
    assert not list(packs.data_folder().iterdir())
