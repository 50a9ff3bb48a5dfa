"""One seed, many named streams: the only file that seeds torch's global random state in a run.

A stream is a function of (seed, names) alone, so a loop that asks for `stream(seed, "data", epoch)` keeps no state
that a checkpoint could forget, and every method sees the same initialisation, batch order and augmentation for a seed.

The global state is the process's, not a thread's: who sets it and draws from it holds `STATE` meanwhile.
"""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

STATE = threading.RLock()


def number(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed that depends on every name, the same on every machine."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(seed: int, *names: str | int) -> torch.Generator:
    """Return a fresh CPU generator for the named stream."""
    return torch.Generator().manual_seed(number(seed, *names))


@contextmanager
def global_stream(seed: int, *names: str | int) -> Iterator[None]:
    """Run a block with the global state of a stream (layer initialisation takes no generator); restore it after."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    with STATE, torch.random.fork_rng(devices=devices):
        torch.manual_seed(number(seed, *names))
        yield


@contextmanager
def global_state_kept() -> Iterator[None]:
    """Run a block whose draws do not matter, as a network is made whose weights come from a file; restore the state."""
    with STATE, torch.random.fork_rng(devices=[]):
        yield


@contextmanager
def global_generator(rng: torch.Generator) -> Iterator[None]:
    """Run a block with the global state set from one draw of a generator: for what a method adds to the student."""
    with global_stream(int(torch.randint(2**62, (), generator=rng))):
        yield


def seed_step(seed: int, step: int) -> None:
    """Set the global state for one optimiser step, for dropout inside student and method; the step holds `STATE`.

    `torch.manual_seed` does the same, but where CUDA has not begun it notes each call with its traceback, for ever.
    """
    torch.default_generator.manual_seed(number(seed, "step", step))
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(number(seed, "step", step))
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(number(seed, "step", step))


def uniform(*shape: int, rng: torch.Generator, device: torch.device) -> torch.Tensor:
    """Draw numbers in 0..1 on a device for one step: by the generator, on a GPU by the state that `seed_step` has set.

    A CPU's generator cannot draw there, and to copy its numbers over would make every step wait.
    """
    if device.type == "cpu":
        return torch.rand(shape, generator=rng)
    return torch.rand(shape, device=device)
