"""A teacher as text, `TASK[/network][@budget]` or `kind:rest`, and the run that trains it."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from kfbench import networks, registry
from kfbench.errors import KfbenchError, near
from kfbench.kinds import Declared
from kfbench.networks import family
from kfbench.running import budgets
from kfbench.spec import RunSpec, typed

if TYPE_CHECKING:
    from kfbench.networks.network import Network

KINDS = ("random", "run", "imported", "file", "hf", "torchvision", "timm")
WEIGHTS = (".safetensors", ".pth", ".pt", ".tar", ".bin", ".ckpt")  # endings of files that hold them
TRAINED_BY = "scratch"  # the method of every teacher that is trained on the way, with seed 0


@dataclass(frozen=True)
class TeacherName:
    """A teacher as text: `[random:]TASK[/variant][/network][@budget[:field=value+…]]`, or `kind:rest`."""

    kind: str  # "trained" or one of KINDS
    rest: str = ""  # of run, imported, file, hf, torchvision, timm: what follows the colon
    task: str = ""
    network: str = ""
    budget: str = ""
    recipe: tuple[tuple[str, str], ...] = ()  # fields of the recipe that differ from the budget's

    def __str__(self) -> str:
        if self.rest:
            return f"{self.kind}:{self.rest}"
        changed = ":" + "+".join(f"{name}={value}" for name, value in self.recipe) if self.recipe else ""
        return f"{'random:' if self.kind == 'random' else ''}{self.task}/{self.network}@{self.budget}{changed}"

    def spec(self) -> RunSpec:
        """Return the run that trains this teacher."""
        task = registry.load_task(self.task)
        return RunSpec(
            method=TRAINED_BY,
            task=task.name,
            budget=self.budget,
            recipe=budgets.recipe(task, self.budget, {"network": self.network, **dict(self.recipe)}),
            settings=registry.load_method(TRAINED_BY).settings(),
        )


def listed(given: str | Sequence[str]) -> list[str]:
    """Return the names of teachers, joined by commas or in a list, as they are meant: without blanks around them.

    Raises KfbenchError for what is no text.
    """
    names = given.split(",") if isinstance(given, str) else list(given) if isinstance(given, Iterable) else [given]
    if not all(isinstance(name, str) for name in names):
        raise KfbenchError(f"teachers cannot be {given!r}; give names, by commas or in a list")
    return [name.strip() for name in names if name.strip()]


def read(text: str, *, budget: str) -> TeacherName:
    """Read a teacher's name; what it leaves open is filled in from the task and the run's budget."""
    kind, colon, rest = text.partition(":")
    if colon and kind in KINDS and not rest:
        raise KfbenchError(f"teacher '{text}' names none; write {kind}:{'TASK' if kind == 'random' else '…'}")
    if colon and kind in KINDS and kind != "random":
        return TeacherName(kind, rest)
    if kind == "best":
        raise KfbenchError(f"'{text}' is no teacher but a choice, for kfbench run and for studies; name a teacher here")
    kind, text = ("random", rest) if kind == "random" and colon else ("trained", text)
    name, _, tail = text.partition("@")
    chosen, _, changes = tail.partition(":")
    chosen = chosen or budget
    parts = name.split("/")
    named = len(parts) > 1 and networks.is_name(parts[-1])
    task, network = ("/".join(parts[:-1]), parts[-1]) if named else (name, "")
    declared = _task(task, text)
    recipe: dict[str, str] = {}
    for change in filter(None, changes.split("+")):
        field, equals, value = change.partition("=")
        if not equals:
            raise KfbenchError(f"teacher '{text}': write @{chosen}:field=value+field=value, not '{change}'")
        if field == "network":
            raise KfbenchError(f"teacher '{text}': the network stands before the budget: {task}/{value}@{chosen}")
        recipe[field] = value
    network = network or budgets.teacher_network(declared, chosen)
    outline(declared, network)
    fields = changed(declared, network, chosen, recipe)
    return TeacherName(kind, task=declared.name, network=network, budget=chosen, recipe=fields)


def changed(task: Declared, network: str, budget: str, changes: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return changes of a budget's recipe as text, and in one order.

    So a teacher has one name, and its pupils one spec, however it was typed: `flip=True+epochs=3.0` is
    `epochs=3+flip=true`. Raises KfbenchError for a field that there is not, or a value that it cannot have.
    """
    whole = budgets.recipe(task, budget, {"network": network, **changes})
    order = ["train_size", *(field.name for field in dataclasses.fields(whole))]  # as in the first records
    return tuple((name, written(getattr(whole, name))) for name in sorted(changes, key=order.index))


def written(value: Any) -> str:
    """Return a recipe's value as it stands in a teacher's name: 15 for 15.0, true for True, 0.3/0.6 for (0.3, 0.6)."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "/".join(map(written, value)) if isinstance(value, list | tuple) else typed(value)


def _task(name: str, text: str) -> Declared:
    """Return a teacher's task. Raises KfbenchError, naming a network where the last part is nearly one."""
    try:
        return registry.load_task(name)
    except KfbenchError as error:
        stem, slash, last = name.rpartition("/")
        guess = near(last, networks.names())
        if slash and guess.startswith("did you mean"):
            raise KfbenchError(f"teacher '{text}': '{last}' is no network; {guess}") from error
        raise _of_teacher(text, error) from error


def require_task(stem: str, text: str) -> None:
    """Raise KfbenchError unless there is the task that a teacher's name begins with; nothing is imported for that."""
    try:
        registry.require("tasks", stem)
    except KfbenchError as error:
        raise _of_teacher(text, error) from error


def _of_teacher(text: str, error: KfbenchError) -> KfbenchError:
    """Return what is said of a teacher's task, with the teacher it is of; a file of weights is told from a name."""
    if text.lower().endswith(WEIGHTS):
        return KfbenchError(f"teacher '{text}' names no task; as a file of weights it is 'file:{text}'")
    remedy = "; kfbench list teachers shows those that are made" if "there is: " in str(error) else ""
    return KfbenchError(f"teacher '{text}': {error}{remedy}")


def outline(task: Declared, network: str) -> "Network | None":
    """Refuse a network that does not exist or cannot take the task's images, before anything is trained.

    Returns the network without its weights, None for a library's. It is made once and shared: look, change nothing.
    """
    if ":" in network:
        return None
    known, _ = family.of_name(network)
    return _outline(family.load(known), network, task.shape)


@lru_cache(maxsize=64)
def _outline(_file: ModuleType, network: str, shape: tuple[int, int, int]) -> "Network":
    """Make an outline once for every module that a family's file is; a file that changes is another."""
    from kfbench.networks.hollow import hollow

    with hollow():
        return networks.make(network, shape=shape, outputs=2)
