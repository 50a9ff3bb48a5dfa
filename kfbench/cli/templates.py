"""The files that `kfbench new` writes: commented, and valid as they are."""

METHOD = '''"""One line that says what {name} does.

Source: authors, year, title, arXiv number, section.
Differs: nothing known.
"""

from dataclasses import dataclass

from kfbench.methods import Method
from kfbench.transfer import losses


@dataclass(frozen=True)
class {title}(Method):
    """The settings, each with its unit and the source of its default."""

    weight: float = 1.0  # of the teacher's soft targets

    teachers = (1, 1)  # fewest and most
    needs = "outputs"  # or "features", "architecture", "nothing"

    def losses(self, student, teachers, batch, task, progress):
        output = student(batch.images)  # logits [B, K]
        target = losses.softened(teachers[0](batch).logits, 1.0)
        return output, task.loss(output, batch) | {{"teacher": self.weight * losses.kl(target, output.logits)}}
'''

TASK = '''"""One line that says what {name} is: what the images show, how many there are.

Source: authors, year, title, where the images come from.
Differs: nothing known.
"""

from kfbench.tasks import ImageTask

# Read as text too, so all of it is literal.
TASK = ImageTask(
    dataset="{dataset}",  # what `kfbench data import NAME PATH…` packed, or `kfbench data list` shows
    # shape=(3, 32, 32), classes=10,  # of that data set, if `kfbench list` and a study's plan shall do without it
    # sources=("cifar100",),  # tasks whose networks are the default teachers of methods that read features
    variants={{
        "low": {{"keep": (0, 1)}},  # {name}/low: a part of the classes; ranges, as {name}/0-1, need no line
    }},
    budgets={{
        "all": {{"train_size": "all"}},  # fields of the training recipe for every budget: all images, …
        "smoke": {{"epochs": 1}},  # … and for one; as "small", "standard", "paper"
    }},
)
'''

NETWORK = '''"""One line that says what {name} is.

Source: authors, year, title, arXiv number, section.
Differs: nothing known.
"""

from torch import nn

from kfbench.networks.family import Family
from kfbench.networks.network import Network
from kfbench.networks.parts import he_normal

# Read as text, so all of it is literal. One network, called as the file; to make several, say which names:
#     pattern=r"{name}-(?P<width>[1-9]\\d*)", form="{name}-WIDTH", examples=("{name}-16", "{name}-64")
# and read parts["width"] in `make`.
FAMILY = Family(about="what kfbench list networks says of it")


class {title}(nn.Module):
    """Three convolutions, global average, a linear head."""

    def __init__(self, channels, width, outputs):
        super().__init__()
        self.stages = nn.Sequential()
        for before, after, stride in ((channels, width, 1), (width, 2 * width, 2), (2 * width, 4 * width, 2)):
            convolution = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
            self.stages.append(nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU()))
        self.pool = nn.AdaptiveAvgPool2d(1)
        he_normal(self)  # the body's draws come before the head's: another number of classes must not move them
        self.head = nn.Linear(4 * width, outputs)

    def forward(self, x):
        """Map images [B, C, H, W], normalised, to logits [B, K]."""
        return self.head(self.pool(self.stages(x)).flatten(1))


def make(name, parts, *, shape, outputs):
    """Make `{name}` for images of `shape` (C, H, W) and a number of classes."""
    body = {title}(shape[0], 16, outputs)
    # what methods read and mix, shallow to deep: activations that are called once and do not work in place
    layers = ("body.stages.0.2", "body.stages.1.2", "body.stages.2.2")
    # heads: what belongs to the task's classes; all else can be carried over to another task
    return Network(body, name=name, shape=shape, outputs=outputs, layers=layers, heads=("body.head",))
'''

STUDY = '''# What to run, and how its table is laid out. What would run: kfbench study {folder} --dry-run
title = "{name}"
about = """
One paragraph: the question, and what the rows and columns are. It stands above the tables.
"""
budget = "smoke"  # small, standard, paper: see kfbench list budgets
seeds = 3  # runs of every cell; five or more decide something

# The rows: names of methods, or tables with what is changed.
methods = [
    "scratch",
    "kf",
    {{ method = "kd", label = "kd, T 2", settings = {{ temperature = 2.0 }} }},
    {{ method = "kf", label = "kf, random teachers", teachers = "random" }},
]

# The columns, a table each.
[[tasks]]
task = "digits"
label = "digits, 200 labels"
train_size = 200
# network = "resnet8"
# recipe = {{ epochs = 40 }}

# Sentences that the results decide, if there are any to test.
[[claims]]
text = "Knowledge Flow beats training from scratch"
source = "this study"
better = "kf"
than = "scratch"
'''
