"""Networks on disk: our files describe themselves, others need a description. Nothing in a file is ever executed."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from kfbench import machine, networks, seeding
from kfbench.errors import KfbenchError, unwritable
from kfbench.networks import fitting, header, saved
from kfbench.networks.fitting import DESCRIPTION
from kfbench.networks.network import Network
from kfbench.networks.saved import Saved


def save(network: Network, path: Path, about: dict[str, Any], *, half: bool = False) -> str:
    """Write a network with its description, atomically; return the digest of its weights.

    With `half` the matrices (not biases, not BatchNorm) are float16. `about` holds plain values: task, classes, …
    """
    tensors = {name: _plain(value, half=half) for name, value in network.state_dict().items()}
    kept = {"network": network.name, "shape": list(network.shape), "outputs": network.outputs, **about}
    try:
        with machine.replacing(path) as half_written:
            save_file(tensors, half_written, metadata={"kfbench": json.dumps(kept, sort_keys=True)})
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise unwritable(error, f"cannot write '{path}' ({why}); make room, or write elsewhere") from error
    return digest(tensors)


def _plain(value: Tensor, *, half: bool) -> Tensor:
    """Return a copy that safetensors takes: on the CPU, in rows, tied to nothing."""
    value = value.detach().cpu()
    small = half and value.is_floating_point() and value.dim() > 1
    return value.to(torch.float16 if small else value.dtype).clone(memory_format=torch.contiguous_format)


def digest(tensors: dict[str, Tensor]) -> str:
    """Return the sha256 of named tensors: names, types, shapes and bytes."""
    whole = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        whole.update(f"{name}:{value.dtype}:{tuple(value.shape)};".encode())
        whole.update(value.view(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return whole.hexdigest()


def load(path: Path, about: Mapping[str, Any] | None = None) -> tuple[Network, dict[str, Any], str]:
    """Return a network, its description and the digest of its weights, in float32.

    The description is in the file, or beside it in `<path>.json`, or given as `about`: at least `network`, `shape` and
    `outputs`. Of weights that others saved it says more: `mean` and `std` of their input, which `part` of the file it
    is. One of ours is believed in what it says of itself, but for the statistics. Raises KfbenchError if the file is
    missing, damaged, of another format or of another network.
    """
    told = {**beside(path), **(about or {})}
    kept = saved.read(path, str(told.get("part") or ""))
    if kept.about is not None:
        statistics: dict[str, Any] = {key: told[key] for key in ("mean", "std") if key in told}
        told = {**kept.about, **statistics, **(about or {})}
    return build(kept, told, path)


def build(kept: Saved, told: Mapping[str, Any], path: Path) -> tuple[Network, dict[str, Any], str]:
    """Return the network that a description names, with the weights of a file. Raises KfbenchError as `load` does."""
    _require_described(told, path)
    name, shape, outputs = told["network"], tuple(told["shape"]), told["outputs"]
    with seeding.global_state_kept():
        network = networks.make(name.removesuffix(":pretrained"), shape=shape, outputs=outputs)
    fitted = fitting.fit(network, kept.tensors, is_ordered=kept.is_ordered, where=f"'{path}'")
    _require_numbers(network.state_dict(), fitted, kept.tensors, path)
    network.load_state_dict(fitted)
    _normalise(network, kept.about or {}, path)
    own = (network.mean.clone(), network.std.clone())
    _normalise(network, told, path)
    if not ({"mean", "std"} <= told.keys() or {"mean", "std"} <= kept.tensors.keys()):
        raise KfbenchError(
            f'\'{path}\' does not say how its images were normalised: write "mean" and "std", a number a channel in '
            f"units of the 0..1 range, into '{path.name}.json' (0 and 1: not at all)"
        )
    _require_statistics(network.mean.flatten(), network.std.flatten(), path)
    is_whole = kept.about is not None and torch.equal(network.mean, own[0]) and torch.equal(network.std, own[1])
    return network, dict(told), digest(kept.tensors if is_whole else network.state_dict())


def _normalise(network: Network, told: Mapping[str, Any], path: Path) -> None:
    """Let a network normalise its input by the statistics of a file's description, if it has any."""
    if "mean" in told and "std" in told:
        count = network.shape[0]
        try:
            network.normalise_by(channels(told["mean"], count), channels(told["std"], count))
        except KfbenchError as error:
            raise KfbenchError(f"what is said of '{path}': {error}") from error


