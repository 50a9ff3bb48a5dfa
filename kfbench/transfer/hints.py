"""Hints: the student's own features at linked layers are regressed onto the teachers' features."""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kfbench.transfer.candidates import Transform


class Hints(nn.Module):
    """A linear map for each link, from the student's layer to the shape of the teacher's."""

    def __init__(self) -> None:
        super().__init__()
        self.regressions = nn.ModuleDict()

    def add(self, key: str, own: tuple[int, ...], theirs: Sequence[tuple[int, ...]]) -> None:
        """Make the maps of a layer, from its shape to those of the features linked to it."""
        self.regressions[key] = nn.ModuleList(Transform(own, shape) for shape in theirs)

    def forward(self, own: dict[str, Tensor], targets: dict[str, list[Tensor]]) -> Tensor:
        """Return the mean squared error of the student's features {layer: [B, …]}, regressed onto {layer: [[B, …]]}.

        A mean over elements, links and layers.
        """
        errors = []
        for key, features in targets.items():
            for regression, target in zip(cast(nn.ModuleList, self.regressions[key]), features, strict=True):
                errors.append(F.mse_loss(regression(own[key]).expand_as(target), target))
        return torch.stack(errors).mean()
