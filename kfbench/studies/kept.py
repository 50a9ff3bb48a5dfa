"""What a study keeps beside its study.toml, as JSON that people can read, and delete to have it made again."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kfbench.errors import KfbenchError
from kfbench.running.files import write_text


def read(path: Path, again: str) -> dict[str, Any]:
    """Return what a file keeps; empty if there is none.

    Raises KfbenchError if it cannot be read; `again` says what follows once it is deleted: "teachers are ranked again".
    """
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_bytes())
    except ValueError as error:
        raise KfbenchError(f"'{path}' is not JSON ({error}); delete it, and {again}") from error
    if not isinstance(values, dict):
        raise KfbenchError(f"'{path}' holds a {type(values).__name__}, no table; delete it, and {again}")
    return values


def write(path: Path, values: Mapping[str, Any]) -> None:
    """Keep values in a file."""
    write_text(path, json.dumps(values, indent=1) + "\n")
