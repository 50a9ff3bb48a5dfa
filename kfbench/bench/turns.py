"""What is timed in games, each as a function that takes a turn: ten rollouts of 16 environments by five steps.

Timed are the suite's loop, floors, the emulators alone, a loop written by hand, and Stable-Baselines3's. A floor is
what a method cannot avoid: the emulators, the passes of student and teachers that it asks for, counted in a rollout of
its own, and one forward and backward pass of the student over the rollout with an optimiser step. Most ask the student
for every observation, and each teacher for all but the last.
"""

import itertools
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kfbench import registry, seeding
from kfbench.bench import settings_of
from kfbench.errors import KfbenchError
from kfbench.games import emulators as atari
from kfbench.networks.network import Network
from kfbench.running import resolve, stand_in
from kfbench.running.device import synchronize
from kfbench.spec import GameRecipe, RunSpec
from kfbench.train import optimizer
from kfbench.train.actor_critic import ActorCritic
from kfbench.train.precision import autocast
from kfbench.train.rollout import brightness
from kfbench.train.setup import Setup

ENVIRONMENTS, ROLLOUT, TURN = 16, 5, 10  # of a2c; rollouts a turn
TEACHERS = 2  # of a method that takes several of one game
Turn = Callable[[], object]


class Passes(NamedTuple):
    """What a rollout asks of the networks: how many observations each pass is given."""

    acts: tuple[int, ...]  # of the student, to act by
    teachers: tuple[tuple[int, ...], ...]  # of each teacher
    shown: tuple[tuple[int, ...], ...]  # of each teacher, where gradients go back to what it is shown


def setup(name: str, task: str, *, precision: str, device: str, overlap: int = 0) -> Setup:
    """Return what the loop of a row works with. Raises KfbenchError for a method that cannot run."""
    fewest, most = registry.load_method(name.split()[0]).teachers
    count = TEACHERS if most is None else max(fewest, min(most, TEACHERS))
    try:
        return stand_in.setup(spec_of(name, task, count, precision, overlap), device=device)
    except KfbenchError:
        if count == fewest:
            raise
    return stand_in.setup(spec_of(name, task, fewest, precision, overlap), device=device)  # some take one a game


def spec_of(name: str, task: str, teachers: int, precision: str, overlap: int = 0) -> RunSpec:
    """Return what a row's loop runs, with so many untrained teachers. Raises KfbenchError for a method that cannot."""
    recipe = {
        "algorithm": "a2c",
        "environments": ENVIRONMENTS,
        "rollout": ROLLOUT,
        "minibatches": 1,
        "frames": 10**9,
        "precision": precision,
        "overlap": overlap,
    }
    own = ["random:" + task] * teachers
    return resolve.resolve(name.split()[0], task, teachers=own, recipe=recipe, settings=settings_of(name))


def passes(name: str, task: str) -> Passes:
    """Return what a rollout of a row asks of the networks. Raises KfbenchError for a method that cannot run."""
    run = setup(name, task, precision="fp32", device="cpu")
    trained = ActorCritic(run, threads=1)
    trained.advance()
    theirs = [teacher.network for teacher in run.teachers]
    own = [part for part in run.student.modules() if part is run.student or isinstance(part, Network)]
    given: dict[nn.Module, tuple[list[int], list[int]]] = {part: ([], []) for part in (*own, *theirs)}

    def note(part: nn.Module, inputs: tuple[Any, ...]) -> None:  # a teacher learns nothing, but what it is shown may
        learns = torch.is_grad_enabled() and (part not in theirs or inputs[0].requires_grad)
        given[part][learns].append(len(inputs[0]))

    hooks = [part.register_forward_pre_hook(note) for part in given]
    trained.advance()
    for hook in hooks:
        hook.remove()
    acts = max((given[part][0] for part in own if part not in theirs), key=sum)
    asked = [given[part] for part in theirs if any(given[part])]
    return Passes(tuple(acts), *(tuple(tuple(each[learns]) for each in asked) for learns in (False, True)))


def floor(asked: Passes, task: str, precision: str, device: str, threads: int) -> Turn:
    """Return a turn of a floor: bare passes over made-up observations, and emulators that take random actions."""
    run = setup("scratch", task, precision=precision, device=device)
    play = emulators(task.partition("/")[2], threads, steps=1)
    frozen = [stand_in.teacher("random:" + task, run.spec, index).network for index in range(len(asked.teachers))]
    for network in frozen:
        network.to(run.device).to(memory_format=torch.channels_last)
    seen = torch.randint(0, 256, (ENVIRONMENTS, *atari.SHAPE), dtype=torch.uint8, device=run.device)
    seen = seen.contiguous(memory_format=torch.channels_last)
    rows = brightness(torch.cat([seen] * ROLLOUT))  # converted when acting, learned from as they are
    shown = rows.clone().requires_grad_()
    learner = optimizer.make(run.method, run.student, GameRecipe.of(run.spec))

    def turn() -> None:
        for _ in range(TURN):
            with torch.no_grad(), autocast(run.device, precision):
                for images in torch.split(rows, ENVIRONMENTS):
                    brightness(seen, images)
                    play()
                brightness(seen)
                for network, sizes in zip([run.student, *frozen], [asked.acts, *asked.teachers], strict=True):
                    for size in sizes:
                        network(rows[:size])
            with autocast(run.device, precision):
                said = [run.student(rows)]
                said += [net(shown[:size]) for net, sizes in zip(frozen, asked.shown, strict=True) for size in sizes]
            sum(part.float().square().mean() for output in said for part in output).backward()
            learner.step()
            learner.zero_grad(set_to_none=True)
            shown.grad = None
        synchronize(run.device)

    return turn


