"""What tests of studies share: an empty place for results, and a student that is to be made there."""

from pathlib import Path

import pytest

from kfbench.running import resolve
from kfbench.studies.place import Place
from kfbench.studies.trials import Job


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "results")


@pytest.fixture
def student() -> Job:
    return Job(resolve.resolve("scratch", "digits/high", budget="smoke"), "student")
