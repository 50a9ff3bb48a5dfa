"""What students and teachers are: a body that normalises its own input and names its layers."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kfbench import seeding
from kfbench.errors import KfbenchError


class Output(NamedTuple):
    """What a network says: `logits` [B, K] (class scores or action preferences) and, in games, `value` [B]."""

    logits: Tensor
    value: Tensor | None = None


def output_of(said: Any) -> Output:
    """Return what a student said. Raises KfbenchError if that is no Output, but the tensor of a plain module."""
    if not hasattr(said, "logits"):
        raise KfbenchError(
            f"the student returned {type(said).__name__}, no Output; return Output(logits) of kfbench.networks.network "
            "from its forward, as the network of task.make_network() does"
        )
    output: Output = said
    return output


class Network(nn.Module):
    """A body behind its own input normalisation.

    `layers` names activation modules from shallow to deep (paths below this module): what they put out are the features
    that transfer methods read or mix; what they take in are the pre-activations. `heads` names the modules that belong
    to the task (new labels, new heads); everything else can be carried over to another task.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        body: nn.Module,
        *,
        name: str,
        shape: tuple[int, int, int],
        outputs: int,
        layers: tuple[str, ...],
        heads: tuple[str, ...],
    ) -> None:
        super().__init__()
        self.body = body
        self.name, self.shape, self.outputs, self.layers, self.heads = name, shape, outputs, layers, heads
        self.register_buffer("mean", torch.full((shape[0], 1, 1), 0.5))
        self.register_buffer("std", torch.full((shape[0], 1, 1), 0.25))
        self._normalises = True  # False with mean 0 and std 1, as in games: two passes over the images are saved
        self.register_load_state_dict_post_hook(_look)  # type: ignore[no-untyped-call]

    def normalise_by(self, mean: Tensor, std: Tensor) -> None:
        """Set the statistics of the training images, [C] each, in units of the 0..1 range."""
        self.mean.copy_(mean.view_as(self.mean))
        self.std.copy_(std.view_as(self.std))
        _look(self)

    def clone(self, shape: tuple[int, int, int] | None = None) -> "Network":
        """Return a plain network with copies of the weights, on their device, in evaluation mode, without hooks.

        With `shape` it is the one for images [C, H, W] of that size, where the architecture's weights fit both.
        """
        from kfbench.networks import make
        from kfbench.networks.hollow import hollow

        name = self.name.removesuffix(":pretrained")
        weights = {name: value.detach().clone() for name, value in self.state_dict().items()}
        try:
            with hollow():
                plain = make(name, shape=shape or self.shape, outputs=self.outputs)
            plain.load_state_dict(weights, assign=True)
            is_whole = not any(value.is_meta for value in plain.buffers())
        except NotImplementedError:  # torchvision's RegNets look at a number while they are made
            is_whole = False
        if not is_whole:  # or a foreign network has buffers outside its state dict
            with seeding.global_state_kept():
                plain = make(name, shape=shape or self.shape, outputs=self.outputs)
            plain.load_state_dict(weights)
        return plain.to(self.mean.device).eval()

    def forward(self, images: Tensor) -> Output:
        """Map images [B, C, H, W] (float in 0..1, or uint8) to an `Output`."""
        images = floats(images)
        answer = self.body((images - self.mean) / self.std if self._normalises else images)
        return answer if isinstance(answer, Output) else Output(answer)


def floats(images: Tensor) -> Tensor:
    """Return images (float in 0..1, or uint8) as floats in 0..1."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images


def _look(network: Network, _keys: object = None) -> None:
    """Note whether a network's statistics change its input."""
    known = not network.mean.is_meta
    network._normalises = not known or bool(network.mean.any()) or bool((network.std != 1).any())
