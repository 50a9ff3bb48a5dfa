"""Bi-tuning: fine-tuning with two contrasts against queues of each class, of the head's scores and of a projection.

Source: Zhong, Wang, Kou, Wang & Long 2020, "Bi-tuning of Pre-trained Representations", arXiv 2011.06182, and the
    authors' Transfer-Learning-Library (tllib/regularization/bi_tuning.py,
    examples/task_adaptation/image_classification/bi_tuning.py):
    L = CE + w · (KL(u || softmax(s_z / T)) + KL(u || softmax(s_y / T))),
    for an image of class c: s_z = z · z' of its projection with that of its key and with all K · C keys in the queues;
    s_y = w_c · h' of class c's weights (with bias, of length 1, no gradient) with its own features (with a 1, of
    length 1) and with all features in the queues; u is uniform over the first and the K of class c. Keys come from an
    encoder that follows by momentum m, on a second view of the image. w = 1, K = 40, m = 0.999, T = 0.07, projection
    to 128. A batch's keys are among the features that its s_y see, and not among the projections that its s_z see.
Differs: the second view is the batch's image moved by up to `shift` pixels, since a batch has one augmented view of
each image (there: two independent ones). The head starts as the network's own does (there: from N(0, 0.01²)). The
body and the projection learn at the head's rate, as in `finetune` (see `bss`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, cast

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from kfbench import seeding
from kfbench.methods import Batch, Group, Method, Output, Parts
from kfbench.networks.network import Network
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer import losses
from kfbench.transfer.companion import WithCompanions
from kfbench.transfer.transplant import below_head, carry, groups, head, places


@dataclass(frozen=True)
class BiTuning(Method):
    """Settings of bi-tuning."""

    weight: Annotated[float, Ge(0)] = 1.0  # w, of both contrasts
    queue: Annotated[int, Gt(0)] = 40  # K, keys of each class
    momentum: Annotated[float, Ge(0), Le(1)] = 0.999  # m, of the key encoder
    tau: Annotated[float, Gt(0)] = 0.07  # T, divides the cosines
    dimensions: Annotated[int, Gt(1)] = 128  # of the projection
    shift: Annotated[int, Ge(0)] = 4  # pixels by which the second view is moved; choice, CIFAR's crop
    body_rate: Annotated[float, Gt(0)] = 1.0  # learning rate of body and projection over the head's; choice

    kinds = ("images",)
    teachers = (1, 1)
    needs = "architecture"
    above_floor = "keys come from a second pass, of the encoder that follows, and are compared with every class's queue"
    starts_from_teacher = True
    search = {
        "weight": {"low": 0.1, "high": 10.0, "log": True},
        "tau": {"low": 0.02, "high": 0.5, "log": True},
        "body_rate": {"low": 0.01, "high": 1.0, "log": True},
    }

    def make_student(self, task: Task, teachers: Sequence[Teacher], rng: torch.Generator) -> WithCompanions:
        """Return the teacher's body below a fresh head, its projection, their followers and the queues."""
        network = task.make_network()
        carry(teachers[0].network, network)
        width = cast(nn.Linear, head(network)).in_features
        with seeding.global_generator(rng):
            projection = nn.Linear(width, self.dimensions)
            queues = Queues(task.outputs, self.queue, width + 1, self.dimensions)
        return WithCompanions(
            network, projection=projection, encoder=Follower(network), follower=Follower(projection), queues=queues
        )

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """The task's loss and both contrasts; the followers move first, and the queues take the batch's keys in."""
        assert isinstance(student, WithCompanions) and batch.labels is not None
        network, projection, labels = student.network, student.parts["projection"], batch.labels
        encoder, follower, queues = (student.parts[name] for name in ("encoder", "follower", "queues"))
        assert isinstance(encoder, Follower) and isinstance(follower, Follower) and isinstance(queues, Queues)
        with below_head(network) as taken:
            output: Output = student(batch.images)
            with torch.no_grad():
                encoder.follow(network, self.momentum)
                follower.follow(projection, self.momentum)
                encoder(network, shifted(batch.images, self.shift, batch.rng))
                own, other = (hidden.float() for hidden in taken)
                keyed = unit(follower(projection, other).float())  # [B, D]
        projected, features = unit(projection(own).float()), with_one(own)
        near = (projected * keyed).sum(1, keepdim=True)
        of_projections = contrast(
            near, losses.product(projected, queues.projections.flatten(1).clone()), labels, self.queue, self.tau
        )
        queues.take(labels, with_one(other), keyed)
        weights = class_weights(head(network))[labels]  # [B, F + 1], each row that of the image's own class
        near = (features * weights).sum(1, keepdim=True)
        of_scores = contrast(near, losses.product(weights, queues.features.flatten(1)), labels, self.queue, self.tau)
        parts = {"projections": self.weight * of_projections, "scores": self.weight * of_scores}
        return output, task.loss(output, batch) | parts

    def parameter_groups(self, student: nn.Module) -> list[Group]:
        """The head at the recipe's rate, the body and the projection at its multiple."""
        assert isinstance(student, WithCompanions)
        return groups(student.network, student.parts.parameters(), body_rate=self.body_rate)

    def export(self, student: nn.Module) -> Network:
        """The network; projection, followers and queues stay behind."""
        return cast(WithCompanions, student).network


