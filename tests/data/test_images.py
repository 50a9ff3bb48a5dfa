"""Splits: disjoint, balanced, nested, held out alike in parts of a task, left in their file if large; or refused."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from kfbench import registry
from kfbench.data import images, splits
from kfbench.data.packs import write
from kfbench.data.rows import Raw, Rows
from kfbench.errors import KfbenchError
from kfbench.running import prepare, resolve


@pytest.fixture(scope="module", autouse=True)
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KFBENCH_DATA", str(tmp_path_factory.mktemp("data")))
        yield


def pixels(split: images.Split) -> set[bytes]:
    return {image.tobytes() for image in split.images.numpy()}


def pack(name: str, *, per_class: int, classes: int = 3, shape: tuple[int, int, int] = (3, 8, 8)) -> None:
    rng = torch.Generator().manual_seed(1)
    made = []
    for rows in (per_class * classes, 2 * classes):
        labels = torch.arange(rows) % classes
        made.append(Rows(torch.randint(256, (rows, *shape), generator=rng, dtype=torch.uint8), labels))
    write(name, Raw(made[0], made[1], tuple(f"class-{number}" for number in range(classes))), source="made up")


def test_digits_splits_are_disjoint_stratified_and_whole() -> None:
    data = images.load(registry.load_task("digits"))
    test = data.test()
    assert (len(data.train), len(data.val), len(test)) == (1295, 143, 359)
    assert data.shape == (1, 8, 8) and data.classes == tuple("0123456789")
    assert not pixels(data.train) & pixels(data.val) and not pixels(data.train) & pixels(test)
    assert not pixels(data.val) & pixels(test)
    for split in (data.train, data.val, test):
        share = split.labels.bincount(minlength=10) / len(split)
        assert share.min() > 0.09 and share.max() < 0.11
    from sklearn.datasets import load_digits

    every = {np.rint(image * 255 / 16).astype(np.uint8).tobytes() for image in load_digits().images}
    assert pixels(data.train) | pixels(data.val) | pixels(test) == every


def test_subsets_are_balanced_nested_and_leave_val_alone() -> None:
    task = registry.load_task("mnist/5k")
    whole, small, smaller = (images.load(task, size) for size in (None, 1000, 207))
    assert len(whole.train) == 3600 and len(small.train) == 1000 and len(smaller.train) == 207
    for one, other in ((small, whole), (smaller, small)):
        assert torch.equal(one.train.images, other.train.images[: len(one.train)])
        assert torch.equal(one.train.labels, other.train.labels[: len(one.train)])
        assert torch.equal(one.val.images, other.val.images)
    counts = smaller.train.labels.bincount(minlength=10)
    assert counts.max() - counts.min() <= 1
    uneven = images.load(registry.load_task("digits"), 1000).train.labels.bincount(minlength=10)  # 126 to 132 a class
    assert uneven.tolist() == [100] * 10
    other_split = images.load(task, split_seed=1)
    assert not torch.equal(other_split.val.images, whole.val.images)


def test_a_class_range_holds_out_what_the_whole_task_holds_out() -> None:
    whole, part = (images.load(registry.load_task(name)) for name in ("digits", "digits/3-5"))
    assert part.classes == ("3", "4", "5") and part.train.labels.unique().tolist() == [0, 1, 2]
    assert pixels(part.val) <= pixels(whole.val) and pixels(part.train) <= pixels(whole.train)
    assert not pixels(part.train) & pixels(whole.val)
    kept = (whole.val.labels >= 3) & (whole.val.labels <= 5)
    assert pixels(part.val) == pixels(images.Split(whole.val.images[kept], whole.val.labels[kept]))
    assert part.test().labels.unique().tolist() == [0, 1, 2]
    low, high = (images.load(registry.load_task(f"digits/{half}")) for half in ("low", "high"))
    assert low.classes + high.classes == whole.classes and len(low.train) + len(high.train) == len(whole.train)
    assert low.checksum == whole.checksum


def test_statistics_are_those_of_numpy() -> None:
    made = torch.randint(256, (37, 3, 5, 4), dtype=torch.uint8)
    mean, std = images.statistics(images.Split(made, torch.zeros(37)))
    values = made.numpy() / 255
    np.testing.assert_allclose(mean, values.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(std, values.std((0, 2, 3)), rtol=1e-6)
    blank = images.Split(torch.zeros(2, 1, 3, 3, dtype=torch.uint8), torch.zeros(2))
    assert (images.statistics(blank)[1] > 0).all()


def test_mean_and_std_are_of_the_rows_that_are_trained_on() -> None:
    data = images.load(registry.load_task("digits"), 100)
    values = data.train.images.numpy() / 255
    np.testing.assert_allclose(data.mean, [values.mean()], rtol=1e-5)
    np.testing.assert_allclose(data.std, [values.std()], rtol=1e-5)


def test_the_file_of_the_test_split_is_not_needed_before_it_is_asked_for() -> None:
    pack("late", per_class=40)
    task = registry.load_task("imagefolder/late")
    (images.load(task).pack.folder / "test.safetensors").unlink()
    data = images.load(task, 30).to("cpu")
    next(images.batches(data.train, batch_size=8, seed=0))
    with pytest.raises(KfbenchError, match="test.safetensors' cannot be read"):
        data.test()


@pytest.mark.parametrize("size", [0, 9, 1296])
def test_a_train_size_that_cannot_be_is_refused(size: int) -> None:
    with pytest.raises(KfbenchError, match="1,295 training images|leave some without"):
        images.load(registry.load_task("digits"), size)


def test_data_that_do_not_fit_the_task_are_refused() -> None:
    pack("flowers102", per_class=20)
    with pytest.raises(KfbenchError, match="needs images of 3×224×224 in 102 classes, .* has 3×8×8 in 3"):
        images.load(registry.load_task("flowers102"))
    with pytest.raises(KfbenchError, match="has no classes '2-5'; it has 0-2"):
        images.load(registry.load_task("imagefolder/flowers102/2-5"))
    pack("lonely", per_class=1)
    with pytest.raises(KfbenchError, match="class 'class-0' of data set 'lonely' has 1 training image"):
        images.load(registry.load_task("imagefolder/lonely"))


def test_data_that_cannot_be_trained_on_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    pack("lonely", per_class=1)
    pack("good", per_class=20)
    lonely, part = (registry.load_task(f"imagefolder/{name}") for name in ("lonely", "good/1-1"))
    for look in (images.counts, partial(images.require, train_size=None)):
        with pytest.raises(KfbenchError, match="has 1 training image.*: give it more, or leave it out"):
            look(lonely)
    with pytest.raises(KfbenchError, match="'imagefolder/good/1-1' has one class, 'class-1'; two are the least"):
        images.require(part, None)
    for task, teachers in (("imagefolder/lonely", ["digits"]), ("imagefolder/good", ["digits", "imagefolder/lonely"])):
        spec = resolve.resolve("kf", task, budget="smoke", teachers=teachers)
        with pytest.raises(KfbenchError, match="data set 'lonely' has 1 training image"):
            prepare.missing_teachers(spec, results=tmp_path)


def test_images_that_do_not_fit_are_read_from_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    pack("large", per_class=30)
    task = registry.load_task("imagefolder/large")
    resident = images.load(task, 50)
    monkeypatch.setattr(images, "room", lambda device: 100)
    monkeypatch.setattr(splits, "room", lambda device: 100)
    mapped = images.load(task, 50)
    assert resident.train.rows is None and mapped.train.rows is not None and len(mapped.train.images) == 90
    assert torch.equal(resident.mean, mapped.mean) and torch.equal(resident.std, mapped.std)
    for one, other in ((resident.train, mapped.train), (resident.val, mapped.val), (resident.test(), mapped.test())):
        assert torch.equal(one.labels, other.labels) and torch.equal(one.span(3, 9), other.span(3, 9))
        for (a, b), (c, d) in zip(one.chunks(7), other.chunks(7), strict=True):
            assert torch.equal(a, c) and torch.equal(b, d)
    settings = {"batch_size": 8, "seed": 0, "pad": 1, "flip": True, "stop": 15}
    for one, other in zip(
        images.batches(resident.train, **settings), images.batches(mapped.train.to("cpu"), **settings), strict=True
    ):
        assert torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)


def test_room_is_half_of_what_is_free_and_allowed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(splits, "MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(splits, "GROUP", tmp_path)
    assert splits.room(cpu) > 2**60  # nothing is known
    (tmp_path / "meminfo").write_text("MemTotal:  900 kB\nMemAvailable:     600 kB\n")
    assert splits.room(cpu) == 300 * 1024
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert splits.room(cpu) == 300 * 1024
    (tmp_path / "memory.max").write_text("5000\n")
    assert splits.room(cpu) == 2000
