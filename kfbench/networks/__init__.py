"""Networks by name: `make("resnet8x4", shape=(3, 32, 32), outputs=100)`; importing this package needs no torch."""

from typing import TYPE_CHECKING

from kfbench.errors import KfbenchError
from kfbench.folders import folders
from kfbench.networks import family
from kfbench.networks.family import is_name, names

if TYPE_CHECKING:
    from kfbench.networks.network import Network

__all__ = ["is_name", "make", "names"]
__path__ = folders("networks")  # this folder, then the user's: `kfbench.networks.mine` lies in $KFBENCH_NETWORKS


def make(name: str, *, shape: tuple[int, int, int], outputs: int) -> "Network":
    """Make a network for images [C, H, W] of `shape` and `outputs` classes or actions, from torch's global generator.

    Two calls from the same random state that differ in `outputs` only differ in the heads only.
    Raises KfbenchError for an unknown name, a shape that the network cannot take, and a file that makes no Network.
    """
    from kfbench.networks.network import Network

    if len(shape) != 3 or min(shape) < 1 or outputs < 1:
        raise KfbenchError(
            f"network '{name}' cannot have shape {tuple(shape)} and {outputs} outputs; give (C, H, W), all at least 1"
        )
    known, parts = family.of_name(name)
    network = family.load(known).make(name, parts, shape=shape, outputs=outputs)
    if not isinstance(network, Network):
        raise KfbenchError(
            f"'make' of the network file '{known.file}' returned {type(network).__name__}, no Network; put the module "
            "into one: Network(body, name=name, shape=shape, outputs=outputs, layers=(…), heads=(…))"
        )
    return network
