"""Low-rank adapters, against the authors' numbers: where they go, and what is left of them in the kept network."""

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from tuning import THEIRS, module, parts_of, setup, trained, wave

from kfbench.errors import KfbenchError
from kfbench.networks.network import Network
from kfbench.running import resolve, stand_in
from kfbench.train.supervised import Supervised
from kfbench.transfer.transplant import is_head


def test_a_low_rank_adapter_is_the_authors() -> None:
    adapter = module("lora").Adapter
    linear, convolution = nn.Linear(4, 3), nn.Conv2d(3, 2, 3, padding=1)
    for layer, images, key, places in (
        (linear, wave(5, 4, pace=0.3), "lora", ([0, 7, 14], [0, 3, 7], [0, 3, 5])),
        (convolution, wave(2, 3, 4, 4, pace=0.3), "lora 3x3", ([0, 17, 63], [0, 20, 53], [0, 20, 35])),
    ):
        weight = wave(*layer.weight.shape)
        added = adapter(weight, 2, 3 / 2)
        with torch.no_grad():
            added.narrow.copy_(wave(*added.narrow.shape, pace=0.7))
            added.widen.copy_(wave(*added.widen.shape, pace=1.9))
            layer.bias.copy_(wave(*layer.bias.shape))
        made = torch.func.functional_call(layer, {"weight": weight + added()}, images)
        (made * wave(*made.shape)).sum().backward()
        theirs = THEIRS[key]
        assert added.narrow.grad is not None and added.widen.grad is not None
        for found, place, wanted in zip((made, added.narrow.grad, added.widen.grad), places, theirs, strict=True):
            assert found.flatten()[place].tolist() == pytest.approx(wanted, rel=1e-4)
    with torch.no_grad():
        added = adapter(wave(3, 4), 2, 3 / 2)
        added.narrow.copy_(wave(2, 4, pace=0.7))
        added.widen.copy_(wave(3, 2, pace=1.9))
        assert (wave(3, 4) + added()).flatten()[[0, 5, 11]].tolist() == pytest.approx(THEIRS["lora merged"], rel=1e-4)


def test_adapters_begin_as_nothing_and_are_merged_into_the_kept_network() -> None:
    live = setup("lora")
    student, start = cast(Any, live.student), live.teachers[0].network.state_dict()
    images = trained(live, 0).batch().images
    with torch.no_grad():
        assert torch.allclose(student(images).logits, student.network(images).logits, atol=1e-6)
    trained(live)
    body = [name for name, _ in student.network.named_parameters() if not is_head(student.network, name)]
    assert body and all(torch.equal(student.network.state_dict()[name], start[name]) for name in body)
    kept = live.method.export(student.eval())
    with torch.no_grad():
        assert torch.allclose(kept(images).logits, student(images).logits, atol=1e-5)
        assert not torch.allclose(kept(images).logits, student.network(images).logits, atol=1e-3)
    assert sum(w.numel() for w in kept.parameters()) == sum(w.numel() for w in student.network.parameters())


def test_a_weight_that_layers_share_has_one_adapter_and_a_layer_under_two_names_is_put_back() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flat = nn.Flatten()
            self.first, self.other, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
            self.again, self.other.weight = self.first, self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            made: Tensor = self.head(self.other(self.again(self.first(self.flat(x)))))
            return made

    network = Network(Shared(), name="shared", shape=(1, 2, 2), outputs=3, layers=("body.first",), heads=("body.head",))
    lora, images = module("lora"), torch.rand(5, 1, 2, 2)
    adapted = lora.Adapted(network, lora.adaptable(network), rank=2, scale=1.0)
    assert list(adapted.adapters) == ["body/first"]
    nn.init.normal_(adapted.adapters["body/first"].widen)
    plain, live = network(images).logits, list(network.parameters())
    adapted(images)
    assert torch.equal(network(images).logits, plain)
    assert [id(weight) for weight in network.parameters()] == [id(weight) for weight in live]
    with torch.no_grad():
        said = adapted(images).logits
        live[0].copy_(adapted.merged()["body.first.weight"])
    assert torch.allclose(network(images).logits, said, atol=1e-6)


def test_adapters_go_where_they_are_asked_to_go() -> None:
    live = setup("lora", only="blocks.1+blocks.3")
    assert set(cast(Any, live.student).adapters) == {"body/blocks/1/conv", "body/blocks/3/conv"}
    with pytest.raises(
        KfbenchError, match="no layer of network 'cnn-4' has 'attn' in its name; there are: body.blocks"
    ):
        setup("lora", only="attn")


def test_a_transformer_of_timm_is_adapted() -> None:
    pytest.importorskip("timm")
    network = "timm:vit_tiny_patch16_224"
    recipe = {"network": network, "batch_size": 4, "epochs": 1, "evaluations": 1}
    spec = resolve.resolve(
        "lora", "cifar10", budget="smoke", teachers=[network], recipe=recipe, settings={"only": "qkv"}
    )
    live = stand_in.setup(spec, rows=8)
    student = cast(Any, live.student)
    assert len(student.adapters) == 12
    batch = Supervised(live).batch()
    live.method.begin(student, live.teachers, live.method.stages[0], [], live.rng)
    torch.stack(list(parts_of(live, batch).values())).sum().backward()  # type: ignore[no-untyped-call]
    assert all(adapter.widen.grad is not None for adapter in student.adapters.values())
    with torch.no_grad():
        for adapter in student.adapters.values():
            adapter.widen.add_(0.02 * wave(*adapter.widen.shape))
        said, kept = student.eval()(batch.images).logits, live.method.export(student)(batch.images).logits
    assert torch.allclose(said, kept, atol=1e-4)
