"""Files of weights from elsewhere that are refused: damaged, of other shapes or an order in doubt, or no numbers."""

import io
import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_weights import ABOUT, bare, network, refusal, theirs
from safetensors.torch import save_file
from torch import Tensor, nn

from kfbench.errors import KfbenchError
from kfbench.networks import fitting, saved, weights


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("executed", "w"))


def test_nothing_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("evil.pth")
    for number, content in enumerate(({"model": bare(network()), "hook": Evil()}, Evil(), network())):
        for legacy in (False, True):
            torch.save(content, path, _use_new_zipfile_serialization=not legacy)
            with pytest.raises(KfbenchError, match="such pickles are refused: save model.state_dict") as caught:
                saved.read(path)
            assert "\n" not in str(caught.value) and "weights_only" not in str(caught.value)
            assert ("open" in str(caught.value)) == (number < 2)
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(KfbenchError, match="evil.pth"):
        saved.read(path)
    assert not Path("executed").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02}", b"something else"])
def test_a_damaged_file_is_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    with pytest.raises(
        KfbenchError, match=r"a.pth' (is neither what torch.save writes nor|is not a whole|holds)"
    ) as caught:
        saved.read(path)
    assert "\n" not in str(caught.value)
    torch.save({"model": 3}, path)
    with pytest.raises(KfbenchError, match="a.pth' holds no weights: a state_dict"):
        saved.read(path)


@pytest.mark.parametrize("length", [640, 896, 1152, 1408])
def test_no_length_of_a_header_makes_safetensors_a_pickle(length: int, tmp_path: Path) -> None:
    """These begin with the bytes that a pickle begins with."""
    path = tmp_path / "a.safetensors"
    filler = ""
    while True:
        save_file({"a": torch.ones(2)}, path, metadata={"note": filler})
        if int.from_bytes(path.read_bytes()[:8], "little") >= length:
            break
        filler += "x"
    assert path.read_bytes()[0] == 0x80 and int.from_bytes(path.read_bytes()[:8], "little") == length
    kept = saved.read(path, "")
    assert not kept.is_ordered and kept.tensors["a"].tolist() == [1, 1]


def test_what_differs_is_told_with_its_first_name_and_number() -> None:
    tensors = bare(network())
    del tensors["stages.1.0.conv2.weight"], tensors["norm.bias"]
    tensors |= {"total_ops": torch.zeros(1), "head.weight": torch.zeros(100, 64), "head.bias": torch.zeros(100)}
    assert refusal(tensors) == (
        "the weights in 'x.pth' are not those of 'resnet8': 2 missing (first 'norm.bias'), 1 unexpected (first "
        "'total_ops'), 2 of another shape (first 'head.weight': 100x64 in the file, 10x64 wanted)"
    )
    assert refusal({**bare(network()), "head.weight": torch.zeros(100, 64), "head.bias": torch.zeros(100)}).endswith(
        """10x64 wanted); if its classes are others, write "network", "shape", "outputs", "mean" and "std" into """
        """PATH.json, no "task", for --teachers file:PATH"""
    )
    other = theirs(network("resnet14"))
    assert refusal(other) == (
        "the weights in 'x.pth' are not those of 'resnet8': layer 7 in the file is 'layer1.1.conv1' (weight 16x16x3x3),"
        " where 'body.stages.1.0.conv1' (weight 32x16x3x3) is wanted"
    )
    assert "it has 18 layers, 19 are wanted; the first beyond is 'body.head'" in refusal(
        {name: value for name, value in theirs(network()).items() if not name.startswith("fc.")}
    )


def moved(tensors: dict[str, Tensor], what: str, before: str) -> dict[str, Tensor]:
    """The layers whose names begin with `what`, registered before `before`."""
    shifted = {name: value for name, value in tensors.items() if name.startswith(what)}
    ordered: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if name.startswith(before):
            ordered |= shifted
        if name not in shifted:
            ordered[name] = value
    return ordered


