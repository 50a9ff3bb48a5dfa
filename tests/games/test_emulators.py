"""Tests of `kfbench.games.emulators`: against gymnasium's single preprocessed environment; bookkeeping over lives."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from kfbench.errors import KfbenchError
from kfbench.games import emulators
from kfbench.games.emulators import Arcade


@pytest.fixture
def arcade() -> Iterator[Arcade]:
    made = Arcade("road_runner", 3, seed=5, name="train")
    yield made
    made.close()


def drawn(arcade: Arcade, steps: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(arcade.actions, (steps, arcade.environments), generator=generator)


@pytest.mark.parametrize("game", ["road_runner", "breakout", "boxing"])
def test_equals_gymnasiums_preprocessing_frame_by_frame(game: str) -> None:
    """Whole episodes with lives lost: every image, reward, lost life and game over of a single environment."""
    pytest.importorskip("cv2")
    import ale_py
    import gymnasium
    from gymnasium.wrappers import AtariPreprocessing

    gymnasium.register_envs(ale_py)
    name = "".join(word.capitalize() for word in game.split("_"))
    inner = gymnasium.make(f"ALE/{name}-v5", frameskip=1, repeat_action_probability=0.0, disable_env_checker=True)
    single = AtariPreprocessing(inner, noop_max=0, frame_skip=4, screen_size=84, terminal_on_life_loss=False)
    arcade = Arcade(game, 1, seed=0, name="train", noops=0, fire=False)

    image, info = single.reset(seed=1)
    stack = [np.zeros((84, 84), np.uint8)] * 3 + [image]
    seen = arcade.reset()
    lives, score, scores, lost = info["lives"], 0.0, [], 0
    for action in drawn(arcade, 2200 if game == "boxing" else 700):
        assert np.array_equal(seen[0].numpy(), np.stack(stack))
        step = arcade.step(action)
        image, reward, over, _, info = single.step(int(action[0]))
        score += float(reward)
        died = info["lives"] < lives and info["lives"] > 0
        lost += died
        assert float(step.rewards[0]) == reward
        assert bool(step.ended[0]) == (over or died)
        assert not bool(step.truncated[0]) and step.last is None
        stack, lives, seen = [*stack[1:], image], info["lives"], step.observation
        assert len(step.finished) == over
        if over:
            assert step.finished[0].score == score
            scores.append(score)
            image, info = single.reset()
            stack, lives, score = [np.zeros((84, 84), np.uint8)] * 3 + [image], info["lives"], 0.0
    assert scores and (lost > 1 or game == "boxing")
    arcade.close()
    single.close()


def test_raw_scores_are_summed_over_lives(arcade: Arcade) -> None:
    """A score is the sum of all raw rewards between two game overs, whatever lives were lost between."""
    arcade.reset()
    sums, lost, episodes = np.zeros(3), 0, []
    for action in drawn(arcade, 700):
        step = arcade.step(action)
        sums += step.rewards.numpy()
        lost += int(step.ended.sum()) - len(step.finished)
        for episode in step.finished:
            assert episode.score == sums[episode.environment] and not episode.capped
            assert bool(step.ended[episode.environment])
            sums[episode.environment] = 0
            episodes.append(episode)
    assert len(episodes) >= 6 and lost >= 10 and max(episode.score for episode in episodes) > 1


def test_the_limit_of_frames_truncates_and_gives_the_last_observation() -> None:
    """A capped episode did not end: it is truncated, its final observation follows from the one before."""
    arcade = Arcade("pong", 2, seed=0, name="train", episode_frames=200)
    before = arcade.reset()
    for number, action in enumerate(drawn(arcade, 120)):
        step = arcade.step(action)
        assert not step.ended.any()
        assert bool(step.truncated.all()) == (number % 50 == 49) == (len(step.finished) == 2) == (step.last is not None)
        if step.last is not None:
            assert torch.equal(step.last[:, :3], before[:, 1:])
            assert (step.last[:, 3] != 0).any() and not step.observation[:, :3].any()
            assert all(episode.capped and 200 <= episode.frames < 230 for episode in step.finished)
        before = step.observation
    assert arcade.frames == 120 * 2 * 4
    arcade.close()


def test_a_life_lost_in_the_step_that_reaches_the_limit_is_not_the_end_of_the_game() -> None:
    """The episode is capped and truncated, and its last observation is there: ale-py calls it ended alone."""
    arcade = Arcade("breakout", 4, seed=0, name="x", episode_frames=130)
    before, met = arcade.reset(), 0
    for action in drawn(arcade, 170):  # 33 steps an episode: too few for five lives
        step = arcade.step(action)
        for episode in step.finished:
            assert episode.capped and bool(step.truncated[episode.environment]) and step.last is not None
            met += bool(step.ended[episode.environment])
            assert torch.equal(step.last[episode.environment, :3], before[episode.environment, 1:])
        assert step.last is None or step.finished
        before = step.observation
    assert met
    arcade.close()


def test_a_game_over_in_the_step_that_reaches_the_limit_is_an_end() -> None:
    arcade = Arcade("breakout", 4, seed=0, name="x", noops=1)
    arcade.reset()
    actions = drawn(arcade, 400)
    steps, environment = next(
        (number + 1, step.finished[0].environment)
        for number, step in enumerate(map(arcade.step, actions))
        if step.finished
    )
    arcade.close()
    arcade = Arcade("breakout", 4, seed=0, name="x", noops=1, episode_frames=4 * steps)
    arcade.reset()
    for action in actions[:steps]:
        step = arcade.step(action)
    capped = {episode.environment: episode.capped for episode in step.finished}
    assert len(capped) == 4 and not capped[environment] and bool(step.ended[environment])
    assert step.truncated.tolist() == [capped[n] for n in range(4)] and sum(capped.values()) >= 1
    arcade.close()


@pytest.mark.parametrize("sticky", [0.0, 0.25])
def test_threads_do_not_change_the_trajectory(sticky: float) -> None:
    runs = []
    for threads in (1, 2):
        arcade = Arcade("krull", 4, seed=3, name="train", threads=threads, sticky=sticky)
        seen = [arcade.reset()]
        seen += [arcade.step(action).observation for action in drawn(arcade, 60)]
        runs.append(torch.stack(seen))
        arcade.close()
    assert torch.equal(*runs)
    assert not torch.equal(runs[0][-1, 0], runs[0][-1, 1])


@pytest.mark.parametrize("reseed", [20_000, 120])
def test_restore_replays_to_the_same_frames(monkeypatch: pytest.MonkeyPatch, reseed: int) -> None:
    """Also when environments were reseeded at different times, and with sticky actions."""
    monkeypatch.setattr(emulators, "RESEED", reseed)

    def make() -> Arcade:
        return Arcade("road_runner", 3, seed=9, name="train", sticky=0.25)

    straight, resumed = make(), make()
    straight.reset()
    actions = drawn(straight, 700)
    for action in actions[:500]:
        straight.step(action)
    state = straight.state()
    blocks = state["blocks"].tolist()
    assert (len(set(blocks)) > 1 or max(blocks) > 1) if reseed == 120 else blocks == [0, 0, 0]
    assert torch.equal(resumed.restore(state), straight.observation)
    for action in actions[500:]:
        ours, theirs = resumed.step(action), straight.step(action)
        assert torch.equal(ours.observation, theirs.observation)
        assert torch.equal(ours.rewards, theirs.rewards)
        assert ours.finished == theirs.finished
    assert resumed.frames == straight.frames
    straight.close()
    resumed.close()


def test_reseeding_leaves_the_other_environments_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Observations already handed out are not written to, and only the environment at its start gets a fresh seed."""
    monkeypatch.setattr(emulators, "RESEED", 10)
    arcade, plain = (Arcade("road_runner", 3, seed=1, name="train") for _ in range(2))
    seen, same = arcade.reset(), plain.reset()
    kept = seen.clone()
    done: set[int] = set()
    for action in drawn(arcade, 250):
        ours = arcade.step(action)
        monkeypatch.setattr(emulators, "RESEED", 10**9)
        theirs = plain.step(action)
        monkeypatch.setattr(emulators, "RESEED", 10)
        done |= {episode.environment for episode in ours.finished}
        untouched = [n for n in range(3) if n not in done]
        assert torch.equal(ours.observation[untouched], theirs.observation[untouched])
    assert done and torch.equal(seen, kept) and torch.equal(same, kept)
    arcade.close()
    plain.close()


