"""Views of images: flips, crops and resized crops by their formulas, few or free, the same on any machine."""

import numpy as np
import pytest
import torch

from kfbench.data import images, splits
from kfbench.data.augment import Boxes, augment, boxes, draw_views, number_of_views


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