def unit(vectors: Tensor) -> Tensor:
    """Return rows [B, D] of length 1."""
    return F.normalize(vectors, dim=1)


def with_one(features: Tensor) -> Tensor:
    """Return features [B, F] with a 1 after them, of length 1 together: [B, F + 1]."""
    return unit(F.pad(features, (0, 1), value=1.0))


def class_weights(last: nn.Module) -> Tensor:
    """Return the weights of a linear head with their biases, of length 1 a class, [K, F + 1], without gradients."""
    linear = cast(nn.Linear, last)
    return unit(torch.cat([linear.weight, linear.bias[:, None]], dim=1).detach().float())


def contrast(near: Tensor, queued: Tensor, labels: Tensor, depth: int, tau: float) -> Tensor:
    """Return the mean KL(u || softmax(scores / T)): `near` [B, 1] and, class after class, `queued` [B, C · depth].

    u is uniform over `near` and the `depth` entries of the image's class, `labels` [B].
    """
    logged = F.log_softmax(torch.cat([near, queued], dim=1) / tau, dim=1)
    classes = torch.arange(queued.shape[1], device=labels.device) // depth
    wanted = F.pad(classes == labels[:, None], (1, 0), value=True) / (depth + 1)  # [B, 1 + C · depth]
    return F.kl_div(logged, wanted, reduction="batchmean")


def shifted(images: Tensor, by: int, rng: torch.Generator) -> Tensor:
    """Return images [B, C, H, W], each moved by up to `by` pixels each way; edges are repeated."""
    if not by:
        return images
    for axis in (2, 3):
        size = images.shape[axis]
        drawn = seeding.uniform(len(images), rng=rng, device=images.device)
        offset = (drawn * (2 * by + 1)).long().clamp(max=2 * by) - by  # [B]
        place = (torch.arange(size, device=images.device) + offset[:, None]).clamp(0, size - 1)  # [B, size]
        images = images.gather(
            axis, place.view(len(images), 1, *((size, 1) if axis == 2 else (1, size))).expand_as(images)
        )
    return images


class Follower(nn.Module):
    """A module's state, in buffers, that follows it by momentum: the key encoder. It has no weights to train."""

    def __init__(self, followed: nn.Module) -> None:
        super().__init__()
        state = followed.state_dict(keep_vars=True)
        self.names = [name for name in places(followed) if name in state]
        self.weights = [name for name in self.names if isinstance(state[name], nn.Parameter)]
        for number, name in enumerate(self.names):
            self.register_buffer(f"value{number}", state[name].detach().clone())

    def _state(self) -> dict[str, Tensor]:
        return dict(zip(self.names, self.buffers(), strict=True))

    def follow(self, followed: nn.Module, momentum: float) -> None:
        """Move the weights by 1 - m of the way; BatchNorm's statistics are the follower's own."""
        state, ahead = self._state(), followed.state_dict(keep_vars=True)
        for name in self.weights:
            state[name].mul_(momentum).add_(ahead[name].detach(), alpha=1 - momentum)

    def forward(self, followed: nn.Module, taken: Tensor) -> Tensor | Output:
        """Return what the followed module, with this state, makes of its input."""
        made: Tensor | Output = torch.func.functional_call(followed, self._state(), taken, tie_weights=False)
        return made


class Queues(nn.Module):
    """The latest keys of each class: features [F + 1, C, K] and projections [D, C, K], of length 1 each."""

    features: Tensor
    projections: Tensor
    place: Tensor

    def __init__(self, classes: int, depth: int, width: int, dimensions: int) -> None:
        super().__init__()
        self.register_buffer("features", F.normalize(torch.randn(width, classes, depth), dim=0))
        self.register_buffer("projections", F.normalize(torch.randn(dimensions, classes, depth), dim=0))
        self.register_buffer("place", torch.zeros(classes, dtype=torch.int64))  # where each class's next key goes

    def take(self, labels: Tensor, features: Tensor, projections: Tensor) -> None:
        """Let a batch's keys [B, …] replace the oldest of their classes, in order."""
        depth = self.features.shape[2]
        same = labels[:, None] == labels  # [B, B]
        place = (self.place[labels] + same.tril(-1).sum(1)) % depth
        clash = same & (place[:, None] == place)  # more images of a class than its queue holds: the last one stays
        last = (clash * torch.arange(len(labels), device=labels.device)).amax(1)
        self.features[:, labels, place] = features[last].T.to(self.features.dtype)
        self.projections[:, labels, place] = projections[last].T.to(self.projections.dtype)
        self.place.index_add_(0, labels, torch.ones_like(labels)).remainder_(depth)
