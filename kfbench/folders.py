"""Where method and task files lie: in the wheel, beside the package in a checkout, and in the user's own folders."""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def folders(kind: str) -> list[str]:
    """Return the folders with "methods" or "tasks": ours, then the user's in $KFBENCH_METHODS or $KFBENCH_TASKS."""
    inside, beside = PACKAGE / kind, PACKAGE.parent / kind
    ours = [str(folder) for folder in (inside, beside) if folder.is_dir()][:1]
    theirs = os.environ.get(f"KFBENCH_{kind.upper()}", "").split(os.pathsep)
    return ours + [str(Path(folder).expanduser().resolve()) for folder in theirs if folder]
