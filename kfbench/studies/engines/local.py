"""Processes of this machine, one a run: the standard library's, forked from a server that has imported torch.

Where the system has no such server (Windows), each process starts anew and imports torch itself.
"""

import dataclasses
import multiprocessing
import os
import signal
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from kfbench.errors import KfbenchError
from kfbench.running.device import torch_device
from kfbench.studies.carry import Files, Order, Outcome, State
from kfbench.studies.engines import folder
from kfbench.studies.place import Place


class Local(folder.Folder):
    """Runs `jobs` processes at once; `cuda` goes round the GPUs. Raises KfbenchError if the device is not here."""

    chains, pause = False, 0.05

    def __init__(self, place: Place, bags: Path) -> None:
        super().__init__(bags)
        self.require(place)
        self.slots = place.jobs or 1
        self._logs = place.cache / "logs"
        has_server = "forkserver" in multiprocessing.get_all_start_methods()
        self._context: Any = multiprocessing.get_context("forkserver" if has_server else "spawn")
        if has_server:
            self._context.set_forkserver_preload(["kfbench.studies.engines.folder"])
        self._at: dict[str, tuple[BaseProcess, int, int]] = {}  # process, slot, deaths of memory before it

    @staticmethod
    def require(place: Place) -> None:
        """Raise KfbenchError if the device is not here: else each run would be refused for it."""
        gpus = place.gpus_per_run
        if gpus and not place.device and not torch.cuda.device_count():
            raise KfbenchError(f"--gpus-per-run {gpus:g}: torch sees no GPU on this machine; leave it out")
        torch_device(place.runs_on)

    def start(self, order: Order, files: Files) -> None:
        """Start a process for a run."""
        slot = min({*range(self.slots)} - {slot for _, slot, _ in self._at.values()})
        words = (order, files, self.open(order), self._logs / f"{order.name}.log", dict(os.environ), slot)
        process = self._context.Process(target=_child, args=words, name=order.name)
        process.start()
        self._at[order.name] = (process, slot, _killed_for_memory())

    def look(self, name: str) -> Outcome | None:
        """Return how a run ended; None while it goes on."""
        if name not in self._at:  # Ctrl-C came just after its end was seen
            return folder.read(self.bags / name) or Outcome("lost", "its process ended")
        process, _, before = self._at[name]
        if process.is_alive():
            return None
        process.join()
        del self._at[name]
        self.forget(name)
        died: State = "memory" if process.exitcode == -9 and _killed_for_memory() > before else "lost"
        return folder.read(self.bags / name) or Outcome(died, f"its process ended with code {process.exitcode}")

    def close(self) -> None:
        """Kill what still runs."""
        for process, _, _ in self._at.values():
            process.kill()
            process.join()


def _child(order: Order, files: Files, bag: Path, log: Path, environment: dict[str, str], slot: int) -> None:
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C is for the driver, which asks for a checkpoint
    else:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(environment)
    folder.work(dataclasses.replace(order, device=spread(order.device, slot)), files, bag, log)


def spread(device: str, slot: int) -> str:
    """Return the device of a slot: `cuda`, and `auto` where there is one, go round the GPUs."""
    if device not in ("cuda", "auto"):
        return device
    count = torch.cuda.device_count()
    return f"cuda:{slot % count}" if count else device


def _killed_for_memory() -> int:
    """Return how many processes the kernel has killed for want of memory since it started; 0 where it does not say."""
    try:
        with open("/proc/vmstat", encoding="utf-8") as lines:
            return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
    except OSError:
        return 0
