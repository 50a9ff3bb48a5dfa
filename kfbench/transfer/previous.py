"""What the output was before, for the KL term that keeps it from jumping while the teachers are withdrawn."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kfbench.networks.network import Output


class LastOutputs(nn.Module):
    """The logits of each training image's last visit."""

    logits: Tensor
    seen: Tensor

    def __init__(self, images: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("logits", torch.zeros(images, outputs))
        self.register_buffer("seen", torch.zeros(images, dtype=torch.bool))

    def moved(self, rows: Tensor, logits: Tensor, *, keep: bool = True) -> Tensor:
        """Return the mean KL(last || now) over the rows [B] seen before, and keep their logits [B, K] as their last.

        Without `keep` what was last stays so.
        """
        seen = self.seen[rows].float()
        before = F.log_softmax(self.logits[rows], dim=1)
        each = F.kl_div(F.log_softmax(logits.float(), dim=1), before, reduction="none", log_target=True).sum(1)
        if keep:
            self.logits[rows] = logits.detach().float()
            self.seen.index_fill_(0, rows, True)  # not seen[rows] = True: a GPU would wait for a copy of the number
        return (each * seen).sum() / seen.sum().clamp(min=1)


class Snapshot(nn.Module):
    """A frozen copy of a module's tensors, replaced by the present ones every so many steps."""

    age: Tensor

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.register_buffer("age", torch.tensor(0))
        for i, value in enumerate(tensors.values()):
            self.register_buffer(f"tensor_{i}", value.detach().clone())

    @torch.no_grad()
    def outputs(
        self, module: nn.Module, tensors: Mapping[str, Tensor], given: tuple[object, ...], refresh: int
    ) -> Output:
        """Return what `module` says with the tensors of the snapshot, which then may be due to become the present ones.

        So with `refresh` 1 it is the module of the step before. `tensors` has one name for each place (`places`).
        """
        copies = [getattr(self, f"tensor_{i}") for i in range(len(tensors))]
        # clones: a pass in training mode writes BatchNorm's statistics
        clones = dict(zip(tensors, map(torch.clone, copies), strict=True))
        # not tied: a weight that two layers share comes twice, each time as a clone of its own
        output: Output = torch.func.functional_call(module, clones, given, tie_weights=False)
        self.age += 1
        due = self.age % refresh == 0  # on the device: nothing waits for it
        for old, new in zip(copies, tensors.values(), strict=True):
            old.copy_(torch.where(due, new, old))
        return output
