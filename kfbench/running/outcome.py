"""What a run leaves when its loop is over: scores of the exported student, what it costs, and its weights."""

import copy
import statistics
import time
from pathlib import Path

import torch
from torch import nn

from kfbench import registry
from kfbench.networks import weights
from kfbench.networks.measure import multiply_adds, parameters
from kfbench.networks.network import Network
from kfbench.running import records
from kfbench.running.device import synchronize
from kfbench.running.records import RunRecord
from kfbench.train.loop import Loop
from kfbench.train.setup import Setup
from kfbench.train.told import exported
from kfbench.train.training import training_of


def fill_in(record: RunRecord, setup: Setup, loop: Loop, *, results: Path, half: bool) -> None:
    """Export the student, read the test split once, measure what is kept, and keep its weights beside the record."""
    last = exported(setup.method, setup.student)
    best = copy.deepcopy(last) if loop.best else last  # a copy: an export may share memory with the student
    if loop.best:
        best.load_state_dict(loop.best)
    record.scores = loop.score({"last": last, "best": best})
    record.scores["val"] = {
        name.removeprefix("val_"): value for name, value in loop.curve[-1].items() if name.startswith("val_")
    }
    record.curve = loop.curve
    record.cost = {
        "seconds": loop.seconds,
        "teacher_seconds": sum({teacher.digest: teacher.seconds for teacher in setup.teachers}.values()),
        "steps": loop.total,
        **(setup.memory.cost() if setup.memory else {}),
        **measure(last, setup.task.shape, setup.device),
    }
    if isinstance(last, Network):
        about = {"task": setup.task.name, "classes": list(setup.task.classes), "key": record.key}
        about |= training_of(registry.kind_of(setup.spec.task)).described(setup.data)
        place = records.path_of(results, record.key, setup.spec).with_suffix(".safetensors")
        record.provenance["weights"] = weights.save(last, place, about, half=half)
    record.status = "done"


def measure(network: nn.Module, shape: tuple[int, int, int], device: torch.device) -> dict[str, float]:
    """Return what is kept costs: parameters, multiply-adds an image, and latency in ms at batch 1 (median of 20)."""
    network.to(device).eval()
    one = torch.zeros(1, *shape, device=device)
    times = []
    with torch.no_grad():
        for _ in range(23):
            started = time.perf_counter()
            network(one)
            synchronize(device)
            times.append(1000 * (time.perf_counter() - started))
    return {
        "parameters": parameters(network),
        "multiply_adds": multiply_adds(network, shape),
        "latency_ms": statistics.median(times[3:]),
    }
