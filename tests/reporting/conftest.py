"""What tests of reports share: the grid of a small study."""

import pytest

from kfbench.reporting import grid
from kfbench.studies import definition


@pytest.fixture
def made(small):
    folder, results = small
    return grid.load(folder, definition.load(folder), results)
