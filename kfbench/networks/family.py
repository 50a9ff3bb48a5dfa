"""Families of networks, found by their files: each says in a literal `FAMILY = Family(…)` which names it makes.

The files lie in this folder and in those of `$KFBENCH_NETWORKS`, or packages offer modules under the entry points
`kfbench.networks`. They are read with `ast`: to list networks, or to know that a name is one, needs no torch.
"""

import ast
import importlib
import importlib.util
import re
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from kfbench.errors import KfbenchError, near
from kfbench.folders import PACKAGE, entry_points, files, folders, gone, hidden, module_of


class Family(NamedTuple):
    """What a file says of the networks it makes: their names as a regular expression, whose groups go to its `make`.

    Without a `pattern` there is one network, called as the file; `form` is what people read instead of the pattern.
    """

    about: str
    pattern: str = ""
    form: str = ""
    examples: tuple[str, ...] = ()  # of names; the first is small
    shape: tuple[int, int, int] = (3, 32, 32)  # C, H, W of an input it is made for: `kfbench check` tries it with this
    file: str = ""  # filled in: the stem of the file, or the name of the entry point
    module: str = ""  # filled in: what is imported
    broken: str = ""  # filled in: why its declaration cannot be read


def families() -> list[Family]:
    """Return all families: ours, those of the user's folders, those of packages; an earlier one wins a name."""
    ours = files("networks")
    found = []
    for stem, path in ours.items():
        if family := _of_file(stem, path, path.stat().st_mtime_ns):
            found.append(family)
        elif path.parent != PACKAGE / "networks":  # ours has helpers too
            found.append(_unread(f"'{path}' has no FAMILY = Family(…); call a file of helpers _{stem}.py", stem))
    for point in entry_points(group="kfbench.networks"):
        found.append(_of_module(point.name, point.module))
    return found


def names() -> list[str]:
    """Return a name or two of every family; widths and depths other than these work too."""
    return [example for family in families() for example in family.examples]


def is_name(text: str) -> bool:
    """Say whether some family makes networks that are called so."""
    return any(re.fullmatch(family.pattern, text) for family in families())


def of_name(name: str) -> tuple[Family, dict[str, str | None]]:
    """Return the family that makes a network and the parts of its name. Raises KfbenchError with the nearest name."""
    for family in families():
        if parts := re.fullmatch(family.pattern, name):
            return family, parts.groupdict()
    there = names()
    twins = [twin for stem in files("networks") if (twin := hidden("networks", stem))]
    own = "" if near(name, there).startswith("did") else "; one of your own: kfbench new network NAME"
    passed = f" ('{twins[0]}' is passed over: rename it, there is a '{twins[0].stem}' already)" if twins else ""
    raise KfbenchError(f"no network '{name}'; {near(name, there, most=len(there))}{own}{gone('networks')}{passed}")


def file_of(name: str) -> Path | None:
    """Return the file of the family that makes a network; None where none does, as for a library's."""
    for family in families():
        if re.fullmatch(family.pattern, name):
            if family.module.startswith("kfbench.networks."):
                return files("networks")[family.file]
            spec = importlib.util.find_spec(family.module) if family.module else None
            return Path(spec.origin) if spec and spec.origin else None
    return None


def load(family: Family) -> ModuleType:
    """Import a family's file. Raises KfbenchError if that fails, or if it has no function `make`."""
    import kfbench.networks

    if family.broken:
        raise KfbenchError(f"no network '{family.file}': {family.broken}")
    kfbench.networks.__path__ = folders("networks")  # a folder may have been named since
    try:
        module = module_of(family.module)
    except KfbenchError:
        raise
    except (Exception, SystemExit) as error:
        raise KfbenchError(
            f"the network file '{family.file}' cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if not callable(getattr(module, "make", None)):
        raise KfbenchError(f"'{module.__file__}' has no function make(name, parts, *, shape, outputs)")
    return module


@lru_cache(maxsize=256)
def _of_file(stem: str, path: Path, _changed: int) -> Family | None:
    """Return what a file declares; None for one that is no family's."""
    try:
        text = path.read_bytes()
        if not re.search(rb"^FAMILY\b", text, re.MULTILINE):
            return None
        return _named(_declared(ast.parse(text)), stem, f"kfbench.networks.{stem}")
    except (SyntaxError, ValueError, TypeError, re.error) as error:
        return _unread(f"'{path}' cannot be read: {error}", stem)


def _of_module(name: str, module: str) -> Family:
    """Return what a package's module declares, without importing more of it than the packages around it."""
    try:
        spec = importlib.util.find_spec(module)
        assert spec is not None and spec.origin is not None
        return _named(_declared(ast.parse(Path(spec.origin).read_bytes())), name, module)
    except Exception as error:  # told when the network is asked for: one broken package is no one else's trouble
        return _unread(f"'{module}' cannot be read: {type(error).__name__}: {error}", name)


def _declared(tree: ast.Module) -> Family:
    """Return the literal `FAMILY = Family(…)` of a file. Raises ValueError or TypeError if it is none."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FAMILY":
            if not isinstance(node.value, ast.Call):
                raise ValueError("FAMILY must be a literal Family(…)")
            given = [ast.literal_eval(value) for value in node.value.args]
            return Family(*given, **{word.arg or "": ast.literal_eval(word.value) for word in node.value.keywords})
    raise ValueError("no FAMILY = Family(…)")


def _unread(why: str, name: str) -> Family:
    return Family(why, re.escape(name), name, file=name, broken=why)


def _named(family: Family, stem: str, module: str) -> Family:
    if not isinstance(family.examples, tuple | list) or len(family.shape) != 3:
        raise TypeError("examples are a tuple of names, shape is (C, H, W)")
    pattern = family.pattern or re.escape(stem)
    re.compile(pattern)
    form, examples = family.form or (stem if not family.pattern else pattern), family.examples
    return family._replace(
        pattern=pattern, form=form, examples=examples or (() if family.pattern else (stem,)), file=stem, module=module
    )
