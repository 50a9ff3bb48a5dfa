"""Another library's network behind our interface, its tokens laid out as maps where methods read or mix them."""

from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from kfbench.networks.calls import MOST_LAYERS, Call, at_each_resolution, innermost, is_like, resolution

Shape = tuple[int, int, int]


class Layout(NamedTuple):
    """How a module puts its maps out: as such, with the channels last, or as tokens [B, first + rows*columns, C]."""

    kind: Literal["maps", "channels last", "tokens"]
    rows: int
    columns: int
    first: int = 0  # tokens that stand before those of the patches


class Foreign(nn.Module):
    """Another library's network; `repeats` says how often a grey channel is repeated for it."""

    def __init__(self, net: nn.Module, repeats: int) -> None:
        super().__init__()
        self.net, self.repeats = net, repeats
        self.outs = nn.ModuleDict()

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, C, H, W] to logits [B, K]."""
        logits: Tensor = self.net(x.expand(-1, self.repeats, -1, -1) if self.repeats > 1 else x)
        return logits

    def lay_out(self, name: str, layout: Layout) -> str:
        """Let what the module `name` puts out go through a layer of its own as maps; return the layer's name."""
        key = name.removeprefix("net.").replace(".", "_")
        self.outs[key] = nn.Identity()
        self.get_submodule(name).register_forward_hook(partial(self._through, key, layout))
        return f"outs.{key}"

    def _through(self, key: str, layout: Layout, _module: nn.Module, _taken: Any, put: Tensor) -> Tensor | None:
        if layout.kind == "channels last":
            maps = put.permute(0, 3, 1, 2)  # [B, C, rows, columns]
        else:
            patches = put[:, layout.first :].transpose(1, 2)  # [B, C, rows*columns]
            maps = patches.reshape(*patches.shape[:2], layout.rows, layout.columns)
        new: Tensor = self.outs[key](maps)
        if new is maps:  # nobody changed them
            return None
        if layout.kind == "channels last":
            return new.permute(0, 2, 3, 1)
        return torch.cat((put[:, : layout.first], new.flatten(2).transpose(1, 2)), 1)


def layers(body: Foreign, calls: list[Call], heads: tuple[str, ...], shape: Shape) -> tuple[str, ...]:
    """Return the layers of a network that methods read or mix, shallow to deep.

    They are those that timm's `feature_info` names, evenly spread where there are many, and the last vector before the
    head; where a network has no such list (torchvision's), those found at each resolution.
    """
    found = at_each_resolution(calls, heads, shape)
    told = _told(body.net, calls, shape)
    if len(told) < 2:
        return tuple(calls[index].name for index in found)
    names = []
    for index, layout in told:
        is_plain = layout.kind == "maps"
        names.append(calls[innermost(calls, index)].name if is_plain else body.lay_out(calls[index].name, layout))
    vectors = [calls[index].name for index in found if resolution(calls[index].output, shape) == 0]
    return tuple(dict.fromkeys((*names, *vectors[-1:])))


def _told(net: nn.Module, calls: list[Call], shape: Shape) -> list[tuple[int, Layout]]:
    """Return (number of the call, layout) of the modules that timm's `feature_info` names, at most six of them."""
    places = {call.name: index for index, call in enumerate(calls)}
    found: list[tuple[int, Layout]] = []
    for about in getattr(net, "feature_info", None) or ():
        index = places.get(f"net.{about['module']}")
        if index is None:
            continue
        layout = _layout(net, calls[index].output, about["num_chs"], about["reduction"], shape)
        if layout is not None:
            found.append((index, layout))
    if found and found[-1][1].first and getattr(net, "global_pool", "") == "token":
        found.pop()  # what the last block says of the patches is not read: the head sees the token before them
    count = min(MOST_LAYERS, len(found))
    return [found[len(found) * number // count - 1] for number in range(1, count + 1)]


def _layout(net: nn.Module, put: Tensor, maps: int, reduction: int, shape: Shape) -> Layout | None:
    """Return how a module puts out its maps, of which there are `maps`; None if it does not look like it."""
    if put.ndim == 3 and put.shape[2] == maps:
        rows, columns = (-(-side // reduction) for side in shape[1:])
        first = int(getattr(net, "num_prefix_tokens", 0))
        return Layout("tokens", rows, columns, first) if put.shape[1] == first + rows * columns else None
    if put.ndim != 4:
        return None
    is_last = getattr(net, "output_fmt", "NCHW") == "NHWC"
    size, count = (put.shape[1:3], put.shape[3]) if is_last else (put.shape[2:], put.shape[1])
    if count != maps or not is_like(size, shape):
        return None
    return Layout("channels last" if is_last else "maps", *size)
