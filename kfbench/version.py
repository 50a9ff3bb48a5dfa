"""The version of kfbench, said once."""

__version__ = "0.1.0"
