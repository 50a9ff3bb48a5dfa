"""Contrastive distillation: student's and teacher's features of one image find each other among other images'.

Source: Tian, Krishnan & Isola 2020, "Contrastive Representation Distillation", arXiv 1910.10699, section 3, and the
    authors' RepDistiller (crd/criterion.py, crd/memory.py, dataset/cifar100.py): linear embeddings of length 1,
    memory banks of the embeddings of all N training images, K negatives of other classes an image, h = exp(g_S · g_T
    / tau) / Z with Z fixed by the first batch, L = CE + 0.8 · (NCE_S + NCE_T). `--set kd=1` adds Hinton's loss, as in
    the paper's CRD+KD.
Differs: negatives are drawn with replacement (the code: only where a class leaves too few). At small budgets fewer
negatives are practice: `--set negatives=512`, which the record then states.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, cast

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn

from kfbench import seeding
from kfbench.errors import KfbenchError
from kfbench.methods import Batch, Method, Output, Parts, Stage
from kfbench.networks import taps
from kfbench.networks.network import Network
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer import losses
from kfbench.transfer.companion import WithCompanions


@dataclass(frozen=True)
class ContrastiveDistillation(Method):
    """Settings of contrastive distillation."""

    weight: Annotated[float, Ge(0)] = 0.8  # of both contrastive terms
    negatives: Annotated[int, Gt(0)] = 16384  # K, an image
    dimensions: Annotated[int, Gt(1)] = 128  # of the embeddings
    tau: Annotated[float, Gt(0)] = 0.07  # divides the cosines
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.5  # share of the old embedding when a bank is updated
    kd: Annotated[float, Ge(0)] = 0.0  # weight of Hinton's loss; needs a teacher with the same classes
    temperature: Annotated[float, Gt(0)] = 4.0  # of Hinton's loss

    kinds = ("images",)
    teachers = (1, 1)
    needs = "features"
    of_teachers = (
        "may be any network, of any classes: only its features are read; with kd above 0 of the student's classes"
    )
    above_floor = "products with the embedding of every training image, in both banks"
    search = {"weight": {"low": 0.1, "high": 4.0, "log": True}, "tau": {"low": 0.02, "high": 0.5, "log": True}}

    def __post_init__(self) -> None:
        """With Hinton's loss the teacher's outputs are copied, too: only such a teacher suits."""
        if self.kd:
            object.__setattr__(self, "needs", "outputs")

    def make_student(self, task: Task, teachers: Sequence[Teacher], rng: torch.Generator) -> WithCompanions:
        """Return the task's network with two embeddings and their banks, [N, dimensions] each."""
        if not teachers[0].network.layers:
            raise KfbenchError(f"crd reads features, and the layers of teacher '{teachers[0].name}' are not known")
        network = task.make_network()
        own, theirs = network.layers[-1], teachers[0].network.layers[-1]
        widths = taps.shapes(network, [own])[own][0], teachers[0].shapes([theirs])[theirs][0]
        with seeding.global_generator(rng):
            student, teacher = (nn.Linear(width, self.dimensions) for width in widths)
            banks = Banks(task.train_size, self.dimensions, task.outputs)
        return WithCompanions(network, student=student, teacher=teacher, banks=banks)

    def begin(
        self,
        student: nn.Module,
        teachers: Sequence[Teacher],
        stage: Stage,
        batches: Iterable[Batch],
        rng: torch.Generator,
    ) -> None:
        """Note the class of every training image, from which negatives are drawn."""
        banks = cast(Banks, cast(WithCompanions, student).parts["banks"])
        banks.classify(torch.cat([cast(Tensor, batch.labels) for batch in batches]))

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """The task's loss and both contrastive terms; the banks take in the batch's embeddings afterwards."""
        assert isinstance(student, WithCompanions) and batch.index is not None and batch.labels is not None
        teacher, banks = teachers[0], cast(Banks, student.parts["banks"])
        own, theirs = student.network.layers[-1], teacher.network.layers[-1]
        with taps.read(student.network, [own]) as found:
            output: Output = student(batch.images)
        wanted = teacher.features(batch, [theirs], logits=self.kd > 0)[theirs]
        embedded = F.normalize(student.parts["student"](losses.pooled(found[own])).float(), dim=1)  # [B, D]
        anchors = F.normalize(student.parts["teacher"](losses.pooled(wanted)).float(), dim=1)  # [B, D]
        chosen = torch.cat([batch.index[:, None], banks.draw(batch.labels, self.negatives, batch.rng)], dim=1)
        scores = banks.scores(embedded, anchors, chosen, self.tau)
        contrast = torch.stack([losses.noise_contrastive(each, task.train_size) for each in scores]).sum()
        banks.take(batch.index, embedded, anchors, self.momentum)
        parts = task.loss(output, batch) | {"contrast": self.weight * contrast}
        if self.kd:
            target = losses.softened(teacher(batch).logits, self.temperature)
            parts["distillation"] = self.kd * losses.distillation(output.logits, target, self.temperature)
        return output, parts

    def export(self, student: nn.Module) -> Network:
        """The network; embeddings and banks stay behind."""
        return cast(WithCompanions, student).network


