"""`kfbench check`: the conformance rules of methods (`rules.py`) and tasks over a file, its variants and kinds of task.

The test suite runs all rules over all files.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import TypeVar, get_args, get_type_hints

from kfbench import registry
from kfbench.conformance.rules import rules_for
from kfbench.conformance.tiny import Broken, Rule, spec_of
from kfbench.errors import KfbenchError, near
from kfbench.running import budgets, resolve, stand_in, teacher_names
from kfbench.running.prepare import make_loop
from kfbench.spec import RunSpec
from kfbench.studies import search

T = TypeVar("T")
TaskRule = Callable[[str], None]


def describes_itself(name: str) -> None:
    """The file has Source: and Differs:, `kfbench list` reads what the class says, variants and search space hold."""
    stem, _ = registry.split(name)
    method = registry.method_class(stem)
    about = registry.load_module("methods", stem).__doc__ or ""
    for word in ("Source:", "Differs:"):
        if word not in about:
            raise Broken(f"the docstring of '{stem}' has no line '{word}'")
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
    rows: list[tuple[str, str, str | None]] = []
    for each in names:
        rows.append((each, describes_itself.__name__, _broken(describes_itself, each)))
        for kind, spec, rules in cases(each):
            place = "" if kind == "images" else f"{kind}: "
            rows += [(each, place + rule.__name__, _broken(rule, spec)) for rule in rules]
    return rows


def _broken(rule: Callable[[T], None], of: T) -> str | None:
    try:
        rule(of)
    except Broken as error:
        return str(error)
    except KfbenchError as error:
        return f"stopped: {error}"
    except dataclasses.FrozenInstanceError as error:
        return f"{error}: a method keeps nothing itself; register a buffer on the module that 'make_student' returns"
    except Exception as error:  # a rule reports what a file raises; it does not pass it on
        return f"raised {type(error).__name__}: {error}"
    return None


def check_task(name: str) -> list[tuple[str, str, str | None]]:
    """Return (task, rule, what is broken or None) for every rule of a task."""
    return [(name, rule.__name__, _broken(rule, name)) for rule in TASK_RULES]


def _example(name: str) -> str:
    """Return the task's name, completed if it is a family's: `imagefolder/digits`, `atari/pong`."""
    if "/" in name:
        return name
    example = registry.kind_of(name).example
    if example.partition("/")[0] == name:
        return example
    takes_any = getattr(registry.load_module("tasks", name).TASK, "any_dataset", False)
    return f"{name}/{example}" if takes_any else name


def reads(name: str) -> None:
    """The file names its source; its budgets are recipes, and its default teachers' tasks exist."""
    declared = registry.load_task(_example(name))
    stem, _ = registry.split(name)
    if "Source:" not in (registry.load_module("tasks", stem).__doc__ or ""):
        raise Broken(f"the docstring of task '{stem}' has no line 'Source:'")
    variants = [
        *getattr(declared, "variants", ()),
        *(["0-1"] if hasattr(declared, "keep") else []),
    ]  # a range of classes
    for each in (declared, *(registry.load_task(f"{declared.name}/{variant}") for variant in variants)):
        for budget in budgets.BUDGETS:
            budgets.recipe(each, budget)
            budgets.teacher_network(each, budget)
    for source in declared.sources:
        teacher_names.read(source, budget="small")


def builds(name: str) -> None:
    """The networks of the budgets that a CPU can carry fit the task's shape, and a loop can be made."""
    declared = registry.load_task(_example(name))
    if declared.kind.acts:
        return  # a game has its emulator's shape
    for budget in ("smoke", "small"):
        recipe = {"batch_size": 8} if hasattr(declared.kind.recipe, "batch_size") else {}
        spec = resolve.resolve("scratch", declared.name, budget=budget, recipe=recipe)
        make_loop(stand_in.setup(spec, rows=max(8, declared.outputs)))


TASK_RULES: tuple[TaskRule, ...] = (reads, builds)
