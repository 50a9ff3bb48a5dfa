"""DELTA: the teacher's network is fine-tuned while its feature maps stay near the teacher's, channel by channel.

Source: Li et al. 2019, "DELTA: DEep Learning Transfer using Feature Map with Attention", arXiv 1901.09229:
    L = CE + a · sum_j sum_c W_jc · C_j / (H_j W_j) · 1/2 |FM_jc - FM0_jc|² + b · 1/2 |w_head|²,
    where W_j = softmax(z / 5) and z standardises, over the layer, how much the loss grows without channel c, measured
    on 4 batches after the new head alone was trained on the frozen features. As in the authors' train.py,
    there is no other weight decay. Variant `uniform` gives each channel the same weight.
Differs: a mean over the batch; what is zeroed is a channel of the layer's output (there: the convolution's filter);
layers are the network's named ones, after normalisation and activation (there: the last convolution of each of a
ResNet's stages, before its normalisation). The head's own training takes a set share of the budget (there: 10 epochs,
with a weight decay of 1e-4), and training goes on from that head (there: from a fresh one).
a = b = 0.001, where the authors' 0.01 · 64 (their sum over a batch of 64) and 0.01 hold the narrow networks of the
small budget fast: on 10,000 images of CIFAR-100, from 10,000 of CIFAR-10, the validation error is 81.2 % with these,
70.0 % with a = 0.01 and b = 0.01, 66.2 % with ours, and 65.2 % for plain fine-tuning, which none that was tried beats.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, cast

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn

from kfbench.methods import Batch, Group, Method, Output, Parts, Stage
from kfbench.networks import taps
from kfbench.networks.network import Network
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer.companion import WithCompanions
from kfbench.transfer.transplant import carry, freeze_body, is_head


@dataclass(frozen=True)
class Delta(Method):
    """Settings of DELTA."""

    alpha: Annotated[float, Ge(0)] = 0.001  # a: choice, see above
    beta: Annotated[float, Ge(0)] = 0.001  # b: choice, see above
    attention: bool = True  # False: all channels of a layer weigh 1/C_j
    softness: Annotated[float, Gt(0)] = 5.0  # divides z
    measured: Annotated[int, Gt(0)] = 4  # batches on which channels are measured
    warmup: Annotated[float, Gt(0), Lt(1)] = 0.1  # share of the budget for the new head alone; choice

    kinds = ("images",)
    teachers = (1, 1)
    needs = "architecture"
    above_floor = "squared differences of whole maps at every layer, forward and backward"
    starts_from_teacher = True
    variants = {"uniform": {"attention": False}}
    search = {
        "alpha": {"low": 1e-4, "high": 1.0, "log": True},
        "beta": {"low": 1e-4, "high": 0.1, "log": True},
    }

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The new head alone, then everything."""
        return (Stage("head", self.warmup), Stage("joint", 1 - self.warmup))

    def make_student(self, task: Task, teachers: Sequence[Teacher], rng: torch.Generator) -> WithCompanions:
        """Return the teacher's body below a fresh head, and the weights of its channels."""
        network = task.make_network()
        carry(teachers[0].network, network)
        widths = [shape[0] for shape in taps.shapes(network, network.layers).values()]
        return WithCompanions(network, channels=Channels(widths))

    def begin(
        self,
        student: nn.Module,
        teachers: Sequence[Teacher],
        stage: Stage,
        batches: Iterable[Batch],
        rng: torch.Generator,
    ) -> None:
        """Freeze the body while the head is trained; then weigh its channels and set it free."""
        assert isinstance(student, WithCompanions)
        network, student.stage = student.network, stage.name
        freeze_body(network, frozen=stage.name == "head")
        if stage.name == "joint" and self.attention:
            growth = importance(network, list(islice(batches, self.measured)))
            cast(Channels, student.parts["channels"]).weigh(growth, self.softness)

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """The task's loss, the weighted distance of feature maps past the warm-up, and the head's decay."""
        assert isinstance(student, WithCompanions)
        network = student.network
        if student.stage == "head":
            output: Output = student(batch.images)
            return output, task.loss(output, batch)
        with taps.read(network, network.layers) as found:
            output = student(batch.images)
        starts = teachers[0].at(network.shape).features(batch, network.layers)
        apart = []
        for layer, weights in zip(network.layers, student.parts["channels"].buffers(), strict=True):
            squares = (found[layer].float() - starts[layer].float()).square()
            squares = squares.flatten(2).mean(2) if squares.dim() > 2 else squares  # [B, C]
            apart.append(len(weights) * (weights * squares).sum(1).mean())
        head = torch.stack([w.square().sum() for n, w in network.named_parameters() if is_head(network, n)]).sum()
        parts = {"features": self.alpha / 2 * torch.stack(apart).sum(), "head": self.beta / 2 * head}
        return output, task.loss(output, batch) | parts

    def parameter_groups(self, student: nn.Module) -> list[Group]:
        """All that is trained, without the recipe's weight decay."""
        return [{"params": [weight for weight in student.parameters() if weight.requires_grad], "weight_decay": 0.0}]

    def export(self, student: nn.Module) -> Network:
        """The network; the channels' weights stay behind."""
        return cast(WithCompanions, student).network


class Channels(nn.Module):
    """W: a weight for each channel of each layer, [C_j] each, which sum to 1 over a layer."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        for j, width in enumerate(widths):
            self.register_buffer(f"layer{j}", torch.full((width,), 1 / width))

    def weigh(self, growth: Sequence[Tensor], softness: float) -> None:
        """Set the weights from how much the loss grows without each channel, [C_j] each."""
        for weights, each in zip(self.buffers(), growth, strict=True):
            standard = (each - each.mean()) / each.std(correction=0).clamp(min=1e-12)
            weights.copy_(torch.softmax(standard / softness, dim=0))


@torch.no_grad()
def importance(network: Network, batches: Sequence[Batch]) -> list[Tensor]:
    """Return how much the mean cross-entropy over the batches grows without each channel, [C_j] a named layer."""
    network.eval()

    def cost(layer: str | None = None, channel: int = 0) -> Tensor:
        def silence(features: Tensor) -> Tensor:
            features = features.clone()
            features[:, channel] = 0
            return features

        handles = taps.rewrite(network, {layer: silence}) if layer else []
        each = [nn.functional.cross_entropy(network(b.images).logits, cast(Tensor, b.labels)) for b in batches]
        for handle in handles:
            handle.remove()
        return torch.stack(each).mean()

    whole = cost()
    widths = taps.shapes(network, network.layers)
    return [torch.stack([cost(layer, c) - whole for c in range(shape[0])]) for layer, shape in widths.items()]
