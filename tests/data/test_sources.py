"""Packs and their sources: archives made here, true formats of published data sets, what packages carry."""

import gzip
import hashlib
import io
import json
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from kfbench.cli.data import app
from kfbench.data import packs, sources
from kfbench.data.decode import Form, size_of
from kfbench.data.importing import import_images
from kfbench.errors import KfbenchError

Files = dict[str, bytes]


@pytest.fixture(autouse=True)
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KFBENCH_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture(scope="module")
def files() -> Files:
    """Six training and two test images a class, lossless, in a folder's layout."""
    rng, made = np.random.default_rng(0), {}
    for split, count in (("train", 6), ("test", 2)):
        for label in ("ant", "bee", "train"):  # a class may be called as a split is: CIFAR-100 has a train
            for number in range(count):
                made[f"{split}/{label}/{number:05}.webp"] = encoded(rng.integers(0, 256, (5, 4, 3), np.uint8))
    return made


def encoded(pixels: np.ndarray, form: str = "webp") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **({"lossless": True, "exact": True} if form == "webp" else {}))
    return buffer.getvalue()


def zipped(path: Path, files: Files) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def unzipped(folder: Path, files: Files) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def halves(files: Files) -> Iterator[Files]:
    for odd in (0, 1):
        yield {name: content for place, (name, content) in enumerate(files.items()) if place % 2 == odd}


def test_one_pack_from_any_archive_half_or_folder(tmp_path: Path, files: Files, data_folder: Path) -> None:
    whole = import_images("bugs", [zipped(tmp_path / "all.zip", files)])
    assert whole.classes == ("ant", "bee", "train") and whole.shape == (3, 5, 4)
    assert whole.counts == {"train": 18, "test": 6} and whole.source == "import of all.zip"
    first, second = halves(files)
    one, two = (
        zipped(tmp_path / "one.zip", first),
        unzipped(tmp_path / "two", {f"top/{n}": c for n, c in second.items()}),
    )
    for paths in ([one, two], [two, one]):
        assert import_images("bugs", paths).checksum == whole.checksum
    images, labels = whole.read("train")
    assert images.dtype == torch.uint8 and labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    bees = {image.permute(1, 2, 0).numpy().tobytes() for image in images[labels == 1]}
    given = [content for name, content in files.items() if name.startswith("train/bee")]
    assert bees == {np.asarray(Image.open(io.BytesIO(content))).tobytes() for content in given}
    assert sorted(path.name for path in data_folder.iterdir()) == [".locks", "bugs"]  # nothing temporary stays
    assert sources.find("bugs") == import_images("bugs", [one, two])


def test_grey_stays_grey_and_one_colour_image_makes_all_colour(tmp_path: Path) -> None:
    grey = {
        f"{split}/{label}/{number}.png": encoded(np.full((4, 4), number * 10 + len(label), np.uint8), "png")
        for split in ("train", "test")
        for label in ("a", "bb")
        for number in range(3)
    }
    assert import_images("grey", [zipped(tmp_path / "grey.zip", grey)]).shape == (1, 4, 4)
    grey["train/a/9.png"] = encoded(np.zeros((4, 4, 3), np.uint8), "png")
    mixed = import_images("mixed", [zipped(tmp_path / "mixed.zip", grey)])
    assert mixed.shape == (3, 4, 4)
    images, _ = mixed.read("test")
    assert torch.equal(images[:, 0], images[:, 1]) and torch.equal(images[:, 0], images[:, 2])


def test_images_of_different_sizes_need_a_size(tmp_path: Path, files: Files) -> None:
    odd = zipped(tmp_path / "odd.zip", {**files, "test/bee/9.webp": encoded(np.zeros((7, 9, 3), np.uint8))})
    with pytest.raises(KfbenchError, match=r"test/bee/9.webp' is 7×9, others are 5×4 .* --size HxW"):
        import_images("bugs", [odd])
    assert import_images("bugs", [odd], form=Form(*size_of("6x8"))).shape == (3, 6, 8)
    with pytest.raises(KfbenchError, match="size '32' is not HxW"):
        size_of("32")


