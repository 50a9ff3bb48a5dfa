"""Small published data sets in their authors' own files: true formats, written small, as a user has them.

torchvision checks the md5 of the published files, which small ones cannot have: here it does not, but where said.
"""

import gzip
import io
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from console import Console

from kfbench.data import packs, sources
from kfbench.data.originals import FIRST, ORIGINALS, open_originals


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def fake_mnist(root: Path, folder: str, prefix: str = "", first: int = 0, classes: int = 10) -> np.ndarray:
    rng = np.random.default_rng(0)
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    images = rng.integers(0, 256, (3 * classes, 28, 28), np.uint8)
    labels = np.arange(3 * classes, dtype=np.uint8) % classes + first
    for split in ("train", "test") if prefix else ("train", "t10k"):
        (raw / f"{prefix}{split}-images-idx3-ubyte").write_bytes(idx(images))
        (raw / f"{prefix}{split}-labels-idx1-ubyte").write_bytes(idx(labels))
    return images


def test_mnist_and_its_kin_from_torchvisions_files(tmp_path: Path) -> None:
    for name, folder in (("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")):
        images = fake_mnist(tmp_path, folder)
        raw = open_originals(name, tmp_path, fetch=False)
        assert raw.train.labels.tolist() == list(range(10)) * 3 and len(raw.classes) == 10
        np.testing.assert_array_equal(raw.test.images.numpy(), images[:, None])
    images = fake_mnist(tmp_path, "EMNIST", "emnist-letters-", first=1, classes=26)
    raw = open_originals("emnist", tmp_path, fetch=False)
    assert raw.train.labels.unique().tolist() == list(range(26)) and raw.classes[25] == "z"
    np.testing.assert_array_equal(raw.train.images.numpy()[:, 0], images.transpose(0, 2, 1))


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_from_torchvisions_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    kind = getattr(datasets, name.upper())
    folder = tmp_path / kind.base_folder
    folder.mkdir()
    rng = np.random.default_rng(0)
    key = "labels" if name == "cifar10" else "fine_labels"
    count = 10 if name == "cifar10" else 100
    names = sorted(f"class-{number:03}" for number in range(count))
    for file, _ in kind.train_list + kind.test_list:
        rows = rng.integers(0, 256, (count, 3072), np.uint8)
        (folder / file).write_bytes(pickle.dumps({"data": rows, key: list(range(count))}))
    (folder / kind.meta["filename"]).write_bytes(pickle.dumps({kind.meta["key"]: names}))
    monkeypatch.setattr(kind, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5=None: True)
    raw = open_originals(name, tmp_path, fetch=False)
    assert raw.classes == tuple(names)
    assert len(raw.train.labels) == count * len(kind.train_list) and len(raw.test.labels) == count
    np.testing.assert_array_equal(raw.test.images.numpy(), rows.reshape(-1, 3, 32, 32))


def test_svhn_from_torchvisions_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat

    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 20), np.uint8)
    for split in ("train", "test"):  # the files call the digit zero class 10
        savemat(tmp_path / f"{split}_32x32.mat", {"X": pixels, "y": (np.arange(20) % 10 + 1)[:, None].astype(np.uint8)})
    monkeypatch.setattr("torchvision.datasets.svhn.check_integrity", lambda path, md5=None: True)
    raw = open_originals("svhn", tmp_path, fetch=False)
    assert raw.train.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0] * 2
    np.testing.assert_array_equal(raw.test.images.numpy(), pixels.transpose(3, 2, 0, 1))


