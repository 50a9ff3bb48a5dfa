"""Factor transfer: a paraphraser learns to say the teacher's map in fewer channels, and the student says the same.

Source: Kim, Park & Kwak 2018, "Paraphrasing Complex Network: Network Compression via Factor Transfer", arXiv
    1802.04977, and the authors' code (Jangho-Kim/Factor-Transfer-pytorch). First an autoencoder of the teacher's last
    map, |x - P(x)|², three convolutions down to k times the channels and three up; then
    L = CE + β mean |F_T/|F_T| - F_S/|F_S||,  F_T the encoder's factor, F_S that of the translator, three convolutions
    on the student's last map. β = 500, k = 0.5 (train_student.py). The paraphraser's stage takes 30 of 270 epochs
    (RepDistiller, --init_epochs).
Differs: the reconstruction's error is squared, as in the paper and RepDistiller (mean absolute in the authors' code).
The larger of two factors is average-pooled, as in RepDistiller.

Tried on validation images (CIFAR-100, 10,000 images for 12 epochs, a cnn-16 from a cnn-32, one seed; `kd` 62.3 %
error, `scratch` 69.7 %): 68.8; with a fifth of the weight 69.7. Three seeds end 5 points apart on test images: perhaps
much hangs on the paraphraser that so short a first stage finds.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, cast

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn

from kfbench import seeding
from kfbench.methods import Batch, Method, Output, Parts, Stage
from kfbench.networks import taps
from kfbench.networks.network import Network
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer import maps
from kfbench.transfer.companion import WithCompanions


@dataclass(frozen=True)
class FactorTransfer(Method):
    """Settings of the paraphraser's stage and the student's."""

    share: Annotated[float, Gt(0), Lt(1)] = 30 / 270  # of the budget, for the paraphraser
    rate: Annotated[float, Gt(0)] = 0.5  # k: channels of the factor, of the teacher's
    beta: Annotated[float, Ge(0)] = 500.0  # weight of the factors' difference

    kinds = ("images",)
    teachers = (1, 1)
    needs = "features"
    above_floor = "six convolutions at the teacher's width on the last map while the paraphraser learns, then three"
    search = {
        "share": {"low": 0.05, "high": 0.4},
        "rate": {"low": 0.25, "high": 2.0, "log": True},
        "beta": {"low": 20.0, "high": 2000.0, "log": True},
    }

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The paraphraser, then the student."""
        return (Stage("paraphrase", self.share), Stage("train", 1 - self.share))

    def make_student(self, task: Task, teachers: Sequence[Teacher], rng: torch.Generator) -> WithCompanions:
        """Return the task's network, paraphraser and translator. Raises KfbenchError where the features are no maps."""
        network = task.make_network()
        pair = maps.last(network, teachers[0])
        factor = max(1, round(pair.wanted[0] * self.rate))
        with seeding.global_generator(rng):
            return WithCompanions(
                network,
                encoder=coder(pair.wanted[0], pair.wanted[0], factor, factor),
                decoder=coder(factor, factor, pair.wanted[0], pair.wanted[0], up=True),
                translator=coder(pair.taken[0], pair.taken[0], factor, factor),
            )

    def begin(
        self,
        student: nn.Module,
        teachers: Sequence[Teacher],
        stage: Stage,
        batches: Iterable[Batch],
        rng: torch.Generator,
    ) -> None:
        """Train the paraphraser alone, then network and translator."""
        assert isinstance(student, WithCompanions)
        student.stage = stage.name
        student.requires_grad_(stage.name == "train")
        for part in ("encoder", "decoder"):
            student.parts[part].requires_grad_(stage.name == "paraphrase")

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """The reconstruction's error; or the task's loss and the difference of the factors."""
        assert isinstance(student, WithCompanions)
        own, theirs = student.network.layers[-1], teachers[0].network.layers[-1]
        wanted = teachers[0].features(batch, [theirs])[theirs]
        factor = student.parts["encoder"](wanted)
        with taps.read(student.network, [own]) as found, torch.set_grad_enabled(student.stage == "train"):
            output: Output = student(batch.images)
        if student.stage == "paraphrase":
            error = (student.parts["decoder"](factor).float() - wanted.float()).square().mean()
            return output, {"reconstruction": error}
        apart = factors(student.parts["translator"](found[own]), factor)
        return output, task.loss(output, batch) | {"factors": self.beta * apart}

    def export(self, student: nn.Module) -> Network:
        """The network; paraphraser and translator stay behind."""
        return cast(WithCompanions, student).network


def coder(*widths: int, up: bool = False) -> nn.Sequential:
    """Return three 3x3 convolutions (transposed ones with `up`) through these widths, each with a LeakyReLU."""
    made = nn.Sequential()
    for before, after in zip(widths, widths[1:], strict=False):
        made.append((nn.ConvTranspose2d if up else nn.Conv2d)(before, after, 3, padding=1))
        made.append(nn.LeakyReLU(0.1))
    return made


def factors(own: Tensor, theirs: Tensor) -> Tensor:
    """Return the mean difference of two factors [B, C, H, W], each image's of length 1."""
    one, other = (F.normalize(each.float().flatten(1), dim=1) for each in maps.shrink(own, theirs))
    return (one - other).abs().mean()
