"""The scores by their names, and what `best:K` looks like; no torch, no numpy: the command line offers them."""

from collections.abc import Sequence
from typing import TypeGuard

SCORES = {
    "logme": "log evidence of a linear model",
    "leep": "log likelihood by the teacher's outputs",
    "nleep": "the same by a Gaussian mixture of its features",
    "h-score": "spread between classes over all spread",
    "h-shrunk": "the same with a shrunk covariance",
    "parc": "correlation of distances by features and by labels",
    "probe": "accuracy in % of a linear classifier, on validation images",
}
DEFAULT = "logme"
WORD = "best:"  # what teachers begin with that are to be chosen; see `best.py`


def is_asked(teachers: Sequence[str] | None) -> TypeGuard[Sequence[str]]:
    """Tell whether teachers are to be chosen."""
    return teachers is not None and any(f"{name}:".startswith(WORD) for name in teachers)
