"""Splits, batches and augmentation, on digits and on made-up images."""

import statistics
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from kfbench import registry
from kfbench.data import images, splits
from kfbench.data.augment import Boxes, augment, boxes, draw_views, number_of_views
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


def test_augment_equals_flip_pad_crop_one_by_one() -> None:
    pad, shape = 2, (3, 6, 5)
    for flip in (False, True):
        views = torch.arange(number_of_views(pad, flip))
        made = torch.randint(256, (len(views), *shape), dtype=torch.uint8)
        found = augment(made, views, pad=pad, flip=flip)
        assert found.dtype == torch.uint8
        for image, view, answer in zip(made.numpy(), views.tolist(), found.numpy(), strict=True):
            corner, mirrored = divmod(view, 2) if flip else (view, 0)
            dy, dx = divmod(corner, 2 * pad + 1)
            turned = image[:, :, ::-1] if mirrored else image
            padded = np.pad(turned, ((0, 0), (pad, pad), (pad, pad)))
            np.testing.assert_array_equal(answer, padded[:, dy : dy + 6, dx : dx + 5])
    assert number_of_views(4, True) == 162 and number_of_views(0, False) == 1
    assert augment(made, views, pad=0, flip=False) is made


def test_views_are_the_same_for_row_whatever_the_number_of_rows() -> None:
    for views in (None, 3):
        few, many = (draw_views(5, 2, rows, pad=4, flip=True, views=views) for rows in (10, 1000))
        assert torch.equal(few, many[:10])
        assert not torch.equal(many, draw_views(5, 3, 1000, pad=4, flip=True, views=views))
        assert not torch.equal(many, draw_views(6, 2, 1000, pad=4, flip=True, views=views))
    free = draw_views(0, 0, 20_000, pad=4, flip=True).bincount(minlength=162)
    assert len(free) == 162 and free.min() > 60  # expected 123, standard deviation 11


def test_fixed_views_are_few_and_the_same_for_all_seeds() -> None:
    drawn = [draw_views(seed, epoch, 50, pad=4, flip=True, views=3) for seed in (0, 1) for epoch in range(40)]
    seen = [set(row) for row in torch.stack(drawn, 1).tolist()]
    assert all(len(row) <= 3 for row in seen) and len(set().union(*seen)) > 50
    assert [set(row) for row in torch.stack(drawn[40:], 1).tolist()] == [set(row) for row in seen]


def test_batches_cover_an_epoch_and_restart_anywhere() -> None:
    split = images.load(registry.load_task("digits"), 100).train
    settings = {"batch_size": 16, "seed": 3, "pad": 1, "flip": True}
    through = list(images.batches(split, stop=14, **settings))
    assert [rows.step for rows in through] == list(range(14)) and images.steps_per_epoch(100, 16) == 6
    for epoch in (through[:6], through[6:12]):
        assert len(torch.cat([rows.index for rows in epoch]).unique()) == 96
    assert not torch.equal(through[0].index, through[6].index)
    for start in (1, 5, 6, 13):
        for one, other in zip(images.batches(split, start=start, stop=14, **settings), through[start:], strict=True):
            assert one.step == other.step and torch.equal(one.images, other.images)
            assert torch.equal(one.index, other.index) and torch.equal(one.view, other.view)
    rows = through[7]
    assert rows.images.dtype == torch.uint8 and torch.equal(rows.labels, split.labels[rows.index])
    assert torch.equal(rows.images, augment(split.images[rows.index], rows.view, pad=1, flip=True))


def test_a_split_smaller_than_a_batch_is_one_batch() -> None:
    split = images.load(registry.load_task("digits"), 20).train
    batches = list(images.batches(split, batch_size=64, seed=0, stop=3))
    assert [sorted(rows.index.tolist()) for rows in batches] == [list(range(20))] * 3
    assert images.steps_per_epoch(20, 64) == 1


