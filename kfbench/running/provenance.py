"""Where and when a run was made: commit, versions, device. Facts only, and no names of users or machines."""

import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from kfbench import machine
from kfbench.folders import PACKAGE
from kfbench.version import __version__

PACKAGES = ("torch", "torchvision", "numpy", "ale-py", "gymnasium", "optuna")


@cache
def commit() -> tuple[str | None, bool]:
    """Return the commit of the checkout that runs, and whether its code differs from it; (None, False) in a wheel."""
    try:
        head = _git("rev-parse", "HEAD").strip()
        changed = _git("status", "--porcelain", "--untracked-files=all", "--", "kfbench", "methods", "tasks")
    except (OSError, subprocess.SubprocessError):  # a slow disk too, else a finished run would be lost
        return None, False
    return head, bool(changed.strip())


def _git(*words: str) -> str:
    if not (PACKAGE.parent / ".git").exists():
        raise OSError("no checkout")
    done = subprocess.run(
        ["git", "-C", str(PACKAGE.parent), *words], check=True, text=True, capture_output=True, timeout=20
    )
    return done.stdout


def versions() -> dict[str, str]:
    """Return the versions of Python, kfbench and the packages that decide numbers."""
    versions_here = {"python": platform.python_version(), "kfbench": __version__}
    for name in PACKAGES:
        try:
            versions_here[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions_here


def of_run(device: torch.device) -> dict[str, Any]:
    """Return what a record says of where it was made."""
    head, changed = commit()
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": head,
        "code_changed": changed,
        "versions": versions(),
        "device": device.type,
        "processor": machine.processor(str(device)),
        "threads": torch.get_num_threads(),
        "platform": f"{platform.system()} {platform.machine()}",
        **rounding(device),
    }


def rounding(device: torch.device) -> dict[str, dict[str, bool]]:
    """Return on which of a GPU's products of fp32 numbers TF32 rounds them; empty elsewhere.

    It is torch's own choice, and is left to it: convolutions by default, matrix products not.
    """
    if device.type != "cuda":
        return {}
    cuda = torch.backends.cuda.matmul.allow_tf32
    return {"tf32": {"convolutions": torch.backends.cudnn.allow_tf32, "matrix_products": cuda}}
