"""Running means of a loss's parts, and the first step at which one was not finite, without waiting for the device."""

from typing import Any

import torch

from kfbench.batch import Parts
from kfbench.errors import Diverged


class Meter:
    """Add the parts of each step; ask seldom, because asking waits for the device."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._sums = torch.zeros(0)
        self._bad = torch.zeros(0)  # first step at which each part was not finite
        self._count = 0

    def add(self, parts: Parts, step: int) -> None:
        """Take the parts, each [], of a step. Other parts than before start a new count, after a check of the old."""
        values = torch.stack([part.detach().float() for part in parts.values()])
        if list(parts) != self.names:
            self.check()
            self.names, self._count = list(parts), 0
            self._sums, self._bad = torch.zeros_like(values), torch.full_like(values, torch.inf)
        self._sums += values
        self._count += 1
        self._bad = torch.where(values.isfinite(), self._bad, self._bad.clamp(max=step))

    def check(self) -> None:
        """Raise Diverged if a part was not finite."""
        if len(self._bad) and (first := self._bad.min(0)).values.isfinite():
            raise Diverged(self.names[int(first.indices)], int(first.values))

    def means(self) -> dict[str, float]:
        """Return the mean of each part since the last `clear`; empty if nothing was added."""
        return dict(zip(self.names, (self._sums / self._count).tolist(), strict=True)) if self._count else {}

    def clear(self) -> None:
        """Forget the sums."""
        self._sums, self._count = torch.zeros_like(self._sums), 0

    def state(self) -> dict[str, Any]:
        """Return plain values and tensors."""
        return {"names": self.names, "sums": self._sums, "bad": self._bad, "count": self._count}

    def restore(self, state: dict[str, Any], device: torch.device) -> None:
        """Go back to a state."""
        self.names, self._count = state["names"], state["count"]
        self._sums, self._bad = state["sums"].to(device), state["bad"].to(device)
