"""Networks of other libraries: layers that are called once and are no branches, heads, weights, one-line refusals."""

import sys
from collections import Counter

import pytest
import torch

from kfbench import networks
from kfbench.errors import KfbenchError
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


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_torchvision_auxiliary_heads_are_left_out(name: str) -> None:
    size = 96
    with torch.device("meta"):
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
        ("torchvision:vit_b_32", CIFAR, "cannot take images of shape (3, 32, 32): Wrong image height! Expected 224"),
    ],
)
def test_refusals_are_one_line(name: str, shape: tuple[int, int, int], message: str) -> None:
    with pytest.raises(KfbenchError) as caught:
        make(name, shape)
    assert message in str(caught.value) and "\n" not in str(caught.value)
