"""Networks: as many parameters as published, layers and heads that are what they claim, one-line refusals."""

import re
import subprocess
import sys
from functools import partial
from unittest.mock import Mock

import pytest
import torch
from torch import nn

from kfbench import networks, registry
from kfbench.errors import KfbenchError
from kfbench.networks import densenet, resnet, wide_resnet
from kfbench.networks.family import families
from kfbench.networks.hollow import hollow
from kfbench.networks.measure import multiply_adds, parameters
from kfbench.networks.network import Network, Output

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


@pytest.mark.parametrize("name", OURS)
def test_every_example_is_made_with_its_layers_and_heads(name: str) -> None:
    network = outline(name)
    modules = dict(network.named_modules())
    assert network.name == name and network.outputs == 10 and network.shape == shape_for(name)
    assert len(network.layers) >= 2 and len(set(network.layers)) == len(network.layers)
    for layer in network.layers:
        assert isinstance(modules[layer], nn.ReLU | nn.Identity)
        assert not getattr(modules[layer], "inplace", False), "mixing and pre-activations need the input unharmed"
    last = {"body.value": 1}
    for head in network.heads:
        module = modules[head]
        assert isinstance(module, nn.Linear) and module.out_features == last.get(head, 10)


@pytest.mark.parametrize("name", ONE_A_FAMILY)
def test_layers_are_called_once_shallow_to_deep_and_tell_input_from_output(name: str) -> None:
    network = make(name).eval()
    seen: list[str] = []
    for layer in network.layers:
        module = network.get_submodule(layer)

        def note(module: nn.Module, taken: tuple[torch.Tensor], put: torch.Tensor, layer: str) -> None:
            seen.append(layer)
            expected = taken[0].relu() if isinstance(module, nn.ReLU) else taken[0]
            assert torch.equal(put, expected)

        module.register_forward_hook(partial(note, layer=layer))
    network(torch.rand(2, *network.shape))
    assert tuple(seen) == network.layers


@pytest.mark.parametrize("name", ONE_A_FAMILY)
def test_every_parameter_learns(name: str) -> None:
    network = make(name)
    output = network(torch.rand(4, *network.shape))
    loss = output.logits.square().sum()
    if output.value is not None:
        loss = loss + output.value.square().sum()
    loss.backward()
    still = [key for key, value in network.named_parameters() if value.grad is None or not value.grad.abs().sum() > 0]
    assert not still


WHOLE = [name for name in ONE_A_FAMILY if name not in GAMES and not name.startswith("vit")]
SHAPES = [(name, shape) for name in WHOLE for shape in (DIGITS, MNIST, CIFAR, (4, 21, 33))]
SHAPES += [("cnn-8", (3, 96, 96)), ("resnet8", (3, 96, 96)), ("vgg8", (3, 64, 64)), ("densenet-13-4", (3, 96, 96))]
SHAPES += [(name, shape) for name in GAMES for shape in (ATARI, (1, 84, 84), (4, 44, 52))]
SHAPES += [("vit-3-32", shape) for shape in (DIGITS, MNIST, CIFAR, (4, 24, 36))] + [("vit-4-64-p7", (2, 21, 7))]
SHAPES += [("cnn-8", (1, 1, 1)), ("mlp-30", (1, 1, 1)), ("cnn-8", ATARI), ("a3c", (4, 20, 20)), ("impala", (3, 10, 10))]


@pytest.mark.parametrize(("name", "shape"), SHAPES, ids=str)
def test_any_image_shape(name: str, shape: tuple[int, int, int]) -> None:
    network = make(name, shape, outputs=7).eval()
    output = network(torch.rand(2, *shape))
    assert isinstance(output, Output) and output.logits.shape == (2, 7) and output.logits.isfinite().all()
    assert (output.value is not None and output.value.shape == (2,)) == (name in GAMES)


@pytest.mark.parametrize("name", ONE_A_FAMILY)
def test_one_seed_one_network_and_eval_mode_repeats_itself(name: str) -> None:
    first, second, other = make(name).eval(), make(name).eval(), make(name, seed=1).eval()
    images = torch.randint(0, 256, (3, *first.shape), dtype=torch.uint8)
    with torch.no_grad():
        logits = first(images).logits
        assert torch.equal(logits, first(images).logits)
        assert torch.equal(logits, second(images).logits)
        assert not torch.equal(logits, other(images).logits)
        torch.testing.assert_close(logits[:1], first(images[:1]).logits)  # an image does not depend on its neighbours
        torch.testing.assert_close(logits, first(images.float() / 255).logits)


def test_dropout_is_there_when_asked_for() -> None:
    for name in ("mlp-30", "wrn-10-1", "densenet-13-4", "densenet-bc-16-4"):
        plain, dropping = make(name), make(f"{name}-dropout")
        images = torch.rand(4, *plain.shape)
        assert torch.equal(plain(images).logits, plain(images).logits)
        assert not torch.equal(dropping(images).logits, dropping(images).logits)
        assert parameters(plain) == parameters(dropping)