def test_an_order_that_is_in_doubt_is_refused() -> None:
    tensors = theirs(network("resnet14"))
    swapped = moved(tensors, "layer1.1.", "layer1.0.")  # equal shapes
    assert "in another order: 'layer1.0' comes after 'layer1.1' in the file" in refusal(swapped, "resnet14")
    unnamed = {name.replace("downsample", "third"): value for name, value in tensors.items()}
    assert "only one of the two is called a shortcut" in refusal(unnamed, "resnet14")
    assert "is wanted" in refusal(moved(tensors, "layer2.0.downsample", "layer2.0.conv1"), "resnet14")


FAMILIES = (
    *("cnn-8", "resnet14", "resnet8x4", "wrn-16-2", "vgg13", "densenet-13-4", "densenet-bc-16-4"),
    *("resnet18", "resnet50", "mobilenetv2", "shufflenetv1", "shufflenetv2", "vit-4-32"),
)


def test_a_shortcut_of_the_shape_of_the_layer_beside_it_is_told_by_its_name() -> None:
    made = network("resnet50")
    tensors = bare(made)
    branch, last = ({n for n in tensors if n.startswith(f"stages.0.0.{each}")} for each in ("shortcut", "conv3"))
    shapes = [[tuple(tensors[n].shape) for n in names if n.endswith("weight")] for names in (branch, last)]
    assert shapes[1][0] in shapes[0]  # so order and shapes alone cannot tell the two apart
    foreign = {f"x.{name.replace('stages', 'parts')}".replace("norm", "bn"): v for name, v in tensors.items()}
    foreign = {re.sub("^x.(conv|bn|head)", r"x.\1_", name): v for name, v in foreign.items()}
    fitting.fit(made, foreign, is_ordered=True, where="'x'")
    early = moved(foreign, "x.parts.0.0.shortcut", "x.parts.0.0.conv3")
    assert "only one of the two is called a shortcut" in refusal(early, "resnet50")


@pytest.mark.parametrize("name", FAMILIES)
def test_no_two_layers_of_a_family_change_places_unseen(name: str) -> None:
    """Whichever two neighbouring branches or layers a file holds the other way round, it is refused."""
    made = network(name)
    layers = fitting._layers({n: v for n, v in made.state_dict().items() if n.startswith("body.")})
    foreign = [re.sub(r"\bbody\.", "", f"{layer.name}") + "_" for layer in layers]

    def file(order: list[int]) -> dict[str, Tensor]:
        tensors = made.state_dict()
        return {f"{foreign[i]}.{leaf}": tensors[key] for i in order for leaf, key in layers[i].tensors.items()}

    usual = list(range(len(layers)))
    fitted = fitting.fit(made, file(usual), is_ordered=True, where="'x'")
    assert all(torch.equal(fitted[key], value) for key, value in made.state_dict().items())
    for size in (1, 2):  # a layer, or a convolution with its BatchNorm
        for start in range(len(layers) - 2 * size + 1):
            order = [*usual]
            order[start : start + 2 * size] = [*usual[start + size : start + 2 * size], *usual[start : start + size]]
            with pytest.raises(KfbenchError):
                fitting.fit(made, file(order), is_ordered=True, where="'x'")


