"""The options that several commands share, and what they do with them."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from kfbench import registry
from kfbench.cli import complete
from kfbench.errors import KfbenchError, near
from kfbench.folders import at_home
from kfbench.networks.family import of_name
from kfbench.running import budgets, teacher_names
from kfbench.running.files import require_folder
from kfbench.spec import MOST_SEED

DEFAULT_RESULTS = Path("results")


def option(*names: str, help: str, offers: Callable[..., Any] | None = None, **more: Any) -> Any:
    """Return an option with what the shell offers for it."""
    return typer.Option(*names, help=help, autocompletion=offers, **more)


def argument(*, help: str, offers: Callable[..., Any] | None = None, **more: Any) -> Any:
    """Return an argument with what the shell offers for it."""
    return typer.Argument(help=help, autocompletion=offers, **more)


def _known(require: Callable[[str], object]) -> Callable[[str], str]:
    """Return what looks a name up when the options are read: before a command loads torch, which takes seconds."""

    def look_up(name: str) -> str:
        if "," in name:
            raise KfbenchError(f"one name is taken here, not '{name}'; several are a study: kfbench new study NAME")
        require(name)
        return name

    return look_up


known_task = _known(partial(registry.require, "tasks"))
_named_method = _known(partial(registry.require, "methods"))
_known_network = _known(of_name)


def _known_method(name: str) -> str:
    """Look up a method, by its name or the path of its file; the shell leaves the ~ of `--method=~/mine.py`."""
    return _named_method(registry.named(name))


def known_network(name: str | None) -> str | None:
    """Look up the name of a network, where one is given."""
    return None if name is None else _known_network(name)


def known_teachers(given: list[str] | None) -> list[str] | None:
    """Return the teachers of an option that is given several times, or once with commas; None: it is not given.

    Their tasks and budgets are looked up; the rest is told when the run is resolved.
    """
    if not given:
        return None
    names = teacher_names.listed(",".join(given))
    for name in names:
        kind, colon, rest = name.partition(":")
        if kind != "random" and f"{kind}:" in complete.ORIGINS and (colon or kind == "best"):
            continue  # no task names it
        task, _, tail = (rest if kind == "random" and colon else name).partition("@")
        teacher_names.require_task(task.partition("/")[0], name)
        if tail:
            budgets.require(tail.partition(":")[0])
    return names or [""]  # none are asked for; typer reads an empty list as not given


def known_device(name: str) -> str:
    """Look up a kind of device; whether there is such a one, torch tells. "" is left to the engine."""
    kind, colon, number = name.partition(":")
    if name and (kind not in complete.DEVICES or (colon and not number.isdigit())):
        raise KfbenchError(f"no device '{name}'; use cpu, cuda, cuda:N, mps or auto")
    return name


def one_of(known: Iterable[str], what: str) -> Callable[[Any], Any]:
    """Return what looks up a name, or each of several by commas or in a list, among known ones."""

    def look_up(given: Any) -> Any:
        for names in [given] if isinstance(given, str) else given or ():
            for name in filter(None, names.split(",")):
                if name not in known:
                    raise KfbenchError(f"no {what} '{name}'; {near(name, known)}")
        return given

    return look_up


def require_fields(
    method: str, settings: Mapping[str, Any], task: str, recipe: Mapping[str, Any], *, budget: str
) -> None:
    """Raise KfbenchError for a setting or a field of the recipe that there is not: before a command loads torch."""
    stem, _ = registry.split(method)
    if stem in registry.files("methods"):
        known = registry.describe("methods", stem).get("settings", {})
        for name in settings if known else ():
            if name not in known:
                raise KfbenchError(f"method '{method}' has no setting '{name}'; {near(name, known)}")
    if "shape" in registry.describe("tasks", task.partition("/")[0]):  # else its images tell, which need torch
        budgets.recipe(registry.load_task(task), budget, recipe)


def by_commas(given: list[str] | None, option: str) -> list[str]:
    """Return the names of an option that is given several times, or once with commas.

    Raises KfbenchError where it is given and names none: that would be read as all.
    """
    names = [name.strip() for names in given or [] for name in names.split(",") if name.strip()]
    if given and not names:
        raise KfbenchError(f"{option} '{','.join(given)}' names no {option[2:]}; leave it out for all of them")
    return names


def methods_by_commas(given: list[str] | None) -> list[str]:
    """Return the methods of an option, as `by_commas` does; each is looked up."""
    return [_known_method(name) for name in by_commas(given, "--method")]


def finite(value: float) -> float:
    """Refuse what a lower bound lets pass: nan and infinity."""
    if not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no finite number")
    return value


def short(seed: int) -> int:
    """Refuse a seed that tables of runs have no room for."""
    if seed > MOST_SEED:
        raise typer.BadParameter(f"{seed} is not below 2**63")
    return seed


def require_run(results: Path, key: str) -> None:
    """Raise KfbenchError unless there is such a run: before a command loads torch, which takes seconds."""
    from kfbench.running import records

    records.locate(results, key)


def _there(results: Path) -> Path:
    """Refuse a folder that is not there, but for the default one, which the first run makes."""
    if Path(results) != DEFAULT_RESULTS:
        require_folder(at_home(str(results)))  # whose ~ is still there
    return results


Results = Annotated[Path, option("--results", help="Folder of records, weights and teachers.")]
Records = Annotated[Path, option("--results", help="Folder of records, weights and teachers.", callback=_there)]
AsJson = Annotated[bool, option("--json", help="Print JSON instead of text.")]
Key = Annotated[str, argument(help="The key of a run, or how it begins.", offers=complete.keys)]
Method = Annotated[
    str,
    option(
        "--method",
        help="Method, or method/variant: see kfbench list methods.",
        offers=complete.methods,
        callback=_known_method,
    ),
]
Task = Annotated[
    str,
    option(
        "--task",
        help="Task, or task/variant: see kfbench list tasks.",
        offers=complete.tasks,
        callback=known_task,
    ),
]
FORMS = (
    "TASK[/network][@budget], random:TASK, run:KEY, imported:NAME, file:PATH, hf:ORG/NAME, torchvision:NAME, "
    "timm:NAME; by commas."
)
Teachers = Annotated[
    list[str] | None,
    option(
        "--teachers",
        help=f"{FORMS} best:K takes the K that kfbench rank puts first.",
        offers=complete.teachers,
        callback=known_teachers,
    ),
]
Budget = Annotated[
    str,
    option(
        "--budget",
        help="smoke, small, standard, paper: see kfbench list budgets.",
        offers=complete.budgets,
        callback=_known(budgets.require),
    ),
]
Network = Annotated[
    str | None,
    option("--network", help="The student's network.", offers=complete.networks, callback=known_network),
]
TrainSize = Annotated[
    str | None, option("--train-size", help="Training images, balanced over classes, or all.", metavar="N")
]
Set = Annotated[list[str] | None, option("--set", help="A setting of the method.", metavar="NAME=VALUE")]
SetRecipe = Annotated[
    list[str] | None,
    option("--set-recipe", help="A field of the training recipe: see kfbench list recipe.", metavar="NAME=VALUE"),
]
Device = Annotated[
    str,
    option(
        "--device",
        help="cpu, cuda, cuda:N, mps; auto: a GPU if there is one.",
        offers=complete.devices,
        callback=known_device,
    ),
]
Threads = Annotated[int | None, option("--threads", min=1, help="CPU threads; bits depend on it.")]
Seconds = Annotated[
    float,
    option("--checkpoint-seconds", min=0, help="Time between a run's checkpoints.", callback=finite),
]
Yes = Annotated[bool, option("--yes", "-y", help="Do not ask.")]


def pairs(given: list[str] | None, option: str) -> dict[str, str]:
    """Read ["name=value", …]. Raises KfbenchError for an entry without "=", or a name that is there twice."""
    values: dict[str, str] = {}
    for entry in given or []:
        name, equals, value = entry.partition("=")
        if not equals:
            name, _, value = entry.partition(":")
            raise KfbenchError(f"{option} '{entry}' has no value; write {option} {name}={value or 'VALUE'}")
        if name in values:
            raise KfbenchError(f"{option} gives '{name}' twice, {values[name]} and {value}; leave one out")
        values[name] = value
    return values


def recipe_of(given: list[str] | None, **fields: Any) -> dict[str, Any]:
    """Join the recipe's fields that have options of their own, as far as they are given, with `--set-recipe`.

    Raises KfbenchError for a field that both give.
    """
    more, own = pairs(given, "--set-recipe"), {name: value for name, value in fields.items() if value is not None}
    if twice := sorted(own.keys() & more.keys()):
        option = f"--{twice[0].replace('_', '-')}"
        raise KfbenchError(f"'{twice[0]}' is given by {option} and by --set-recipe; leave one out")
    return own | more


def tell(values: Any, text: str, *, as_json: bool) -> None:
    """Print values as JSON, or the text that says the same."""
    typer.echo(json_text(values) if as_json else text)


def json_text(values: Any) -> str:
    """Return what a command's `--json` prints: ASCII, for pipes of any code; null for numbers JSON has not (nan)."""
    from pydantic_core import to_jsonable_python

    return json.dumps(to_jsonable_python(values, inf_nan_mode="null"), indent=1, allow_nan=False)


def ask(question: str, *, yes: bool) -> None:
    """Go on if the user says so. Raises KfbenchError if they do not, or cannot be asked."""
    if yes:
        return
    typer.echo(f"{question} [y/N] ", nl=False)
    try:
        answer = input()
    except EOFError as error:
        raise KfbenchError("nobody answered; give --yes") from error
    if answer.strip().lower() not in ("y", "yes"):
        raise KfbenchError("nothing was done")
