"""How large networks are: as many parameters and multiply-adds as published, counted without a weight in memory."""

import subprocess
import sys

import pytest
import torch
from made_networks import ATARI, CIFAR, MNIST, make, outline, shape_for
from torch import nn

from kfbench import networks
from kfbench.networks.hollow import hollow
from kfbench.networks.measure import multiply_adds, parameters

# Exact counts: the number is printed by the authors, or follows from their code layer by layer.
EXACT = [
    # RepDistiller's models (Tian, Krishnan, Isola 2020), 100 classes
    ("resnet8x4", CIFAR, 100, 1_233_540),
    ("resnet32x4", CIFAR, 100, 7_433_860),
    ("resnet20", CIFAR, 100, 278_324),
    ("resnet32", CIFAR, 100, 472_756),
    ("resnet56", CIFAR, 100, 861_620),
    ("resnet110", CIFAR, 100, 1_736_564),
    ("wrn-16-2", CIFAR, 100, 703_284),
    ("wrn-40-1", CIFAR, 100, 569_780),
    ("wrn-40-2", CIFAR, 100, 2_255_156),
    ("vgg8", CIFAR, 100, 3_965_028),
    ("vgg13", CIFAR, 100, 9_462_180),
    ("vgg11", CIFAR, 100, 9_277_284),
    ("vgg16", CIFAR, 100, 14_774_436),
    ("vgg19", CIFAR, 100, 20_086_692),
    ("wrn-16-1", CIFAR, 100, 180_916),
    ("resnet18", CIFAR, 100, 11_220_132),
    ("resnet50", CIFAR, 100, 23_705_252),
    ("mobilenetv2", CIFAR, 100, 812_836),
    ("shufflenetv1", CIFAR, 100, 949_258),
    ("shufflenetv2", CIFAR, 100, 1_355_528),
    # 6 blocks of 12 width² + 13 width; patches, LayerNorm and head
    ("vit-6-128", CIFAR, 100, 6 * (12 * 128**2 + 13 * 128) + 128 * 49 + 2 * 128 + 129 * 100),
    # Hinton 2015: 784-N-N-10
    ("mlp-1200", MNIST, 10, 784 * 1200 + 1200 + 1200 * 1200 + 1200 + 1200 * 10 + 10),
    ("mlp-800", MNIST, 10, 784 * 800 + 800 + 800 * 800 + 800 + 800 * 10 + 10),
    # Mnih 2016, 2015; Rusu 2016: convolutions without padding on 84x84, fully connected layer, 6 actions and a value
    ("a3c", ATARI, 6, (4 * 64 + 1) * 16 + (16 * 16 + 1) * 32 + (32 * 9 * 9 + 1) * 256 + 257 * 7),
    ("nature", ATARI, 6, 257 * 32 + (32 * 16 + 1) * 64 + (64 * 9 + 1) * 64 + (64 * 7 * 7 + 1) * 512 + 513 * 7),
    ("pnn", ATARI, 6, 257 * 12 + (12 * 16 + 1) * 12 + (12 * 12 + 1) * 12 + (12 * 7 * 6 + 1) * 256 + 257 * 7),
    # Espeholt 2018: sections of 16, 32, 32 maps, five 3x3 convolutions each, 84 -> 42 -> 21 -> 11
    ("impala", ATARI, 6, 37 * 16 + 4 * 145 * 16 + 145 * 32 + 9 * 289 * 32 + (32 * 11 * 11 + 1) * 256 + 257 * 7),
]
ROUNDED = [  # in millions, as Zagoruyko's and Huang's tables print them, for CIFAR-10
    ("wrn-40-1", 0.6), ("wrn-40-2", 2.2), ("wrn-40-4", 8.9), ("wrn-16-8", 11.0), ("wrn-28-10", 36.5),  # table 4
    ("densenet-40-12", 1.0), ("densenet-100-12", 7.0), ("densenet-100-24", 27.2),  # table 2
    ("densenet-bc-100-12", 0.8), ("densenet-bc-250-24", 15.3), ("densenet-bc-190-40", 25.6),
]  # fmt: skip


@pytest.mark.parametrize(("name", "shape", "outputs", "count"), EXACT, ids=[row[0] for row in EXACT])
def test_parameters_exact(name: str, shape: tuple[int, int, int], outputs: int, count: int) -> None:
    assert parameters(outline(name, shape, outputs)) == count


@pytest.mark.parametrize(("name", "millions"), ROUNDED, ids=[row[0] for row in ROUNDED])
def test_parameters_as_printed(name: str, millions: float) -> None:
    assert round(parameters(outline(name)) / 1e6, 1) == millions


@pytest.mark.parametrize(("depth", "printed"), [(20, "0.27"), (32, "0.46"), (44, "0.66"), (56, "0.85"), (110, "1.73")])
def test_resnets_have_hes_parameters_but_for_the_shortcuts(depth: int, printed: str) -> None:
    # He 2016, table 6 (which prints 1.7 for 110): option A has no parameters where ours has two 1x1 convolutions
    network = outline(f"resnet{depth}")
    shortcuts = sum(parameters(module) for name, module in network.named_modules() if name.endswith("shortcut"))
    assert shortcuts == 2_752
    assert f"{(parameters(network) - shortcuts) / 1e6:.2f}" == printed


@pytest.mark.parametrize(
    ("name", "shape", "count"),
    [
        ("resnet20", CIFAR, 40_813_184),  # He's 20 layers: 40.55 M, and the two 1x1 shortcuts 2 * 131,072
        ("mlp-800", MNIST, 784 * 800 + 800 * 800 + 800 * 10),
        ("a3c", ATARI, 20 * 20 * 16 * 256 + 9 * 9 * 32 * 256 + 2592 * 256 + 256 * 11),
    ],
)
def test_multiply_adds(name: str, shape: tuple[int, int, int], count: int) -> None:
    network = make(name, shape)
    network.get_submodule(network.heads[0]).eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    assert multiply_adds(network, shape) == count
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_measuring_a_giant_computes_nothing() -> None:
    assert round(multiply_adds(outline("wrn-28-10"), CIFAR) / 1e9, 1) == 5.2  # 5.2 G, Zagoruyko's README
    shared = nn.Linear(3, 3, bias=False)
    assert parameters(nn.Sequential(shared, nn.ReLU(), shared)) == 9


@pytest.mark.parametrize("name", ["a3c", "mobilenetv2", "resnet8", "shufflenetv2", "vgg8", "vit-6-128"])
def test_a_hollow_network_is_the_same_without_weights(name: str) -> None:
    made = make(name)
    before = torch.get_rng_state()
    with hollow():
        network = networks.make(name, shape=shape_for(name), outputs=10)
    assert torch.equal(torch.get_rng_state(), before)
    there, wanted = network.state_dict(), made.state_dict()
    assert {key: (value.shape, value.dtype) for key, value in there.items()} == {
        key: (value.shape, value.dtype) for key, value in wanted.items()
    }
    assert all(value.is_meta for value in there.values()) and not any(value.is_meta for value in wanted.values())


def test_hollow_networks_load_no_compiler() -> None:
    code = (
        "import sys\nfrom kfbench import networks\nfrom kfbench.networks.hollow import hollow\n"
        "for name in ('cnn-16', 'mobilenetv2', 'resnet8', 'shufflenetv2', 'vgg8', 'wrn-16-2'):\n"
        "    with hollow():\n        networks.make(name, shape=(3, 32, 32), outputs=10)\n"
        "    assert 'torch._dynamo' not in sys.modules, name"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
