"""Conformance rules of networks: what a family's file must keep, so that every method can read, mix and export it."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from kfbench import networks
from kfbench.conformance.tiny import Broken, require_lines
from kfbench.errors import place
from kfbench.networks.family import Family, families, load, of_name
from kfbench.networks.hollow import hollow
from kfbench.networks.network import Network, Output

Rule = Callable[[Family], None]


def check_network(name: str) -> list[tuple[str, str, str | None]]:
    """Return (family, rule, what is broken or None) for every rule, of a family's file or of one of its networks."""
    family = of_file(name)
    found: list[tuple[str, str, str | None]] = []
    for rule in RULES:
        try:
            rule(family)
            broken = None
        except Broken as error:
            broken = str(error)
        except Exception as error:  # a rule reports what a file raises; it does not pass it on
            broken = f"raised {type(error).__name__}: {error}{place(error, load(family).__file__ or '')}"
        found.append((family.file, rule.__name__, broken))
    return found


def of_file(name: str) -> Family:
    """Return a family by its file or by a network's name. Raises KfbenchError if there is none."""
    return next((family for family in families() if family.file == name), None) or of_name(name)[0]


def describes_itself(family: Family) -> None:
    """The file has Source: and Differs:, and its examples are names that it makes and that no other family takes."""
    about = load(family).__doc__ or ""
    require_lines(about, f"'{family.file}'")
    if not family.examples:
        raise Broken(f"FAMILY of '{family.file}' has no examples")
    for example in family.examples:
        if (taker := of_name(example)[0].file) != family.file:
            raise Broken(f"'{example}' is made by '{taker}', which comes before '{family.file}'")


def names_its_parts(family: Family) -> None:
    """Every example has heads, and two layers or more that leave their input as it is; all are modules of it."""
    for example in family.examples:
        network = _hollow(example, family.shape)
        if (network.name, network.shape, network.outputs) != (example, family.shape, 10):
            raise Broken(f"'{example}' says it is '{network.name}', {network.shape}, {network.outputs} outputs")
        modules = dict(network.named_modules())
        strange = [name for name in (*network.layers, *network.heads) if name not in modules]
        if strange or len(network.layers) < 2 or len(set(network.layers)) < len(network.layers) or not network.heads:
            told = f"layers {network.layers} and heads {network.heads}"
            raise Broken(f"'{example}' has {told}, of which no module: {strange}")
        for layer in network.layers:
            if getattr(modules[layer], "inplace", False):
                raise Broken(f"layer '{layer}' of '{example}' changes its input in place: it cannot be read or mixed")


def calls_layers_once_in_order(family: Family) -> None:
    """A forward pass calls every named layer once, in the order in which they are named, and gives logits [B, K]."""
    network = _small(family).eval()
    with _noting(network) as called, torch.no_grad():
        output = network(torch.rand(2, *network.shape))
    if tuple(called) != network.layers:
        raise Broken(f"layers are called as {called}, and named as {list(network.layers)}")
    if not isinstance(output, Output) or output.logits.shape != (2, 10) or not output.logits.isfinite().all():
        raise Broken(f"logits of two images are {tuple(output.logits.shape)}, or not finite")


def repeats_itself(family: Family) -> None:
    """One random state, one network; in evaluation mode an image's logits depend on nothing but the image."""
    first, second = _small(family).eval(), _small(family).eval()
    images = torch.randint(0, 256, (3, *first.shape), dtype=torch.uint8)
    with torch.no_grad():
        logits = first(images).logits
        if not torch.equal(logits, first(images).logits) or not torch.equal(logits, second(images).logits):
            raise Broken("two passes, or two networks of one random state, differ")
        if not torch.allclose(logits[:1], first(images[:1]).logits, rtol=1e-3, atol=1e-5):
            raise Broken("an image's logits depend on the images beside it")
        if not torch.equal(logits, copy.deepcopy(first).clone()(images).logits):
            raise Broken("a copy by the network's name and weights says something else")


def other_outputs_move_heads_only(family: Family) -> None:
    """Networks of one random state that differ in their outputs differ in the heads only."""
    if ":" in family.examples[0]:
        return  # other libraries draw their weights in an order of their own
    few, many = _small(family).state_dict(), _small(family, outputs=17).state_dict()
    heads = tuple(f"{head}." for head in _small(family).heads)
    moved = [name for name in few if not name.startswith(heads) and not _equal(few[name], many.get(name))]
    if few.keys() != many.keys() or moved:
        raise Broken(f"'{(moved or ['a name'])[0]}' changes with the number of outputs, and is in no head")


def learns_everywhere(family: Family) -> None:
    """Every parameter has a gradient that is not zero."""
    network = _small(family).train()
    output = network(torch.rand(4, *network.shape))
    loss = output.logits.square().sum() + (0 if output.value is None else output.value.square().sum())
    loss.backward()
    still = [name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()]
    if still:
        raise Broken(f"'{still[0]}' has no gradient")


RULES: tuple[Rule, ...] = (
    describes_itself,
    names_its_parts,
    calls_layers_once_in_order,
    repeats_itself,
    other_outputs_move_heads_only,
    learns_everywhere,
)


def _equal(one: Tensor, other: Tensor | None) -> bool:
    return other is not None and torch.equal(one, other)


def _hollow(name: str, shape: tuple[int, int, int]) -> Network:
    """Return a network without its weights."""
    with hollow():
        return networks.make(name, shape=shape, outputs=10)


def _small(family: Family, outputs: int = 10) -> Network:
    """Return the family's first example, of one random state, as first made."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return networks.make(family.examples[0], shape=family.shape, outputs=outputs)


@contextmanager
def _noting(network: Network) -> Iterator[list[str]]:
    """Fill a list of the named layers in the order of their calls."""
    called: list[str] = []

    def note(name: str, _module: nn.Module, _taken: object, _put: object) -> None:
        called.append(name)

    handles = [network.get_submodule(name).register_forward_hook(partial(note, name)) for name in network.layers]
    try:
        yield called
    finally:
        for handle in handles:
            handle.remove()