def without(files: Files, part: str) -> Files:
    return {name: content for name, content in files.items() if part not in name}


BAD: dict[str, tuple[Callable[[Files], Files], str]] = {
    "no test": (lambda files: without(files, "test/"), r"no test/<class>/ folders in '.*bad.zip'; give the archive"),
    "no train": (lambda files: {n: c for n, c in files.items() if n.startswith("test/")}, "no train/<class>/ folders"),
    "class in train only": (lambda files: without(files, "test/bee"), "class 'bee' is in train/ and not in test/"),
    "class in test only": (lambda files: without(files, "train/ant"), "class 'ant' is in test/ and not in train/"),
    "empty class": (lambda files: {**without(files, "test/bee"), "test/bee/": b""}, "folder 'test/bee' .* no images"),
    "corrupt image": (
        lambda files: {**files, "train/ant/00003.webp": files["train/ant/00003.webp"][:40]},
        r"bad.zip: train/ant/00003.webp' cannot be read \(.*\); mend or remove it",
    ),
    "no image at all": (lambda files: {"train/ant/notes.txt": b"none"}, "bad.zip' holds no images"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_archives_are_named_and_an_older_pack_stays(what: str, tmp_path: Path, files: Files) -> None:
    change, said = BAD[what]
    older = import_images("bugs", [zipped(tmp_path / "good.zip", files)])
    with pytest.raises(KfbenchError, match=said) as caught:
        import_images("bugs", [zipped(tmp_path / "bad.zip", change(files))])
    assert "\n" not in str(caught.value)
    assert sources.find("bugs") == older and len(older.read("train")[0]) == 18
    assert sorted(path.name for path in packs.data_folder().iterdir()) == [".locks", "bugs"]


def test_broken_archives_and_paths_are_named(tmp_path: Path, files: Files) -> None:
    whole = zipped(tmp_path / "whole.zip", files)
    cut = tmp_path / "cut.zip"
    cut.write_bytes(whole.read_bytes()[:-200])
    with pytest.raises(KfbenchError, match="cut.zip' is no sound zip archive"):
        import_images("bugs", [cut])
    flipped = bytearray(whole.read_bytes())
    flipped[flipped.index(b"RIFF") + 30] ^= 255
    (tmp_path / "flipped.zip").write_bytes(flipped)
    with pytest.raises(KfbenchError, match=r"flipped.zip: train/ant/00000.webp' cannot be read \(Bad CRC-32"):
        import_images("bugs", [tmp_path / "flipped.zip"])
    with pytest.raises(KfbenchError, match="no file or folder '.*nowhere.zip'"):
        import_images("bugs", [tmp_path / "nowhere.zip"])
    with pytest.raises(KfbenchError, match="train/ant/00000.webp is in both '.*whole.zip.*' and '.*again.zip"):
        import_images("bugs", [whole, zipped(tmp_path / "again.zip", files)])
    with pytest.raises(KfbenchError, match="'../up' cannot name a data set"):
        import_images("../up", [whole])


def test_a_well_known_name_is_kept_for_the_real_images(tmp_path: Path, files: Files) -> None:
    with pytest.raises(KfbenchError, match="18 training and 6 test images .* are not data set 'cifar10'"):
        import_images("cifar10", [zipped(tmp_path / "fake.zip", files)])
    for name in sorted({*sources.ORIGINALS, *sources.LOCAL, *sources.PHOTOS, "flowers102-64"}):
        with pytest.raises(KfbenchError, match="under another name"):
            import_images(name, [tmp_path / "fake.zip"])
    assert packs.packed() == []


def test_a_well_known_name_is_for_as_many_images_as_were_published(tmp_path: Path, files: Files) -> None:
    assert {*packs.PINNED, *packs.COUNTS} == {*sources.ORIGINALS, *sources.LOCAL}
    with pytest.raises(KfbenchError, match="18 training and 6 test .* 'mnist', which has 60,000 and 10,000"):
        import_images("mnist", [zipped(tmp_path / "fake.zip", files)])
    made = import_images("mine", [tmp_path / "fake.zip"])
    made.folder.rename(made.folder.with_name("mnist"))  # as an older version let it be made
    with pytest.raises(KfbenchError, match="not data set 'mnist'"):
        sources.find("mnist")


def test_damage_to_a_pack_is_noticed(tmp_path: Path, files: Files) -> None:
    pack = import_images("bugs", [zipped(tmp_path / "all.zip", files)])
    path = pack.folder / "train.safetensors"
    content = bytearray(path.read_bytes())
    content[-200] ^= 1
    path.write_bytes(content)
    again = r"import it again from its originals \(.*all.zip.*\): kfbench data import bugs PATH…$"
    with pytest.raises(KfbenchError, match=f"train.safetensors' is damaged: .*; {again}"):
        sources.find("bugs").read("train")
    path.write_bytes(content[:100])
    with pytest.raises(KfbenchError, match=f"train.safetensors' cannot be read .*; {again}"):
        sources.find("bugs").read("train")
    (pack.folder / "pack.json").write_text("{")
    with pytest.raises(KfbenchError, match="is not a pack .*; import it again from its originals: kfbench data import"):
        sources.find("bugs")
    (pack.folder / "pack.json").write_text("{}")
    with pytest.raises(KfbenchError, match="pack.json' is not a pack"):
        sources.find("bugs")


def test_a_failed_rename_puts_the_older_pack_back(
    tmp_path: Path, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = import_images("bugs", [zipped(tmp_path / "all.zip", files)])
    true_rename = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if target == older.folder and "-older" not in self.name:
            raise OSError(28, "No space left on device")
        return true_rename(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(KfbenchError, match="No space left on device.*set KFBENCH_DATA"):
        import_images("bugs", [zipped(tmp_path / "fewer.zip", without(files, "00001"))])
    monkeypatch.undo()
    packs.open_pack(older.folder).read("test")
    assert packs.open_pack(older.folder) == older
    assert sorted(path.name for path in older.folder.parent.iterdir()) == [".locks", "bugs"]


def test_missing_data_say_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "DEBIAN_FASHION", tmp_path / "none")
    with pytest.raises(
        KfbenchError, match="kfbench data download cifar100, or .*: kfbench data import cifar100 cifar-100-p"
    ):
        sources.find("cifar100")
    with pytest.raises(
        KfbenchError,
        match="apt-get install dataset-fashion-mnist, or: kfbench data download fashion-mnist, or with a copy",
    ):
        sources.find("fashion-mnist")
    with pytest.raises(KfbenchError, match="did you mean 'mnist'.*kfbench data import mnits PATH"):
        sources.find("mnits")
    with pytest.raises(KfbenchError, match="no download for data set 'mnits'; did you mean 'mnist'"):
        sources.download("mnits")


def test_an_unwritable_data_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("KFBENCH_DATA", str(tmp_path / "file" / "data"))
    with pytest.raises(KfbenchError, match="cannot write to the data folder '.*file/data'.*KFBENCH_DATA"):
        sources.find("digits")


def test_what_packages_carry_is_pinned_and_packed_once() -> None:
    for name, train, test in (("digits", 1438, 359), ("mnist-5k", 4000, 1000)):
        pack = sources.find(name)
        assert pack.counts == {"train": train, "test": test} and pack.checksum == packs.PINNED[name]
        assert sources.find(name) == pack and name in packs.packed()
        assert sources.download(name) == pack


def test_the_checksum_is_a_sha256_of_shape_pixels_and_labels() -> None:
    pack = sources.find("digits")
    images, labels = pack.read("test")
    text = json.dumps([359, 1, 8, 8]).encode() + images.numpy().tobytes() + labels.numpy().astype("<i8").tobytes()
    assert pack.checksums["test"] == hashlib.sha256(text).hexdigest()


@pytest.mark.skipif(not sources.DEBIAN_FASHION.is_dir(), reason="no dataset-fashion-mnist")
def test_debians_fashion_mnist() -> None:
    pack = sources.find("fashion-mnist")
    assert pack.counts == {"train": 60_000, "test": 10_000} and pack.shape == (1, 28, 28)
    images, labels = pack.read("test")
    assert labels.bincount().tolist() == [1000] * 10
    ink = [images[labels == number].float().mean().item() for number in range(10)]
    assert pack.classes[max(range(10), key=ink.__getitem__)] in ("Pullover", "Coat")  # the class with most ink
    assert pack.classes[min(range(10), key=ink.__getitem__)] == "Sandal"


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def test_a_damaged_idx_file_is_named(tmp_path: Path) -> None:
    good = gzip.compress(idx(np.arange(24, dtype=np.uint8).reshape(2, 3, 4)))
    path = tmp_path / "images.gz"
    path.write_bytes(good)
    assert sources.read_idx(path).tolist() == np.arange(24).reshape(2, 3, 4).tolist()
    for bad in (good[:-9], b"no gzip", gzip.compress(b"\0\0"), gzip.compress(b"\0\0\x0d" + bytes(40))):
        path.write_bytes(bad)
        with pytest.raises(KfbenchError, match="images.gz' is damaged"):
            sources.read_idx(path)


def test_download_without_a_network_is_one_line(monkeypatch: pytest.MonkeyPatch, data_folder: Path) -> None:
    import socket
    from typing import Any

    def refuse(*anything: Any, **more: Any) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name, copy in (
        ("cifar10", "cifar-10-python.tar.gz"),
        ("mnist", "*-ubyte.gz"),
        ("svhn", "train_32x32.mat test_"),
    ):
        with pytest.raises(KfbenchError, match=f"cannot download '{name}' ") as caught:
            sources.download(name)
        assert f"with a copy: kfbench data import {name} {copy}" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert list(data_folder.iterdir()) == []


def test_the_commands(tmp_path: Path, files: Files) -> None:
    runner = CliRunner()
    archive = zipped(tmp_path / "all.zip", files)
    made = runner.invoke(app, ["import", "bugs", str(archive), "--json"], catch_exceptions=False)
    told = json.loads(made.stdout)
    assert told["name"] == "bugs" and told["train"] == 18 and told["checksum"] == sources.find("bugs").checksum
    again = runner.invoke(app, ["import", "bugs", str(archive), "--size", "8x8"], catch_exceptions=False)
    assert again.stdout.startswith("bugs: 18 training and 6 test images, 3×8×8, 3 classes, sha256 ")
    listed = json.loads(runner.invoke(app, ["list", "--json"], catch_exceptions=False).stdout)
    rows = {row["name"]: row for row in listed["data"]}
    assert rows["bugs"]["here"] and rows["bugs"]["shape"] == [3, 8, 8]
    assert not rows["cifar10"]["here"] and "kfbench data download cifar10" in rows["cifar10"]["remedy"]
    text = runner.invoke(app, ["list"], catch_exceptions=False).stdout
    assert "bugs" in text and "import of all.zip" in text
    assert runner.invoke(app, ["download", "bugs"], catch_exceptions=False).exit_code == 0
    assert isinstance(runner.invoke(app, ["download", "nothing"]).exception, KfbenchError)
    (packs.data_folder() / "bugs" / "pack.json").write_text("{}")
    damaged = json.loads(runner.invoke(app, ["list", "--json"], catch_exceptions=False).stdout)
    assert "pack.json' is not a pack" in {row["name"]: row for row in damaged["data"]}["bugs"]["remedy"]
