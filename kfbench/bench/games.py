"""Agent steps a second of the actor-critic loop, beside the emulators alone, a bare loop, and Stable-Baselines3.

Each contender is a process of its own. One after the other takes a short turn, again and again, so that a busy machine
slows all alike; ratios are taken within a round. CPU seconds of all threads are counted, because a busy machine
stretches those less, and clock seconds, in which acting beside learning shows. Stable-Baselines3 takes part if it is
installed.

A method's floor is what it cannot avoid: the emulators, the passes of student and teachers that it asks for, counted in
a rollout of its own, and one forward and backward pass of the student over the rollout with an optimiser step. Most ask
the student for every observation, and each teacher for all but the last.
"""

import contextlib
import itertools
import multiprocessing
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kfbench import registry, seeding
from kfbench.bench import after_cut, settings_of
from kfbench.errors import KfbenchError
from kfbench.games import emulators as atari
from kfbench.networks.network import Network
from kfbench.running import resolve, stand_in
from kfbench.running.device import synchronize, torch_device
from kfbench.spec import GameRecipe, RunSpec
from kfbench.tasks import GameTask
from kfbench.train import optimizer
from kfbench.train.actor_critic import ActorCritic
from kfbench.train.precision import autocast
from kfbench.train.rollout import brightness
from kfbench.train.setup import Setup

ENVIRONMENTS, ROLLOUT, TURN = 16, 5, 10  # of a2c; rollouts a turn
TEACHERS = 2  # of a method that takes several of one game
Turn = Callable[[], object]
Seconds = list[tuple[float, float]]  # of the CPU and by the clock, of each turn


class Passes(NamedTuple):
    """What a rollout asks of the networks: how many observations each pass is given."""

    acts: tuple[int, ...]  # of the student, to act by
    teachers: tuple[tuple[int, ...], ...]  # of each teacher
    shown: tuple[tuple[int, ...], ...]  # of each teacher, where gradients go back to what it is shown


