"""The file that `kfbench new network NAME` writes."""

import keyword
from pathlib import Path

from kfbench import networks
from kfbench.errors import KfbenchError
from kfbench.folders import files, folders
from kfbench.run import records

TEXT = '''"""One line that says what {name} is.

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


def write(name: str, folder: Path | None) -> Path:
    """Write the template as `<folder>/<name>.py`. Raises KfbenchError if the name cannot be one or is taken."""
    if not name.isidentifier() or keyword.iskeyword(name) or name != name.lower():
        raise KfbenchError(f"'{name}' cannot be a network's name; use small letters, digits and underscores")
    if name in files("networks") or networks.is_name(name):
        raise KfbenchError(f"the name '{name}' is taken among the networks; choose another")
    path = (folder or _home()) / f"{name}.py"
    if path.exists():
        raise KfbenchError(f"'{path}' exists already; choose another name")
    try:
        records.write_text(path, TEXT.format(name=name, title="".join(part.title() for part in name.split("_"))))
    except OSError as error:
        raise KfbenchError(f"cannot write '{path}' ({error.strerror}); give a folder with --folder") from error
    return path


def _home() -> Path:
    """Return the user's first folder of networks, else ours in a checkout. Raises KfbenchError where there is none."""
    ours, *theirs = folders("networks")
    if theirs:
        return Path(theirs[0])
    if {"site-packages", "dist-packages"} & set(Path(ours).parts):
        raise KfbenchError("no folder of networks of your own: set KFBENCH_NETWORKS to one, or give --folder")
    return Path(ours)
