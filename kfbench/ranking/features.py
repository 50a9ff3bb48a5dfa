"""What a teacher says to a task's images: its last features below the head, pooled, and probabilities."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kfbench.batch import Batch
from kfbench.data.splits import Split
from kfbench.errors import KfbenchError
from kfbench.ranking.scores import Floats
from kfbench.teachers import Teacher


class Said(NamedTuple):
    """A teacher's answers to N images, in their order, not augmented."""

    features: Floats  # [N, D]
    probabilities: Floats  # [N, Z], over the teacher's own outputs


def said(teacher: Teacher, split: Split) -> Said:
    """Return a teacher's answers to a split's images, each image once through the network.

    Raises KfbenchError for a network whose layers are not known, or answers that are not finite.
    """
    layers = teacher.network.layers
    if not layers:
        raise KfbenchError(
            f"the layers of teacher '{teacher.name}' are not known, so it cannot be ranked; use a teacher of one of "
            "kfbench list networks"
        )
    features, probabilities = [], []
    for images, _ in split.chunks():
        batch = Batch(images, torch.Generator())
        last = teacher.features(batch, layers[-1:], logits=True)[layers[-1]]
        features.append(pooled(last).cpu().double())  # in this order: Apple GPUs have no float64
        probabilities.append(teacher(batch).logits.cpu().double().softmax(1))
    answers = Said(*(np.asarray(torch.cat(parts).numpy()) for parts in (features, probabilities)))
    if not all(np.isfinite(answer).all() for answer in answers):
        raise KfbenchError(
            f"teacher '{teacher.name}' puts out numbers that are not finite, so it cannot be ranked; leave it out, or "
            "train it again"
        )
    return answers


def pooled(features: Tensor) -> Tensor:
    """Return vectors [B, D]: maps [B, D, H, W] are averaged over places, tokens [B, T, D] over tokens."""
    if features.ndim == 4:
        return features.mean((2, 3))
    return features.mean(1) if features.ndim == 3 else features.flatten(1)
