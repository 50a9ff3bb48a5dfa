"""Co-tuning: the teacher's own head is fine-tuned too, towards what its classes mean to each class of the new task.

Source: You, Kou, Long & Wang 2020, "Co-Tuning for Transfer Learning", NeurIPS, and the authors' code (thuml/CoTuning,
    train.py and module/relationship_learning.py; thuml/Transfer-Learning-Library, tllib/regularization/co_tuning.py):
    L = CE(y_t, p_t) + w · H(p(y_s|y_t), p_s),  p_s from the teacher's head on the features that are being tuned;
    w = 2.3. The relationship p(y_s|y_t) is learned once, from the teacher's answers to the training images:
    `reverse` (thuml/CoTuning) fits p(y_t|y_s) by logistic regression on them, the strength of its L2 term chosen
    and its scale calibrated on held-out images, and turns it round by Bayes' rule with the mean answer as p(y_s);
    variant `direct` is the mean answer to each class's images.
Differs: held-out images are a tenth of each class's training images (there: a validation set, which methods do not
see here), chosen by chance. The teacher's answers are taken at its own temperature (there: logits times 0.884, the
calibration of an ImageNet ResNet-50 on its own images). The new head starts as the network's own does (thuml/CoTuning:
from N(0, 0.01²)). The body and the old head learn at its rate, as in `finetune` (see `bss`; the source: a tenth).

Tried on validation images (CIFAR-100, 10,000 images for 12 epochs, a cnn-16 from one of CIFAR-10, one seed; `finetune`
66.0 % error): 68.1; with w = 0.1 65.9. A likely reason: ten classes say little of a hundred; the source's teacher had
a thousand.
"""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, cast

import numpy as np
import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from kfbench.methods import Batch, Group, Method, Output, Parts, Stage
from kfbench.networks.network import Network
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer import losses
from kfbench.transfer.companion import WithCompanions
from kfbench.transfer.transplant import below_head, carry, groups, old_head

STRENGTHS = tuple(base * 10.0**power for power in range(4, -5, -1) for base in (1.0, 0.3))[:-1]  # C of the source


@dataclass(frozen=True)
class CoTuning(Method):
    """Settings of co-tuning."""

    weight: Annotated[float, Ge(0)] = 2.3  # w
    relationship: Literal["reverse", "direct"] = "reverse"  # how p(y_s|y_t) is learned
    body_rate: Annotated[float, Gt(0)] = 1.0  # learning rate of body and old head over the new head's; choice

    kinds = ("images",)
    teachers = (1, 1)
    needs = "architecture"
    starts_from_teacher = True
    variants = {"direct": {"relationship": "direct"}}
    search = {
        "weight": {"low": 0.1, "high": 10.0, "log": True},
        "body_rate": {"low": 0.01, "high": 1.0, "log": True},
    }

    def make_student(self, task: Task, teachers: Sequence[Teacher], rng: torch.Generator) -> WithCompanions:
        """Return the teacher's body below a fresh head, its old head and room for the relationship."""
        network, teacher = task.make_network(), teachers[0].network
        carry(teacher, network)
        return WithCompanions(network, old=old_head(teacher), relationship=Relationship(task.outputs, teacher.outputs))

    def begin(
        self,
        student: nn.Module,
        teachers: Sequence[Teacher],
        stage: Stage,
        batches: Iterable[Batch],
        rng: torch.Generator,
    ) -> None:
        """Ask the teacher about all training images, and learn what its classes mean to the task's.

        A class that has no training image keeps an even distribution: no loss will ask for it.
        """
        assert isinstance(student, WithCompanions)
        teacher = teachers[0].at(student.network.shape)
        answers, labels = [], []
        for batch in batches:
            answers.append(losses.softened(teacher(batch).logits, 1.0).cpu())
            labels.append(cast(Tensor, batch.labels).cpu())
        table = cast(Relationship, student.parts["relationship"]).table
        said, (there, of) = torch.cat(answers), torch.unique(torch.cat(labels), return_inverse=True)
        counted = self.relationship == "direct" or len(there) == 1  # of one class there is nothing to tell apart
        rows = direct(said, of, len(there)) if counted else learned(said, of, rng)
        table[there.to(table.device)] = rows.to(table.device)

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """The task's loss, and the cross-entropy of the old head to the relationship's row."""
        assert isinstance(student, WithCompanions) and batch.labels is not None
        with below_head(student.network) as taken:
            output: Output = student(batch.images)
        now: Tensor = student.parts["old"](taken[0])  # [B, K of the teacher]
        wanted = cast(Relationship, student.parts["relationship"]).table[batch.labels]
        return output, task.loss(output, batch) | {"old": self.weight * losses.cross_entropy(wanted, now)}

    def parameter_groups(self, student: nn.Module) -> list[Group]:
        """The new head at the recipe's rate, the body and the old head at its multiple."""
        assert isinstance(student, WithCompanions)
        return groups(student.network, student.parts.parameters(), body_rate=self.body_rate)

    def export(self, student: nn.Module) -> Network:
        """The network with its new head."""
        return cast(WithCompanions, student).network


