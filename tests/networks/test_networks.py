"""Networks: layers and heads that are what they claim, images of any shape, the papers' wiring, one-line refusals."""

import re
from functools import partial

import pytest
import torch
from made_networks import ATARI, CIFAR, DIGITS, GAMES, MNIST, ONE_A_FAMILY, OURS, make, outline, shape_for
from torch import nn

from kfbench import networks
from kfbench.errors import KfbenchError
from kfbench.networks import densenet, resnet, wide_resnet
from kfbench.networks.family import families
from kfbench.networks.measure import parameters
from kfbench.networks.network import Network, Output


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
