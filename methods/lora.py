"""LoRA: the teacher's weights stay as they are; each layer learns a product of two thin matrices that is added to them.

Source: Hu, Shen, Wallis, Allen-Zhu, Li, Wang, Wang & Chen 2021, "LoRA: Low-Rank Adaptation of Large Language Models",
    arXiv 2106.09685, section 4, and the authors' code (microsoft/LoRA, loralib/layers.py):
    W = W_0 + (alpha / r) B A,  A [r, in] starts as a linear layer does, B [out, r] at 0; for a k×k convolution
    (`ConvLoRA`) A [r·k, in·k] and B [out·k, r·k], their product in the kernel's shape. r = alpha = 8 is our
    choice. What is kept is the plain network with the products added: it costs what the network did.
Differs: every linear layer and ungrouped convolution below the head is adapted, as the networks here have few others;
the source adapts the queries' and values' projections of transformers, which `only=qkv` comes near to in timm's, whose
three projections are one layer with one product. There is no dropout. The new head is trained with them.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, cast

import torch
from annotated_types import Gt
from torch import Tensor, nn

from kfbench import seeding
from kfbench.errors import KfbenchError
from kfbench.methods import Batch, Group, Method, Stage
from kfbench.networks.network import Network, Output
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer.transplant import carry, freeze_body, is_head, places


@dataclass(frozen=True)
class LowRankAdaptation(Method):
    """Settings of LoRA."""

    rank: Annotated[int, Gt(0)] = 8  # r
    alpha: Annotated[float, Gt(0)] = 8.0  # the products are added times alpha / r
    only: str = ""  # adapt layers with one of these in their names, joined by "+": attn+mlp; empty: all below the head
    rate: Annotated[float, Gt(0)] = 1.0  # learning rate of the adapters over the head's; choice

    kinds = ("images",)
    teachers = (1, 1)
    needs = "architecture"
    starts_from_teacher = True
    search = {
        "rank": {"low": 1, "high": 64, "log": True},
        "alpha": {"low": 1.0, "high": 64.0, "log": True},
        "rate": {"low": 0.1, "high": 10.0, "log": True},
    }

    def make_student(self, task: Task, teachers: Sequence[Teacher], rng: torch.Generator) -> "Adapted":
        """Return the teacher's body below a fresh head, and its adapters. Raises KfbenchError if no layer takes one."""
        network = task.make_network()
        carry(teachers[0].network, network)
        asked = [part for part in self.only.split("+") if part]
        names = [name for name in adaptable(network) if not asked or any(part in name for part in asked)]
        if not names:
            there = ", ".join(adaptable(network)) or "none"
            raise KfbenchError(
                f"no layer of network '{network.name}' has '{self.only}' in its name; there are: {there}"
            )
        with seeding.global_generator(rng):
            return Adapted(network, names, rank=self.rank, scale=self.alpha / self.rank)

    def begin(
        self,
        student: nn.Module,
        teachers: Sequence[Teacher],
        stage: Stage,
        batches: Iterable[Batch],
        rng: torch.Generator,
    ) -> None:
        """Freeze the body."""
        freeze_body(cast(Adapted, student).network)

    def parameter_groups(self, student: nn.Module) -> list[Group]:
        """The head at the recipe's rate, the adapters at its multiple."""
        assert isinstance(student, Adapted)
        heads = [weight for name, weight in student.network.named_parameters() if is_head(student.network, name)]
        return [{"params": heads}, {"params": list(student.adapters.parameters()), "lr_scale": self.rate}]

    def export(self, student: nn.Module) -> Network:
        """A plain network with the adapters merged into its weights."""
        assert isinstance(student, Adapted)
        kept = student.network.clone()
        kept.load_state_dict(student.network.state_dict() | {n: w.detach() for n, w in student.merged().items()})
        return kept


def adaptable(network: Network) -> list[str]:
    """Return the names of linear layers and ungrouped convolutions below the heads."""
    return [
        name
        for name, module in network.named_modules()
        if (isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1))
        and not is_head(network, f"{name}.weight")
    ]


class Adapted(nn.Module):
    """A network and an adapter for each of the named layers."""

    def __init__(self, network: Network, names: Sequence[str], *, rank: int, scale: float) -> None:
        super().__init__()
        self.network = network
        self.adapters = nn.ModuleDict()
        adapted = set()
        for name in names:
            weight = self._weight(name)
            if id(weight) not in adapted:  # one that several layers share has one adapter
                self.adapters[name.replace(".", "/")] = Adapter(weight, rank, scale)
            adapted.add(id(weight))

    def _weight(self, name: str) -> Tensor:
        return cast(Tensor, self.network.get_submodule(name).weight)

    def merged(self) -> dict[str, Tensor]:
        """Return {parameter of the network: W_0 + (alpha / r) B A}, under each of its names."""
        own = [self._weight(key.replace("/", ".")) for key in self.adapters]
        products = [cast(Adapter, adapter)() for adapter in self.adapters.values()]
        made = {id(weight): weight + product for weight, product in zip(own, products, strict=True)}
        state = self.network.state_dict(keep_vars=True)
        return {name: made[id(value)] for name, value in state.items() if id(value) in made}

    def forward(self, images: Tensor) -> Output:
        """Map images [B, C, H, W] to the adapted network's Output.

        Weights are added, not outputs, so that layers whose weights are used without a call are adapted too.
        """
        merged = self.merged()
        once = {name: merged[name] for name in places(self.network) if name in merged}
        output: Output = torch.func.functional_call(self.network, once, images, tie_weights=False)
        return output


class Adapter(nn.Module):
    """(alpha / r) B A, of the shape of a weight [out, in] or [out, in, height, width]."""

    def __init__(self, weight: Tensor, rank: int, scale: float) -> None:
        super().__init__()
        self.shape, self.scale = weight.shape, scale
        height, width = weight.shape[2:] if weight.dim() == 4 else (1, 1)
        self.narrow = nn.Parameter(torch.empty(rank * height, weight.shape[1] * width))  # A
        self.widen = nn.Parameter(torch.zeros(weight.shape[0] * height, rank * height))  # B
        nn.init.kaiming_uniform_(self.narrow, a=math.sqrt(5))

    def forward(self) -> Tensor:
        """Return the product in the weight's shape."""
        return (self.widen @ self.narrow).view(self.shape) * self.scale
