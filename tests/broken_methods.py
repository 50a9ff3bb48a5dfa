"""Method files, sound ones and one or more for every conformance rule that it breaks, with what is then said."""

HEAD = '''"""A method made for a test.

Source: none.
Differs: nothing known.
"""

import copy
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from kfbench.transfer import losses
from kfbench.methods import Method, Stage


class Wrapped(nn.Module):
    def __init__(self, network, extra=None):
        super().__init__()
        self.network, self.extra = network, extra

    def forward(self, images):
        return self.network(images)


@dataclass(frozen=True)
class Made(Method):
    """A method."""

    weight: float = 0.5

    kinds = ("images",)
    teachers = (1, 1)
    needs = "features"

    def losses(self, student, teachers, batch, task, progress):
        output = student(batch.images)
        return output, task.loss(output, batch)

    def export(self, student):
        return student.network if isinstance(student, Wrapped) else student
'''
SOUND = """
    def losses(self, student, teachers, batch, task, progress):
        output = student(batch.images)
        layer = teachers[0].network.layers[0]
        far = teachers[0].features(batch, [layer])[layer].mean() - output.logits.mean()
        return output, task.loss(output, batch) | {"near": self.weight * far.square()}
"""
BROKEN = {
    "describes_itself": [
        ("has 'image', no kind of task; did you mean 'images'", HEAD.replace('("images",)', '("image",)')),
        ("has no line 'Differs:'", HEAD.replace("Differs: nothing known.\n", "")),
        ("search space 'wieght' is of no setting", HEAD + '    search = {"wieght": {"low": 0.1, "high": 1.0}}\n'),
        ("search space 'weight'", HEAD + '    search = {"weight": {"low": 0.1}}\n'),
        ("does not hold what the default has, 0.5", HEAD + '    search = {"weight": {"low": 1.0, "high": 2.0}}\n'),
        ("a space for 'heavy', which is no variant", HEAD + '    variant_search = {"heavy": {}}\n'),
        ("no recipe's optimizer; did you mean 'sgd'", HEAD + '    by_optimizer = {"sdg": {"weight": 0.1}}\n'),
        ("has no setting 'wieght'", HEAD + '    by_optimizer = {"sgd": {"wieght": 0.1}}\n'),
        (
            "does not hold what the default has with sgd, 2.0",
            HEAD + '    search = {"weight": {"low": 0.1, "high": 1.0}}\n    by_optimizer = {"sgd": {"weight": 2.0}}\n',
        ),
        (
            "a range of 'weight', which 'search' has not",
            HEAD + '    search_by_optimizer = {"sgd": {"weight": {"low": 0.1, "high": 1.0}}}\n',
        ),
        ("has no setting 'wieght'", HEAD + '    variants = {"light": {"wieght": 0.1}}\n'),
        ("cannot be 'heavy'", HEAD + '    variants = {"heavy": {"weight": "heavy"}}\n'),
    ],
    "teachers_stay_frozen": [
        (
            "left in training mode",
            HEAD
            + """
    def begin(self, student, teachers, stage, batches, rng):
        teachers[0].network.train()
""",
        ),
        (
            "receives gradients",
            HEAD
            + """
    def begin(self, student, teachers, stage, batches, rng):
        teachers[0].network.requires_grad_(True)
""",
        ),
        (
            "was changed",
            HEAD
            + """
    def losses(self, student, teachers, batch, task, progress):
        with torch.no_grad():
            next(iter(teachers[0].network.buffers())).add_(1)
        return super().losses(student, teachers, batch, task, progress)
""",
        ),
    ],
    "only_named_parameters_move": [
        (
            "is in a group but never moved",
            HEAD
            + """
    def make_student(self, task, teachers, rng):
        return Wrapped(task.make_network(), nn.Linear(2, 2))
""",
        ),
        (
            "moved, though it is frozen or in no parameter group",
            HEAD
            + """
    def losses(self, student, teachers, batch, task, progress):
        with torch.no_grad():
            list(student.parameters())[0].add_(1)
        return super().losses(student, teachers, batch, task, progress)

    def parameter_groups(self, student):
        return [{"params": list(student.parameters())[1:]}]
""",
        ),
    ],
    "student_trains_in_training_mode": [
        (
            "left in evaluation mode",
            HEAD
            + """
    def losses(self, student, teachers, batch, task, progress):
        student.eval()
        return super().losses(student, teachers, batch, task, progress)
""",
        )
    ],
    "losses_are_finite_means": [
        (
            "take a mean over the batch, not a sum",
            HEAD
            + """
    def losses(self, student, teachers, batch, task, progress):
        output = student(batch.images)
        return output, task.loss(output, batch) | {"much": output.logits.square().sum()}
""",
        ),
        (
            "not a finite scalar",
            HEAD
            + """
    def losses(self, student, teachers, batch, task, progress):
        output = student(batch.images)
        return output, task.loss(output, batch) | {"void": (output.logits.mean() - 1e9).log()}
""",
        ),
        (
            "has shape .1.; return its mean over the batch, a scalar",
            HEAD
            + """
    def losses(self, student, teachers, batch, task, progress):
        output = student(batch.images)
        parts = task.loss(output, batch)
        return output, {name: part[None] for name, part in parts.items()}
""",
        ),
    ],
    "starts_from_the_plain_network": [
        (
            "differs from the plain network's at step 0",
            HEAD
            + """
    def make_student(self, task, teachers, rng):
        from kfbench import networks
        return networks.make(task.network, shape=task.shape, outputs=task.outputs)
""",
        )
    ],
    "resumes_to_the_bit": [
        (
            "some state is not in the student",
            HEAD
            + """
    seen: ClassVar[list[int]] = [0]

    def losses(self, student, teachers, batch, task, progress):
        self.seen[0] += 1
        output = student(batch.images)
        return output, {name: part * (1 + 0.1 * self.seen[0]) for name, part in task.loss(output, batch).items()}
""",
        ),
        (
            "cannot be restored",
            HEAD
            + """
    def make_student(self, task, teachers, rng):
        return Wrapped(task.make_network())

    def losses(self, student, teachers, batch, task, progress):
        if not hasattr(student, "age"):
            student.register_buffer("age", torch.zeros(()))
        student.age += 1
        return super().losses(student, teachers, batch, task, progress)
""",
        ),
    ],
    "export_stands_alone": [
        (
            "export changes the live student",
            HEAD
            + """
    def export(self, student):
        with torch.no_grad():
            next(student.parameters()).mul_(0.5)
        return student
""",
        ),
        (
            "export changes the live student",
            HEAD
            + """
    def export(self, student):
        return student.eval()
""",
        ),
        (
            "not the plain network",
            HEAD
            + """
    def make_student(self, task, teachers, rng):
        return Wrapped(task.make_network())

    def export(self, student):
        return student
""",
        ),
        (
            "outputs change when its teachers are deleted",
            HEAD
            + """
    def make_student(self, task, teachers, rng):
        network, theirs = task.make_network(), teachers[0].network
        network.register_forward_hook(
            lambda module, taken, made: made._replace(logits=made.logits + theirs(taken[0]).logits.mean())
        )
        return network
""",
        ),
        (
            "with more weights than one has .first 'kept.body",
            HEAD
            + """
    def make_student(self, task, teachers, rng):
        network = task.make_network()
        network.kept = copy.deepcopy(teachers[0].network)
        return network

    def parameter_groups(self, student):
        return [{"params": [*student.body.parameters()]}]
""",
        ),
        (
            "with the exported weights says something else: a hook was left in it",
            HEAD
            + """
    def make_student(self, task, teachers, rng):
        network, theirs = task.make_network(), copy.deepcopy(teachers[0].network)
        network.register_forward_hook(
            lambda module, taken, made: made._replace(logits=made.logits + theirs(taken[0]).logits.mean())
        )
        return network
""",
        ),
    ],
    "waits_for_no_gpu": [
        (
            r"losses waits for the GPU, whose values it reads, at made.py:\d+",
            HEAD
            + """
    def losses(self, student, teachers, batch, task, progress):
        output = student(batch.images)
        parts = task.loss(output, batch)
        if output.logits.mean() > 100:
            parts["large"] = output.logits.mean()
        return output, parts
""",
        ),
        (
            r"losses waits for the GPU, whose values it reads, at made.py:\d+",
            HEAD
            + """
    def losses(self, student, teachers, batch, task, progress):
        output = student(batch.images)
        known = output.logits[batch.labels < 5]
        return output, task.loss(output, batch) | {"known": known.square().sum() / len(output.logits)}
""",
        ),
        (
            r"losses waits for the GPU, for a copy from cpu to cuda of shape \[16, 10\], at made.py:\d+",
            HEAD
            + """
    def losses(self, student, teachers, batch, task, progress):
        output = student(batch.images)
        noise = torch.rand(output.logits.shape, generator=batch.rng).to(batch.images.device)
        return output, task.loss(output, batch) | {"noise": (noise * output.logits).mean()}
""",
        ),
        (
            r"losses waits for the GPU, for an argument of aten.index_put_ that is on the CPU, at made.py:\d+",
            HEAD
            + """
    def losses(self, student, teachers, batch, task, progress):
        output = student(batch.images)
        present = torch.zeros_like(output.logits[0])
        present[batch.labels] = torch.tensor(1.0)  # a bare 1.0 waits up to torch 2.14, and no longer
        return output, task.loss(output, batch) | {"present": (present * output.logits).square().mean()}
""",
        ),
        (
            r"losses fails on a GPU at made.py:\d+: .*cuda",
            HEAD
            + """
    def losses(self, student, teachers, batch, task, progress):
        output = student(batch.images)
        weights = torch.ones(output.logits.shape[1])
        return output, task.loss(output, batch) | {"even": (weights * output.logits).mean()}
""",
        ),
        (
            r"act waits for the GPU, for an argument of aten.index that is on the CPU, at made.py:\d+",
            HEAD
            + """
    def act(self, student, teachers, batch, progress):
        output = student(batch.images)
        return output._replace(logits=output.logits[torch.arange(len(output.logits))]), {}
""",
        ),
    ],
}
