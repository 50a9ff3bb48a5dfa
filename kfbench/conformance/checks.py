"""`kfbench check`: the conformance rules of methods (`rules.py`) and tasks over a file, its variants and kinds of task.

The test suite runs all rules over all files.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar, get_args, get_type_hints

from kfbench import registry
from kfbench.conformance.rules import rules_for
from kfbench.conformance.tiny import Broken, Rule, require_lines, spec_of
from kfbench.data.images import TooFew
from kfbench.data.sources import NotFetched
from kfbench.errors import KfbenchError, near, place
from kfbench.kinds import Declared
from kfbench.running import budgets, resolve, stand_in, teacher_names
from kfbench.running.prepare import make_loop
from kfbench.spec import RunSpec
from kfbench.studies import search
from kfbench.train.training import training_of

T = TypeVar("T")
TaskRule = Callable[[str], None]


def describes_itself(name: str) -> None:
    """The file has Source: and Differs:, `kfbench list` reads what the class says, variants and search space hold."""
    stem, _ = registry.split(name)
    method = registry.method_class(stem)
    about = registry.load_module("methods", stem).__doc__ or ""
    require_lines(about, f"'{stem}'")
    kinds = registry.kinds()
    if strange := [kind for kind in method.kinds if kind not in kinds]:  # no rule would be tried
        raise Broken(f"kinds = {method.kinds!r} has '{strange[0]}', no kind of task; {near(strange[0], kinds)}")
    fields = {field.name: field for field in dataclasses.fields(method)}
    if strange := sorted(set(method.variant_search) - set(method.variants)):
        raise Broken(f"variant_search has a space for '{strange[0]}', which is no variant")
    recipes = [get_type_hints(kind.recipe) for kind in kinds.values()]
    optimizers = {name for hints in recipes for name in get_args(hints.get("optimizer"))}
    for attribute in ("by_optimizer", "search_by_optimizer"):
        if strange := sorted(set(getattr(method, attribute)) - optimizers):
            raise Broken(f"{attribute} has '{strange[0]}', no recipe's optimizer; {near(strange[0], optimizers)}")
    for name in {name for ranges in method.search_by_optimizer.values() for name in ranges} - set(method.search):
        raise Broken(f"search_by_optimizer has a range of '{name}', which 'search' has not")
    for variant, optimizer in itertools.product((None, *method.variants), ("", *sorted(optimizers))):
        settings = vars(registry.load_method(stem if variant is None else f"{stem}/{variant}", optimizer=optimizer))
        for name, space in search.space_of(method(), variant, optimizer).items():
            if name not in fields or not ({"low", "high"} <= set(space) or "choices" in space):
                raise Broken(f"search space '{name}' is of no setting, or has neither low and high nor choices")
            if not search.holds(space, settings[name]):
                whose = f"variant '{variant}'" if variant else "the default"
                with_ = f" with {optimizer}" if optimizer else ""
                raise Broken(
                    f"search space '{name}' does not hold what {whose} has{with_}, {settings[name]}: "
                    "a search begins there"
                )
    if stem in registry.files("methods"):
        read = registry.describe("methods", stem)
        if set(read["settings"]) != set(fields):
            raise Broken(f"'{stem}' has settings {sorted(fields)}, but its file reads as {sorted(read['settings'])}")
        for name, value in read["attributes"].items():
            if hasattr(method, name) and getattr(method, name) != value:
                raise Broken(f"'{name}' of '{stem}' must be a literal in its file")


def method_names(stem: str) -> list[str]:
    """Return a method and its variants, as they are run."""
    return [stem, *(f"{stem}/{variant}" for variant in registry.method_class(stem).variants)]


def cases(name: str) -> list[tuple[str, RunSpec, tuple[Rule, ...]]]:
    """Return (kind, tiny run, rules) for each kind of task, as "images" and "games", that a method is made for."""
    method = registry.load_method(name)
    kinds = {label: kind for label, kind in registry.kinds().items() if method.serves(label)}
    return [(label, spec_of(name, kind=label), rules_for(kind)) for label, kind in kinds.items()]


def check_method(name: str) -> list[tuple[str, str, str | None]]:
    """Return (method or variant, rule, what is broken or None) for every rule and every variant of a method or file.

    Rules that are kept on other tasks than images are called "games: …".
    """
    stem, variant = registry.split(name)
    names = method_names(stem) if variant is None else [name]
    file = registry.files("methods").get(stem, Path(stem))
    rows: list[tuple[str, str, str | None]] = []
    for each in names:
        rows.append((each, describes_itself.__name__, _broken(describes_itself, each, file)))
        for kind, spec, rules in cases(each):
            at = "" if kind == "images" else f"{kind}: "
            rows += [(each, at + rule.__name__, _broken(rule, spec, file)) for rule in rules]
    return rows


def _broken(rule: Callable[[T], None], of: T, file: Path) -> str | None:
    """Return what a rule has found, with the line of the user's file that raised it; None: nothing."""
    try:
        rule(of)
    except Broken as error:
        return str(error)
    except KfbenchError as error:
        said = f"stopped: {error}"  # an import's error has its line
        return said.removesuffix(where := place(error, file)) + where
    except dataclasses.FrozenInstanceError as error:
        remedy = "a method keeps nothing itself; register a buffer on the module that 'make_student' returns"
        return f"{error}: {remedy}{place(error, file)}"
    except Exception as error:  # a rule reports what a file raises; it does not pass it on
        return f"raised {type(error).__name__}: {error}{place(error, file)}"
    return None


