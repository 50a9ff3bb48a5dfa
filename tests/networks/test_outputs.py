"""Outputs in another order: the same numbers, in other places."""

import pytest
import torch
from torch import nn

from kfbench import networks
from kfbench.networks import outputs

ORDER = [2, 0, 3, 1]


@pytest.mark.parametrize("name", ["cnn-4", "mlp-16", "resnet8", "vit-3-32"])
def test_outputs_are_the_same_in_another_order(name: str) -> None:
    network = networks.make(name, shape=(3, 32, 32), outputs=4).eval()
    images = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        before = network(images).logits
        assert outputs.reorder(network, ORDER)
        torch.testing.assert_close(network(images).logits, before[:, ORDER], rtol=1e-5, atol=1e-6)


def test_a_network_whose_heads_do_not_decide_alone_stays_as_it_was() -> None:
    network = networks.make("cnn-4", shape=(1, 8, 8), outputs=4)
    head = network.get_submodule("body.head")
    for more in (nn.Linear(4, 4), nn.BatchNorm1d(4)):
        network.body.head = nn.Sequential(head, more)  # type: ignore[assignment]
        before = {name: value.clone() for name, value in network.state_dict().items()}
        assert not outputs.reorder(network, ORDER) and network.training
        assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
