"""The plain network and, beside it, what a method trains or remembers: regressors, embeddings, heads, banks."""

from torch import Tensor, nn

from kfbench.networks.network import Network, Output


class Accompanied(nn.Module):
    """A student of two parts: `network`, which is kept, and `parts`, modules that are not."""

    def __init__(self, network: Network, **parts: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.parts = nn.ModuleDict(parts)

    def forward(self, images: Tensor) -> Output:
        """Map images [B, C, H, W] to the network's Output."""
        output: Output = self.network(images)
        return output


def middle(layers: tuple[str, ...]) -> str:
    """Return the middle of a network's layers, the shallower of two."""
    return layers[(len(layers) - 1) // 2]
