"""WiSE-FT: the weights that are kept lie between those of the linear probe and those of the fine-tuned network.

Source: Wortsman, Ilharco, Kim, Li, Kornblith, Roelofs et al. 2022, "Robust fine-tuning of zero-shot models", CVPR,
    arXiv 2109.01903, section 3, and the authors' code (mlfoundations/wise-ft, src/wise_ft.py): after fine-tuning,
    theta = (1 - a) theta_0 + a theta_1,  for every entry of the state, theta_0 from before and theta_1 from after;
    a = 0.5 (src/args.py).
Differs: theta_0 is the teacher's body below a head that was probed on it for a share of the budget (there: CLIP, whose
head is made of text). BatchNorm's statistics, which CLIP has none of, are averaged as the code averages everything,
entry by entry, and not measured again. Evaluations on the way see the average.

Tried on validation images (CIFAR-100, 10,000 images for 12 epochs, a cnn-16 from one of CIFAR-10, one seed; `finetune`
66.0 % error): 73.1; with a = 0.9 66.4. Weights that have moved this far are not joined to the probe's by a good path.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, cast

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor, nn

from kfbench.methods import Batch, Group, Method, Stage
from kfbench.networks.network import Network
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer.companion import WithCompanions
from kfbench.transfer.transplant import carry, freeze_body, groups


@dataclass(frozen=True)
class WeightSpaceEnsemble(Method):
    """Settings of WiSE-FT."""

    alpha: Annotated[float, Ge(0), Le(1)] = 0.5  # a: 0 keeps the probe, 1 the fine-tuned network
    probe: Annotated[float, Gt(0), Lt(1)] = 0.1  # share of the budget for the head alone; choice
    body_rate: Annotated[float, Gt(0)] = 1.0  # learning rate of the body over the head's; choice

    kinds = ("images",)
    teachers = (1, 1)
    needs = "architecture"
    starts_from_teacher = True
    search = {"alpha": {"low": 0.0, "high": 1.0}, "body_rate": {"low": 0.01, "high": 1.0, "log": True}}

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The head alone, then everything."""
        return (Stage("probe", self.probe), Stage("tune", 1 - self.probe))

    def make_student(self, task: Task, teachers: Sequence[Teacher], rng: torch.Generator) -> WithCompanions:
        """Return the teacher's body below a fresh head, and room for the weights before the tuning."""
        network = task.make_network()
        carry(teachers[0].network, network)
        return WithCompanions(network, before=Snapshot(network))

    def begin(
        self,
        student: nn.Module,
        teachers: Sequence[Teacher],
        stage: Stage,
        batches: Iterable[Batch],
        rng: torch.Generator,
    ) -> None:
        """Freeze the body for the probe; then remember all weights and set them free."""
        assert isinstance(student, WithCompanions)
        student.stage = stage.name
        freeze_body(student.network, frozen=stage.name == "probe")
        if stage.name == "tune":
            cast(Snapshot, student.parts["before"]).take(student.network)

    def parameter_groups(self, student: nn.Module) -> list[Group]:
        """The head at the recipe's rate, the body at its multiple."""
        return groups(cast(WithCompanions, student).network, body_rate=self.body_rate)

    def export(self, student: nn.Module) -> Network:
        """The network between both sets of weights; the probe itself until the tuning begins."""
        assert isinstance(student, WithCompanions)
        if student.stage != "tune":
            return student.network
        kept = student.network.clone()
        before = cast(Snapshot, student.parts["before"]).state()
        kept.load_state_dict(between(before, student.network.state_dict(), self.alpha))
        return kept


def between(before: dict[str, Tensor], after: dict[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """Return (1 - a) theta_0 + a theta_1 of two state dicts; counts of steps, which are whole numbers, from `after`."""
    return {
        name: (1 - alpha) * before[name] + alpha * value if value.is_floating_point() else value
        for name, value in after.items()
    }


class Snapshot(nn.Module):
    """A network's state, in buffers, so that a checkpoint has it."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.names = list(network.state_dict())
        for number, value in enumerate(network.state_dict().values()):
            self.register_buffer(f"value{number}", value.detach().clone())

    def take(self, network: Network) -> None:
        """Remember the network as it is now."""
        for kept, value in zip(self.buffers(), network.state_dict().values(), strict=True):
            kept.copy_(value)

    def state(self) -> dict[str, Tensor]:
        """Return the remembered state dict."""
        return dict(zip(self.names, self.buffers(), strict=True))