@pytest.mark.parametrize("name", ONE_A_FAMILY)
def test_another_number_of_outputs_changes_only_the_heads(name: str) -> None:
    few, many = make(name, outputs=10).state_dict(), make(name, outputs=100).state_dict()
    heads = tuple(f"{head}." for head in make(name).heads)
    assert few.keys() == many.keys()
    changed = {key for key in few if few[key].shape != many[key].shape}
    assert changed and all(key.startswith(heads) for key in changed)
    body = [key for key in few if not key.startswith(heads)]
    assert all(torch.equal(few[key], many[key]) for key in body), "a task's outputs must not move the body's draws"


def test_initial_weights_have_the_sources_deviations() -> None:
    def he(network: Network, key: str) -> float:  # observed over expected deviation, N(0, 2 / fan_out)
        weight = network.get_parameter(key).detach()
        return float(weight.std() / (2 / (weight.shape[0] * weight[0, 0].numel())) ** 0.5)

    for name, key in (
        ("resnet8x4", "body.stages.2.0.conv2.weight"),
        ("wrn-10-2", "body.stages.2.0.conv1.weight"),
        ("vgg8", "body.stages.3.conv1.weight"),
        ("densenet-40-12", "body.transitions.1.conv.weight"),
        ("cnn-32", "body.blocks.3.conv.weight"),
        ("resnet18", "body.stages.2.0.conv1.weight"),
        ("mobilenetv2", "body.stages.5.0.conv3.weight"),
        (
            "mobilenetv2",
            "body.stages.5.1.conv2.weight",
        ),  # each map alone: the fan is all maps', as there
    ):
        assert he(make(name), key) == pytest.approx(1, abs=0.02)
    fc = make("impala").requires_grad_(False).get_submodule("body.trunk.fc")
    assert isinstance(fc, nn.Linear) and not fc.bias.any()
    # a unit normal cut at two deviations has the deviation 0.8796
    assert float(fc.weight.std()) * fc.in_features**0.5 == pytest.approx(0.8796, abs=0.01)
    assert float(fc.weight.abs().max()) <= 2 / fc.in_features**0.5
    fc = make("a3c").requires_grad_(False).get_submodule("body.trunk.fc")
    assert isinstance(fc, nn.Linear)
    bound = fc.in_features**-0.5
    assert 0.99 * bound < float(fc.weight.abs().max()) <= bound


@pytest.mark.parametrize("name", ["densenet-13-4", "densenet-bc-16-4", "densenet-bc-16-4-dropout"])
def test_densenet_recomputes_the_same_numbers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images, left = torch.rand(4, *CIFAR), []
    for limit in (0, 2**60):
        monkeypatch.setattr(densenet, "RECOMPUTE_ABOVE", limit)
        network = make(name)
        assert all(m.recomputes == (limit == 0) for m in network.modules() if isinstance(m, densenet.DenseLayer))
        layer = network.get_submodule("body.blocks.2.1")
        assert isinstance(layer, densenet.DenseLayer)
        monkeypatch.setattr(layer, "join", joined := Mock(wraps=layer.join))
        for _ in range(2):
            torch.manual_seed(5)  # dropout
            network(images).logits.square().sum().backward()
        assert joined.call_count == (4 if limit == 0 else 2)
        left.append((network.state_dict(), {key: value.grad for key, value in network.named_parameters()}))
    for recomputed, kept in zip(*left, strict=True):
        assert all(torch.equal(recomputed[key], kept[key]) for key in kept)


