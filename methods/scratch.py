"""The student alone, from its own initialisation: what every other method is measured against.

Source: nothing known; the plain supervised or actor-critic recipe of the task.
Differs: nothing known.
"""

from dataclasses import dataclass

from kfbench.methods import Method


@dataclass(frozen=True)
class Scratch(Method):
    """No teachers, no settings."""
