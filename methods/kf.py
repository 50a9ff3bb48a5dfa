"""Knowledge Flow: frozen teachers' features are mixed into the student's layers, then withdrawn.

Source: Liu, Peng & Schwing 2019, "Knowledge Flow: Improve Upon Your Teachers", ICLR, arXiv 1904.05878. At layer j
    h_j  <-  p_0 h_j + sum_k p_k Q_k(z_k),   p = softmax(w_j) over {the student's own layer, linked teacher layers},
    L = L_task + dep(t) · L_dep + kl · L_KL,  L_dep = -mean_j log p_0^j,  L_KL = KL(previous output || output).
Q is learned, teachers are frozen; the weight of L_dep rises, at `cut` the teachers are removed and the student trains
on alone. The paper's own figures for its settings are not known here: where one stands below, it is marked
`descendant:` (CAT, TJU-DRL-LAB, PPO2 code that took Knowledge Flow's connections over) or `choice:` (ours).
Differs: Q between maps of different sizes pools or interpolates; "previous" on images is the sample's last output; the
mixing weights have a learning rate of their own: a larger one by Adam, else they hardly move in a short budget, a
smaller one by SGD. In games "previous" is the policy that acted, so L_KL is 0 under a2c, whose only step of a rollout
is taken where that policy still is (but for the recipe's `overlap`).

The schedule: with that of the descendants (variant `descendant`) the student never learns to do without its teachers in
a short budget, and collapses at the cut. Chosen on validation (CIFAR-10 with 2,000 labels, seed 11, 40 epochs; error in
%, scratch 38.8): `descendant` 71.4; dep 10 rising over 10-60 %, cut at 70 %, kl 1: 47.6; the defaults: 41.0
(40.3 on another processor).

A rate of the mixing weights that suits Adam (`mix_rate` 10) sends the shares to the student within two epochs of SGD at
a rate of 0.1, as in the budgets `standard` and `paper`, and no teacher is heard: 73.8 on validation (CIFAR-100, 10,000
images, 12 epochs, seed 11) where `scratch` has 70.6, 0.1 has 69.4 and 0.01 has 69.1, the default with SGD. With that a
cut at 20 % of the budget has 68.2, at 60 % 70.6, and without a fresh optimiser at the cut 72.3.

`anchored` has the paper's parts and costs no pass more: once the teachers are gone, L_KL is not to the student's last
output but to what it last said of the image with them, so that the knowledge stays in its targets when it leaves its
layers. On the same validation images weight 1 has 67.2 (to the last output 70.9), weight 3 68.8, weight 1 with a cut at
30 % 68.7, at 20 % 68.8. On test images, five other seeds, `scratch` has 71.8, the defaults 69.3, `anchored` 67.5 and
with untrained teachers 75.9; by AdamW (a cnn-16) the first three have 69.2, 70.3 and 67.9. With all of CIFAR-100 for 30
epochs it has 36.8 where `scratch` has 36.2 (three seeds, undecided), the defaults 38.5 and with untrained teachers 36.2
(three seeds each): the lower layers wither while the teachers are there. With a cut at 15 % (chosen on validation, seed
11) it has 35.4, 0.7 points (0.2 to 1.1, five seeds) ahead of `scratch`, with untrained teachers 41.2 (five seeds); on
validation images the first two are level. With 4,500 images and as many epochs it has 66.5, the defaults 70.0,
`scratch` 72.0 (three seeds); with 13,500 49.0, 52.7 and 51.7. On images only: in games it is L_KL of weight 1.

The other variants add what the paper does not have, so that the student can stand alone: `alone` passes each batch a
second time through the student without teachers, with cross-entropy and a KL to the mixed output; `guided` adds a
regression of the student's features onto the teachers' that fades out; `warm` starts, as fine-tuning does, from the
weights of a teacher of the student's network.

Tried on the validation images of CIFAR-10, error in % (one seed): `matched` 40.3 (without 41.0); a matched share that
is scheduled from 0.5 to 1 over 30 % of the budget has 39.8, over 50 % 42.8 (without a fresh optimiser 41.2), with
layers withdrawn one after another 43.0, from pre-activations 41.3: none beats `scratch`. With all of CIFAR-10 for 30
epochs the defaults have 19.0 on test images, three seeds, where `scratch` has 17.5 and untrained teachers 17.2; matched
shares on a schedule have 20.0, 23.0 and 90.0, as nothing holds the scale of the student's own features: a layer's may
die. `warm`, from a cnn-16 of CIFAR-100 with that and a wider teacher, has 32.4 with hint 1 and 31.8 with hint 10;
fine-tuning alone 33.5. On test images, five seeds, it has 33.0 where fine-tuning has 33.6 and DELTA 32.5; with 10,000
labels and 12 epochs 27.8 where fine-tuning has 27.2.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, cast

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Le, Lt
from torch import nn

from kfbench import seeding
from kfbench.errors import KfbenchError
from kfbench.methods import Batch, Group, Method, Output, Parts, Stage
from kfbench.networks import taps
from kfbench.networks.network import Network
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer import losses
from kfbench.transfer.mixing import Links, MixedStudent, parse_links
from kfbench.transfer.previous import LastOutputs
from kfbench.transfer.transplant import carry

Fraction = Annotated[float, Ge(0), Le(1)]
Weight = Annotated[float, Ge(0)]


@dataclass(frozen=True)
class KnowledgeFlow(Method):
    """Settings of Knowledge Flow; the defaults are the paper's form."""

    position: Literal["post", "pre"] = "post"  # mix what activations put out, or what they take in (descendant: pre)
    links: str = "depth"  # by relative depth, or "LAYER=0:LAYER+1:LAYER;LAYER=…" (student layer = teacher:layer)
    links_per_layer: Annotated[int, Gt(0)] = 1  # of each teacher, with "depth"; choice: the descendants link one
    normalise: bool = True  # images: standardise teachers' features before Q, by statistics measured once; choice
    matched: bool = False  # scale each candidate to the student's own root mean square, so that a share is an influence
    share: Literal["learned", "scheduled"] = "learned"  # p_0: learned, or linear from initial_share to 1 at the cut
    withdrawal: Literal["together", "lowest-first"] = "together"  # "scheduled": layers at once, or one after another
    # p_0 at the start, with any number of teachers; choice (descendant: 0.47 with one, 0.31 with two)
    initial_share: Annotated[float, Gt(0), Le(1)] = 0.47
    share_floor: Annotated[float, Ge(0), Lt(1)] = 0.0  # p_0 is never below this, less than initial_share; choice
    # learning rate of the mixing weights over the network's; choice
    mix_rate: Annotated[float, Gt(0)] = 10.0
    dep: Weight = 10.0  # final weight of L_dep; choice (descendant: 1 or 0.5), see the note on the schedule above
    dep_start: Fraction = 0.0  # progress at which it leaves 0, rising linearly; choice (descendant: 0.45)
    dep_end: Fraction = 0.3  # progress at which it is reached; choice (descendant: 0.9)
    cut: Fraction = 0.4  # progress at which the teachers are removed; choice (descendant: 0.9)
    restart: bool = True  # a fresh optimiser and schedule at the cut; choice (descendant: no)
    kl: Weight = 0.1  # weight of L_KL; descendant: 0.05 or 0.1
    # images: the sample's last output, its last with teachers, or that of a frozen copy of the student; choice
    previous: Literal["last", "attached", "snapshot"] = "last"
    refresh: Annotated[int, Gt(0)] = 100  # steps between copies, with "snapshot"; choice
    alone: Weight = 0.0  # weight of the lone student's cross-entropy, a second pass; choice: not in the paper
    agree: Weight = 0.0  # weight of T² KL(mixed || alone) in that pass
    temperature: Annotated[float, Gt(0)] = 4.0  # T of that KL
    hint: Weight = 0.0  # weight of the regression onto teachers' features, falling linearly to 0 at the cut
    # the student's first weights: its own, or those of a teacher with its network; choice
    start: Literal["fresh", "teacher"] = "fresh"

    teachers = (1, None)
    needs = "features"
    of_teachers = (
        "may be any network, of any classes: only its features are read; with start=teacher (warm) one of them must be "
        "the student's network"
    )
    above_floor = (
        "every teacher's features go through a matrix at every mixed layer, forward and backward; "
        "alone, guided and warm pass each batch a second time through the student"
    )
    by_optimizer = {"sgd": {"mix_rate": 0.01}}
    younger = {"matched": False, "withdrawal": "together", "start": "fresh"}
    variants = {
        "descendant": {"dep": 1.0, "dep_start": 0.45, "dep_end": 0.9, "cut": 0.9, "restart": False},
        "anchored": {"previous": "attached", "kl": 1.0},
        "alone": {
            "share": "scheduled",
            "initial_share": 0.3,
            "dep": 0.0,
            "dep_start": 0.45,
            "dep_end": 0.9,
            "cut": 0.9,
            "restart": False,
            "kl": 0.0,
            "alone": 1.0,
            "agree": 1.0,
        },
        "guided": {
            "share": "scheduled",
            "initial_share": 0.5,
            "dep": 0.0,
            "dep_start": 0.45,
            "dep_end": 0.9,
            "cut": 0.9,
            "restart": False,
            "kl": 0.0,
            "alone": 1.0,
            "agree": 1.0,
            "hint": 10.0,
        },
        "warm": {
            "share": "scheduled",
            "initial_share": 0.5,
            "dep": 0.0,
            "cut": 0.9,
            "restart": False,
            "kl": 0.0,
            "alone": 1.0,
            "agree": 1.0,
            "hint": 10.0,
            "start": "teacher",
        },
    }
    search = {
        "initial_share": {"low": 0.1, "high": 0.9},
        "dep": {"low": 0.05, "high": 20.0, "log": True},
        "kl": {"low": 0.01, "high": 1.0, "log": True},
        "cut": {"low": 0.2, "high": 0.95},
        "mix_rate": {"low": 1.0, "high": 100.0, "log": True},
    }
    search_by_optimizer = {"sgd": {"mix_rate": {"low": 0.001, "high": 0.1, "log": True}}}
    variant_search = {
        "alone": {
            "initial_share": {"low": 0.1, "high": 0.9},
            "cut": {"low": 0.2, "high": 0.95},
            "alone": {"low": 0.1, "high": 10.0, "log": True},
            "agree": {"low": 0.1, "high": 10.0, "log": True},
            "temperature": {"low": 1.0, "high": 20.0, "log": True},
        },
        "guided": {
            "initial_share": {"low": 0.1, "high": 0.9},
            "cut": {"low": 0.2, "high": 0.95},
            "alone": {"low": 0.1, "high": 10.0, "log": True},
            "agree": {"low": 0.1, "high": 10.0, "log": True},
            "hint": {"low": 1.0, "high": 100.0, "log": True},
        },
        "warm": {
            "initial_share": {"low": 0.1, "high": 0.9},
            "cut": {"low": 0.2, "high": 0.95},
            "alone": {"low": 0.1, "high": 10.0, "log": True},
            "agree": {"low": 0.1, "high": 10.0, "log": True},
            "hint": {"low": 1.0, "high": 100.0, "log": True},
        },
    }

    @property
    def starts_from_teacher(self) -> bool:  # type: ignore[override]  # a setting decides
        """True if a teacher's weights are the student's first."""
        return self.start == "teacher"

    @property
    def revision(self) -> int:  # type: ignore[override]
        """2 with snapshots: until then one was replaced before it was asked, and said what the student said."""
        return 2 if self.previous == "snapshot" else 1

    @property
    def stages(self) -> tuple[Stage, ...]:
        """One stage; with `restart` the time after the cut is a second one."""
        if self.restart and 0 < self.cut < 1:
            return (Stage("mixed", self.cut), Stage("alone", 1 - self.cut))
        return (Stage("train"),)

    def make_student(self, task: Task, teachers: Sequence[Teacher], rng: torch.Generator) -> MixedStudent:
        """Return the task's plain network among mixing weights and transformations."""
        if self.initial_share <= self.share_floor:  # it would begin, and stay, where softmax is flat
            lower = f"share_floor {self.share_floor:g} is not below initial_share {self.initial_share:g}"
            raise KfbenchError(f"{lower}; lower the one or raise the other")
        network = task.make_network()
        if self.start == "teacher":
            carry(_twin(network, teachers), network)
        links = self._links(network, teachers)
        with seeding.global_generator(rng):
            student = MixedStudent(
                network,
                teachers,
                links,
                position=self.position,
                normalise=self.normalise and not task.acts,
                initial_share=self.initial_share,
                floor=self.share_floor,
                learned=self.share == "learned",
                matched=self.matched,
                separate_statistics=self.alone + self.agree > 0,
                hints=self.hint > 0,
            )
        if not task.acts and self.kl and self.previous != "snapshot":
            student.last = LastOutputs(task.train_size, network.outputs)
        elif not task.acts and self.kl:
            student.take_snapshots()
        return student

    def _links(self, network: Network, teachers: Sequence[Teacher]) -> Links:
        if self.links != "depth":
            return parse_links(self.links, len(teachers))
        links: Links = {layer: [] for layer in network.layers}
        for k, teacher in enumerate(teachers):
            near = taps.match(network.layers, teacher.network.layers, most=self.links_per_layer)
            for layer, theirs in near.items():
                links[layer] += [(k, name) for name in theirs]
        return links

    def begin(
        self,
        student: nn.Module,
        teachers: Sequence[Teacher],
        stage: Stage,
        batches: Iterable[Batch],
        rng: torch.Generator,
    ) -> None:
        """Measure the teachers' features, to standardise them; the stage after the cut has none."""
        mixed = cast(MixedStudent, student)
        mixed.stands_alone = stage.name == "alone"
        if not mixed.stands_alone:
            mixed.measure(teachers, batches)

    def is_attached(self, progress: float) -> bool:
        """True before the cut."""
        return progress < self.cut

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """Task loss of the mixed student, dependency and KL terms; after the cut, of the student alone."""
        assert isinstance(student, MixedStudent)
        schedule = self._scheduled(progress, len(student.links))
        student.shares.note(schedule)
        if not self._flows(student, progress):
            student.forget()
            output: Output = student(batch.images)
            return output, task.loss(output, batch) | self._stay(student, batch, output)
        features = batch.extras or student.ask(teachers, batch)
        output = student(batch.images, features, schedule)
        parts = task.loss(output, batch) | self._stay(student, batch, output, features, schedule)
        if self.dep and self.share == "learned":
            ramp = (progress - self.dep_start) / max(self.dep_end - self.dep_start, 1e-9)
            parts["dependency"] = self.dep * min(1.0, max(0.0, ramp)) * student.shares.dependency()
        if self.alone or self.agree:
            lone = student(batch.images)
            target = losses.softened(output.logits.detach(), self.temperature)
            parts |= {f"alone {name}": self.alone * part for name, part in task.loss(lone, batch).items()}
            parts["agree"] = self.agree * losses.distillation(lone.logits, target, self.temperature)
        if self.hint:
            parts["hint"] = self.hint * (1 - progress / self.cut) * student.hint_loss(features)
        return output, parts

    def _stay(
        self,
        student: MixedStudent,
        batch: Batch,
        output: Output,
        features: Parts | None = None,
        schedule: Sequence[float] | None = None,
    ) -> Parts:
        """L_KL: the output stays near that of the rollout (games), of the last visit or of the snapshot (images)."""
        if not self.kl:
            return {}
        if batch.output is not None:
            before = F.softmax(batch.output.logits.detach().float(), dim=1)
            return {"kl": self.kl * losses.kl(before, output.logits)}
        if self.previous == "snapshot":
            before = F.softmax(student.before(batch.images, features, schedule, refresh=self.refresh).float(), dim=1)
            return {"kl": self.kl * losses.kl(before, output.logits)}
        assert student.last is not None and batch.index is not None
        keep = features is not None or self.previous == "last"
        return {"kl": self.kl * student.last.moved(batch.index, output.logits, keep=keep)}

    def _flows(self, student: MixedStudent, progress: float) -> bool:
        """Say whether teachers are asked: never in the stage after the cut, which may begin a step before it."""
        return self.is_attached(progress) and not student.stands_alone

    def _scheduled(self, progress: float, layers: int) -> list[float] | None:
        """Return the student's share of each layer where it is not learned; 1 from the cut on."""
        if self.share == "learned":
            return None
        if not self.is_attached(progress):
            return [1.0] * layers
        done = min(1.0, progress / self.cut)
        parts = [done] * layers
        if self.withdrawal == "lowest-first":  # each layer has a part of the time of its own
            parts = [min(1.0, max(0.0, done * layers - j)) for j in range(layers)]
        return [self.initial_share + (1 - self.initial_share) * part for part in parts]

    def act(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, progress: float
    ) -> tuple[Output, Parts]:
        """The mixed student's output, and the teachers' features to remember; the student's own after the cut."""
        assert isinstance(student, MixedStudent)
        if not self._flows(student, progress):
            return student(batch.images), {}
        features = student.ask(teachers, batch)
        return student(batch.images, features, self._scheduled(progress, len(student.links))), features

    def parameter_groups(self, student: nn.Module) -> list[Group]:
        """The network and the transformations at the recipe's rate, the mixing weights at a multiple, undecayed."""
        mixing = list(cast(MixedStudent, student).shares.parameters())
        rest = [weight for weight in student.parameters() if all(weight is not other for other in mixing)]
        learned = [w for w in mixing if w.requires_grad]
        groups: list[Group] = [
            {"params": rest},
            {"params": learned, "lr_scale": self.mix_rate, "weight_decay": 0.0},
        ]
        return [group for group in groups if group["params"]]

    def metrics(self, student: nn.Module) -> dict[str, float]:
        """Shares and influences of every layer's candidates, and the student's mean share, `share/student`."""
        return cast(MixedStudent, student).numbers()

    def export(self, student: nn.Module) -> Network:
        """A plain network with the student's weights; nothing of the mix remains."""
        return cast(MixedStudent, student).network.clone()


def _twin(network: Network, teachers: Sequence[Teacher]) -> Network:
    """Return the first teacher's network that is the student's. Raises KfbenchError if none is."""
    for teacher in teachers:
        if teacher.network.name == network.name:
            return teacher.network
    names = ", ".join(teacher.network.name for teacher in teachers)
    raise KfbenchError(
        f"start=teacher needs a teacher with the student's network '{network.name}', there is: {names}; "
        f"give --teachers TASK/{network.name} first, or --network {teachers[0].network.name}"
    )
