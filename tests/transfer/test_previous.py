"""What the output was before: a snapshot says what the module said when it was taken, whatever the module shares."""

import torch
from torch import Tensor, nn

from kfbench.networks.network import Network
from kfbench.transfer.previous import Snapshot
from kfbench.transfer.transplant import places


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.head(self.second(self.first(x.flatten(1)).relu()))
        return made


class Twice(nn.Module):
    """One layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(4, 4), nn.Linear(4, 3)
        self.second = self.first

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.head(self.second(self.first(x.flatten(1)).relu()))
        return made


def test_a_layer_under_two_names_gets_its_own_weights_back() -> None:
    network = Network(Twice(), name="twice", shape=(1, 2, 2), outputs=3, layers=("body.first",), heads=("body.head",))
    state, images = network.state_dict(keep_vars=True), torch.rand(5, 1, 2, 2)
    tensors = {name: state[name] for name in places(network)}
    live, before = list(network.parameters()), network(images).logits
    with torch.no_grad():
        snapshot = Snapshot(tensors)
        live[0].add_(1)
    assert torch.equal(snapshot.outputs(network, tensors, (images,), 2).logits, before)
    assert [id(weight) for weight in network.parameters()] == [id(weight) for weight in live]


def test_a_snapshot_of_layers_that_share_a_weight_is_what_they_said() -> None:
    network = Network(Tied(), name="tied", shape=(1, 2, 2), outputs=3, layers=("body.first",), heads=("body.head",))
    images, tensors = torch.rand(5, 1, 2, 2), network.state_dict(keep_vars=True)
    before, snapshot = network(images).logits, Snapshot(tensors)
    assert torch.equal(snapshot.outputs(network, tensors, (images,), 2).logits, before)
    with torch.no_grad():
        network.body.first.weight.add_(1)  # type: ignore[operator, union-attr]
    assert torch.equal(snapshot.outputs(network, tensors, (images,), 2).logits, before)
    assert torch.equal(snapshot.outputs(network, tensors, (images,), 2).logits, network(images).logits)  # replaced
    assert not torch.equal(network(images).logits, before)
