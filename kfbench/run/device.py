"""Where a run computes."""

import torch

from kfbench.errors import KfbenchError


def torch_device(name: str) -> torch.device:
    """Return a device that is there. Raises KfbenchError."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise KfbenchError(f"no device '{name}'; use cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise KfbenchError(f"no GPU '{name}': torch sees {torch.cuda.device_count()}; use --device cpu")
    if device.type not in ("cpu", "cuda"):
        raise KfbenchError(f"device '{name}' is not supported; use cpu, cuda or cuda:N")
    return device


def set_threads(threads: int | None, *, games: bool = False) -> None:
    """Set torch's CPU threads: as asked, else one for games (two on busy cores are far slower), else torch's own."""
    if threads is not None or games:
        torch.set_num_threads(threads or 1)
