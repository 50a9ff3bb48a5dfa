"""Weights that others named: matched by name where the names are ours, by order and shape where no doubt is left."""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from torch import Tensor

from kfbench.errors import KfbenchError
from kfbench.networks.network import Network

Tensors = Mapping[str, Tensor]
DESCRIPTION = '"network", "shape", "outputs", "mean" and "std"'  # of weights whose classes no task here has
COUNTER = "num_batches_tracked"  # of BatchNorm: of no use beside a momentum, and missing before torch 0.4.1
SHORTCUT = re.compile(r"shortcut|downsample|skip", re.IGNORECASE)


class Layer(NamedTuple):
    """A module's own tensors: {"weight": "body.head.weight", …} of the module called `name`, and their shapes."""

    name: str
    tensors: dict[str, str]
    shapes: dict[str, tuple[int, ...]]

    def __str__(self) -> str:
        return f"'{self.name}' ({', '.join(f'{leaf} {told(shape)}' for leaf, shape in self.shapes.items())})"


def told(shape: Iterable[int]) -> str:
    """Return a shape as people write it: "64x3x7x7"."""
    return "x".join(str(side) for side in shape) or "a number"


def fit(network: Network, tensors: Tensors, *, is_ordered: bool, where: str) -> dict[str, Tensor]:
    """Return `tensors` by the network's own names: a whole state dict of it.

    They are matched by name, whatever stands before all of the names, if at least half of the names are the network's;
    else by order. Statistics of the input that are not among them (a body was saved alone) stay the network's.
    Raises KfbenchError in one line if anything is missing, unexpected, of another shape, or in doubt; `where` is how
    the line calls the file.
    """
    own = network.state_dict()
    ours = {name: value for name, value in own.items() if name.startswith("body.")}
    theirs = dict(tensors)
    statistics = {name: own[name] for name in ("mean", "std")}
    if any(name.startswith("body.") for name in theirs):
        for name, value in statistics.items():
            if name in theirs and theirs[name].shape == value.shape:
                statistics[name] = theirs.pop(name)
    try:
        pairs = _matched(network.name, ours, theirs, is_ordered=is_ordered, where=where)
    except KfbenchError as error:
        parts = _fitting_parts(network.name, ours, theirs, is_ordered=is_ordered)
        if not parts:
            raise
        raise KfbenchError(
            f"{where} holds more than the weights of '{network.name}'; kfbench teacher import takes a part of it: "
            f"{' or '.join(parts)}"
        ) from error
    counters = {name: value for name, value in ours.items() if name.endswith(COUNTER)}
    return {**counters, **{name: theirs[key] for name, key in pairs.items()}, **statistics}


def _matched(network: str, ours: Tensors, theirs: Tensors, *, is_ordered: bool, where: str) -> dict[str, str]:
    pairs = by_name(network, ours, theirs, where=where)
    return by_order(network, ours, theirs, is_ordered=is_ordered, where=where) if pairs is None else pairs


def _fitting_parts(network: str, ours: Tensors, theirs: Tensors, *, is_ordered: bool) -> list[str]:
    """Return the options that choose a module of a file whose tensors alone fit: "--part model"."""
    found = []
    for part in dict.fromkeys(name.partition(".")[0] for name in theirs if "." in name):
        inner = {name: value for name, value in theirs.items() if name.startswith(f"{part}.")}
        with suppress(KfbenchError):
            if len(inner) < len(theirs):
                _matched(network, ours, inner, is_ordered=is_ordered, where="")
                found.append(f"--part {part}")
    return found


def by_name(network: str, ours: Tensors, theirs: Tensors, *, where: str) -> dict[str, str] | None:
    """Return {our name: their name}, or None where less than half of their names are ours.

    Raises KfbenchError that says what differs, the first of each kind and how many.
    """
    short, brief = _bare(ours), _bare(theirs)
    known = [name for name in brief if name in short]
    if 2 * len(known) < len(brief):
        return None
    missing = [name for name in short if name not in brief and not name.endswith(COUNTER)]
    unexpected = [name for name in brief if name not in short]
    reshaped = [name for name in known if ours[short[name]].shape != theirs[brief[name]].shape]
    differ = [f"{len(names)} {kind} (first '{names[0]}')" for kind, names in
              (("missing", missing), ("unexpected", unexpected)) if names]  # fmt: skip
    if reshaped:
        first = reshaped[0]
        here, there = told(ours[short[first]].shape), told(theirs[brief[first]].shape)
        differ.append(f"{len(reshaped)} of another shape (first '{first}': {there} in the file, {here} wanted)")
    if differ:
        heads = not missing and not unexpected  # all but the number of classes may fit
        heads &= all(ours[short[name]].shape[1:] == theirs[brief[name]].shape[1:] for name in reshaped)
        remedy = f'; if its classes are others, write {DESCRIPTION} into PATH.json, no "task", for --teachers file:PATH'
        raise KfbenchError(
            f"the weights in {where} are not those of '{network}': {', '.join(differ)}{remedy if heads else ''}"
        )
    return {short[name]: brief[name] for name in known}


