"""Data sets of the Hugging Face hub, by its library: their Parquet files, fetched once and kept in the library's cache.

Where a repository has none of its own, the hub's conversion is taken, the branch `refs/convert/parquet`. `$HF_ENDPOINT`
names another hub.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from kfbench.errors import KfbenchError

PREFIX = "hf:"
CONVERTED = "refs/convert/parquet"


def is_meant(path: Path) -> bool:
    """Whether what was given is a name on the hub, not a path."""
    return path.as_posix().startswith(PREFIX)


def fetch(name: str) -> Path:
    """Return the folder with the Parquet files of ORG/NAME, ORG/NAME/FOLDER or either with @REVISION.

    Raises KfbenchError if there is no such repository, the hub cannot be reached, or there are no such files.
    """
    place, _, revision = name.partition("@")
    parts = place.split("/")
    if len(parts) < 2 or not all(parts):
        raise KfbenchError(f"'{PREFIX}{name}' is no data set of the hub; write {PREFIX}ORG/NAME")
    repository, folder = "/".join(parts[:2]), "/".join(parts[2:])
    if not sys.stderr.isatty():
        library(".utils").disable_progress_bars()
    library(".utils.logging").set_verbosity_error()  # that a repository has no such files is no warning
    for wanted in [revision] if revision else ["main", CONVERTED]:
        missing = (library(".errors").RevisionNotFoundError,) if wanted == CONVERTED else ()
        with told(f"fetch '{PREFIX}{name}'"), suppress(*missing):
            found = library().snapshot_download(
                repository,
                repo_type="dataset",
                revision=wanted,
                allow_patterns=f"{folder}/*.parquet" if folder else "*.parquet",
                library_name="kfbench",
            )
            files = [*Path(found, folder).rglob("*.parquet")]
            if any(file.parent.name.startswith("partial-") for file in files):
                raise KfbenchError(
                    f"the hub has converted only a part of '{PREFIX}{name}'; fetch its images, and give their folder"
                )
            if files:
                return Path(found, folder)
    raise KfbenchError(f"'{PREFIX}{name}' holds no Parquet files; fetch its images, and give their folder")


def library(part: str = "") -> Any:
    """Return the hub's library, or a part of it. Raises KfbenchError if it is not installed."""
    try:
        return import_module(f"huggingface_hub{part}")
    except ImportError as error:
        raise KfbenchError("the hub needs the library huggingface_hub; pip install 'kfbench[hub]'") from error


@contextmanager
def told(what: str) -> Iterator[None]:
    """Tell in a line what the library or the net said no to: it raises a score of classes of three packages."""
    try:
        yield
    except KfbenchError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        code = getattr(getattr(error, "response", None), "status_code", None)
        remedy = {401: "; log in with: hf auth login", 403: "; this login may not write there"}.get(code or 0, "")
        raise KfbenchError(f"could not {what}: {lines[0]}{remedy}") from error
