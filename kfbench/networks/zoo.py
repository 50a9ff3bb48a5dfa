"""Networks of other libraries: `torchvision:NAME` and `timm:NAME`, with random weights, or `:pretrained` ones.

Source: torchvision.models and timm, as installed; weights and input statistics are the libraries' defaults.
Differs: auxiliary classifiers of GoogLeNet and Inception are left out, since `Output` has one set of logits; grey
    images are repeated over three channels for torchvision (timm adapts the first layer), with the mean of the
    statistics. Networks that pass tokens on, not maps, offer few layers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kfbench.errors import KfbenchError, near
from kfbench.networks.family import Family
from kfbench.networks.network import Network
from kfbench.networks.parts import Parts

FAMILY = Family(
    about="networks of other libraries",
    pattern=r"(?P<library>torchvision|timm):(?P<model>[^:]+)(?P<pretrained>:pretrained)?",
    form="torchvision:NAME[:pretrained] | timm:NAME[:pretrained]",
    examples=("torchvision:resnet18", "timm:resnet18"),
)

MOST_LAYERS = 6  # the deepest are kept; more would only repeat stems
WITH_AUXILIARY = ("googlenet", "inception_v3")
Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # mean and deviation, a channel each, in units of 0..1


class Foreign(nn.Module):
    """Another library's network; `repeats` says how often a grey channel is repeated for it."""

    def __init__(self, net: nn.Module, repeats: int) -> None:
        super().__init__()
        self.net, self.repeats = net, repeats

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, C, H, W] to logits [B, K]."""
        logits: Tensor = self.net(x.expand(-1, self.repeats, -1, -1) if self.repeats > 1 else x)
        return logits


class Call(NamedTuple):
    """A module's one call in a forward pass; `version` tells whether its output was changed in place afterwards."""

    name: str
    module: nn.Module
    output: Tensor
    version: int


def make(name: str, parts: Parts, *, shape: tuple[int, int, int], outputs: int) -> Network:
    """Make `torchvision:NAME` or `timm:NAME`, plain or `:pretrained`.

    `layers` are found by a forward pass: at each resolution the last module that is called once and that all of the
    signal goes through, down to the last vector before the head. Not all of them are activations.
    Raises KfbenchError for a missing library, an unknown name, weights that cannot be had, or images it cannot take.
    """
    library, model = parts["library"] or "", parts["model"] or ""
    try:
        import_module(library)
    except ImportError as error:
        raise KfbenchError(
            f"network '{name}' needs the library {library}; install it: pip install {library}"
        ) from error
    build = _of_torchvision if library == "torchvision" else _of_timm
    net, statistics, known_heads = build(name, model, shape, outputs, parts["pretrained"] is not None)
    body = Foreign(net, repeats=3 if library == "torchvision" and shape[0] == 1 else 1)
    try:
        calls = _calls(body, shape)
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        raise KfbenchError(f"network '{name}' cannot take images of shape {shape}: {_line(error)}") from error
    heads = known_heads or (_head(name, calls, outputs),)
    layers = _layers(calls, heads, shape)
    for layer in layers:
        if getattr(body.get_submodule(layer), "inplace", False):
            body.get_submodule(layer).inplace = False  # type: ignore[assignment]  # what it takes in is read, too
    network = Network(
        body,
        name=name,
        shape=shape,
        outputs=outputs,
        layers=tuple(f"body.{layer}" for layer in layers),
        heads=tuple(f"body.{head}" for head in heads),
    )
    if statistics:
        mean, deviation = (torch.tensor(values) for values in statistics)
        if len(mean) != shape[0]:  # grey images, or stacked frames, in a network of colour images
            mean, deviation = (values.mean().expand(shape[0]) for values in (mean, deviation))
        network.normalise_by(mean, deviation)
    return network


def _of_torchvision(
    name: str, model: str, shape: tuple[int, int, int], outputs: int, pretrained: bool
) -> tuple[nn.Module, Statistics | None, tuple[str, ...]]:
    from torchvision import models

    known = models.list_models(module=models)
    if model not in known:
        raise KfbenchError(f"no network '{name}'; {near(name, [f'torchvision:{other}' for other in known])}")
    if shape[0] not in (1, 3):
        raise KfbenchError(f"network '{name}' takes images of 1 or 3 channels, not {shape[0]}; use timm:{model}")
    settings: dict[str, Any] = {"aux_logits": False, "init_weights": not pretrained} if model in WITH_AUXILIARY else {}
    if not pretrained:
        return models.get_model(model, weights=None, num_classes=outputs, **settings), None, ()
    weights = models.get_model_weights(model).DEFAULT
    net = _loaded(name, partial(models.get_model, model, weights=weights, **settings))
    transforms = weights.transforms()
    if outputs != len(weights.meta["categories"]):
        size = (3, transforms.crop_size[0], transforms.crop_size[0])
        head = _head(name, _calls(Foreign(net, 1), size), len(weights.meta["categories"])).removeprefix("net.")
        _replace_head(net, head, outputs)
    if (
        model in WITH_AUXILIARY
    ):  # their weights want -1..1, which they make of normalised images: give it to them at once
        net.transform_input = False  # type: ignore[assignment]
        return net, ((0.5,) * 3, (0.5,) * 3), ()
    return net, (tuple(transforms.mean), tuple(transforms.std)), ()