def _require_described(told: Mapping[str, Any], path: Path) -> None:
    """Raise KfbenchError unless a description names a network, the shape of its input and how many outputs it has."""
    lacks = [f'"{key}"' for key in ("network", "shape", "outputs") if key not in told]
    if lacks and {"network", "shape", "outputs"} & told.keys() and "task" not in told:
        raise KfbenchError(
            f"what is said of '{path}' lacks {' and '.join(lacks)}; write into '{path.name}.json' {DESCRIPTION}, or "
            '"network" and "task"'
        )
    if lacks:
        raise KfbenchError(
            f"'{path}' does not say what it is: kfbench teacher import {path} --network NAME --task TASK takes it, or "
            f'write \'{path.name}.json\' beside it, with {{"network": NAME, "task": TASK, "mean": […], "std": […]}}'
        )


def _require_numbers(
    ours: Mapping[str, Tensor], fitted: Mapping[str, Tensor], named: Mapping[str, Tensor], path: Path
) -> None:
    """Raise KfbenchError, with the file's name of it, for a tensor that torch refuses, or takes for what it is not."""
    names = {id(value): name for name, value in named.items()}
    for key, value in fitted.items():
        where = f"'{names.get(id(value), key)}' in '{path}'"
        is_dense = value.layout == torch.strided and not value.is_meta
        if not is_dense or (ours[key].is_floating_point() and not value.is_floating_point()):
            kind = "meta" if value.is_meta else str(value.dtype if is_dense else value.layout).removeprefix("torch.")
            raise KfbenchError(f"{where} is {kind}; save the weights dense and in floats, as before any quantising")
        if not value.float().isfinite().all():
            raise KfbenchError(f"{where} has values that are not finite; give weights from before training diverged")


def _require_statistics(mean: Tensor, std: Tensor, path: Path) -> None:
    """Raise KfbenchError for a mean or std [C] of the input that no images in 0..1 have."""
    for name, values in (("mean", mean), ("std", std)):
        if not values.isfinite().all():
            raise KfbenchError(f"{name} of the images of '{path}' must be numbers, not {_row(values)}")
    if not (std > 0).all():
        raise KfbenchError(f"std of the images of '{path}' must be above 0, not {_row(std)}")
    if not ((mean >= 0) & (mean <= 1)).all():
        raise KfbenchError(
            f"mean of the images of '{path}' must be in 0..1, not {_row(mean)}; divide mean and std by 255 where they "
            "are of images in 0..255"
        )


def _row(values: Tensor) -> str:
    return ",".join(f"{value:g}" for value in values.tolist())


def beside(path: Path) -> dict[str, Any]:
    """Return what `<path>.json` says of a file of weights; empty if there is none.

    Raises KfbenchError if it is not a JSON object, or a value has another type than is read.
    """
    file = path.with_name(path.name + ".json")
    try:
        told = json.loads(file.read_bytes()) if file.is_file() else {}
    except ValueError as error:
        raise KfbenchError(f"'{file}' is not JSON ({error})") from error
    return header.checked(told, f"'{file}'")


def channels(values: float | Sequence[float], count: int) -> Tensor:
    """Return statistics of the input, one a channel [C] or one for all. Raises KfbenchError for another number."""
    try:
        found = torch.as_tensor(values, dtype=torch.float32).flatten()
    except (TypeError, ValueError, RuntimeError) as error:
        raise KfbenchError(
            f"{values!r} are not statistics of images; write a number a channel, as [0.5, 0.5]"
        ) from error
    if len(found) not in (1, count):
        raise KfbenchError(
            f"{len(found)} statistics for images of {count} channels; give one a channel, or one for all"
        )
    return found.expand(count)
