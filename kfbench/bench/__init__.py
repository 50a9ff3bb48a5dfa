"""What a training step costs over the passes that it cannot avoid."""

import contextlib
from collections.abc import Iterable

from kfbench import registry
from kfbench.errors import KfbenchError
from kfbench.spec import Setting

CUT = " after the cut"  # rows of their own: a student that stands alone must cost what scratch costs


def after_cut(names: Iterable[str]) -> list[str]:
    """Return a row's name for each of the methods that has a `cut`, the progress at which its teachers leave."""
    return [name + CUT for name in names if _can_be_cut(name)]


def _can_be_cut(name: str) -> bool:
    with contextlib.suppress(KfbenchError):  # it has no such setting, or one of another meaning
        whole, cut = registry.load_method(name), registry.load_method(name, settings_of(name + CUT))
        return whole.is_attached(0.0) and not cut.is_attached(0.0)
    return False


def settings_of(row: str) -> dict[str, Setting]:
    """Return the settings that a row's name asks of its method."""
    return {"cut": 0.0} if row.endswith(CUT) else {}
