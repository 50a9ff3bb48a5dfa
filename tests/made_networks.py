"""Networks of every family, small ones, for tests that hold for all of them."""

import torch

from kfbench import networks
from kfbench.networks.family import families
from kfbench.networks.hollow import hollow
from kfbench.networks.network import Network

CIFAR, MNIST, DIGITS, ATARI = (3, 32, 32), (1, 28, 28), (1, 8, 8), (4, 84, 84)
GAMES = next(family.examples for family in families() if family.file == "actor_critic")
OURS = [name for name in networks.names() if ":" not in name]
ONE_A_FAMILY = (
    *(
        "mlp-30",
        "mlp-30-dropout",
        "cnn-8",
        "resnet8",
        "resnet8x4",
        "resnet14x2",
        "wrn-10-2",
        "wrn-16-1-dropout",
        "vgg8",
    ),
    *("densenet-13-4", "densenet-bc-16-4", "densenet-bc-16-4-dropout", *GAMES),
    *("resnet18", "mobilenetv2", "shufflenetv1", "shufflenetv2", "vit-3-32"),
)


def shape_for(name: str) -> tuple[int, int, int]:
    return ATARI if name in GAMES else MNIST if name.startswith("mlp") else CIFAR


def make(name: str, shape: tuple[int, int, int] | None = None, outputs: int = 10, seed: int = 0) -> Network:
    torch.manual_seed(seed)
    return networks.make(name, shape=shape or shape_for(name), outputs=outputs)


def outline(name: str, shape: tuple[int, int, int] | None = None, outputs: int = 10) -> Network:
    with hollow():
        return make(name, shape, outputs)
