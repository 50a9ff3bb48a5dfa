"""Networks on disk: safetensors that describe themselves. Nothing is ever unpickled."""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kfbench import networks
from kfbench.errors import KfbenchError
from kfbench.networks.network import Network


def save(network: Network, path: Path, about: dict[str, Any], *, half: bool = False) -> str:
    """Write a network with its description, atomically; return the digest of its weights.

    With `half` the matrices (not biases, not BatchNorm) are float16. `about` holds plain values: task, classes, …
    """
    tensors = {name: _plain(value, half=half) for name, value in network.state_dict().items()}
    kept = {"network": network.name, "shape": list(network.shape), "outputs": network.outputs, **about}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
    except OSError as error:
        raise KfbenchError(f"cannot write '{path}' ({error.strerror}); make room, or write elsewhere") from error
    os.close(handle)
    try:
        save_file(tensors, name, metadata={"kfbench": json.dumps(kept, sort_keys=True)})
        os.chmod(name, 0o644)
        os.replace(name, path)
    except (OSError, SafetensorError) as error:
        raise KfbenchError(f"cannot write '{path}' ({error}); make room, or write elsewhere") from error
    finally:
        Path(name).unlink(missing_ok=True)
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


def load(path: Path) -> tuple[Network, dict[str, Any], str]:
    """Return a network, its description and the digest of its weights, in float32.

    The description is in the file, or beside it in `<path>.json` with at least `network`, `shape` and `outputs`.
    Raises KfbenchError if the file is missing, damaged, of another format or of another network.
    """
    if not path.is_file():
        raise KfbenchError(f"no weights '{path}'; give a .safetensors file, as kfbench export writes")
    try:
        with safe_open(path, framework="pt") as file:
            noted = (file.metadata() or {}).get("kfbench")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise KfbenchError(
            f"'{path}' is not a whole safetensors file ({error}); pickles are refused: save the weights as safetensors"
        ) from error
    beside = path.with_name(path.name + ".json")
    if noted is None and beside.is_file():
        noted = beside.read_text()
    try:
        about = json.loads(noted or "{}")
        name, shape, outputs = about["network"], tuple(about["shape"]), about["outputs"]
    except (ValueError, KeyError, TypeError) as error:
        raise KfbenchError(
            f"'{path}' does not say what it is: write '{beside.name}' beside it, with "
            '{"network": NAME, "shape": [C, H, W], "outputs": K}'
        ) from error
    with torch.random.fork_rng(devices=[]):
        network = networks.make(name.removesuffix(":pretrained"), shape=shape, outputs=outputs)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise KfbenchError(f"the weights in '{path}' are not those of '{name}': {_first(error)}") from error
    return network, about, digest(tensors)


def _first(error: RuntimeError) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[1] if len(lines) > 1 else lines[0]
