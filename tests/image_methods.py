"""What tests of image methods share beside the short runs of `tuning`: what moved, and parts of a loss as numbers."""

import torch
import tuning
from torch import nn

from kfbench.methods import Batch
from kfbench.train.setup import Setup

MLP = {"network": "mlp-30", "batch_size": 16, "epochs": 4}


def moved(before: dict[str, torch.Tensor], module: nn.Module) -> set[str]:
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


def parts_of(made: Setup, batch: Batch, progress: float = 0.5) -> dict[str, float]:
    return {name: float(part.detach()) for name, part in tuning.parts_of(made, batch, progress).items()}
