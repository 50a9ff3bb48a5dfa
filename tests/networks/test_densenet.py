"""DenseNets that join their maps anew in the backward pass: where, and to the same numbers."""

from unittest.mock import Mock

import pytest
import torch
from made_networks import CIFAR, make, outline

from kfbench import registry
from kfbench.networks import densenet


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
