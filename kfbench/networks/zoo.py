"""Networks of other libraries: `torchvision:NAME` and `timm:NAME`, with random weights, or `:pretrained` ones.

Source: torchvision.models and timm, as installed; weights and input statistics are the libraries' defaults.
Differs: auxiliary classifiers of GoogLeNet and Inception are left out, since `Output` has one set of logits; grey
    images are repeated over three channels for torchvision (timm adapts the first layer), with the mean of the
    statistics. The tokens of transformers' blocks are read and mixed as maps. torchvision's vision transformers are
    made for the task's image size, as timm makes its own: their positions are interpolated.
"""

from collections import OrderedDict
from functools import partial
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kfbench.errors import KfbenchError, near
from kfbench.networks.calls import Call, seen
from kfbench.networks.family import Family
from kfbench.networks.foreign import Foreign, layers
from kfbench.networks.network import Network
from kfbench.networks.parts import Parts

FAMILY = Family(
    about="networks of other libraries",
    pattern=r"(?P<library>torchvision|timm):(?P<model>[^:]+)(?P<pretrained>:pretrained)?",
    form="torchvision:NAME[:pretrained] | timm:NAME[:pretrained]",
    examples=("torchvision:resnet18", "timm:resnet18"),
)

WITH_AUXILIARY = ("googlenet", "inception_v3")
Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # mean and deviation, a channel each, in units of 0..1


def make(name: str, parts: Parts, *, shape: tuple[int, int, int], outputs: int) -> Network:
    """Make `torchvision:NAME` or `timm:NAME`, plain or `:pretrained`.

    timm's own `feature_info` says which layers there are, or `_tell`, for torchvision's transformers; else a forward
    pass does: at each resolution the last module that is called once and that all of the signal goes through. The last
    vector before the head is one, too. Not all of them are activations.
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
        calls = seen(body, shape)
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        raise KfbenchError(f"network '{name}' cannot take images of shape {shape}: {_line(error)}") from error
    heads = known_heads or (_head(name, calls, outputs),)
    named = layers(body, calls, heads, shape)
    for layer in named:
        if getattr(body.get_submodule(layer), "inplace", False):
            body.get_submodule(layer).inplace = False  # type: ignore[assignment]  # what it takes in is read, too
    network = Network(
        body,
        name=name,
        shape=shape,
        outputs=outputs,
        layers=tuple(f"body.{layer}" for layer in named),
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
    if model.startswith("vit_"):
        patch = int(model.rpartition("_")[2])
        if shape[1] != shape[2] or shape[1] % patch:
            sizes = f"{shape[1]}x{shape[2]}; kfbench data import --size {-(-max(shape[1:]) // patch) * patch} resizes"
            raise KfbenchError(f"network '{name}' takes squares of a multiple of {patch} pixels, not {sizes} images")
        settings["image_size"] = shape[1]
    if not pretrained:
        net = models.get_model(model, weights=None, num_classes=outputs, **settings)
        _tell(net)
        return net, None, ()
    weights = models.get_model_weights(model).DEFAULT
    transforms = weights.transforms()
    load, side = partial(models.get_model, model, weights=weights, **settings), transforms.crop_size[0]
    if "image_size" in settings:
        side = settings["image_size"]
        load = partial(_positioned, model, weights, side)
    net = _loaded(name, load)
    if outputs != len(weights.meta["categories"]):
        head = _head(name, seen(Foreign(net, 1), (3, side, side)), len(weights.meta["categories"])).removeprefix("net.")
        _replace_head(net, head, outputs)
    _tell(net)
    if model in WITH_AUXILIARY:
        # their weights want -1..1, which they make of normalised images: give it to them at once
        net.transform_input = False  # type: ignore[assignment]
        return net, ((0.5,) * 3, (0.5,) * 3), ()
    return net, (tuple(transforms.mean), tuple(transforms.std)), ()


def _positioned(model: str, weights: Any, side: int) -> nn.Module:
    """Return a vision transformer of torchvision with its weights, the positions interpolated to another image size."""
    from torchvision import models
    from torchvision.models.vision_transformer import interpolate_embeddings

    net: Any = models.get_model(model, weights=None, num_classes=len(weights.meta["categories"]), image_size=side)
    values = weights.get_state_dict(progress=False, check_hash=True)
    net.load_state_dict(interpolate_embeddings(side, net.patch_size, values))
    whole: nn.Module = net
    return whole


def _tell(net: Any) -> None:
    """Give torchvision's transformers the list of their blocks that timm's carry, in timm's words.

    A vision transformer's class token is the vector before the head: it passes a module that can be read. So does a
    DenseNet's last activation, which is a function there that overwrites what `norm5` put out.
    """
    from torchvision.models import DenseNet, SwinTransformer, VisionTransformer

    if isinstance(net, VisionTransformer):
        net.num_prefix_tokens, net.global_pool = 1, "token"
        names = [f"encoder.layers.{name}" for name, _ in net.encoder.layers.named_children()]
        net.feature_info = [{"module": n, "num_chs": net.hidden_dim, "reduction": net.patch_size} for n in names]
        net.heads = nn.Sequential(OrderedDict([("taken", nn.Identity()), *net.heads.named_children()]))
    elif isinstance(net, SwinTransformer):
        net.output_fmt = "NHWC"
        _patches, *stages = [n for n, stage in net.features.named_children() if isinstance(stage, nn.Sequential)]
        widths = [net.head.in_features >> n for n in range(len(stages))][::-1]
        net.feature_info = [
            {"module": f"features.{name}", "num_chs": width, "reduction": 4 << n}
            for n, (name, width) in enumerate(zip(stages, widths, strict=True))
        ]
    elif isinstance(net, DenseNet):

        class Activated(DenseNet):  # type: ignore[misc]
            """Whose features are activated by a module."""

            def forward(self, x: Tensor) -> Tensor:
                """Map images [B, 3, H, W] to logits [B, K]."""
                logits: Tensor = self.classifier(F.adaptive_avg_pool2d(self.features(x), 1).flatten(1))
                return logits

        net.features.add_module("relu5", nn.ReLU())
        net.__class__ = Activated


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