def test_a_flipped_byte_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save(bare(network()), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF  # among the numbers: torch.load takes it
    torch.load(io.BytesIO(content), weights_only=True)
    path.write_bytes(content)
    with pytest.raises(KfbenchError, match="is not a whole file of torch.save .*differs from its checksum.; copy it"):
        saved.read(path)
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(bare(network()), path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert saved.read(path).tensors.keys() == bare(network()).keys()


SPOILT: dict[str, tuple[Any, str]] = {
    "nan": (lambda value: value * torch.nan, "has values that are not finite"),
    "beyond float32": (lambda value: value.double() * 1e300 + 1e300, "has values that are not finite"),
    "int8": (lambda value: (10 * value).to(torch.int8), "is int8; save the weights dense and in floats"),
    "complex": (lambda value: value.to(torch.complex64), "is complex64; save the weights dense and in floats"),
    "sparse": (lambda value: value.to_sparse(), "is sparse_coo; save the weights dense"),
    "meta": (lambda value: value.to("meta"), "is meta; save the weights dense"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_weights_that_are_no_numbers_are_refused(kind: str, tmp_path: Path) -> None:
    spoil, said = SPOILT[kind]
    tensors = theirs(network())
    torch.save({**tensors, "layer2.0.conv1.weight": spoil(tensors["layer2.0.conv1.weight"])}, tmp_path / "a.pth")
    with pytest.raises(KfbenchError, match=f"'layer2.0.conv1.weight' in .*a.pth' {said}") as caught:
        weights.load(tmp_path / "a.pth", ABOUT)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:.*quantiz")
def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    tensors = theirs(network())
    tensors["conv1.weight"] = torch.quantize_per_tensor(tensors["conv1.weight"], 0.1, 0, torch.qint8)
    torch.save(tensors, tmp_path / "a.pth")
    with pytest.raises(KfbenchError, match="'conv1.weight' in .* is qint8; save the weights dense and in floats"):
        weights.load(tmp_path / "a.pth", ABOUT)


@pytest.mark.parametrize(
    ("mean", "std", "said"),
    [
        ([torch.nan, 0.5, 0.5], 1.0, "mean of the images of .* must be numbers, not nan,0.5,0.5"),
        (0.5, torch.inf, "std of the images of .* must be numbers"),
        (0.5, [0.5, -0.5, 0.5], "std of the images of .* must be above 0, not 0.5,-0.5,0.5"),
        (123.675, 58.4, "mean of the images of .* must be in 0..1, not 123.675,.*; divide mean and std by 255"),
    ],
)
def test_statistics_that_no_images_have_are_refused(mean: Any, std: Any, said: str, tmp_path: Path) -> None:
    torch.save(bare(network()), tmp_path / "a.pth")
    with pytest.raises(KfbenchError, match=said):
        weights.load(tmp_path / "a.pth", {**ABOUT, "mean": mean, "std": std})
    made = network()
    made.normalise_by(weights.channels(mean, 3), weights.channels(std, 3))
    torch.save(made.state_dict(), tmp_path / "b.pth")  # stated by the file itself
    with pytest.raises(KfbenchError, match=f"{said}|'(mean|std)' in .* has values that are not finite"):
        weights.load(tmp_path / "b.pth", {key: value for key, value in ABOUT.items() if key not in ("mean", "std")})


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("network", 5, "a name in quotes"),
        ("network", None, "a name in quotes"),
        ("task", ["digits"], "a name in quotes"),
        ("part", 5, "a name in quotes"),
        ("outputs", "2", "a whole number above 0"),
        ("outputs", True, "a whole number above 0"),
        ("shape", [3, 16], "[channels, height, width]"),
        ("shape", "3x16x16", "[channels, height, width]"),
        ("classes", 2, 'names, as ["cat", "dog"]'),
        ("classes", [1, 2], 'names, as ["cat", "dog"]'),
    ],
)
def test_a_value_of_a_wrong_type_is_one_line(key: str, value: Any, wanted: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save(bare(network()), path)
    Path(f"{path}.json").write_text(json.dumps({**ABOUT, key: value}))
    said = f'says "{key}": {json.dumps(value)}; it must be {wanted}'
    with pytest.raises(KfbenchError, match="a.pth.json' " + re.escape(said)):
        weights.load(path)
    ours = tmp_path / "a.safetensors"
    weights.save(network(), ours, {key: value})
    with pytest.raises(KfbenchError, match="a.safetensors' " + re.escape(said)):
        weights.load(ours)


def test_as_many_classes_are_named_as_there_are_outputs(tmp_path: Path) -> None:
    weights.save(network(), tmp_path / "a.safetensors", {"classes": ["cat", "dog"]})
    with pytest.raises(KfbenchError, match="a.safetensors' names 2 classes for 10 outputs; name one for each"):
        weights.load(tmp_path / "a.safetensors")


def test_a_program_is_told_from_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pt2"
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),)), path)
    with pytest.raises(KfbenchError, match="is a program of torch.export, .* kfbench export KEY NAME.safetensors"):
        saved.read(path)
    np.savez(tmp_path / "a.npz", weight=np.zeros(2))
    with pytest.raises(KfbenchError, match="a.npz' is a zip archive, and not one of torch.save"):
        saved.read(tmp_path / "a.npz")
