"""Images in NumPy's archives, in the forms of MedMNIST and of Keras, and as users save them."""

from pathlib import Path

import numpy as np
from console import Console

from kfbench.data import packs
from kfbench.data.importing import import_images

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (36, 5, 4), np.uint8)
COLOUR = RNG.integers(0, 256, (36, 5, 4, 3), np.uint8)
LABELS = np.array([*range(12)] * 3)


def saved(path: str, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return Path(path)


def test_medmnist_and_keras(type_in: Console) -> None:
    two, one = slice(0, 24), slice(24, 36)
    medical = {"train_images": COLOUR[two], "train_labels": LABELS[two, None].astype(np.uint8)}
    medical |= {f"{split}_{kind}": each[one] for split in ("val", "test") for kind, each in
                (("images", COLOUR), ("labels", LABELS[:, None]))}  # fmt: skip
    saved("pathmnist.npz", **medical)
    done = type_in("data", "import", "path", "pathmnist.npz")
    assert done.code == 0 and "classes: 00, 01, 02" in done.out
    pack = packs.open_pack(packs.data_folder() / "path")
    assert pack.counts == {"train": 24, "val": 12, "test": 12} and pack.shape == (3, 5, 4)
    images, labels = pack.read("test")
    assert labels.tolist() == [*range(12)]
    np.testing.assert_array_equal(images.permute(0, 2, 3, 1).numpy(), COLOUR[one])
    keras = saved("mnist.npz", x_train=GREY[two], y_train=LABELS[two], x_test=GREY[one], y_test=LABELS[one])
    pack = import_images("grey", [keras])
    assert pack.counts == {"train": 24, "test": 12} and pack.shape == (1, 5, 4)
    np.testing.assert_array_equal(pack.read("test")[0][:, 0].numpy(), GREY[one])


def test_channels_first_or_last_or_none_and_names_of_classes() -> None:
    names = np.array([f"kind {letter}" for letter in "abcdefghijkl"])
    wanted = import_images("last", [saved("a.npz", images=COLOUR, labels=LABELS, classes=names)], test=0.34)
    assert wanted.classes == tuple(names) and wanted.counts == {"train": 24, "test": 12}
    first = saved("b.npz", X=COLOUR.transpose(0, 3, 1, 2), y=names[LABELS])
    assert import_images("first", [first], test=0.34).checksum == wanted.checksum
    grey = [
        saved(f"{i}.npz", images=each, labels=LABELS) for i, each in enumerate((GREY, GREY[..., None], GREY[:, None]))
    ]
    packed = {import_images("grey", [path], test=0.34, val=0.34, form=None).checksum for path in grey}
    assert len(packed) == 1
    parts = [saved("train.npz", train_images=COLOUR, train_labels=LABELS), saved("t.npz", test_x=GREY, test_y=LABELS)]
    assert import_images("parts", parts).counts == {"train": 36, "test": 36}


def test_what_is_wrong_is_told_in_a_line(tmp_path: Path, type_in: Console) -> None:
    good = {"train_images": GREY, "train_labels": LABELS}
    np.savez("objects.npz", images=np.array([{}, {}]), labels=LABELS[:2])
    whole = saved("good.npz", **good).read_bytes()
    Path("cut.npz").write_bytes(whole[:-100])
    Path("text.npz").write_text("no arrays")
    np.savez_compressed("squeezed.npz", **good)
    squeezed = bytearray(Path("squeezed.npz").read_bytes())
    squeezed[200:400] = bytes(200)
    Path("squeezed.npz").write_bytes(squeezed)
    np.save("lone.npy", GREY)
    Path("lone.npy").rename("lone.npz")
    saved("floats.npz", **good | {"train_images": GREY / 255})
    saved("volumes.npz", **good | {"train_images": COLOUR[..., None]})
    saved("many.npz", **good | {"train_labels": np.eye(36, 12, dtype=np.int64)})
    saved("short.npz", **good | {"train_labels": LABELS[:-1]})
    saved("secret.npz", **good | {"train_labels": LABELS - 1})
    saved("half.npz", train_images=GREY)
    saved("unnamed.npz", a=GREY, b=LABELS)
    saved("twice.npz", **good, x_train=GREY)
    saved("same.npz", **good, classes=np.array([*"abcdefghijka"]))
    saved("few.npz", **good, classes=np.array(["a", "b"]))
    for name, said in (
        ("objects.npz", "'objects.npz' cannot be read as arrays (it holds objects, which are not opened); save plain"),
        ("cut.npz", "'cut.npz' cannot be read as arrays"),
        ("squeezed.npz", "'squeezed.npz' cannot be read as arrays"),
        ("text.npz", "'text.npz' cannot be read as arrays (it is no .npz archive); save them anew"),
        ("lone.npz", "'lone.npz' cannot be read as arrays (it is no .npz archive)"),
        ("floats.npz", "'train_images' of 'floats.npz' is float64; images are uint8, 0 to 255"),
        ("volumes.npz", "'train_images' of 'volumes.npz' is [36, 5, 4, 3, 1]; images are [N, H, W]"),
        ("many.npz", "'train_labels' of 'many.npz' is int64 [36, 12]; labels are a class an image: [36]"),
        ("short.npz", "labels are a class an image: [36]"),
        ("secret.npz", "'train_labels' of 'secret.npz' has a class -1; leave such images out"),
        ("half.npz", "'half.npz' holds the arrays train_images; name them train_images, train_labels"),
        ("unnamed.npz", "'unnamed.npz' holds the arrays a, b; name them train_images"),
        ("twice.npz", "'twice.npz' holds 'train_images' and 'x_train'; leave one of them out"),
        ("same.npz", "two classes of 'same.npz' are called 'a'; rename one"),
        ("few.npz", "'few.npz: train 2' has label 2, and 'classes' names 2"),
        ("good.npz", "no test images in 'good.npz'; give the archive or folder with them as well"),
    ):
        done = type_in("data", "import", "mine", name)
        assert done.code == 2 and len(done.lines) == 1 and said in done.err, (name, done.err)
    assert not list(packs.data_folder().iterdir())