class Relationship(nn.Module):
    """p(y_s|y_t): a distribution over the teacher's classes for each class of the task, [K, K of the teacher]."""

    table: Tensor

    def __init__(self, classes: int, theirs: int) -> None:
        super().__init__()
        self.register_buffer("table", torch.full((classes, theirs), 1 / theirs))


def direct(answers: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return the mean of the teacher's answers [N, K_s] over the images of each class, [K_t, K_s]."""
    return torch.stack([answers[labels == label].mean(0) for label in range(classes)])


def learned(answers: Tensor, labels: Tensor, rng: torch.Generator) -> Tensor:
    """Return `reverse` of the teacher's answers [N, K_s] to images of classes [N], a tenth of each class held out."""
    order = torch.randperm(len(labels), generator=rng)
    held = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(int(labels.max()) + 1):
        rows = order[labels[order] == label]
        held[rows[: len(rows) // 10]] = True
    if not held.any():  # fewer than ten images of every class
        return reverse(answers, labels, answers, labels)
    return reverse(answers[~held], labels[~held], answers[held], labels[held])


def reverse(answers: Tensor, labels: Tensor, held: Tensor, of: Tensor) -> Tensor:
    """Return p(y_s|y_t), [K_t, K_s], by Bayes' rule from p(y_t|y_s), fitted on answers [N, K_s] of classes [N].

    Every class must be among them. `held` [M, K_s], answers to images of classes `of` [M], choose and calibrate.
    """
    from scipy.optimize import minimize_scalar
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    best, weights = -1.0, torch.zeros(0)
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, fit_intercept=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # weak L2 terms need more than the source's 100 steps
            warnings.simplefilter("ignore", UserWarning)  # of many classes and few images: so it is
            model.fit(answers.numpy(), labels.numpy())
        right = float(model.score(held.numpy(), of.numpy()))
        if right > best:
            best, weights = right, torch.from_numpy(np.asarray(model.coef_)).double()
    if len(weights) == 1:  # of two classes sklearn gives the second's alone
        weights = torch.cat([torch.zeros_like(weights), weights])

    def cost(logarithm: float) -> float:
        return float(nn.functional.cross_entropy(held.double() @ weights.T * np.exp(logarithm), of))

    scale = float(np.exp(minimize_scalar(cost, bounds=(-7.0, 7.0), method="bounded").x))
    target = torch.log_softmax(weights.T * scale, dim=1)  # log p(y_t|y_s), [K_s, K_t]; as logarithms none underflows
    joint = target + torch.cat([answers, held]).double().mean(0).log()[:, None]
    return torch.softmax(joint.T, dim=1).float()