def test_stl10_from_torchvisions_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (10, 3, 96, 96), np.uint8)
    for split in ("train", "test"):  # column by column, labels from 1
        (folder / f"{split}_X.bin").write_bytes(pixels.transpose(0, 1, 3, 2).tobytes())
        (folder / f"{split}_y.bin").write_bytes((np.arange(10) + 1).astype(np.uint8).tobytes())
    (folder / "class_names.txt").write_text("\n".join(f"class-{number}" for number in range(10)) + "\n")
    monkeypatch.setattr("torchvision.datasets.stl10.check_integrity", lambda path, md5=None: True)
    raw = open_originals("stl10", tmp_path, fetch=False)
    assert raw.train.labels.tolist() == list(range(10)) and raw.classes[:2] == ("class-0", "class-1")
    np.testing.assert_array_equal(raw.train.images.numpy(), pixels)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files are taken: no md5, no count, no pinned checksum."""
    for module in ("cifar", "svhn", "stl10"):
        monkeypatch.setattr(
            f"torchvision.datasets.{module}.check_integrity", lambda path, md5=None: Path(path).is_file()
        )
    monkeypatch.setattr(packs, "PINNED", {})
    monkeypatch.setattr(packs, "COUNTS", {})


def small(name: str) -> dict[str, bytes]:
    """The files of a data set, two training images and a test image a class."""
    rng, made = np.random.default_rng(0), io.BytesIO()
    count = {"emnist": 26, "cifar100": 100}.get(name, 10)
    labels = np.array([*range(count)] * 2)
    if name in ("mnist", "fashion-mnist", "emnist"):
        if name == "mnist":
            labels = np.array([*FIRST, *(2 * [7, 8, 6, 0, 2, 3, 5])])
        labels = labels + (name == "emnist")
        first, second = ORIGINALS[name].files[:2], ORIGINALS[name].files[2:]
        return {
            file: idx(values.astype(np.uint8))
            for files in (first, second)
            for file, values in zip(files, (rng.integers(0, 256, (len(labels), 28, 28)), labels), strict=True)
        }
    if name == "svhn":
        from scipy.io import savemat

        files = {}
        for file in ORIGINALS[name].files:
            made = io.BytesIO()
            pixels = rng.integers(0, 256, (32, 32, 3, len(labels)), np.uint8)
            savemat(made, {"X": pixels, "y": (labels + 1)[:, None].astype(np.uint8)})
            files[file] = made.getvalue()
        return files
    names = [f"class-{number:03}" for number in range(count)]
    if name == "stl10":
        pixels = rng.integers(0, 256, (len(labels), 3, 96, 96), np.uint8).tobytes()
        text = "\n".join(names).encode()
        parts = {"X.bin": pixels, "y.bin": (labels + 1).astype(np.uint8).tobytes()}
        return {f"{split}_{part}": content for split in ("train", "test") for part, content in parts.items()} | {
            "class_names.txt": text
        }
    key, titles = ("fine_labels", "fine_label_names") if name == "cifar100" else ("labels", "label_names")
    *batches, meta = ORIGINALS[name].files
    rows = {
        file: {"data": rng.integers(0, 256, (len(labels), 3072), np.uint8), key: labels.tolist()} for file in batches
    }
    return {file: pickle.dumps(each) for file, each in rows.items()} | {meta: pickle.dumps({titles: names})}


def tarred(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def laid(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("name", ORIGINALS)
def test_every_form_in_which_a_user_has_it_is_the_same(
    name: str, tmp_path: Path, type_in: Console, unchecked: None
) -> None:
    files, told = small(name), ORIGINALS[name]
    root = laid(tmp_path / "torchvision" / told.folder, files)
    gz = {f"{file}.gz": gzip.compress(content) for file, content in files.items()}
    dotted = {file.replace("-idx", ".idx"): content for file, content in files.items()}
    given = [
        [tmp_path / "torchvision"],
        [root],
        [tarred(tmp_path / "whole.tar.gz", {f"a/b/{file}": content for file, content in files.items()})],
        [zipped(tmp_path / "whole.zip", {f"a/{file}": content for file, content in gz.items()})],
        [laid(tmp_path / "mine", dotted)],
        [laid(tmp_path / "gz", gz) / file for file in gz],
    ]
    checksums = set()
    for paths in given:
        done = type_in("data", "import", name, *paths)
        assert done.code == 0, done.err
        checksums.add(sources.find(name).checksum)
    assert len(checksums) == 1
    raw = open_originals(name, tmp_path / "torchvision", fetch=False)
    assert checksums == {packs.write("again", raw, source="").checksum}
    assert sorted(path.name for path in packs.data_folder().iterdir()) == sorted([".locks", "again", name])
    laid(root, gz)  # torchvision keeps both
    assert type_in("data", "import", name, tmp_path / "torchvision").code == 0
    (root / told.files[0]).unlink()  # one of its files is there zipped only
    assert type_in("data", "import", name, root).code == 0 and {sources.find(name).checksum} == checksums


def test_a_folder_that_holds_the_archive_will_do(tmp_path: Path, type_in: Console, unchecked: None) -> None:
    (tmp_path / "downloads").mkdir()
    tarred(tmp_path / "downloads" / "cifar-100-python.tar.gz", small("cifar100"))
    zipped(tmp_path / "downloads" / "other.zip", {"train": b"another's"})
    assert type_in("data", "import", "cifar100", "downloads").code == 0


def test_other_files_are_refused_in_a_line(tmp_path: Path, type_in: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar = small("cifar100")
    tarred(tmp_path / "cifar-100-python.tar.gz", cifar)
    tarred(tmp_path / "binary.tar.gz", {"cifar-100-binary/train.bin": b"x"})
    laid(tmp_path / "half", {file: cifar[file] for file in ("train", "test")})
    fashion = small("fashion-mnist")
    laid(tmp_path / "both" / "one", fashion)
    laid(tmp_path / "both" / "two", fashion)
    laid(tmp_path / "fashion", fashion)
    images, *others = fashion
    laid(
        tmp_path / "cut",
        {f"{images}.gz": gzip.compress(fashion[images])[:-9], **{name: fashion[name] for name in others}},
    )
    laid(tmp_path / "short", {**fashion, images: fashion[images][:-9]})
    (tmp_path / "empty.tar.gz").write_bytes(b"")
    as_published = "as published cifar100 is cifar-100-python.tar.gz"
    for words, said in (
        (
            ("cifar100", "cifar-100-python.tar.gz"),
            "does not hold 'cifar100' as published (the md5 of a file is another)",
        ),
        (("cifar100", "binary.tar.gz"), as_published),
        (("cifar100", "both"), as_published),
        (("cifar100", "half"), "'half' lacks meta of 'cifar100'; give cifar-100-python.tar.gz"),
        (("cifar100", "empty.tar.gz"), "'empty.tar.gz' is no sound archive"),
        (("cifar100", "nowhere.tar.gz"), "no file or folder 'nowhere.tar.gz'; give cifar-100-python.tar.gz"),
        (("cifar100", "cifar-100-python.tar.gz", "--size", "32x32"), "'cifar100' is packed as published; leave --size"),
        (
            ("fashion-mnist", "both"),
            "'t10k-images-idx3-ubyte' is there twice, once in 'both/two/t10k-images-idx3-ubyte'",
        ),
        (("fashion-mnist", "cut"), "is damaged"),
        (("fashion-mnist", "short"), "'short' does not hold 'fashion-mnist' as published"),
        (("fashion-mnist", "fashion"), "20 training and 20 test images"),
        (("mnist", "fashion"), "Fashion-MNIST and KMNIST have files of the same names"),
    ):
        done = type_in("data", "import", *words)
        assert done.code == 2 and len(done.lines) == 1 and said in done.err, (words, done.err)
    assert not list(packs.data_folder().iterdir())
