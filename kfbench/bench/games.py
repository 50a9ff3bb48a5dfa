"""Agent steps a second of the actor-critic loop, beside the emulators alone, a bare loop, and Stable-Baselines3.

Each contender is a process of its own. One after the other takes a short turn, again and again, so that a busy machine
slows all alike; ratios are taken within a round. CPU seconds of all threads are counted, because a busy machine
stretches those less, and clock seconds, in which acting beside learning shows. Stable-Baselines3 takes part if it is
installed.
"""

import contextlib
import multiprocessing
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from multiprocessing.connection import Connection
from typing import Any

import torch

from kfbench import registry
from kfbench.bench import after_cut, turns
from kfbench.errors import KfbenchError
from kfbench.running.device import torch_device
from kfbench.tasks import GameTask

Seconds = list[tuple[float, float]]  # of the CPU and by the clock, of each turn


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
    # refused here, not in a process of its own; so is a method that cannot run
    turns.spec_of("scratch", task, 0, precision)
    asked = {name: turns.passes(name, task) for name in names}
    floors: dict[turns.Passes, str] = {}
    for name, its in asked.items():
        floors.setdefault(its, f"floor of {name}")
    taken = _rounds(_contenders(names, floors, declared, precision, device, threads), repeats, say)
    least = {name: taken.get(floors[its], []) for name, its in asked.items()}
    return [_row(name, times, taken["scratch"], least.get(name, [])) for name, times in taken.items()]


def _contenders(
    names: Sequence[str], floors: Mapping[turns.Passes, str], task: GameTask, precision: str, device: str, threads: int
) -> dict[str, tuple[Any, ...]]:
    """Return {row: (function that makes its turn, what it is given)}; `floors` are rows, too."""
    common = (task.name, precision, device, threads)
    makers: dict[str, tuple[Any, ...]] = {name: (turns.loop, name, *common) for name in names}
    makers |= {row: (turns.floor, its, *common) for its, row in floors.items()}
    makers["scratch, overlap"] = (turns.loop, "scratch", *common, 1)
    if precision == "fp32":
        makers["scratch, bf16"] = (turns.loop, "scratch", task.name, "bf16", device, threads)
    makers["emulators alone"] = (turns.emulators, task.game, threads)
    if device == "cpu":
        makers["bare loop"] = (turns.bare, task.game, threads)
        if find_spec("stable_baselines3"):
            makers["Stable-Baselines3"] = (turns.baselines, task.game)
    return makers


def _row(name: str, times: Seconds, scratch: Seconds, floors: Seconds) -> dict[str, Any]:
    """Return medians, and ratios within a round to `scratch` and to the floor (empty: there is none)."""
    steps = turns.TURN * turns.ROLLOUT * turns.ENVIRONMENTS
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


def _serve(pipe: Connection, maker: Callable[..., turns.Turn], given: list[Any]) -> None:
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