def _of_timm(
    name: str, model: str, shape: tuple[int, int, int], outputs: int, pretrained: bool
) -> tuple[nn.Module, Statistics | None, tuple[str, ...]]:
    timm = import_module("timm")
    if not timm.is_model(model):
        raise KfbenchError(f"no network '{name}'; {near(name, [f'timm:{other}' for other in timm.list_models()])}")
    settings: dict[str, Any] = {"num_classes": outputs, "in_chans": shape[0]}
    default = timm.get_pretrained_cfg(model)
    if default is not None and default.fixed_input_size:
        settings["img_size"] = shape[1:]
    net = _loaded(name, partial(timm.create_model, model, pretrained=pretrained, **settings))
    about: Any = net.pretrained_cfg
    statistics = (tuple(about["mean"]), tuple(about["std"])) if pretrained else None
    heads = about.get("classifier") or ()
    return net, statistics, tuple(f"net.{head}" for head in ((heads,) if isinstance(heads, str) else heads))


def _loaded(name: str, load: Any) -> nn.Module:
    """Return the network that `load` makes; tell in one line why it could not."""
    try:
        net: nn.Module = load()
    except (OSError, RuntimeError, ValueError, TypeError, AssertionError) as error:
        remedy = "; leave ':pretrained' out for random weights" if name.endswith(":pretrained") else ""
        raise KfbenchError(f"the library could not make network '{name}' ({_line(error)}){remedy}") from error
    return net


def _line(error: Exception) -> str:
    """Return the first line of an error's text, or its kind if it has none."""
    return str(error).strip().split("\n")[0] or type(error).__name__


@contextmanager
def _noting(body: nn.Module) -> Iterator[list[tuple[str, nn.Module, Any]]]:
    """Fill a list of (name, module, output) in the order in which calls end; the hooks are gone after the block."""
    ended: list[tuple[str, nn.Module, Any]] = []

    def note(name: str, module: nn.Module, _taken: Any, output: Any) -> None:
        ended.append((name, module, (output, output._version) if isinstance(output, Tensor) else None))

    handles = [module.register_forward_hook(partial(note, name)) for name, module in body.named_modules() if name]
    try:
        yield ended
    finally:
        for handle in handles:
            handle.remove()


def _calls(body: nn.Module, shape: tuple[int, int, int]) -> list[Call]:
    """Return the calls of modules that put out a tensor and are called once, in the order in which they end."""
    device = next(body.parameters()).device
    body.eval()
    with torch.no_grad(), _noting(body) as ended:
        body(torch.zeros(1, *shape, device=device))
    body.train()
    names = [name for name, _, _ in ended]
    return [Call(name, module, *put) for name, module, put in ended if put is not None and names.count(name) == 1]


def _head(name: str, calls: list[Call], outputs: int) -> str:
    """Return the name of the last linear layer or convolution that puts out `outputs` numbers or maps."""
    for call in reversed(calls):
        if outputs == getattr(call.module, "out_features", getattr(call.module, "out_channels", None)):
            return call.name
    raise KfbenchError(f"network '{name}' has no linear head that kfbench can find; export it and give file:PATH")


def _replace_head(net: nn.Module, head: str, outputs: int) -> None:
    """Put a fresh head with `outputs` numbers or maps in the place of `head`."""
    above, _, last = head.rpartition(".")
    old = net.get_submodule(head)
    if isinstance(old, nn.Conv2d):
        new: nn.Module = nn.Conv2d(old.in_channels, outputs, old.kernel_size, old.stride)  # type: ignore[arg-type]
    else:
        assert isinstance(old, nn.Linear)
        new = nn.Linear(old.in_features, outputs)
    setattr(net.get_submodule(above), last, new)


def _layers(calls: list[Call], heads: tuple[str, ...], shape: tuple[int, int, int]) -> list[str]:
    """Choose the last module at each resolution that is not inside a branch, shallow to deep, down to a vector."""
    above = {name for head in heads for name in _above(head)}
    ended = {call.name: call for call in calls}
    first_head = min(index for index, call in enumerate(calls) if call.name in heads)
    chosen: list[int] = []
    least = -1  # resolution of what was chosen last, going up from the head
    for index in range(first_head - 1, -1, -1):
        call = calls[index]
        resolution = _resolution(call.output, shape)
        if resolution is None or resolution <= least or call.name in above or isinstance(call.module, nn.Dropout):
            continue
        around = [ended[name] for name in _above(call.name) if name in ended and name not in above]
        if all(isinstance(one.module, nn.Sequential) or _resolution(one.output, shape) == resolution for one in around):
            chosen.append(_innermost(calls, index))
            least = resolution
    return [calls[index].name for index in reversed(chosen[:MOST_LAYERS])]


def _above(name: str) -> list[str]:
    """Return the names of the modules that contain the named one: "a", "a.b" for "a.b.c"."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def _resolution(output: Tensor, shape: tuple[int, int, int]) -> int | None:
    """Return the height of maps [1, C, h, w], 0 for a vector (also as 1x1 maps), None for tokens and channels last."""
    if output.ndim == 2 or output.shape[2:] == (1, 1):
        return 0
    if output.ndim != 4:
        return None
    height, width = output.shape[2:]
    like_the_image = abs(height * shape[2] - width * shape[1]) <= max(shape[1:])  # within a pixel of rounding
    return height if like_the_image else None


def _innermost(calls: list[Call], index: int) -> int:
    """Follow a container that only hands on what its last module put out, so that an activation is found as such."""
    while index > 0:
        outer, inner = calls[index], calls[index - 1]
        hands_on = inner.output is outer.output and inner.version == outer.version
        if not (hands_on and inner.name.startswith(f"{outer.name}.")):
            break
        index -= 1
    return index
