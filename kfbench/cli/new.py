"""The file that `kfbench new method NAME` writes."""

import keyword
from pathlib import Path

from kfbench import registry
from kfbench.errors import KfbenchError
from kfbench.folders import folders
from kfbench.run import records

TEXT = '''"""One line that says what {name} does.

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


def write(name: str, folder: Path | None) -> Path:
    """Write the template as `<folder>/<name>.py`. Raises KfbenchError if the name cannot be one or is taken."""
    if not name.isidentifier() or keyword.iskeyword(name) or name != name.lower():
        raise KfbenchError(f"'{name}' cannot be a method's name; use small letters, digits and underscores")
    if name in registry.names("methods"):
        raise KfbenchError(f"there is a method '{name}' already; choose another name")
    path = (folder or Path(folders("methods")[0])) / f"{name}.py"
    if path.exists():
        raise KfbenchError(f"'{path}' exists already; choose another name")
    try:
        records.write_text(path, TEXT.format(name=name, title="".join(part.title() for part in name.split("_"))))
    except OSError as error:
        raise KfbenchError(f"cannot write '{path}' ({error.strerror}); give a folder with --folder") from error
    return path
