"""Tests of `kfbench.running.film`: the picture shows the very episode that the agent plays."""

import weakref
from collections.abc import Iterator
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from PIL import Image

from kfbench import networks, seeding
from kfbench.errors import KfbenchError
from kfbench.games.emulators import SHAPE
from kfbench.networks.network import Network
from kfbench.running import film
from kfbench.spec import GameRecipe


@pytest.fixture
def network() -> Network:
    with seeding.global_stream(0, "init"):
        return networks.make("a3c", shape=SHAPE, outputs=18)


def test_colour_and_grey_are_the_same_episode(network: Network) -> None:
    """The grey image the agent saw next is the colour image in grey, at every step: the emulators stay in step."""
    seen: list[torch.Tensor] = []
    network.register_forward_pre_hook(lambda _m, given: seen.append(given[0][0, -1]))
    shown = list(film.frames(network, "road_runner", GameRecipe(sticky=0.25, evaluation_frames=800), seed=3, steps=400))
    *images, (_, episode) = shown
    assert episode is not None and len(seen) == len(images) + 1 and episode.frames >= 4 * len(images)
    for grey, (image, none) in zip(seen[1:], images, strict=True):
        assert none is None
        small = np.asarray(
            image.crop((0, 20, 320, 230)).convert("L").resize((84, 84), Image.Resampling.BOX), np.float32
        )
        assert np.abs(small - grey.numpy()).mean() < 4
    far = np.asarray(images[0][0].crop((0, 20, 320, 230)).convert("L").resize((84, 84)), np.float32)
    assert np.abs(far - seen[-1].numpy()).mean() > 4  # the bound above tells images apart


def test_a_film_keeps_what_it_shows_alone() -> None:
    """An episode may have 27,000 images: at eight times the speed 26,000 of them are in no film."""
    made, most = list[weakref.ref[Image.Image]](), 0

    def images() -> Iterator[Image.Image]:
        nonlocal most
        for _ in range(99):
            image = Image.new("L", (1, 1))
            made.append(weakref.ref(image))
            most = max(most, sum(each() is not None for each in made))
            yield image

    assert len(film.thinned(images(), 8)) == 14 and most <= 16
    assert len(film.thinned(images(), 1)) == 99 and len(film.thinned(images(), 200)) == 2


def test_write_makes_a_gif_and_refuses_other_names(network: Network, tmp_path: Path) -> None:
    images = [image for image, _ in film.frames(network, "road_runner", GameRecipe(), seed=0, steps=9)]
    film.write(images, tmp_path / "made" / "game.gif", speed=2)
    with Image.open(tmp_path / "made" / "game.gif") as gif:
        assert gif.size == (320, 230) and getattr(gif, "n_frames", 1) == 6  # 5 of 9, and the card at the end
    film.write([*images[:7], images[-1]], tmp_path / "last.gif", speed=3)
    with Image.open(tmp_path / "last.gif") as gif:
        gif.seek(gif.n_frames - 1)  # type: ignore[attr-defined]
        last = np.asarray(gif.convert("L"), np.float32)
    assert np.abs(last - np.asarray(images[-1].convert("L"), np.float32)).mean() < 4  # the end is shown at any speed
    with pytest.raises(KfbenchError, match="must end in .gif .* or .mp4"):
        film.play("0" * 12, results=tmp_path, out=tmp_path / "game.avi")


def test_write_makes_an_mp4_of_the_same_pictures(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("av")
    images = [image for image, _ in film.frames(network, "road_runner", GameRecipe(), seed=0, steps=9)]
    film.write(images, tmp_path / "made" / "game.mp4")
    shown = imageio.imread(tmp_path / "made" / "game.mp4", plugin="pyav")
    assert shown.shape == (len(images), 230, 320, 3)
    assert np.abs(shown.astype(int) - np.stack([np.asarray(image) for image in images])).mean() < 10
    assert imageio.immeta(tmp_path / "made" / "game.mp4", plugin="pyav")["fps"] == film.RATE
    monkeypatch.setattr(film, "find_spec", lambda name: None)
    with pytest.raises(KfbenchError, match=r"needs PyAV; type: pip install 'kfbench\[mp4\]', or write a .gif"):
        film.write(images, tmp_path / "game.mp4")
    (tmp_path / "file").write_text("")
    for out in ("file/game.gif", "file/game.mp4"):
        monkeypatch.setattr(film, "find_spec", lambda name: True)
        with pytest.raises(KfbenchError, match="cannot write"):
            film.write(images, tmp_path / out)


def test_a_gif_shows_each_picture_for_its_time(network: Network, tmp_path: Path) -> None:
    images = [image for image, _ in film.frames(network, "road_runner", GameRecipe(), seed=0, steps=30)]
    film.write(images, tmp_path / "game.gif")
    with Image.open(tmp_path / "game.gif") as gif:
        assert getattr(gif, "n_frames", 1) == len(images) and gif.info["loop"] == 0
        assert abs(gif.info["duration"] - 1000 / film.RATE) <= 10  # a GIF counts in hundredths of a second
        gif.seek(5)
        assert np.abs(np.asarray(gif.convert("RGB"), int) - np.asarray(images[5], int)).mean() < 6
    assert (tmp_path / "game.gif").stat().st_size < 12_000 * len(images)