def test_densenet_recomputes_what_a_method_changes_for_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Norms in evaluation mode (`lp_ft`), weights of `functional_call` (`lora`), hooks (`stochnorm`): over by then."""
    images, left = torch.rand(4, *CIFAR), []
    for limit in (0, 2**60):
        monkeypatch.setattr(densenet, "RECOMPUTE_ABOVE", limit)
        network = make("densenet-13-4")
        torch.manual_seed(5)
        output = network.eval()(images).logits
        network.train()
        output.square().sum().backward()
        swapped = {key: value * 1.5 for key, value in network.named_parameters()}
        torch.manual_seed(5)
        torch.func.functional_call(network, swapped, (images,)).logits.square().sum().backward()
        torch.manual_seed(5)
        with registry.load_module("methods", "stochnorm").stochastic(network, 0.5, torch.Generator().manual_seed(5)):
            chosen = network(images).logits
        chosen.square().sum().backward()
        left.append({key: value.grad for key, value in network.named_parameters()})
    for key, kept in left[1].items():
        assert torch.equal(left[0][key], kept), key


def test_densenet_recomputes_where_it_would_fill_the_memory() -> None:
    def recomputes(name: str, shape: tuple[int, int, int] = CIFAR) -> bool:
        return any(m.recomputes for m in outline(name, shape).modules() if isinstance(m, densenet.DenseLayer))

    assert not recomputes("densenet-40-12") and not recomputes("densenet-bc-100-12")
    assert (
        recomputes("densenet-100-24") and recomputes("densenet-bc-190-40") and recomputes("densenet-40-12", (3, 96, 96))
    )
    # one layer of two maps at 2x2, then of three at 1x1 … each kept twice in float32: counted by hand
    assert densenet.joined_bytes((3, 4, 4), n=1, growth=2, bc=False) == 8 * (16 * 16 + 18 * 4 + 20 * 1)


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


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("resnet8x", CIFAR, "no network 'resnet8x'; did you mean 'resnet8x4'?"),
        ("wrm-16-2", CIFAR, "no network 'wrm-16-2'; did you mean 'wrn-16-2'?"),
        ("cnn-0", CIFAR, "no network 'cnn-0'; did you mean"),
        ("qqqqqq", CIFAR, "no network 'qqqqqq'; there is: a3c, cnn-16, cnn-32, densenet-100-12, "),
        ("resnet21", CIFAR, "no network 'resnet21': its depth must be 6n+2; nearest: 20"),
        ("resnet2", CIFAR, "no network 'resnet2': its depth must be 6n+2; nearest: 8"),
        ("wrn-28-10x", CIFAR, "no network 'wrn-28-10x'; did you mean 'wrn-28-10'?"),
        ("wrn-18-2", CIFAR, "no network 'wrn-18-2': its depth must be 6n+4; nearest: 16"),
        ("densenet-bc-99-12", CIFAR, "its depth must be 6n+4; nearest: 100"),
        ("densenet-41-12", CIFAR, "its depth must be 3n+4; nearest: 40"),
        ("vgg12", CIFAR, "no network 'vgg12'; did you mean 'vgg"),
        ("vit-2-33", CIFAR, "depth must be at least 3, its width 32n; nearest: vit-3-32"),
        ("vit-6-64", (3, 30, 36), "sides are multiples of 4, not 30x36; name another patch, as vit-6-64-p6"),
        ("vgg8", (3, 7, 9), "network 'vgg8' needs images of at least 8x8, not 7x9"),
        ("densenet-40-12", (1, 3, 3), "network 'densenet-40-12' needs images of at least 4x4, not 3x3"),
        ("a3c", DIGITS, "network 'a3c' needs images of at least 20x20, not 8x8"),
        ("nature", (4, 35, 84), "network 'nature' needs images of at least 36x36, not 35x84"),
        ("cnn-16", (3, 0, 32), "network 'cnn-16' cannot have shape (3, 0, 32) and 10 outputs; give (C, H, W)"),
    ],
)
def test_refusals_are_one_line(name: str, shape: tuple[int, int, int], message: str) -> None:
    with pytest.raises(KfbenchError) as caught:
        make(name, shape)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_outputs_must_be_some() -> None:
    with pytest.raises(KfbenchError, match="and 0 outputs"):
        make("cnn-16", outputs=0)


def test_names_need_no_torch() -> None:
    code = "import sys; from kfbench import networks; assert networks.names(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_example_belongs_to_one_family() -> None:
    for family in families():
        for example in family.examples:
            assert [other.file for other in families() if re.fullmatch(other.pattern, example)] == [family.file]


def bn_relu(x: torch.Tensor, norm: nn.Module) -> torch.Tensor:
    """BatchNorm over the batch as first made (scale 1, shift 0), then ReLU."""
    assert isinstance(norm, nn.BatchNorm2d)
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
    return ((x - mean) / (variance + norm.eps).sqrt()).clamp(min=0)


def test_blocks_are_wired_as_the_papers_say() -> None:
    x = torch.rand(4, 16, 8, 8)
    wide = make("wrn-10-2").get_submodule("body.stages.0.0")  # 16 -> 32 channels: the shortcut reads the pre-activation
    assert isinstance(wide, wide_resnet.Block) and wide.shortcut is not None
    active = bn_relu(x, wide.norm1)
    expected = wide.conv2(bn_relu(wide.conv1(active), wide.norm2)) + wide.shortcut(active)
    torch.testing.assert_close(wide(x), expected)

    thin = make("wrn-10-1").get_submodule("body.stages.0.0")  # 16 -> 16: the shortcut is the input itself
    assert isinstance(thin, wide_resnet.Block)
    torch.testing.assert_close(thin(x), x + thin.conv2(bn_relu(thin.conv1(bn_relu(x, thin.norm1)), thin.norm2)))

    block = make("resnet14").get_submodule("body.stages.0.1")  # ReLU after the sum
    assert isinstance(block, resnet.Block)
    inner = block.norm2(block.conv2(bn_relu(block.conv1(x), block.norm1)))
    torch.testing.assert_close(block(x), (inner + x).clamp(min=0))

    dense = make("densenet-bc-22-8").get_submodule("body.blocks.0")  # each layer reads all maps before it
    maps = x
    for layer in dense.children():
        assert isinstance(layer, densenet.DenseLayer)
        narrow = list(layer.narrow)
        maps = torch.cat((maps, narrow[3](bn_relu(layer.conv1(bn_relu(maps, layer.norm1)), narrow[1]))), 1)
    torch.testing.assert_close(dense(x), maps)


def test_a_network_that_looks_at_a_number_while_it_is_made_can_be_copied() -> None:
    made = networks.make("torchvision:regnet_y_400mf", shape=(3, 32, 32), outputs=10).eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(made.clone()(images).logits, made(images).logits)
