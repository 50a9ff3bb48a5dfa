"""What this machine is: its processor, its cores, the room on its disks."""

import os
import platform
import shutil
from pathlib import Path
from typing import IO, Any


def processor(device: str = "cpu") -> str:
    """Return the name of the processor, as far as the system tells it, or of the GPU (`cuda:0`)."""
    if device.startswith("cuda"):
        import torch  # who asks for a GPU's name has it already

        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def write_at(file: IO[bytes], data: Any, start: int) -> int:
    """Write bytes at a place of an unbuffered file and return how many: `os.pwrite`, which Windows has not."""
    file.seek(start)
    return file.write(data)


def free(folder: Path) -> int:
    """Return the free bytes of the disk on which a folder lies. Raises OSError if it is not there."""
    return shutil.disk_usage(folder).free
