"""Networks by name: `make("resnet8x4", shape=(3, 32, 32), outputs=100)`; importing this package needs no torch."""

import re
from importlib import import_module
from typing import TYPE_CHECKING

from kfbench.errors import KfbenchError, near
from kfbench.networks.names import EXAMPLES, FAMILIES

if TYPE_CHECKING:
    from kfbench.networks.network import Network


def names() -> list[str]:
    """Return a name or two of every family; widths and depths other than these work too."""
    return list(EXAMPLES)


def make(name: str, *, shape: tuple[int, int, int], outputs: int) -> "Network":
    """Make a network for images [C, H, W] of `shape` and `outputs` classes or actions, from torch's global generator.

    Two calls from the same random state that differ in `outputs` only differ in the heads only.
    Raises KfbenchError for an unknown name, and for a shape that the network cannot take.
    """
    if len(shape) != 3 or min(shape) < 1 or outputs < 1:
        raise KfbenchError(
            f"network '{name}' cannot have shape {tuple(shape)} and {outputs} outputs; give (C, H, W), all at least 1"
        )
    for family in FAMILIES:
        if parts := re.fullmatch(family.pattern, name):
            made: Network = import_module(f"kfbench.networks.{family.file}").make(
                name, parts.groupdict(), shape=shape, outputs=outputs
            )
            return made
    raise KfbenchError(f"no network '{name}'; {near(name, EXAMPLES, most=len(EXAMPLES))}")
