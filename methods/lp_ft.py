"""LP-FT: the new head is trained on frozen features first, then everything is fine-tuned from there.

Source: Kumar, Raghunathan, Jones, Ma & Liang 2022, "Fine-Tuning can Distort Pretrained Features and Underperform
    Out-of-Distribution", ICLR, arXiv 2202.10054, section 3.4, and the authors' code (AnanyaKumar/transfer_learning):
    a fresh head moves the features while it is still wrong; a head that was probed first has little to move. On
    ImageNet the probe has 5 epochs where plain fine-tuning has 10 (scripts/run_adaptation_experiments.py,
    configs/adaptation/imagenet.yaml). The README's LP-FT (`lp_then_ft_valmode_experiments`) tunes in evaluation mode:
    BatchNorm's weights learn, its statistics stay the teacher's.
Differs: the probe is trained by the recipe's optimiser for a share of the budget, and each stage has the recipe's whole
schedule (there, on small data sets, the probe is logistic regression, to convergence, over a range of L2 strengths).
The learning rate of the second stage, which the authors sweep for each method, is the recipe's times `rate`.
Dropout, which `densenet-…-dropout` has, is not turned off in it. Variant `moving` lets BatchNorm's statistics move, as
`finetune` does.

Tried on validation images (CIFAR-100, 10,000 images for 12 epochs, a cnn-16 from one of CIFAR-10, one seed; `finetune`
66.0 % error): 69.9; with a tenth of the budget for the probe 67.2, and with moving statistics too 65.8. What it loses
is the time that its probe takes, and the statistics, which are those of the teacher's images.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, cast

import torch
from annotated_types import Gt, Lt
from torch import nn

from kfbench.methods import Batch, Group, Method, Output, Parts, Stage
from kfbench.networks.network import Network
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer.transplant import carry, freeze_body, is_head


@dataclass(frozen=True)
class ProbeThenTune(Method):
    """Settings of LP-FT."""

    probe: Annotated[float, Gt(0), Lt(1)] = 0.5  # share of the budget for the head alone; see above
    rate: Annotated[float, Gt(0)] = 1.0  # learning rate of the second stage over the recipe's; choice
    keep_statistics: bool = True  # BatchNorm normalises by the teacher's statistics throughout

    kinds = ("images",)
    teachers = (1, 1)
    needs = "architecture"
    starts_from_teacher = True
    variants = {"moving": {"keep_statistics": False}}
    search = {"probe": {"low": 0.1, "high": 0.9}, "rate": {"low": 0.01, "high": 1.0, "log": True}}

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The head alone, then everything."""
        return (Stage("probe", self.probe), Stage("tune", 1 - self.probe))

    def make_student(self, task: Task, teachers: Sequence[Teacher], rng: torch.Generator) -> Network:
        """Return the teacher's body below a fresh head."""
        network = task.make_network()
        carry(teachers[0].network, network)
        return network

    def begin(
        self,
        student: nn.Module,
        teachers: Sequence[Teacher],
        stage: Stage,
        batches: Iterable[Batch],
        rng: torch.Generator,
    ) -> None:
        """Freeze the body for the probe, and set it free afterwards."""
        freeze_body(cast(Network, student), frozen=stage.name == "probe")

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """The task's loss."""
        if not self.keep_statistics:
            return super().losses(student, teachers, batch, task, progress)
        with kept_statistics(student):
            output: Output = student(batch.images)
        return output, task.loss(output, batch)

    def parameter_groups(self, student: nn.Module) -> list[Group]:
        """The head at the recipe's rate; in the second stage everything, at `rate` times it."""
        trained = {name: weight for name, weight in student.named_parameters() if weight.requires_grad}
        probing = all(is_head(cast(Network, student), name) for name in trained)
        return [{"params": list(trained.values()), "lr_scale": 1.0 if probing else self.rate}]


@contextmanager
def kept_statistics(network: nn.Module) -> Iterator[None]:
    """Let BatchNorm normalise by its running statistics, and leave them alone, during a pass in the block."""
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    for norm in norms:
        norm.training = False
    try:
        yield
    finally:
        for norm in norms:
            norm.training = True
