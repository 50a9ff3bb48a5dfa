"""Networks of other libraries: layers that are called once and are no branches, heads, weights, one-line refusals."""

import copy
import sys
from collections import Counter

import pytest
import torch

from kfbench import networks
from kfbench.errors import KfbenchError
from kfbench.networks import taps
from kfbench.networks.hollow import hollow
from kfbench.networks.measure import parameters
from kfbench.networks.network import Network

CIFAR, MNIST = (3, 32, 32), (1, 28, 28)


def make(name: str, shape: tuple[int, int, int] = CIFAR, outputs: int = 10) -> Network:
    torch.manual_seed(0)
    return networks.make(name, shape=shape, outputs=outputs)


def once_called(network: Network) -> Counter[str]:
    calls: Counter[str] = Counter()
    for layer in network.layers:
        network.get_submodule(layer).register_forward_hook(lambda *_, layer=layer: calls.update([layer]))
    network.eval()(torch.zeros(1, *network.shape))
    return calls


@pytest.mark.parametrize("shape", [CIFAR, MNIST])
def test_torchvision_network(shape: tuple[int, int, int]) -> None:
    network = make("torchvision:resnet18", shape)
    stages = tuple(f"body.net.layer{stage}.1" for stage in (1, 2, 3))  # where a block's sum and ReLU come out
    assert network.layers[:4] == ("body.net.relu", *stages)
    assert once_called(network) == Counter(network.layers)
    assert network.heads == ("body.net.fc",)
    assert network(torch.rand(2, *shape)).logits.shape == (2, 10)
    from torchvision.models import resnet18

    assert parameters(network) == parameters(resnet18(num_classes=10))


@pytest.mark.parametrize(
    ("name", "size"), [("mobilenet_v3_small", 64), ("squeezenet1_1", 64), ("shufflenet_v2_x0_5", 64)]
)
def test_torchvision_layers_are_no_branches(name: str, size: int) -> None:
    network = make(f"torchvision:{name}", (3, size, size))
    assert once_called(network) == Counter(network.layers)
    # all of the signal goes through a layer: with its output blanked, the answer no longer depends on the image
    network.eval()
    for layer in network.layers:
        blank = network.get_submodule(layer).register_forward_hook(lambda _m, _t, put: torch.zeros_like(put))
        with torch.no_grad():
            logits = network(torch.rand(2, *network.shape)).logits
        blank.remove()
        torch.testing.assert_close(logits[0], logits[1])


def test_nothing_overwrites_what_is_read_of_a_torchvision_densenet() -> None:
    """Its last activation is a function there, which works in place on what `norm5` put out."""
    from torchvision.models import densenet121

    network, theirs = make("torchvision:densenet121"), densenet121(num_classes=10)
    theirs.load_state_dict(network.get_submodule("body.net").state_dict())
    images = torch.rand(2, *CIFAR)
    taken: list[torch.Tensor] = []
    last = network.get_submodule(network.layers[-1])
    last.register_forward_hook(lambda _m, _t, put: taken.extend((put, put.detach().clone())))
    logits = network.train()(images).logits
    assert torch.equal(*taken) and (taken[0] >= 0).all() and taken[0]._version == 0
    normalised = (images - network.mean) / network.std
    torch.testing.assert_close(logits, theirs.train()(normalised))