def loop(name: str, task: str, precision: str, device: str, threads: int, overlap: int = 0) -> Turn:
    """Return a turn of the suite's loop."""
    trained = ActorCritic(setup(name, task, precision=precision, device=device, overlap=overlap), threads=threads)

    def turn() -> None:
        for _ in range(TURN):
            trained.advance()
        synchronize(trained.device)

    return turn


def emulators(game: str, threads: int, steps: int = 0) -> Turn:
    """Return a turn of ale-py's vector of emulators with random actions: what no loop can pass."""
    vector = atari.emulators(game, ENVIRONMENTS, threads=threads)
    vector.reset(seed=0)
    rng = seeding.stream(0, "bench")
    actions = torch.randint(len(atari.actions(game)), (TURN * ROLLOUT, ENVIRONMENTS), generator=rng).numpy()
    following = itertools.cycle(actions)

    def turn() -> None:
        for _ in range(steps or len(actions)):
            vector.step(next(following))

    return turn


def bare(game: str, threads: int) -> Turn:
    """Return a turn of A2C as one would write it by hand, without a suite."""
    return _bare(game, threads).__next__


def _bare(game: str, threads: int) -> Iterator[None]:
    from ale_py import AtariVectorEnv

    vector = AtariVectorEnv(game, ENVIRONMENTS, num_threads=threads)  # clips rewards
    count = len(atari.actions(game))
    with seeding.global_stream(0, "bare"):
        layers = [nn.Conv2d(4, 16, 8, 4), nn.ReLU(), nn.Conv2d(16, 32, 4, 2), nn.ReLU(), nn.Flatten()]
        network = nn.Sequential(*layers, nn.Linear(2592, 256), nn.ReLU(), nn.Linear(256, count + 1))
    optimizer = torch.optim.RMSprop(network.parameters(), lr=7e-4, eps=1e-5)
    seen = torch.from_numpy(vector.reset(seed=0)[0])
    generator = torch.Generator().manual_seed(0)
    while True:
        for _ in range(TURN):
            rows: list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]] = []
            with torch.no_grad():
                for _ in range(ROLLOUT):
                    said = network(seen.float() / 255)
                    action = torch.multinomial(said[:, :-1].softmax(1), 1, generator=generator).squeeze(1)
                    images, rewards, ended, capped, _ = vector.step(action.numpy())
                    rows.append(
                        (seen, action, torch.from_numpy(rewards).float(), torch.from_numpy(ended | capped), said[:, -1])
                    )
                    seen = torch.from_numpy(images)
                running, returns = network(seen.float() / 255)[:, -1], []
                for _, _, reward, stop, _ in reversed(rows):
                    running = reward + 0.99 * running * ~stop
                    returns.append(running)
            target = torch.cat(returns[::-1])
            said = network(torch.cat([row[0] for row in rows]).float() / 255)
            logged = F.log_softmax(said[:, :-1], dim=1)
            chosen = logged.gather(1, torch.cat([row[1] for row in rows])[:, None]).squeeze(1)
            advantage = target - torch.cat([row[4] for row in rows])
            entropy = -(logged.exp() * logged).sum(1).mean()
            loss = -(advantage * chosen).mean() + 0.5 * (target - said[:, -1]).square().mean() - 0.01 * entropy
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 0.5)
            optimizer.step()
        yield


def baselines(game: str) -> Turn:
    """Return a turn of Stable-Baselines3's A2C with the same network and 16 of its Atari environments."""
    import ale_py
    import gymnasium

    suite = import_module("stable_baselines3")
    common = {
        part: import_module(f"stable_baselines3.common.{part}") for part in ("env_util", "torch_layers", "vec_env")
    }

    class Trunk(common["torch_layers"].BaseFeaturesExtractor):  # type: ignore[misc]
        """The a3c network's trunk."""

        def __init__(self, space: Any) -> None:
            super().__init__(space, 256)
            layers = [nn.Conv2d(4, 16, 8, 4), nn.ReLU(), nn.Conv2d(16, 32, 4, 2), nn.ReLU(), nn.Flatten()]
            self.trunk = nn.Sequential(*layers, nn.Linear(2592, 256), nn.ReLU())

        def forward(self, images: Tensor) -> Tensor:
            """Map [B, 4, 84, 84] to [B, 256]."""
            features: Tensor = self.trunk(images)
            return features

    gymnasium.register_envs(ale_py)
    name = "".join(word.capitalize() for word in game.split("_"))
    places = common["env_util"].make_atari_env(f"ALE/{name}-v5", ENVIRONMENTS, env_kwargs={"frameskip": 1})
    places = common["vec_env"].VecFrameStack(places, 4)
    model = suite.A2C("CnnPolicy", places, policy_kwargs={"features_extractor_class": Trunk}, device="cpu")

    def turn() -> None:
        model.learn(TURN * ROLLOUT * ENVIRONMENTS, reset_num_timesteps=False)

    return turn