def _bare(tensors: Tensors) -> dict[str, str]:
    """Return {name without what stands before all names: name}."""
    names = [name.split(".") for name in tensors]
    begin = 0
    while names and all(len(parts) > begin + 1 and parts[begin] == names[0][begin] for parts in names):
        begin += 1
    return {".".join(parts[begin:]): ".".join(parts) for parts in names}


def by_order(network: str, ours: Tensors, theirs: Tensors, *, is_ordered: bool, where: str) -> dict[str, str]:
    """Return {our name: their name}, layer by layer in the order in which they were registered.

    Raises KfbenchError where layers differ in number or shape, and wherever the order may not be what it seems: a file
    that does not keep it, numbers in names that do not ascend, a shortcut that is not called so (it can have the shape
    of the layer beside it).
    """
    short = f"the weights in {where} are not those of '{network}'"
    if not is_ordered:
        raise KfbenchError(
            f"{short}: the names differ (first '{next(iter(theirs))}'), and a safetensors file does not keep the order "
            "of layers; give the file that torch.save wrote"
        )
    wanted, there = _layers(ours), _layers(theirs)
    for number, (mine, other) in enumerate(zip(wanted, there, strict=False), 1):
        if mine.shapes != other.shapes:
            raise KfbenchError(f"{short}: layer {number} in the file is {other}, where {mine} is wanted")
        if bool(SHORTCUT.search(mine.name)) != bool(SHORTCUT.search(other.name)):
            raise KfbenchError(
                f"{short}, or in another order: layer {number} in the file is '{other.name}', where '{mine.name}' is "
                "wanted, and only one of the two is called a shortcut"
            )
    if len(wanted) != len(there):
        more = (there if len(there) > len(wanted) else wanted)[min(len(wanted), len(there))]
        raise KfbenchError(f"{short}: it has {len(there)} layers, {len(wanted)} are wanted; the first beyond is {more}")
    doubt = _out_of_order([layer.name for layer in there])
    if doubt:
        raise KfbenchError(
            f"{short}, or in another order: {doubt} in the file; save the state_dict as the network has it"
        )
    return {
        mine.tensors[leaf]: key
        for mine, other in zip(wanted, there, strict=True)
        for leaf, key in other.tensors.items()
        if leaf in mine.tensors
    }


def _layers(tensors: Tensors) -> list[Layer]:
    """Return the modules that have tensors of their own, in order; a counter is no part of their shapes."""
    layers: dict[str, Layer] = {}
    for key, value in tensors.items():
        name, _, leaf = key.rpartition(".")
        layer = layers.setdefault(name, Layer(name, {}, {}))
        layer.tensors[leaf] = key
        if leaf != COUNTER:
            layer.shapes[leaf] = tuple(value.shape)
    return [layer for layer in layers.values() if layer.shapes]


def _out_of_order(names: Sequence[str]) -> str:
    """Say where names are not in the order in which a network registers them; "" if they may be.

    Siblings that are numbered stand in the order of their numbers, and what is inside a module stands together.
    """
    last: dict[tuple[str, str], tuple[int, str]] = {}  # (parent, what surrounds the number) -> the last number and name
    left: set[str] = set()  # modules whose parts are over
    inside: list[str] = []
    for name in names:
        parts = name.split(".")
        around = [".".join(parts[:depth]) for depth in range(1, len(parts))]
        left |= {module for module in inside if module not in around}
        inside = around
        if again := next((module for module in around if module in left), ""):
            return f"'{again}' goes on after another module"
        for depth, part in enumerate(parts):
            found = re.fullmatch(r"(\D*)(\d+)(.*)", part)
            if found is None:
                continue
            path = ".".join(parts[: depth + 1])
            kind = (".".join(parts[:depth]), f"{found[1]}#{found[3]}")
            number, before = last.get(kind, (-1, ""))
            if int(found[2]) < number:
                return f"'{path}' comes after '{before}'"
            last[kind] = (int(found[2]), path)
    return ""
