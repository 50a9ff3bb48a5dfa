"""Every method of images can be timed over its floor, whatever teachers it asks."""

import torch

from kfbench import bench


def test_all_methods_are_timed() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = bench.measure(
        bench.methods(), task="digits", network="cnn-4", teacher="cnn-8", batch_size=16, precision="fp32", repeats=2
    )
    torch.set_num_threads(threads)
    found = {row["method"]: row for row in rows}
    assert list(found) == bench.methods()
    assert all(row["step_ms"] > 0 and row["floor_ms"] > 0 for row in rows)
    assert found["ca_mkd"]["floor_ms"] > found["scratch"]["floor_ms"]  # two teachers are asked
    assert "of_full" in found[bench.REMEMBERED]
    assert all(name in bench.text(rows) for name in found)
