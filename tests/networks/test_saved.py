"""Files of weights from elsewhere: what wraps them comes off, and names, order and shape tell what belongs where."""

import re
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_weights import ABOUT, SHAPE, bare, before, network, refusal, theirs
from safetensors.torch import save_file

from kfbench.errors import KfbenchError
from kfbench.networks import fitting, header, saved, weights

WRAPPED: dict[str, Any] = {
    "plain": lambda made: bare(made),
    "ours whole": lambda made: made.state_dict(),
    "ddp": lambda made: before("module.", made.state_dict()),
    "compiled": lambda made: before("_orig_mod.", bare(made)),
    "compiled in ddp": lambda made: before("module._orig_mod.", bare(made)),
    "ddp in compiled": lambda made: before("_orig_mod.module.", bare(made)),
    "compiled inside": lambda made: before("_orig_mod.", made.body.state_dict(prefix="body._orig_mod.")),
    "lightning": lambda made: {"state_dict": before("model.", bare(made)), "epoch": 3, "loops": {"fit": {"a": 1}}},
    "timm": lambda made: {"arch": "x", "args": Namespace(lr=0.1), "metric": 0.7, "state_dict_ema": bare(made)},
    "float counters": lambda made: {n: v.float() for n, v in bare(made).items()},
    "averaged": lambda made: {"n_averaged": torch.tensor(3), **before("module.", bare(made))},
    "repdistiller": lambda made: {
        "opt": Namespace(model="resnet8"),
        "epoch": 240,
        "model": theirs(made),
        "best_acc": np.float64(71.5),
        "optimizer": torch.optim.SGD(made.parameters(), lr=0.1, momentum=0.9).state_dict(),
    },
    "no counters": lambda made: {name: v for name, v in theirs(made).items() if not name.endswith("tracked")},
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("kind", WRAPPED)
def test_what_wraps_weights_comes_off(kind: str, legacy: bool, tmp_path: Path) -> None:
    there = network()
    path = tmp_path / "model_best.pth.tar"  # the name does not matter
    torch.save(WRAPPED[kind](there), path, _use_new_zipfile_serialization=not legacy)
    made, _, digest = weights.load(path, ABOUT)
    images = torch.rand(4, *SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(made.eval()(images), there(images), rtol=0, atol=0)
    counted = {n: v for n, v in there.state_dict().items() if not n.endswith("tracked")}
    assert all(torch.equal(made.state_dict()[name], value) for name, value in counted.items())
    assert digest == weights.digest(there.state_dict())


def test_a_misspelt_key_beside_weights_is_told() -> None:
    """With `clases` passed over, the outputs of a teacher would be taken in the task's order."""
    with pytest.raises(KfbenchError, match='it has a "clases", which nothing reads; did you mean "classes"'):
        header.checked({"network": "cnn-4", "clases": ["a", "b"]}, "it")
    theirs = {"network": "cnn-4", "classes": ["a"], "scores": {}, "spec": {}, "key": "0", "digest": "x", "mean": [0.5]}
    assert header.checked(theirs | {"license": "mit", "epoch": 3}, "it")["epoch"] == 3


def test_half_precision_is_widened(tmp_path: Path) -> None:
    torch.save({name: value.half() for name, value in bare(network()).items()}, tmp_path / "half.pt")
    made, _, _ = weights.load(tmp_path / "half.pt", ABOUT)
    assert {value.dtype for value in made.parameters()} == {torch.float32}


def test_a_safetensors_file_of_a_body_goes_by_names(tmp_path: Path) -> None:
    there = network()
    save_file(before("module.", bare(there)), tmp_path / "a.safetensors")
    made, _, _ = weights.load(tmp_path / "a.safetensors", ABOUT)
    assert all(torch.equal(made.state_dict()[name], value) for name, value in there.state_dict().items())
    save_file(theirs(there), tmp_path / "b.safetensors")
    with pytest.raises(KfbenchError, match="a safetensors file does not keep the order of layers; give the file that"):
        weights.load(tmp_path / "b.safetensors", ABOUT)


def test_one_of_several_sets_of_weights_is_chosen_by_name(tmp_path: Path) -> None:
    path, one, other = tmp_path / "both.pth", network(seed=1), network(seed=2)
    torch.save({"state_dict": bare(one), "state_dict_ema": before("module.", bare(other))}, path)
    with pytest.raises(
        KfbenchError, match="several sets of weights: 'state_dict', 'state_dict_ema'; say which: --part"
    ):
        saved.read(path)
    head = "head.weight"
    assert torch.equal(saved.read(path, "state_dict_ema").tensors[head], bare(other)[head])
    with pytest.raises(KfbenchError, match="no part 'state_dict_em' in .*; did you mean 'state_dict_ema'"):
        saved.read(path, "state_dict_em")
    student, teacher = before("module.student.", bare(one)), before("module.teacher.", bare(other))
    torch.save({"model": {**student, **teacher}, "best_acc": -1}, path)
    with pytest.raises(KfbenchError, match="a student and a teacher; say which: --part student or --part teacher"):
        saved.read(path)
    assert torch.equal(saved.read(path, "teacher").tensors[head], bare(other)[head])
    with pytest.raises(KfbenchError, match="no part 'techer' in .*; did you mean 'teacher'"):
        saved.read(path, "techer")


SCHEMES: dict[str, list[tuple[str, Any]]] = {  # patterns and what they become, as RepDistiller and mdistiller name them
    "wrn-16-2": [
        (r"^stages\.(\d)", lambda found: f"block{int(found[1]) + 1}.layer"),
        (r"shortcut", "convShortcut"),
        (r"norm", "bn"),
        (r"^head", "fc"),
        (r"^(conv|bn)\.", r"\g<1>1."),
    ],
    "vgg13": [
        (r"^stages\.(\d)\.conv(\d)", lambda found: f"block{found[1]}.{3 * int(found[2]) - 3}"),
        (r"^stages\.(\d)\.norm(\d)", lambda found: f"block{found[1]}.{3 * int(found[2]) - 2}"),
        (r"^head", "classifier"),
    ],
    "resnet50": [
        (r"^stages\.(\d)", lambda found: f"layer{int(found[1]) + 1}"),
        (r"norm", "bn"),
        (r"^head", "linear"),
        (r"^(conv|bn)\.", r"\g<1>1."),
    ],
    "mobilenetv2": [
        (r"^stages\.(\d\.\d)\.conv(\d)", lambda found: f"blocks.{found[1]}.conv.{3 * int(found[2]) - 3}"),
        (r"^stages\.(\d\.\d)\.norm(\d)", lambda found: f"blocks.{found[1]}.conv.{3 * int(found[2]) - 2}"),
        (r"^last_conv", "conv2.0"),
        (r"^last_norm", "conv2.1"),
        (r"^conv\.", "conv1.0."),
        (r"^norm\.", "conv1.1."),
        (r"^head", "classifier.0"),
    ],
    "shufflenetv1": [
        (r"^stages\.(\d)", lambda found: f"layer{int(found[1]) + 1}"),
        (r"norm", "bn"),
        (r"^head", "linear"),
        (r"^(conv|bn)\.", r"\g<1>1."),
    ],
    "shufflenetv2": [
        (r"^stages\.(\d)", lambda found: f"layer{int(found[1]) + 1}"),
        (r"left\.0\.", "conv1."),
        (r"left\.1\.", "bn1."),
        (r"left\.2\.0", "conv2"),
        (r"left\.2\.1", "bn2"),
        (r"right\.0\.0", "conv3"),
        (r"right\.0\.1", "bn3"),
        (r"right\.1\.", "conv4."),
        (r"right\.2\.", "bn4."),
        (r"right\.3\.0", "conv5"),
        (r"right\.3\.1", "bn5"),
        (r"branch\.0\.0", "conv1"),
        (r"branch\.0\.1", "bn1"),
        (r"branch\.1\.", "conv2."),
        (r"branch\.2\.", "bn2."),
        (r"branch\.3\.0", "conv3"),
        (r"branch\.3\.1", "bn3"),
        (r"^last_conv", "conv2"),
        (r"^last_norm", "bn2"),
        (r"^(conv|norm)\.", lambda found: {"conv": "conv1.", "norm": "bn1."}[found[1]]),
        (r"^head", "linear"),
    ],
}


@pytest.mark.parametrize("name", SCHEMES)
def test_the_distillers_other_networks_are_told_by_order_and_shape(name: str) -> None:
    there = network(name)
    tensors = {}
    for key, value in bare(there).items():
        for pattern, becomes in SCHEMES[name]:
            key = re.sub(pattern, becomes, key)
        tensors[key] = value
    assert len(tensors) == len(bare(there)) and not set(tensors) & set(bare(there))
    made = network(name, seed=1)
    made.load_state_dict(fitting.fit(made, tensors, is_ordered=True, where="'x'"))
    images = torch.rand(2, *SHAPE)
    with torch.no_grad():
        assert torch.equal(made(images).logits, there(images).logits)


def test_the_part_that_fits_is_named() -> None:
    ours, beside = before("model.", bare(network())), {"criterion.weight": torch.ones(2)}
    foreign = before("model.", theirs(network()))
    for tensors in ({**ours, **beside}, {**beside, **ours}, {**foreign, **beside}):
        told = (
            "'x.pth' holds more than the weights of 'resnet8'; kfbench teacher import takes a part of it: --part model"
        )
        assert refusal(tensors) == told
    both = {**ours, **before("ema.", bare(network()))}
    assert refusal(both).endswith("; kfbench teacher import takes a part of it: --part model or --part ema")
    assert "--part" not in refusal({**before("model.", theirs(network("resnet14"))), **beside})
    assert "--part" not in refusal({**foreign, **beside}, is_ordered=False)


def test_names_of_wrappers_are_taken_off_as_parts_of_names_only() -> None:
    weight = torch.zeros(2)

    def plain(*names: str) -> list[str]:
        return list(saved._unwrapped(dict.fromkeys(names, weight)))

    assert plain("module._orig_mod.a.w", "module._orig_mod.b") == ["a.w", "b"]
    assert plain("module.module.a", "_orig_mod.module.module.w") == ["a", "w"]
    assert plain("x_orig_mod.weight", "module.w") == ["x_orig_mod.weight", "module.w"]
    assert plain("n_averaged") == []
