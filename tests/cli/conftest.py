"""Commands are typed in an empty folder, with the digits packed; `recorded` is a results folder with one run."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def data_folder(packed_digits: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("KFBENCH_DATA", str(packed_digits))
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def recorded(packed_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with one short run of scratch, and a teacher in its store."""
    from kfbench.running import execute, resolve

    results = tmp_path_factory.mktemp("recorded") / "results"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KFBENCH_DATA", str(packed_digits))
        recipe = {"network": "cnn-4", "epochs": 1, "batch_size": 256}
        for folder in (results, results / "teachers"):
            execute.run(resolve.resolve("scratch", "digits", budget="smoke", recipe=recipe), results=folder)
    torch.set_num_threads(threads)
    return results
