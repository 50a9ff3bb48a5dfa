"""The student alone, from its own initialisation: what every other method is measured against.

Source: nothing known; the plain supervised or actor-critic recipe of the task. Variant `equal-compute` is a control: it
    takes teachers, does not use them, and is trained longer by what they would have cost in multiply-adds: their own
    training, and a forward pass of each on everything that the student sees.
Differs: nothing known.
"""

from dataclasses import dataclass

from kfbench.methods import Method


@dataclass(frozen=True)
class Scratch(Method):
    """No teachers, no settings."""

    variants = {"equal-compute": {}}
    instead_of_teachers = ("equal-compute",)
