"""Two sets of BatchNorm statistics for one network: of the lone student's pass, and of the mixed pass."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class MixedStatistics(nn.Module):
    """The mixed pass's statistics, lent to the network for the length of a pass; its own are the lone student's."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        self._norms = [norm for norm in norms if norm.running_mean is not None]
        for i, norm in enumerate(self._norms):
            for name in STATISTICS:
                self.register_buffer(f"{i}_{name}", getattr(norm, name).clone())

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Let BatchNorm use and update these statistics; the lone student's stay untouched."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for i, norm in enumerate(self._norms):
            for name in STATISTICS:
                own, mixed = getattr(norm, name), getattr(self, f"{i}_{name}")
                setattr(norm, name, mixed)
                setattr(self, f"{i}_{name}", own)
