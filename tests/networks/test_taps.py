"""Layers are read and rewritten without a trace, and linked by depth."""

import pytest
import torch

from kfbench import networks
from kfbench.errors import KfbenchError
from kfbench.networks import taps
from kfbench.networks.network import Network


@pytest.fixture
def network() -> Network:
    return networks.make("cnn-4", shape=(3, 16, 16), outputs=5).eval()


def hooks(network: Network) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules())


def test_what_is_read_is_what_the_layer_puts_out(network: Network) -> None:
    images = torch.rand(2, 3, 16, 16)
    layer = network.layers[0]
    with torch.no_grad(), taps.read(network, [layer]) as post:
        network(images)
    with torch.no_grad(), taps.read(network, [layer], "pre") as pre:
        network(images)
    assert torch.equal(pre[layer].relu(), post[layer])
    assert hooks(network) == 0


def test_reading_stops_after_the_last_layer_asked_for(network: Network) -> None:
    network.get_submodule(network.heads[0]).register_forward_pre_hook(lambda *_: pytest.fail("went too deep"))
    with torch.no_grad(), taps.read(network, network.layers[:2], stop=True) as found:
        network(torch.rand(2, 3, 16, 16))
    assert set(found) == set(network.layers[:2])


def test_hooks_are_gone_after_an_error(network: Network) -> None:
    with pytest.raises(RuntimeError), taps.read(network, network.layers):
        network(torch.rand(2, 4, 16, 16))
    assert hooks(network) == 0


def test_rewriting_changes_what_follows_and_can_be_undone(network: Network) -> None:
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        before = network(images).logits
        handles = taps.rewrite(network, {network.layers[-1]: torch.zeros_like})
        changed = network(images).logits
        for handle in handles:
            handle.remove()
        assert torch.equal(network(images).logits, before)
    assert torch.equal(changed[0], changed[1])  # nothing of the images is left


def test_shapes_are_in_order_of_depth_and_leave_the_mode_alone(network: Network) -> None:
    network.train()
    shapes = taps.shapes(network, list(reversed(network.layers)))
    assert list(shapes) == list(network.layers)
    assert [shape[0] for shape in shapes.values()] == [4, 8, 16, 32]
    assert network.training


def test_an_unknown_layer_is_told_with_the_nearest(network: Network) -> None:
    with pytest.raises(KfbenchError, match=r"no layer 'body.blocks.0.rely' .* did you mean 'body.blocks.0.relu'"):
        taps.layer(network, "body.blocks.0.rely", "post")


@pytest.mark.parametrize(
    ("students", "teachers", "expected"),
    [
        (3, 3, [(0,), (1,), (2,)]),
        (2, 4, [(1,), (3,)]),
        (4, 2, [(0,), (0,), (1,), (1,)]),
        (3, 1, [(0,), (0,), (0,)]),
    ],
)
def test_layers_are_linked_by_relative_depth(students: int, teachers: int, expected: list[tuple[int, ...]]) -> None:
    own, theirs = [f"s{i}" for i in range(students)], [f"t{j}" for j in range(teachers)]
    links = taps.match(own, theirs)
    assert [tuple(int(name[1:]) for name in links[layer]) for layer in own] == expected


def test_several_links_a_layer_are_the_nearest() -> None:
    assert taps.match(["s0", "s1"], ["t0", "t1", "t2", "t3"], most=2) == {"s0": ("t1", "t2"), "s1": ("t2", "t3")}
