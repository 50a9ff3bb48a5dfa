"""What a training step costs over the passes that it cannot avoid."""

import dataclasses
from collections.abc import Iterable

from kfbench import registry
from kfbench.spec import Setting

CUT = " after the cut"  # rows of their own: a student that stands alone must cost what scratch costs


def after_cut(names: Iterable[str]) -> list[str]:
    """Return a row's name for each of the methods that has a `cut`, the progress at which its teachers leave."""
    fields = {name: dataclasses.fields(registry.method_class(name)) for name in names}
    return [name + CUT for name, its in fields.items() if any(each.name == "cut" for each in its)]


def settings_of(row: str) -> dict[str, Setting]:
    """Return the settings that a row's name asks of its method."""
    return {"cut": 0.0} if row.endswith(CUT) else {}
