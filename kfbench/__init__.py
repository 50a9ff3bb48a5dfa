"""kfbench: a reproducibility benchmark suite for knowledge-transfer methods."""

__version__ = "0.1.0"