def test_chunks_give_every_row_once_in_order() -> None:
    split = images.load(registry.load_task("digits")).val
    seen = list(split.chunks(50))
    assert [len(labels) for _, labels in seen] == [50, 50, 43]
    assert torch.equal(torch.cat([chunk for chunk, _ in seen]), images.to_float(split.images))
    assert seen[0][0].dtype == torch.float32 and seen[0][0].min() >= 0 and seen[0][0].max() <= 1


def test_batches_are_ten_times_as_fast_as_torchvision() -> None:
    """The issue's floor; 22 times was measured on an idle machine, so that a busy one passes too."""
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms

    made = torch.randint(256, (4096, 3, 32, 32), dtype=torch.uint8)
    split = images.Split(made, torch.zeros(4096, dtype=torch.int64))
    change = transforms.Compose(
        [transforms.RandomCrop(32, 4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    )
    arrays = made.permute(0, 2, 3, 1).contiguous().numpy()

    class Cifar(Dataset[tuple[torch.Tensor, int]]):  # what torchvision.datasets.CIFAR10 does with its rows
        def __len__(self) -> int:
            return len(arrays)

        def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
            from PIL import Image

            return change(Image.fromarray(arrays[row])), 0

    def theirs() -> float:
        loader = iter(DataLoader(Cifar(), batch_size=64, shuffle=True, num_workers=0))
        next(loader)
        start = time.perf_counter()
        for _ in range(6):
            next(loader)
        return 6 * 64 / (time.perf_counter() - start)

    def ours() -> float:
        start = time.perf_counter()
        for rows in images.batches(split, batch_size=64, seed=0, pad=4, flip=True, stop=60):
            images.to_float(rows.images)
        return 60 * 64 / (time.perf_counter() - start)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ours()
        ratios = [ours() / theirs() for _ in range(7)]
    finally:
        torch.set_num_threads(threads)
    assert statistics.median(ratios) > 10, ratios


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_augment_on_a_gpu_equals_that_on_a_cpu() -> None:
    made, views = torch.randint(256, (162, 3, 32, 32), dtype=torch.uint8), torch.arange(162)
    there = augment(made.cuda(), views.cuda(), pad=4, flip=True)
    assert torch.equal(there.cpu(), augment(made, views, pad=4, flip=True))


def crops(views: torch.Tensor, flip: bool = True, crop: float = 0.08) -> Boxes:
    return boxes(views, flip=flip, crop=crop)


def test_resized_crops_are_those_of_torchvision_on_a_lattice() -> None:
    """Area, aspect and place of many draws have the distribution of RandomResizedCrop over a square image."""
    from torchvision.transforms import RandomResizedCrop

    views = draw_views(0, 0, 20_000, pad=0, flip=True, crop=0.08)
    assert views.max() < number_of_views(0, True, 0.08) < 64 * 17 * 32 * 32 * 2
    box = crops(views)
    area, aspect = box.height * box.width, box.width / box.height
    assert area.min() >= 0.08 and area.max() <= 1 and (box.mirrored.float().mean() - 0.5).abs() < 0.02
    assert aspect.min() >= 3 / 4 - 1e-6 and aspect.max() <= 4 / 3 + 1e-6
    for corner, side in ((box.top, box.height), (box.left, box.width)):
        assert corner.min() >= 0 and (corner + side).max() <= 1 + 1e-6
    torch.manual_seed(0)
    size = 1000
    picture = torch.empty(1, size, size)
    drawn = [RandomResizedCrop.get_params(picture, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)]
    top, left, high, wide = (torch.tensor(part) / size for part in zip(*drawn, strict=True))
    for ours, theirs, far in (
        (area, high * wide, 0.02),
        (aspect.log(), (wide / high).log(), 0.02),
        (box.top + box.height / 2, top + high / 2, 0.01),
        (box.left + box.width / 2, left + wide / 2, 0.01),
    ):
        shares = torch.linspace(0.1, 0.9, 9)
        assert (ours.quantile(shares) - theirs.quantile(shares)).abs().max() < 2 * far
        assert (ours.mean() - theirs.mean()).abs() < far


def test_resized_crops_are_bilinear_by_the_formula() -> None:
    height, width = 9, 12
    views = torch.randint(number_of_views(0, True, 0.08), (30,))
    made = torch.randint(256, (30, 2, height, width), dtype=torch.uint8)
    found = augment(made, views, pad=0, flip=True, crop=0.08)
    box = crops(views)
    for row in range(30):
        y = (box.top[row] + box.height[row] * (torch.arange(height) + 0.5) / height).double() * height - 0.5
        x = (box.left[row] + box.width[row] * (torch.arange(width) + 0.5) / width).double() * width - 0.5
        x = x.flip(0) if box.mirrored[row] else x
        y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
        above, before = y.floor().long(), x.floor().long()
        below, after = (above + 1).clamp(max=height - 1), (before + 1).clamp(max=width - 1)
        down, across = (y - above)[:, None], (x - before)[None]
        image = made[row].double()
        upper = image[:, above][:, :, before] * (1 - across) + image[:, above][:, :, after] * across
        lower = image[:, below][:, :, before] * (1 - across) + image[:, below][:, :, after] * across
        assert (upper * (1 - down) + lower * down - found[row]).abs().max() < 0.51


def test_the_whole_image_is_its_own_crop() -> None:
    made = torch.randint(256, (4, 3, 9, 7), dtype=torch.uint8)
    views = torch.tensor([number_of_views(0, False, 0.9999999) - 1] * 4)  # the largest area
    found = augment(made, views, pad=0, flip=False, crop=0.9999999)
    assert found.dtype == torch.uint8 and (found.int() - made.int()).abs().max() <= 1


def test_resized_crops_repeat_and_restart_anywhere() -> None:
    split = images.Split(torch.randint(256, (40, 3, 16, 16), dtype=torch.uint8), torch.arange(40) % 4)
    for views in (None, 3):
        settings = {"batch_size": 8, "seed": 3, "flip": True, "crop": 0.2, "views": views}
        through = list(images.batches(split, stop=12, **settings))
        for one, other in zip(images.batches(split, start=7, stop=12, **settings), through[7:], strict=True):
            assert torch.equal(one.images, other.images) and torch.equal(one.view, other.view)
    few, many = (draw_views(0, 1, rows, pad=0, flip=True, crop=0.2, views=3) for rows in (10, 1000))
    assert torch.equal(few, many[:10])
    seen = [draw_views(seed, epoch, 50, pad=0, flip=True, crop=0.2, views=3) for seed in (0, 1) for epoch in range(9)]
    assert max(len(set(row)) for row in torch.stack(seen, 1).tolist()) == 3


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


def test_large_images_are_evaluated_in_smaller_chunks() -> None:
    for side, size in ((32, 500), (96, 500), (224, 91)):
        split = images.Split(torch.zeros(1, 3, side, side, dtype=torch.uint8).expand(600, -1, -1, -1), torch.zeros(600))
        assert len(next(iter(split.chunks()))[1]) == size


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_resized_crops_on_a_gpu_are_those_on_a_cpu_to_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    made = torch.randint(256, (64, 3, 224, 224), dtype=torch.uint8)
    views = draw_views(0, 0, 64, pad=0, flip=True, crop=0.08)
    there = augment(made.cuda(), views.cuda(), pad=0, flip=True, crop=0.08)
    off = (there.cpu().int() - augment(made, views, pad=0, flip=True, crop=0.08).int()).abs()
    assert off.max() <= 1 and off.float().mean() < 0.01
    split = images.Split(made, torch.arange(64) % 4)
    monkeypatch.setattr(splits, "room", lambda device: 100)
    stays = split.to("cuda")
    assert stays.images.device.type == "cpu" and stays.labels.device.type == "cuda"
    index = torch.tensor([5, 3], device="cuda")
    assert stays.take(index).device.type == "cuda" and torch.equal(stays.take(index).cpu(), made[[5, 3]])
