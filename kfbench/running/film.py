"""Render an episode of a recorded agent, in colour with its score: `kfbench play KEY --out game.gif`."""

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn

from kfbench import registry, seeding
from kfbench.errors import KfbenchError
from kfbench.games import emulators
from kfbench.games.emulators import Arcade, Episode
from kfbench.networks.network import Output
from kfbench.running import export
from kfbench.running.files import FILMS, require_ending
from kfbench.spec import GameRecipe
from kfbench.tasks import GAMES
from kfbench.train import episodes

RATE = 15  # images a second of play: one an agent step


def play(key: str, *, results: Path, out: Path, seed: int = 0, seconds: float = 60.0, speed: int = 1) -> Episode | None:
    """Write an episode of the student that a run kept as a GIF or mp4, and return the episode.

    `seconds` of play are shown at most, at `speed` times the console's own; None is returned if the episode is longer.
    Raises KfbenchError if there is no such game run, its weights are gone, or the file cannot be written.
    """
    require_ending(out, FILMS)
    record, network, _ = export.load(key, results=results)
    spec = record.run_spec()
    if registry.kind_of(spec.task) is not GAMES:
        raise KfbenchError(f"run '{record.key}' is of task '{spec.task}', which is no game; play needs an atari run")
    game = emulators.rom(spec.task.partition("/")[2])
    over: Episode | None = None

    def images() -> Iterator[Image.Image]:
        nonlocal over
        for image, ended in frames(network, game, GameRecipe.of(spec), seed=seed, steps=round(seconds * RATE)):
            over = ended
            yield image

    write(images(), out, speed=speed)
    return over


@torch.no_grad()
def frames(
    network: nn.Module, game: str, recipe: GameRecipe, *, seed: int, steps: int
) -> Iterator[tuple[Image.Image, Episode | None]]:
    """Yield an image for each agent step, at most `steps`, with the score so far; the last with the episode, if over.

    Two emulators run in step from the same seed: one shows the agent grey images, the other shows us colour.
    """
    options = {
        "sticky": recipe.sticky,
        "full_actions": recipe.full_actions,
        "noops": recipe.noops,
        "fire": recipe.fire,
        "episode_frames": recipe.evaluation_frames,
    }
    arcade = Arcade(game, 1, seed=seed, name="play", **options)  # type: ignore[arg-type]
    colour = emulators.emulators(game, 1, colour=True, **options)  # type: ignore[arg-type]
    colour.reset(seed=np.array([emulators.seed_of(seed, "play", 0, 0)]))
    generator = seeding.stream(seed, "play")
    observation, score = arcade.reset(), 0.0
    network.eval()
    for _ in range(steps):
        output: Output = network(observation)
        uniform = None if recipe.greedy else torch.rand(output.logits.shape, generator=generator)
        action = episodes.choose(output.logits, uniform)
        step = arcade.step(action)
        image = colour.step(action.numpy())[0]
        observation, score = step.observation, score + float(step.rewards[0])
        if step.finished:
            break
        yield _labelled(image[0, 0], f"{game.replace('_', ' ')}   {score:,.0f}"), None
    over = step.finished[0] if step.finished else None
    end = "the end" if over else "to be continued"
    yield _labelled(np.zeros((210, 160, 3), np.uint8), f"{game.replace('_', ' ')}   {score:,.0f}   {end}"), over
    arcade.close()
    colour.close()


def _labelled(pixels: np.ndarray, label: str) -> Image.Image:
    """Return the console's 160 × 210 pixels at twice the width (its pixels are wide), under a line of text."""
    image = Image.new("RGB", (320, 230))
    image.paste(Image.fromarray(pixels).resize((320, 210), Image.Resampling.NEAREST), (0, 20))
    ImageDraw.Draw(image).text((4, 4), label, fill=(255, 255, 255))
    return image


def thinned(images: Iterable[Image.Image], every: int) -> list[Image.Image]:
    """Return every n-th image, and the last; no other is kept meanwhile."""
    kept, last = list[Image.Image](), None
    for number, image in enumerate(images):
        last = image
        if number % every == 0:
            kept.append(image)
    return kept if last is None or kept[-1] is last else [*kept, last]


def write(images: Iterable[Image.Image], out: Path, *, speed: int = 1) -> None:
    """Write images as a GIF or mp4, by imageio; at `speed` n every n-th is shown, and the last.

    Raises KfbenchError if the file cannot be written, or an mp4 lacks PyAV.
    """
    import imageio.v3 as imageio

    chosen = thinned(images, speed)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix.lower() == ".gif":
            frames = [image.quantize(64, dither=Image.Dither.NONE).convert("RGB") for image in chosen]
            imageio.imwrite(out, np.stack([np.asarray(frame) for frame in frames]), duration=round(1000 / RATE), loop=0)
        else:
            if find_spec("av") is None:
                raise KfbenchError(f"'{out}' needs PyAV; type: pip install 'kfbench[mp4]', or write a .gif")
            imageio.imwrite(
                out, np.stack([np.asarray(image) for image in chosen]), plugin="pyav", codec="libx264", fps=RATE
            )
    except OSError as error:
        raise KfbenchError(
            f"cannot write '{out}' ({error.strerror or error}); give another place with --out"
        ) from error
