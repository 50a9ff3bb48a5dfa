"""Atari games: many emulators stepped together; frames, lives and raw scores are counted here and nowhere else.

An agent step is four emulator frames, of which the last two are max-pooled, turned grey and resized to 84 × 84; four
such images make an observation [4, 84, 84], oldest first, with zeros before an episode's first image. Observations are
channels_last in memory, what convolutions learn from fastest: a pixel's four values are the bytes of one number, so the
next observation is a shift.

Source: Mnih et al. 2015, "Human-level control through deep reinforcement learning", Nature 518, methods.
Differs: no-op starts are ale-py's, 0 to `noops` - 1 of them. Otherwise equal, frame by frame, to gymnasium's
`AtariPreprocessing` (tests/games/test_emulators.py).
"""

import functools
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kfbench import seeding
from kfbench.errors import KfbenchError, near

FRAMES_A_STEP = 4
SHAPE = (4, 84, 84)
LONGEST = 108_000  # frames: half an hour of play, the usual limit of an episode
SEVERAL = {"combat", "joust", "maze_craze", "warlords"}  # ale-py has their ROMs, but plays them in PettingZoo only
RESEED = 20_000  # agent steps after which an environment's next episode starts from a fresh seed, see `Arcade.state`


class Episode(NamedTuple):
    """An episode that ended: raw points, emulator frames (with its no-op start), and whether the limit cut it off."""

    environment: int
    score: float
    frames: int
    capped: bool


class Step(NamedTuple):
    """What one agent step gave; N environments.

    `ended` stops a return: a life was lost, or the game was over. `truncated` means that the game was not over, but the
    limit of frames was reached: bootstrap from `last`. Both at once: a life was lost in the very step that reached it.
    After either of the last two, `observation` is a new episode's first.
    """

    observation: Tensor  # [N, 4, 84, 84] uint8, on the device
    rewards: Tensor  # [N] float32, raw points, on the CPU
    ended: Tensor  # [N] bool, on the CPU
    truncated: Tensor  # [N] bool, on the CPU
    last: Tensor | None  # [N, 4, 84, 84] uint8: the final observation, meant only where truncated; None if nowhere
    finished: tuple[Episode, ...]  # in order of environment


class Mark(NamedTuple):
    """A moment of an `Arcade`, cheap to take: `Arcade.state` makes a checkpoint of it, also later."""

    steps: int
    blocks: np.ndarray  # [N]
    played: tuple[tuple[bytearray, int], ...]  # each environment's actions, and how many of them had been taken


def games() -> list[str]:
    """Return the names of all games that ale-py carries and one agent can play, as it spells them: "riverraid"."""
    from ale_py import roms

    return sorted(set(roms.get_all_rom_ids()) - SEVERAL)  # to load another's ROM ends the process


def rom(game: str) -> str:
    """Return ale-py's name of a game, however its words are joined ("river_raid" is "riverraid").

    Raises KfbenchError with the nearest name, and if the game's file is not there.
    """
    from ale_py import roms

    there = games()
    found = {name.replace("_", ""): name for name in there}.get(game.lower().replace("_", ""))
    if found is None:
        raise KfbenchError(f"no game '{game}'; {near(game, there)}")
    try:
        roms.get_rom_path(found)
    except OSError as error:
        folder = os.environ.get("ALE_ROMS_DIR", "ale-py's own")
        raise KfbenchError(
            f"game '{found}' has no good file among the ROMs ({folder}); unset ALE_ROMS_DIR, or reinstall ale-py"
        ) from error
    return found


@functools.cache
def actions(game: str, *, full: bool = False) -> tuple[str, ...]:
    """Return the names of a game's actions, "noop" first: those it understands, or all 18 of the console."""
    import ale_py

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    console = ale_py.ALEInterface()
    console.loadROM(_path(game))
    return tuple(a.name.lower() for a in (console.getLegalActionSet() if full else console.getMinimalActionSet()))


def _path(game: str) -> Any:
    from ale_py import roms

    return roms.get_rom_path(rom(game))


def checksum(game: str) -> str:
    """Return the sha256 of a game's ROM. Raises KfbenchError as `rom` does."""
    return hashlib.sha256(Path(_path(game)).read_bytes()).hexdigest()


def seed_of(seed: int, name: str, environment: int, block: int) -> int:
    """Return the emulator's seed, 0..2^31-1, of an environment's `block`-th seeded reset."""
    return seeding.number(seed, "environment", name, environment, block) % 2**31


