"""The two training loops; both have the same surface, described in `kfbench/execute.py`."""