def check_task(name: str) -> list[tuple[str, str, str | None]]:
    """Return (task, rule, what is broken or None) for every rule of a task and its variants."""
    file = registry.files("tasks").get(_stem(name), Path(name))
    return [(name, rule.__name__, _broken(rule, name, file)) for rule in TASK_RULES]


def not_fetched(name: str) -> str:
    """Say which data set `finds_its_data` could not look at: others published it, and it is not here; "" none."""
    for variant in _variants(name):
        try:
            _require_data(_load(name, variant))
        except NotFetched as error:
            return f"whether '{_named(name, variant)}' fits its images was not looked at: {error}"
        except KfbenchError:
            continue
    return ""


def _stem(name: str) -> str:
    return name.partition("/")[0]


def _example(name: str) -> str:
    """Return the task's name, completed if it is a family's: `imagefolder/digits`, `atari/pong`."""
    if "/" in name:
        return name
    example = registry.kind_of(name).example
    if _stem(example) == name:
        return example
    takes_any = getattr(registry.load_module("tasks", name).TASK, "any_dataset", False)
    return f"{name}/{example}" if takes_any else name


def _variants(name: str) -> list[str]:
    """Return the variants that a task's file names; first "", the task as it is."""
    registry.load_module("tasks", _stem(name))
    with _written(name, "", "dataset"):
        return ["", *getattr(registry.load_task(_example(name)), "variants", ())]


def _named(name: str, variant: str) -> str:
    return f"{_example(name)}/{variant}" if variant else _example(name)


def _load(name: str, variant: str) -> Declared:
    return registry.load_task(_named(name, variant))


@contextlib.contextmanager
def _written(name: str, variant: str, *words: str) -> Iterator[None]:
    """Let what is wrong with a task be told with the line of its file that has the variant, or one of the words."""
    try:
        yield
    except (NotFetched, Broken):
        raise
    except KfbenchError as error:
        where = registry.line_of(_stem(name), words, variant or name.partition("/")[2])
        raise Broken(f"{error}{where}") from error


def reads(name: str) -> None:
    """The file names its source; its budgets are recipes, its default teachers' tasks exist; so for its variants."""
    variants = _variants(name)
    if "Source:" not in (registry.load_module("tasks", _stem(name)).__doc__ or ""):
        raise Broken(f"the docstring of task '{_stem(name)}' has no line 'Source:'")
    for variant in variants:
        with _written(name, variant, "budgets"):
            declared = _load(name, variant)
            for each in (declared, *_part(declared)):
                for budget in budgets.BUDGETS:
                    budgets.recipe(each, budget)
                    budgets.teacher_network(each, budget)
        with _written(name, variant, "sources"):
            for source in declared.sources:
                teacher_names.read(source, budget="small")


def _part(declared: Declared) -> list[Declared]:
    """Return the task of a range of its classes, if it has two."""
    has_range = hasattr(declared, "keep") and declared.outputs > 1
    return [registry.load_task(f"{declared.name}/0-1")] if has_range else []


def finds_its_data(name: str) -> None:
    """The data set is here, has the shape and classes that the file says, and images enough for every budget.

    So for its variants. One that others published and that is not on this machine is not looked at.
    """
    for variant in _variants(name):
        with contextlib.suppress(NotFetched):
            with _written(name, variant, "dataset"):
                declared = _load(name, variant)
                declared.checksum()
            with _written(name, variant, "classes", "shape"):
                _require_data(declared)


def _require_data(declared: Declared) -> None:
    for budget in budgets.BUDGETS:
        try:
            training_of(declared.kind).require(declared, budgets.recipe(declared, budget))
        except TooFew as error:
            own = '"train_size": "all"'
            raise KfbenchError(f"budget '{budget}': {error}, or in its file budgets={{\"all\": {{{own}}}}}") from error


def builds(name: str) -> None:
    """The networks of the budgets that a CPU can carry fit the shapes of task and variants, and a loop can be made."""
    for variant in _variants(name):
        with _written(name, variant, "budgets"):
            declared = _load(name, variant)
            if declared.kind.acts:
                return  # a game has its emulator's shape
            for budget in ("smoke", "small"):
                recipe = {"batch_size": 8} if hasattr(declared.kind.recipe, "batch_size") else {}
                spec = resolve.resolve("scratch", declared.name, budget=budget, recipe=recipe)
                make_loop(stand_in.setup(spec, rows=max(8, declared.outputs)))


TASK_RULES: tuple[TaskRule, ...] = (reads, finds_its_data, builds)
