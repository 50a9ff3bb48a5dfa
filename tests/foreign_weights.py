"""What tests of weights from elsewhere share: a network that looks trained, its tensors under others' names."""

import re

import pytest
import torch
from torch import Tensor, nn

from kfbench import networks
from kfbench.errors import KfbenchError
from kfbench.networks import fitting
from kfbench.networks.network import Network

SHAPE = (3, 16, 16)


def network(name: str = "resnet8", seed: int = 0, outputs: int = 10) -> Network:
    """A network whose BatchNorms look trained, so that a swapped one shows."""
    torch.manual_seed(seed)
    made = networks.make(name, shape=SHAPE, outputs=outputs)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.running_mean, module.running_var, module.weight.data, module.bias.data):
                assert value is not None
                value.copy_(0.5 + torch.rand(value.shape))
    made.normalise_by(torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.4]))
    return made.eval()


def as_distillers_name_it(name: str) -> str:
    """A body's names as RepDistiller's residual networks have them."""
    name = name.removeprefix("body.").replace("shortcut", "downsample").replace("norm", "bn").replace("head", "fc")
    name = re.sub(r"^stages\.(\d)", lambda found: f"layer{int(found[1]) + 1}", name)
    return re.sub(r"^(conv|bn)\.", r"\g<1>1.", name)


def theirs(made: Network) -> dict[str, Tensor]:
    return {as_distillers_name_it(name): v for name, v in made.state_dict().items() if name.startswith("body.")}


def bare(made: Network) -> dict[str, Tensor]:
    return {name.removeprefix("body."): v for name, v in made.state_dict().items() if name.startswith("body.")}


def before(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in tensors.items()}


ABOUT = {"network": "resnet8", "shape": SHAPE, "outputs": 10, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}


def refusal(tensors: dict[str, Tensor], name: str = "resnet8", *, is_ordered: bool = True) -> str:
    with pytest.raises(KfbenchError) as caught:
        fitting.fit(network(name), tensors, is_ordered=is_ordered, where="'x.pth'")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
    return str(caught.value)