def measure(
    task: str,
    *,
    methods: list[str] | None = None,
    precision: str = "fp32",
    repeats: int = 20,
    device: str = "cpu",
    threads: int = 1,
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Return one row a contender: agent steps a CPU second and a second (medians), and their ratios to `scratch`.

    A2C, the a3c network, 16 environments, rollouts of 5; `threads` emulate. Teachers are untrained, two where a method
    takes several. A contender that cannot run, as Stable-Baselines3 without OpenCV, is left out, and that is said.
    """
    device = str(torch_device(device))
    declared = registry.load_task(task)
    assert isinstance(declared, GameTask), f"task '{task}' is no game"
    chosen = methods or [n for n in registry.names("methods") if registry.method_class(n).serves("games")]
    names = list(dict.fromkeys(["scratch", *chosen, *after_cut(chosen)]))
    spec_of("scratch", task, 0, precision)  # refused here, not in a process of its own; so is a method that cannot run
    asked = {name: passes(name, task) for name in names}
    floors: dict[Passes, str] = {}
    for name, its in asked.items():
        floors.setdefault(its, f"floor of {name}")
    taken = _rounds(_contenders(names, floors, declared, precision, device, threads), repeats, say)
    least = {name: taken.get(floors[its], []) for name, its in asked.items()}
    return [_row(name, times, taken["scratch"], least.get(name, [])) for name, times in taken.items()]


def _contenders(
    names: Sequence[str], floors: Mapping[Passes, str], task: GameTask, precision: str, device: str, threads: int
) -> dict[str, tuple[Any, ...]]:
    """Return {row: (function that makes its turn, what it is given)}; `floors` are rows, too."""
    common = (task.name, precision, device, threads)
    makers: dict[str, tuple[Any, ...]] = {name: (loop, name, *common) for name in names}
    makers |= {row: (floor, its, *common) for its, row in floors.items()}
    makers["scratch, overlap"] = (loop, "scratch", *common, 1)
    if precision == "fp32":
        makers["scratch, bf16"] = (loop, "scratch", task.name, "bf16", device, threads)
    makers["emulators alone"] = (emulators, task.game, threads)
    if device == "cpu":
        makers["bare loop"] = (bare, task.game, threads)
        if find_spec("stable_baselines3"):
            makers["Stable-Baselines3"] = (baselines, task.game)
    return makers


def _row(name: str, times: Seconds, scratch: Seconds, floors: Seconds) -> dict[str, Any]:
    """Return medians, and ratios within a round to `scratch` and to the floor (empty: there is none)."""
    steps = TURN * ROLLOUT * ENVIRONMENTS
    both = list(zip(times, scratch, strict=True))
    low, middle, high = statistics.quantiles([theirs[0] / own[0] for own, theirs in both], n=4)
    over = [own[0] / least[0] for own, least in zip(times, floors, strict=bool(floors))]
    return {
        "name": name,
        "steps_per_cpu_second": steps / statistics.median(cpu for cpu, _ in times),
        "steps_per_second": steps / statistics.median(wall for _, wall in times),
        "speed": middle,
        "speed_quartiles": [low, high],
        "speed_by_clock": statistics.median(theirs[1] / own[1] for own, theirs in both),
        "over_floor": statistics.median(over) if over else None,
        "repeats": len(times),
    }


def _rounds(makers: dict[str, tuple[Any, ...]], repeats: int, say: Callable[[str], None]) -> dict[str, Seconds]:
    """Return each contender's CPU and wall seconds in every round; one that cannot run is left out."""
    context = multiprocessing.get_context("spawn")
    pipes = {}
    with contextlib.ExitStack() as stack:
        for name, (maker, *given) in makers.items():
            pipes[name], theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, maker, given), daemon=True)
            process.start()
            theirs.close()  # so that its end is seen
            stack.callback(process.terminate)
            if why := _answer(name, pipes[name]):  # else it is ready
                if name == "scratch":  # all are told over it
                    raise KfbenchError(f"'{name}' cannot be timed: {why}")
                say(f"left out: {name} cannot run here: {why}")
                del pipes[name]
        taken: dict[str, Seconds] = {name: [] for name in pipes}
        for _ in range(repeats):
            for name, pipe in pipes.items():
                pipe.send(None)
                taken[name].append(_answer(name, pipe))
    return taken


def _answer(name: str, pipe: Connection) -> Any:
    """Wait for what a contender's process says, why it cannot start or its seconds. Raises KfbenchError if it ended."""
    try:
        return pipe.recv()
    except EOFError as error:
        raise KfbenchError(f"'{name}' ended before its turns did; what it said stands above") from error


def _serve(pipe: Connection, maker: Callable[..., Turn], given: list[Any]) -> None:
    """Take a turn whenever asked, and say how many CPU and wall seconds it took."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    try:
        turn = maker(*given)
        turn()
    except Exception as error:  # a package that it needs is missing, or is another version
        pipe.send(" ".join(f"{type(error).__name__}: {error}".split()))
        return
    pipe.send(None)
    while True:
        pipe.recv()
        cpu, wall = time.process_time(), time.perf_counter()
        turn()
        pipe.send((time.process_time() - cpu, time.perf_counter() - wall))


def text(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a table."""
    heads = f"{'speed over scratch':>21}{'by the clock':>15}{'over its floor':>17}"
    wide = max(21, *(len(row["name"]) for row in rows)) + 1
    lines = [f"{'':<{wide}}{'steps/CPU s':>12}{'steps/s':>10}{heads}"]
    for row in rows:
        low, high = row["speed_quartiles"]
        speed = f"{row['speed']:.2f} ({low:.2f}–{high:.2f})"
        lines.append(
            f"{row['name']:<{wide}}{row['steps_per_cpu_second']:>12,.0f}{row['steps_per_second']:>10,.0f}{speed:>21}"
            f"{row['speed_by_clock']:>15.2f}" + (f"{row['over_floor']:>17.2f}" if row["over_floor"] else "")
        )
    return "\n".join(lines)


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