def test_blocks_of_torchvisions_transformers_are_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their tokens as maps, then the vector that the head takes: the first layer says nothing of what was learned."""
    swin = make("torchvision:swin_t", (3, 64, 64))
    shapes = taps.shapes(swin, swin.layers)
    assert [*shapes.values()] == [(96, 16, 16), (192, 8, 8), (384, 4, 4), (768, 2, 2), (768,)]
    from torchvision.models import ViT_B_32_Weights, vit_b_32

    torch.manual_seed(0)
    there = vit_b_32().state_dict()
    monkeypatch.setattr(ViT_B_32_Weights, "get_state_dict", lambda *_, **__: dict(there))
    grey = make("torchvision:vit_b_32:pretrained", (1, 64, 64), outputs=10)
    assert grey(torch.rand(2, 1, 64, 64)).logits.shape == (2, 10)
    network = make("torchvision:vit_b_32:pretrained", (3, 64, 64), outputs=10).eval()
    assert list(taps.shapes(network, network.layers).values()) == [(768, 2, 2)] * 6 + [(768,)]
    assert once_called(network) == Counter(network.layers)
    kept = network.state_dict()
    strange = {key for key, value in there.items() if not torch.equal(kept[f"body.net.{key}"], value)}
    assert strange == {"encoder.pos_embedding", "heads.head.weight", "heads.head.bias"}
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad(), taps.read(network, network.layers[-1:]) as found:
        logits = network(images).logits
        torch.testing.assert_close(logits, network.get_submodule(network.heads[0])(found[network.layers[-1]]))
        for handle in taps.rewrite(network, {network.layers[0]: lambda maps: 0 * maps}):
            assert not torch.allclose(network(images).logits, logits)
            handle.remove()
    with torch.no_grad():
        torch.testing.assert_close(network.clone()(images).logits, logits)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_torchvision_auxiliary_heads_are_left_out(name: str) -> None:
    size = 96
    with hollow():
        network = make(f"torchvision:{name}", (3, size, size))
    assert network.heads == ("body.net.fc",)
    assert network.train()(torch.zeros(2, 3, size, size, device="meta")).logits.shape == (2, 10)


def test_pretrained_weights_come_through_the_library(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.models import MobileNet_V3_Small_Weights as Weights
    from torchvision.models import mobilenet_v3_small

    folder = tmp_path_factory.mktemp("hub")
    (folder / "checkpoints").mkdir()
    torch.manual_seed(3)
    there = mobilenet_v3_small().state_dict()
    torch.save(there, folder / "checkpoints" / Weights.DEFAULT.url.rsplit("/", 1)[1])
    monkeypatch.setattr(torch.hub, "_hub_dir", str(folder))
    network = make("torchvision:mobilenet_v3_small:pretrained", (3, 96, 96), outputs=10)
    assert network.heads == ("body.net.classifier.3",)
    assert network.get_parameter("body.net.classifier.3.weight").shape == (10, 1024)
    kept = {f"body.net.{key}": value for key, value in there.items() if not key.startswith("classifier.3.")}
    assert all(torch.equal(network.state_dict()[key], value) for key, value in kept.items())
    torch.testing.assert_close(network.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))
    torch.testing.assert_close(network.std.flatten(), torch.tensor([0.229, 0.224, 0.225]))
    same = make("torchvision:mobilenet_v3_small:pretrained", (1, 96, 96), outputs=1000)
    assert torch.equal(same.get_parameter("body.net.classifier.3.weight"), there["classifier.3.weight"])
    torch.testing.assert_close(same.mean.flatten(), torch.tensor([0.449]))


def test_weights_that_cannot_be_had(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path_factory.mktemp("hub")))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(KfbenchError, match=r"could not make network .*; leave ':pretrained' out") as caught:
        make("torchvision:mobilenet_v3_small:pretrained", (3, 96, 96))
    assert "\n" not in str(caught.value)


def test_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        KfbenchError, match=r"network 'timm:resnet18' needs the library timm; install it: pip install timm"
    ):
        make("timm:resnet18")


@pytest.mark.parametrize("name", ["timm:test_resnet", "timm:test_vit", "timm:test_efficientnet.r160_in1k"])
def test_timm_network(name: str) -> None:
    pytest.importorskip("timm")
    network = make(name, (4, 32, 32))
    assert once_called(network) == Counter(network.layers) and network.layers
    few, many = make(name, outputs=10).state_dict(), make(name, outputs=100).state_dict()
    changed = {key for key in few if few[key].shape != many[key].shape}
    assert changed and all(key.startswith(network.heads) for key in changed)


def test_timm_says_which_layers_there_are() -> None:
    timm = pytest.importorskip("timm")
    network = make("timm:test_efficientnet", (3, 64, 64))
    told = timm.create_model("test_efficientnet", features_only=True).feature_info
    shapes = taps.shapes(network, network.layers)
    maps = [shape for shape in shapes.values() if len(shape) == 3 and shape[1:] != (1, 1)]
    assert [shape[0] for shape in maps] == told.channels()
    assert [64 // shape[1] for shape in maps] == told.reduction()
    assert [layer for layer in network.layers if ".blocks." in layer]


@pytest.mark.parametrize(
    ("name", "layers", "maps"),
    [
        # the last of each stage; 64x32 pixels in patches of 4 are 16x8
        ("timm:swinv2_cr_tiny_ns_224", [f"body.net.stages.{stage}" for stage in range(4)], (96, 16, 8)),
        ("timm:swin_tiny_patch4_window7_224", [f"body.outs.layers_{stage}" for stage in range(4)], (96, 16, 8)),
    ],
)
def test_channels_that_come_last_are_read_and_mixed_as_maps(
    name: str, layers: list[str], maps: tuple[int, ...]
) -> None:
    pytest.importorskip("timm")
    network = make(name, (3, 64, 32)).eval()
    assert [layer for layer in network.layers if "blocks" in layer or "stages" in layer or "layers" in layer] == layers
    assert taps.shapes(network, network.layers)[layers[0]] == maps
    images = torch.rand(2, 3, 64, 32)
    with torch.no_grad():
        plain = network(images).logits
        double = copy.deepcopy(network)
        for changed in (network, double, network.clone()):
            handles = taps.rewrite(changed, {layers[1]: lambda features: features.flip(0)})
            torch.testing.assert_close(changed(images).logits, plain.flip(0))  # all of the signal goes through there
            for handle in handles:
                handle.remove()
            torch.testing.assert_close(changed(images).logits, plain)


def test_tokens_of_patches_are_read_and_mixed_beside_the_class_token() -> None:
    pytest.importorskip("timm")
    network = make("timm:test_vit", (3, 64, 32)).eval()
    # the last block's patches are not read by the head, which sees the class token: no layer; but that token is one
    blocks = [f"body.outs.blocks_{block}" for block in range(5)]
    assert network.layers[:5] == tuple(blocks) and len(network.layers) == 6
    shapes = taps.shapes(network, network.layers)
    assert {shapes[layer] for layer in blocks} == {(64, 4, 2)} and shapes[network.layers[5]] == (64,)
    images = torch.rand(2, 3, 64, 32)
    with torch.no_grad():
        plain = network(images).logits
        double = copy.deepcopy(network)
        for changed in (network, double, network.clone()):
            for layer in network.layers:
                [handle] = taps.rewrite(changed, {layer: lambda features: features.flip(0)})
                assert not torch.allclose(changed(images).logits, plain, atol=1e-4)
                handle.remove()
            assert torch.equal(changed(images).logits, plain)


def test_of_many_blocks_some_are_layers() -> None:
    pytest.importorskip("timm")
    with hollow():
        layers = make("timm:deit_tiny_patch16_224", (3, 32, 32)).layers
    assert layers[:6] == tuple(f"body.outs.blocks_{block}" for block in (0, 2, 4, 6, 8, 10))


def test_timm_layers_end_in_activations_where_the_network_does() -> None:
    pytest.importorskip("timm")
    network = make("timm:resnet18")
    assert network.layers[1:4] == tuple(f"body.net.layer{stage}.1.act2" for stage in (1, 2, 3))
    with pytest.raises(KfbenchError, match="no network 'timm:resnet1888'; did you mean 'timm:resnet18'?"):
        make("timm:resnet1888")


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("torchvision:resnet19", CIFAR, "no network 'torchvision:resnet19'; did you mean 'torchvision:resnet18'?"),
        ("torchvision:resnet18", (4, 84, 84), "takes images of 1 or 3 channels, not 4; use timm:resnet18"),
        ("torchvision:alexnet", CIFAR, "network 'torchvision:alexnet' cannot take images of shape (3, 32, 32): Given"),
        (
            "torchvision:vit_b_16",
            MNIST,
            "takes squares of a multiple of 16 pixels, not 28x28; kfbench data import --siz",
        ),
        ("torchvision:vit_b_16", (3, 32, 64), "not 32x64; kfbench data import --size 64 resizes images"),
    ],
)
def test_refusals_are_one_line(name: str, shape: tuple[int, int, int], message: str) -> None:
    with pytest.raises(KfbenchError) as caught:
        make(name, shape)
    assert message in str(caught.value) and "\n" not in str(caught.value)