def emulators(
    game: str,
    environments: int,
    *,
    threads: int = 1,
    sticky: float = 0.0,
    full_actions: bool = False,
    noops: int = 30,
    fire: bool = False,
    episode_frames: int = LONGEST,
    colour: bool = False,
) -> Any:
    """Return ale-py's vector of emulators, one image a step: grey 84 × 84, or the console's own in colour.

    A game over restarts the game within the same step. Raises KfbenchError for an unknown game and for fewer
    environments than threads.
    """
    from ale_py import AtariVectorEnv
    from gymnasium.vector import AutoresetMode

    if not 1 <= threads <= environments:
        raise KfbenchError(
            f"{environments} environments cannot keep {threads} threads busy; give at least one environment a thread"
        )
    return AtariVectorEnv(
        rom(game),
        environments,
        num_threads=threads,
        max_num_frames_per_episode=episode_frames,
        repeat_action_probability=sticky,
        full_action_space=full_actions,
        autoreset_mode=AutoresetMode.SAME_STEP,
        img_height=210 if colour else SHAPE[1],
        img_width=160 if colour else SHAPE[2],
        grayscale=not colour,
        stack_num=1,  # stacked by `Arcade`, on the device: a quarter of the bytes to move
        frameskip=FRAMES_A_STEP,
        noop_max=noops,
        use_fire_reset=fire,
        life_loss_info=True,
        episodic_life=False,  # it would restart the whole game at every lost life
        reward_clipping=False,  # it would hide the score
    )


