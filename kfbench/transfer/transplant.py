"""What fine-tuning methods share: carrying a teacher's body over, telling heads from it, and reading below a head."""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from kfbench.errors import KfbenchError
from kfbench.kinds import Refusal
from kfbench.methods import Group
from kfbench.networks.network import Network


def is_head(network: Network, name: str) -> bool:
    """Say whether a parameter or buffer belongs to one of the network's heads."""
    return any(name.startswith(f"{head}.") for head in network.heads)


def places(module: nn.Module) -> list[str]:
    """Return the names of a module's parameters and buffers, one for each place that holds one.

    A layer that stands under two names is one place; a weight that two layers share has two. It is what
    `functional_call(…, tie_weights=False)` can be given: a place given twice would not get its own tensor back.
    """
    return [
        f"{prefix}.{name}" if prefix else name
        for prefix, part in module.named_modules()
        for name, value in (*part._parameters.items(), *part._buffers.items())
        if value is not None
    ]


def misfit(source: Network, target: Network) -> Refusal | None:
    """Return why the bodies of two networks of one architecture differ in size, as they do for other images."""
    here, there = ("×".join(str(side) for side in network.shape) for network in (target, source))
    channels, theirs = target.shape[0], source.state_dict()
    if source.shape[0] != channels:
        kind = {1: "grey images", 3: "images in colour"}.get(channels, f"images of {channels} channels")
        own = ", or pack pictures of your own as colour: kfbench data import NAME PATH… --rgb"
        return Refusal(
            f"it takes images of {there}, and those of the task have other channels, {here}",
            f"use a teacher trained on {kind}{own if (source.shape[0], channels) == (3, 1) else ''}",
        )
    for name, value in target.state_dict().items():
        if not is_head(target, name) and theirs[name].shape != value.shape:
            return Refusal(
                f"'{name}' is another size for images of {there} than for those of {here}",
                "use a teacher for images like those of the task, or a --network that pools them, such as cnn-16",
            )
    return None


def carry(source: Network, target: Network) -> None:
    """Copy weights, buffers and normalisation of all but the heads. Raises KfbenchError if sizes differ."""
    if refusal := misfit(source, target):
        raise KfbenchError(f"a '{source.name}' cannot start from such a teacher: {refusal.why}; {refusal.remedy}")
    carried = {name: value for name, value in source.state_dict().items() if not is_head(target, name)}
    target.load_state_dict(carried, strict=False)


def head(network: Network) -> nn.Module:
    """Return the network's one head, which reads a vector. Raises KfbenchError if it has several, or another one."""
    if len(network.heads) != 1:
        raise KfbenchError(f"network '{network.name}' has {len(network.heads)} heads; this method is for one")
    last = network.get_submodule(network.heads[0])
    if isinstance(last, nn.Conv2d):
        raise KfbenchError(f"the head of network '{network.name}' is a convolution; this method needs a linear one")
    return last


def old_head(source: Network) -> nn.Module:
    """Return a copy of a network's one head that can be trained."""
    return copy.deepcopy(head(source)).requires_grad_(True)


@contextmanager
def below_head(network: Network) -> Iterator[list[Tensor]]:
    """Fill a list with what the network's one head takes in, [B, C], during a forward pass in the block."""
    taken: list[Tensor] = []
    handle = head(network).register_forward_pre_hook(lambda _module, given: taken.append(given[0]))
    try:
        yield taken
    finally:
        handle.remove()


def freeze_body(network: Network, *, frozen: bool = True) -> None:
    """Let only the heads be trained, or everything."""
    for name, weight in network.named_parameters():
        weight.requires_grad_(not frozen or is_head(network, name))


def groups(network: Network, beside: Iterable[nn.Parameter] = (), *, body_rate: float) -> list[Group]:
    """Return the optimiser's groups: new heads at the recipe's rate, the body and what is `beside` it at a multiple."""
    trained = [(name, weight) for name, weight in network.named_parameters() if weight.requires_grad]
    heads = [weight for name, weight in trained if is_head(network, name)]
    body = [weight for name, weight in trained if not is_head(network, name)]
    body += [weight for weight in beside if weight.requires_grad]
    both: list[Group] = [{"params": heads}, {"params": body, "lr_scale": body_rate}]
    return [group for group in both if group["params"]]
