"""What runs now: a file a run, `results/.cache/status/<key>.json`, written every few seconds while it trains.

    {"run": key, "label": "kf on cifar10, seed 0", "state": "running" | "stopped" | "failed", "why": "" or a line,
     "started": 1.7e9, "updated": 1.7e9 (s since 1970), "pid": 4711, "node": "host", "device": "cpu",
     "step": 120, "total": 600, "progress": 0.2, "rate": images or frames a second,
     "left": s or null, "score": of validation, in the task's metric, or null, "unit": "%" or "game points"}

It is deleted when the run is done. A study writes one file for all its runs (`studies/board.py`): `<study>.json` with
the keys `study`, `driver`, `on`, `total`, `ended`, `failed`, `running`, `over`; a row under `running` has the fields
above, those of its progress once a worker has begun with it. `read` adds `file`, where it lies, and to a run
`checkpoint`, whether it has one. `kfbench status` shows both; a process that is gone is told by its pid on its own
node, else by 5 minutes of silence (for `clean`, by a day).
"""

import contextlib
import itertools
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

from kfbench.running import files

SILENT = 300.0  # seconds after which a process on another machine counts as gone


def place(results: Path) -> Path:
    """Return the folder of status files."""
    return files.cache(results) / "status"


def read(results: Path, *, silent: float = SILENT) -> list[dict[str, Any]]:
    """Return what the status files of a results folder and its teacher store say; a damaged one is left out.

    A run that is said to run, but whose process is gone, has the state "lost"; such a study is `lost`. `silent` is for
    how many seconds a process on another machine may say nothing.
    """
    found = []
    for folder in map(place, files.both(results)):
        for path in sorted(folder.glob("*.json")):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                told = json.loads(path.read_bytes())
                told["file"], who = str(path), told["driver"] if "study" in told else told
                alive = is_alive(who["pid"], who["node"], told["updated"], silent=silent)
                if "run" in told:
                    told["checkpoint"] = files.checkpoint(path.parents[2], told["run"]).is_file()
                if "run" in told and told["state"] == "running" and not alive:
                    told |= {"state": "lost", "why": f"its process {told['pid']} on {told['node']} is gone"}
                if "study" in told:
                    told["lost"] = not alive and not told["over"]
                found.append(told)
    return found


def is_alive(pid: int, node: str, updated: float, *, silent: float = SILENT) -> bool:
    """Tell whether a process is there: its own machine is asked where it can say, else what it last wrote."""
    if node != platform.node() or os.name != "posix":
        return time.time() - updated < silent
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is somebody else's
        return True
    return True


def left(began: float, before: float, progress: float) -> float | None:
    """Return the seconds that are left by now's progress, 0..1, and that `before`, when it began; None if all equal."""
    gained = progress - before
    return (time.time() - began) * (1 - progress) / gained if gained > 0 else None


def spoken(duration: float) -> str:
    """Return seconds as people say them: "40 s", "3 min 20 s", "2 h 10 min"."""
    whole = round(duration)
    parts = [(whole // 3600, "h"), (whole // 60 % 60, "min"), (whole % 60, "s")]
    shown = list(itertools.dropwhile(lambda part: part[0] == 0, parts))[:2]
    return " ".join(f"{number} {unit}" for number, unit in shown if number) or "1 s"