class Arcade:
    """N emulators of one game that are stepped together; the same trajectory for any number of threads.

    Environment n starts from a seed that depends on (seed, name, n) only. Every row that a learner sees is a real step.
    """

    def __init__(
        self,
        game: str,
        environments: int,
        *,
        seed: int,
        name: str,
        threads: int = 1,
        sticky: float = 0.0,
        full_actions: bool = False,
        noops: int = 30,
        fire: bool = False,
        episode_frames: int = LONGEST,
        device: torch.device | str = "cpu",
    ) -> None:
        """Load the game; `reset` or `restore` comes next.

        `sticky`: chance that the console repeats the last action instead, each frame. `fire`: press fire after a reset.
        Raises KfbenchError for an unknown game and for fewer environments than threads.
        """
        self._vector = emulators(
            game,
            environments,
            threads=threads,
            sticky=sticky,
            full_actions=full_actions,
            noops=noops,
            fire=fire,
            episode_frames=episode_frames,
        )
        self.environments, self.seed, self.name, self.device = environments, seed, name, torch.device(device)
        self.episode_frames = episode_frames
        self.actions = int(self._vector.single_action_space.n)
        self.steps = 0  # agent steps taken, all environments together
        self._blocks = np.zeros(environments, np.int64)  # seeded resets of each environment so far
        self._played = [bytearray() for _ in range(environments)]  # each one's actions since its last seeded reset
        self._scores = np.zeros(environments)  # raw points of the running episodes
        self._begun = np.zeros(environments, np.int64)  # the console's count of frames before the running episodes
        self._age = np.zeros(environments, np.int64)  # agent steps of the running episodes
        self._lives = np.zeros(environments, np.int64)  # that are left; 0 too in games that count none
        self._pixels = torch.zeros((environments, *SHAPE[1:]), dtype=torch.int32, device=self.device)

    @property
    def frames(self) -> int:
        """Emulator frames so far, four an agent step; no-op starts are not counted."""
        return self.steps * FRAMES_A_STEP

    @property
    def observation(self) -> Tensor:
        """The present observations [N, 4, 84, 84] uint8."""
        return _stack(self._pixels)

    def reset(self) -> Tensor:
        """Start the first episodes and return their observations [N, 4, 84, 84] uint8."""
        self.steps = 0
        self._blocks[:] = 0
        return self._start(np.ones(self.environments, bool))

    def _start(self, which: np.ndarray) -> Tensor:
        """Restart some environments ([N] bool) from the seeds of their present blocks."""
        rows = np.flatnonzero(which)
        seeds = [seed_of(self.seed, self.name, int(n), int(self._blocks[n])) for n in rows]
        images, info = self._vector.reset(seed=np.array(seeds), options={"reset_mask": which})
        self._begun[rows] = (info["frame_number"] - info["episode_frame_number"])[rows]
        self._lives[rows] = info["lives"][rows]
        self._scores[rows] = self._age[rows] = 0
        for n in rows:
            self._played[n] = bytearray()
        started = torch.from_numpy(which).to(self.device)[:, None, None]
        self._pixels = torch.where(started, self._pushed(images, torch.zeros_like(self._pixels)), self._pixels)
        return self.observation

    def step(self, chosen: Tensor) -> Step:
        """Take an action in each environment, [N] int64 in 0..actions-1."""
        self.send(chosen)
        return self.receive()

    def send(self, chosen: Tensor) -> None:
        """Hand the actions [N] to the emulators, which work on their own until `receive`."""
        taken = chosen.cpu().numpy()
        self._vector.send(taken)
        for played, action in zip(self._played, taken.tolist(), strict=True):
            played.append(action)

    def receive(self) -> Step:
        """Wait for the emulators and return what the step gave."""
        images, rewards, terminated, truncated, info = self._vector.recv()
        self.steps += self.environments
        self._scores += rewards
        self._age += 1
        begun = info["frame_number"] - info["episode_frame_number"]
        over = np.flatnonzero(begun != self._begun)  # changes when an episode begins, not at a lost life
        truncated = truncated | self._cut_at_a_lost_life(over)
        last = None
        if truncated.any():
            last = _stack(self._pushed(info["final_obs"], self._pixels))
        if len(over):
            self._pixels = self._pixels.index_fill(0, torch.from_numpy(over).to(self.device), 0)
        self._pixels = self._pushed(images, self._pixels)
        finished = tuple(
            Episode(int(n), float(self._scores[n]), int(begun[n] - self._begun[n]), bool(truncated[n])) for n in over
        )
        self._scores[over], self._begun[over], self._age[over] = 0, begun[over], 0
        self._lives = info["lives"].astype(np.int64)
        self._reseed([int(n) for n in over if len(self._played[n]) >= RESEED])
        return Step(
            self.observation,
            torch.from_numpy(rewards).float(),
            torch.from_numpy(terminated),
            torch.from_numpy(truncated),
            last,
            finished,
        )

    def _cut_at_a_lost_life(self, over: np.ndarray) -> np.ndarray:
        """Say which of the episodes that are over the limit cut off as a life was lost, [N] bool.

        ale-py says of them that they ended, as it does of the last life.
        """
        cut = np.zeros(self.environments, bool)
        cut[over] = (self._age[over] * FRAMES_A_STEP >= self.episode_frames) & (self._lives[over] > 1)
        return cut

    def _pushed(self, images: np.ndarray, pixels: Tensor) -> Tensor:
        """Return pixels [N, 84, 84] whose oldest image is dropped and whose newest are these, [N, 1, 84, 84] uint8."""
        newest = torch.from_numpy(images).to(self.device).squeeze(1).to(torch.int32)
        return (pixels >> 8).bitwise_and_(0xFFFFFF).bitwise_or_(newest << 24)

    def _reseed(self, rows: Sequence[int]) -> None:
        """Start the next block of environments that are at an episode's start."""
        if rows:
            due = np.isin(np.arange(self.environments), rows)
            self._blocks[due] += 1
            self._start(due)

    def mark(self) -> Mark:
        """Note the present moment."""
        return Mark(self.steps, self._blocks.copy(), tuple((played, len(played)) for played in self._played))

    def state(self, mark: Mark | None = None) -> dict[str, Any]:
        """Return what `restore` needs, plain values and tensors, of the present moment or of a mark.

        Emulators cannot be copied, but a seeded reset followed by the same actions gives the same frames; so the
        actions since each environment's last seeded reset are kept, a byte each. An environment is reset with a fresh
        seed at the first game over after `RESEED` steps, whatever the method, so that the replay stays short.
        """
        steps, blocks, played = mark or self.mark()
        return {
            "steps": steps,
            "blocks": torch.from_numpy(blocks),
            "played": [torch.tensor(list(actions[:taken]), dtype=torch.uint8) for actions, taken in played],
        }

    def restore(self, state: dict[str, Any]) -> Tensor:
        """Bring the emulators to where `state` was taken, by replaying actions, and return the observations there."""
        played = [actions.tolist() for actions in state["played"]]
        longest = max(len(actions) for actions in played)
        self.reset()
        for t in range(longest + 1):
            due = np.array([longest - len(actions) == t for actions in played])
            if due.any():  # an environment whose block is shorter idles until its turn comes
                self._blocks[due] = state["blocks"].numpy()[due]
                self._start(due)
            if t < longest:
                row = [actions[t - longest] if longest - len(actions) <= t else 0 for actions in played]
                self.step(torch.tensor(row))
        self._blocks, self.steps = state["blocks"].numpy().copy(), state["steps"]
        return self.observation

    def close(self) -> None:
        """Stop the emulators' threads."""
        self._vector.close()


def _stack(pixels: Tensor) -> Tensor:
    """Return pixels [N, 84, 84] as observations [N, 4, 84, 84] uint8: their bytes."""
    return pixels.view(torch.uint8).view(*pixels.shape, SHAPE[0]).permute(0, 3, 1, 2)
