"""The plain network and, beside it, what a method trains or remembers: regressors, embeddings, heads, banks."""

from torch import Tensor, nn

from kfbench.networks.network import Network, Output


class WithCompanions(nn.Module):
    """A student of two parts: `network`, which is kept, and `parts`, modules that are not.

    `stage` is the name of the stage that a method's `begin` has prepared, for its `losses`: a share of the budget is
    rounded to whole steps, so progress does not tell.
    """

    def __init__(self, network: Network, **parts: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.parts = nn.ModuleDict(parts)
        self.stage = ""

    def forward(self, images: Tensor) -> Output:
        """Map images [B, C, H, W] to the network's Output."""
        output: Output = self.network(images)
        return output


def middle(layers: tuple[str, ...]) -> str:
    """Return the middle of a network's layers, the shallower of two."""
    return layers[(len(layers) - 1) // 2]