class Banks(nn.Module):
    """The latest embeddings of all training images by student and teacher, and how to draw images of other classes."""

    student: Tensor
    teacher: Tensor
    constants: Tensor
    order: Tensor
    starts: Tensor
    counts: Tensor

    def __init__(self, rows: int, dimensions: int, classes: int) -> None:
        super().__init__()
        for name in ("student", "teacher"):
            self.register_buffer(name, (2 * torch.rand(rows, dimensions) - 1) * (3 / dimensions) ** 0.5)
        self.register_buffer("constants", torch.full((2,), -1.0))  # Z of student and teacher; negative: not yet fixed
        self.register_buffer("order", torch.zeros(rows, dtype=torch.int64))  # rows sorted by class
        self.register_buffer("starts", torch.zeros(classes, dtype=torch.int64))  # of each class in `order`
        self.register_buffer("counts", torch.zeros(classes, dtype=torch.int64))

    def classify(self, labels: Tensor) -> None:
        """Note the classes [N] of the training images."""
        self.order.copy_(labels.argsort(stable=True))
        self.counts.copy_(torch.bincount(labels, minlength=len(self.counts)))
        self.starts.copy_(self.counts.cumsum(0) - self.counts)

    def draw(self, labels: Tensor, negatives: int, rng: torch.Generator) -> Tensor:
        """Return rows [B, K] of the training split whose classes differ from `labels` [B], each equally likely."""
        uniform = seeding.uniform(len(labels), negatives, rng=rng, device=labels.device)
        start, count = self.starts[labels][:, None], self.counts[labels][:, None]
        others = len(self.order) - count
        place = (uniform * others).long().clamp(max=others - 1)  # rounding may reach the end
        return self.order[place + (place >= start) * count]  # the class's own block is stepped over

    def scores(self, embedded: Tensor, anchors: Tensor, chosen: Tensor, tau: float) -> tuple[Tensor, Tensor]:
        """Return h of student and teacher embeddings [B, D] with the other's bank at chosen rows, [B, 1 + K] each."""
        # all N products, then a choice: one matrix product is far faster than gathering B · K embeddings
        each = [
            (losses.product(now, bank.T).gather(1, chosen) / tau).exp()
            for now, bank in ((embedded, self.teacher.clone()), (anchors, self.student.clone()))
        ]
        means = torch.stack([scores.detach().mean() for scores in each]) * len(self.order)
        self.constants.copy_(torch.where(self.constants < 0, means, self.constants))
        return each[0] / self.constants[0].clone(), each[1] / self.constants[1].clone()

    @torch.no_grad()
    def take(self, rows: Tensor, embedded: Tensor, anchors: Tensor, momentum: float) -> None:
        """Move the banks' rows [B] towards the new embeddings [B, D] and make them of length 1 again."""
        for bank, new in ((self.student, embedded), (self.teacher, anchors)):
            bank[rows] = F.normalize(momentum * bank[rows] + (1 - momentum) * new.detach(), dim=1)
