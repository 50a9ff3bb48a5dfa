"""Frozen teachers: the one door through which methods ask them, and how a teacher's name becomes a network.

TASK[/variant][/network][@budget]   trained by `scratch`, seed 0, if it is not in the store yet
random:TASK[/…]                     the same network, never trained: the control
run:KEY                             the student that a recorded run kept
imported:NAME                       weights that others trained, once `kfbench teacher import` has taken them
file:PATH                           weights with their description, as `kfbench export` writes it, or in PATH.json
hf:ORG/NAME[@REVISION]              a student that `kfbench push` put on the Hugging Face hub
torchvision:NAME, timm:NAME         a network of that library; `:pretrained` loads its weights
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from kfbench.batch import Batch
from kfbench.networks import taps
from kfbench.networks.network import Network, Output, floats
from kfbench.networks.taps import Position


@dataclass(eq=False)
class Teacher:
    """A trained network that is only read: no gradients, evaluation mode, its own input shape and normalisation."""

    network: Network
    name: str  # as it was asked for
    task: str | None  # what it was trained on, if known
    classes: tuple[str, ...]  # names of its outputs; empty if unknown
    digest: str  # sha256 of its weights, and of its network's file where that is the user's own
    index: int = 0  # place among the run's teachers
    seconds: float = 0.0  # what its training cost
    resized: str = ""  # how images came to the size that it takes: "stretched", "cropped"; "" if unknown
    _sized: dict[tuple[int, int, int], "Teacher"] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.network.eval().requires_grad_(False)

    def __call__(self, batch: Batch) -> Output:
        """Return the teacher's own outputs for the batch: logits [B, K of the teacher]."""
        key = (self.index, "output")
        if key not in batch.memo and not self._recall(batch, [("output",)]):
            with torch.no_grad():
                batch.memo[key] = self.network(fit(batch.images, self.network.shape))
        answer: Output = batch.memo[key]
        return answer

    def features(
        self, batch: Batch, layers: Sequence[str], position: Position = "post", *, logits: bool = False
    ) -> dict[str, Tensor]:
        """Return {layer: features [B, …]}; one pass for all layers, no deeper than the last of them.

        With `logits` the pass goes to the end, so that asking for the outputs afterwards costs nothing.
        """
        keys = {layer: (self.index, position, layer) for layer in layers}
        missing = [layer for layer, key in keys.items() if key not in batch.memo]
        deeper = [("output",)] if logits and (self.index, "output") not in batch.memo else []
        if missing and not self._recall(batch, [*((position, layer) for layer in missing), *deeper]):
            images = fit(batch.images, self.network.shape)
            with torch.no_grad(), taps.read(self.network, missing, position, stop=not logits) as found:
                batch.memo[(self.index, "output")] = self.network(images)
            batch.memo |= {keys[layer]: features for layer, features in found.items()}
        return {layer: batch.memo[key] for layer, key in keys.items()}

    def at(self, shape: tuple[int, int, int]) -> "Teacher":
        """Return this teacher for images [C, H, W] of another size than its own: itself where it is the same.

        For methods whose student begins as the teacher: what that said at the start, it said of images of its own size.
        """
        if shape == self.network.shape:
            return self
        if shape not in self._sized:
            # an index of its own: a batch remembers what each teacher said, and here it is another pass
            self._sized[shape] = replace(self, network=self.network.clone(shape), index=-1 - self.index, _sized={})
        return self._sized[shape]

    def _recall(self, batch: Batch, entries: list[tuple[str, ...]]) -> bool:
        """Put the answers into the batch's memo from the run's memory, if it has one of these images."""
        if batch.past is None or batch.past.taken is not batch.images or self.index < 0:  # remembered at its own size
            return False
        found = batch.past.recall(self, entries)
        for entry, answer in found.items():
            batch.memo[(self.index, *entry)] = Output(answer) if entry == ("output",) else answer
        return bool(found)

    def shapes(self, layers: Sequence[str], position: Position = "post") -> dict[str, tuple[int, ...]]:
        """Return {layer: shape of its features without the batch}."""
        return taps.shapes(self.network, layers, position)


def fit(images: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Bring images [B, C, H, W] to a network's input shape: grey is repeated over channels, colour averaged to grey.

    Other channel counts (stacked frames) are averaged, then repeated. Sizes meet by bilinear resizing with
    antialiasing. Images that fit are returned as they are.
    """
    channels, height, width = shape
    if tuple(images.shape[1:]) == shape:
        return images
    images = floats(images)
    if images.shape[1] != channels:
        images = images.mean(1, keepdim=True).expand(-1, channels, -1, -1)
    if tuple(images.shape[2:]) != (height, width):
        images = F.interpolate(images, (height, width), mode="bilinear", align_corners=False, antialias=True)
    return images
