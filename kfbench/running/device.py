"""Where a run computes."""

import torch

from kfbench.errors import KfbenchError
from kfbench.kinds import Kind

NAMES = "cpu, cuda, cuda:N, mps or auto"


def torch_device(name: str) -> torch.device:
    """Return a device that is there; "auto" is a GPU if there is one. Raises KfbenchError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.device_count() else "mps" if has_mps() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise KfbenchError(f"no device '{name}'; use {NAMES}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise KfbenchError(f"no GPU '{name}': torch sees {torch.cuda.device_count()}; use --device cpu")
    if device.type == "mps" and (device.index or not has_mps()):
        raise KfbenchError(f"no device '{name}': torch sees no Apple GPU; use --device cpu")
    if device.type not in ("cpu", "cuda", "mps"):
        raise KfbenchError(f"device '{name}' is not supported; use {NAMES}")
    return device


_own: list[int] = []  # torch's own number of threads, while another is set


def set_threads(threads: int | None, kind: Kind) -> None:
    """Set torch's CPU threads: as asked, else as runs of a kind of task have them, else torch's own.

    Raises KfbenchError for fewer than one.
    """
    if threads is not None and threads < 1:
        raise KfbenchError(f"threads={threads}: a run needs one at least; leave it out for the default")
    chosen = threads or kind.threads
    if chosen is not None:
        _own[:] = _own or [torch.get_num_threads()]
        torch.set_num_threads(chosen)
    elif _own:
        torch.set_num_threads(_own.pop())


def has_mps() -> bool:
    """Tell whether torch can use an Apple GPU."""
    return torch.backends.mps.is_available()


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