def test_names_of_games_and_actions() -> None:
    assert len(emulators.games()) > 100
    assert emulators.rom("river_raid") == emulators.rom("riverraid") == "riverraid"
    assert emulators.actions("pong")[:2] == ("noop", "fire") and len(emulators.actions("pong")) == 6
    assert len(emulators.actions("pong", full=True)) == 18
    full = Arcade("pong", 1, seed=0, name="train", full_actions=True)
    assert full.actions == 18
    full.close()


def test_every_game_can_be_loaded() -> None:
    """The console ends the process where it does not know a ROM."""
    import ale_py
    from ale_py import roms

    unknown = {g for g in roms.get_all_rom_ids() if not ale_py.ALEInterface.isSupportedROM(roms.get_rom_path(g))}
    assert "combat" in unknown and not unknown & set(emulators.games())
    with pytest.raises(KfbenchError, match="no game 'combat'"):
        emulators.rom("combat")


def test_bad_input_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    with pytest.raises(KfbenchError, match="no game 'krul'; did you mean 'krull'?"):
        emulators.rom("krul")
    with pytest.raises(KfbenchError, match="2 environments cannot keep 3 threads busy"):
        Arcade("pong", 2, seed=0, name="train", threads=3)
    monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path))
    with pytest.raises(KfbenchError, match="game 'pong' has no good file"):
        emulators.rom("pong")
