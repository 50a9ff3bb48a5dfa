"""A network whose layers mix in features of frozen teachers, by hooks: the student of Knowledge Flow while it flows.

At a layer j the features h become p_0 h + sum_k p_k Q_k(z_k) with weights p that sum to 1. Without teachers' features
(`student(images)`) the hooks do nothing and the plain network runs.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kfbench.errors import KfbenchError
from kfbench.methods import Batch, Parts
from kfbench.networks import taps
from kfbench.networks.network import Network, Output
from kfbench.networks.taps import Position
from kfbench.teachers import Teacher
from kfbench.transfer import losses
from kfbench.transfer.candidates import Norm, Transform, mix

Links = dict[str, list[tuple[int, str]]]  # student layer -> (teacher, its layer) of each candidate


def parse_links(text: str, teachers: int) -> Links:
    """Read "LAYER=0:LAYER+1:LAYER;LAYER=…": student layer = teacher number : its layer. Raises KfbenchError."""
    links: Links = {}
    for entry in filter(None, text.split(";")):
        layer, _, candidates = entry.partition("=")
        try:
            links[layer] = [(int(k), name) for k, _, name in (item.partition(":") for item in candidates.split("+"))]
        except ValueError as error:
            raise KfbenchError(f"links '{entry}' cannot be read; write LAYER=0:LAYER+1:LAYER;LAYER=…") from error
        wrong = [k for k, _ in links[layer] if not 0 <= k < teachers]
        if wrong:
            raise KfbenchError(f"links '{entry}' name teacher {wrong[0]}, but the run has {teachers}, counted from 0")
    return links


class MixedStudent(nn.Module):
    """The plain network, mixing weights `mix` (logits, the student's own first) and transformations `transforms`."""

    share: Tensor
    last: Tensor
    seen: Tensor
    age: Tensor

    def __init__(
        self,
        network: Network,
        teachers: Sequence[Teacher],
        links: Links,
        *,
        position: Position = "post",
        normalise: bool = True,
        initial_share: float = 0.5,
        floor: float = 0.0,
        learned: bool = True,
        separate_statistics: bool = False,
        hints: bool = False,
        memory: int = 0,
        snapshot: bool = False,
    ) -> None:
        super().__init__()
        self.network, self.links, self.position, self.floor, self.learned = network, links, position, floor, learned
        self.names = [teacher.name for teacher in teachers]
        if len(set(self.names)) < len(self.names):
            self.names = [f"{k}:{name}" for k, name in enumerate(self.names)]
        self.asked = [
            sorted({name for pairs in links.values() for k, name in pairs if k == i}) for i in range(len(teachers))
        ]
        own = taps.shapes(network, list(links), position)
        theirs = [teacher.shapes(asked, position) for teacher, asked in zip(teachers, self.asked, strict=True)]
        self.mix = nn.ParameterDict()
        self.transforms = nn.ModuleDict()
        self.regressions = nn.ModuleDict()
        self.norms = nn.ModuleDict()
        if normalise:
            for k, shapes in enumerate(theirs):
                for name, shape in shapes.items():
                    self.norms[f"{k}/{name}".replace(".", "/")] = Norm(shape[0])
        for layer, pairs in links.items():
            key = layer.replace(".", "/")
            start = torch.zeros(1 + len(pairs))
            start[0] = math.log(max(1e-6, initial_share - floor) / max(1e-6, 1 - initial_share) * max(1, len(pairs)))
            self.mix[key] = nn.Parameter(start, requires_grad=learned)
            self.transforms[key] = nn.ModuleList(Transform(theirs[k][name], own[layer]) for k, name in pairs)
            if hints:
                self.regressions[key] = nn.ModuleList(Transform(own[layer], theirs[k][name]) for k, name in pairs)
        self.register_buffer("share", torch.tensor(initial_share))  # of the latest step, where it is scheduled
        if memory:
            self.register_buffer("last", torch.zeros(memory, network.outputs))
            self.register_buffer("seen", torch.zeros(memory, dtype=torch.bool))
        self._norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        self.separate = separate_statistics
        if separate_statistics:
            for i, norm in enumerate(self._norms):
                for name in ("running_mean", "running_var", "num_batches_tracked"):
                    if getattr(norm, name) is not None:
                        self.register_buffer(f"mixed_{i}_{name}", getattr(norm, name).clone())
        if snapshot:
            self.register_buffer("age", torch.tensor(0))
            for i, value in enumerate(self._live().values()):
                self.register_buffer(f"before_{i}", value.detach().clone())
        self.stands_alone = False  # in the stage after the cut
        self._features: Parts | None = None
        self._share: Tensor | None = None  # of the present pass
        self._own: Parts = {}
        taps.rewrite(network, {layer: self._mixer(layer) for layer in links}, position)

    def forward(self, images: Tensor, features: Parts | None = None, share: float | None = None) -> Output:
        """Map images [B, C, H, W] to an Output, mixed with teachers' features {"k/layer": [B, …]} if they are given.

        `share` sets the student's own share at every layer in place of its learned value.
        """
        self._features = features
        self._share = None if share is None else torch.full_like(self.share, share)
        try:
            with self._statistics(mixed=features is not None):
                output: Output = self.network(images)
                return output
        finally:
            self._features = self._share = None

    def note(self, share: float | None) -> None:
        """Keep the scheduled share of a step, for `shares`."""
        if share is not None:
            self.share.fill_(share)

    def _mixer(self, layer: str) -> Callable[[Tensor], Tensor | None]:
        key = layer.replace(".", "/")
        transforms = cast(Iterable[Transform], self.transforms[key])
        places = [f"{k}/{name}" for k, name in self.links[layer]]
        norms = [self._norm(place) for place in places]

        def rewritten(own: Tensor) -> Tensor | None:
            if self.regressions:
                self._own[layer] = own
            if self._features is None:
                return None
            first, *rest = self.weights(key).to(own.dtype).unbind()
            features = [self._features[place] for place in places]
            return mix(own, first, list(zip(transforms, features, rest, norms, strict=True)))

        return rewritten

    def weights(self, key: str) -> Tensor:
        """Return the weights of a layer's candidates, [1 + candidates], the student's own first; they sum to 1."""
        logits = self.mix[key]
        if not self.learned:
            share = self.share if self._share is None else self._share
            rest = F.softmax(logits[1:], dim=0) * (1 - share)
            return torch.cat([share.view(1), rest])
        weights = F.softmax(logits, dim=0)
        if self.floor:
            weights = weights * (1 - self.floor)
            weights = torch.cat([weights[:1] + self.floor, weights[1:]])
        return weights

    def dependency(self) -> Tensor:
        """Return L_dep = -mean_j log p_0^j."""
        if self.floor:
            return -torch.stack([self.weights(key)[0].log() for key in self.mix]).mean()
        return losses.dependency(list(self.mix.values()))

    def ask(self, teachers: Sequence[Teacher], batch: Batch) -> Parts:
        """Return the linked teachers' features {"k/layer": [B, …]}, each teacher run once and no deeper than needed."""
        return {
            f"{k}/{name}": features
            for k, (teacher, asked) in enumerate(zip(teachers, self.asked, strict=True))
            for name, features in (teacher.features(batch, asked, self.position) if asked else {}).items()
        }

    def _norm(self, place: str) -> Norm | None:
        key = place.replace(".", "/")
        return cast(Norm, self.norms[key]) if key in self.norms else None

    @torch.no_grad()
    def measure(self, teachers: Sequence[Teacher], batches: Iterable[Batch], *, images: int = 2000) -> None:
        """Measure the teachers' features over the first `images` training images, to standardise them from now on."""
        if not self.norms:
            return
        found: dict[str, list[Tensor]] = {}
        seen = 0
        for batch in batches:
            for place, features in self.ask(teachers, batch).items():
                found.setdefault(place, []).append(features)
            seen += len(batch.images)
            if seen >= images:
                break
        for place, parts in found.items():
            cast(Norm, self._norm(place)).measure(torch.cat(parts))

    def hint_loss(self, features: Parts) -> Tensor:
        """Return the mean squared error between the latest pass's own features, regressed, and the teachers' features.

        A mean over elements, links and layers, of standardised features.
        """
        errors = []
        for layer, pairs in self.links.items():
            key = layer.replace(".", "/")
            for i, (k, name) in enumerate(pairs):
                norm = self._norm(f"{k}/{name}")
                target = features[f"{k}/{name}"] if norm is None else norm(features[f"{k}/{name}"])
                made = self.regressions[key][i](self._own[layer])  # type: ignore[index]
                errors.append(F.mse_loss(made.expand_as(target), target))
        return torch.stack(errors).mean()

    def moved(self, batch: Batch, logits: Tensor) -> Tensor:
        """Return the mean KL(last || now) over the images seen before, and remember the logits [B, K] as their last."""
        rows = batch.index
        assert rows is not None
        seen = self.seen[rows].float()
        before = F.log_softmax(self.last[rows], dim=1)
        each = F.kl_div(F.log_softmax(logits.float(), dim=1), before, reduction="none", log_target=True).sum(1)
        self.last[rows] = logits.detach().float()
        self.seen[rows] = True
        return (each * seen).sum() / seen.sum().clamp(min=1)

    def _live(self) -> dict[str, Tensor]:
        """What a snapshot remembers: all that a mixed pass reads or, as BatchNorm does, writes."""
        own = ("network.", "mix.", "transforms.", "norms.", "mixed_")
        return {name: value for name, value in self.state_dict(keep_vars=True).items() if name.startswith(own)}

    def before(self, images: Tensor, features: Parts | None, share: float | None, *, refresh: int) -> Tensor:
        """Return the logits [B, K] of the snapshot, which is replaced by the present weights every `refresh` steps."""
        setup, own = self._live(), dict(self._own)
        kept = [getattr(self, f"before_{i}") for i in range(len(setup))]
        with torch.no_grad():
            due = self.age % refresh == 0  # on the device: nothing waits for it
            for old, new in zip(kept, setup.values(), strict=True):
                old.copy_(torch.where(due, new, old))
            self.age += 1
            snapshot = dict(zip(setup, (value.clone() for value in kept), strict=True))
            output: Output = torch.func.functional_call(self, snapshot, (images, features, share))
        self._own = own  # what hints regress is the live pass's
        return output.logits

    def shares(self) -> dict[str, float]:
        """Return each candidate's weight at each layer, and the student's mean over layers, for the curve."""
        numbers: dict[str, float] = {}
        with torch.no_grad():
            for layer, pairs in self.links.items():
                weights = self.weights(layer.replace(".", "/")).tolist()
                numbers[f"share/{layer}/student"] = weights[0]
                for (k, _name), weight in zip(pairs, weights[1:], strict=True):
                    place = f"share/{layer}/{self.names[k]}"
                    numbers[place] = numbers.get(place, 0.0) + weight
        own = [numbers[f"share/{layer}/student"] for layer in self.links]
        return {"share/student": sum(own) / len(own), **numbers}

    @contextmanager
    def _statistics(self, *, mixed: bool) -> Iterator[None]:
        """Let BatchNorm use and update its statistics of the mixed pass; the lone student's stay untouched."""
        if not (mixed and self.separate):
            yield
            return
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for i, norm in enumerate(self._norms):
            for name in ("running_mean", "running_var", "num_batches_tracked"):
                if getattr(norm, name) is not None:
                    own, mixed = getattr(norm, name), getattr(self, f"mixed_{i}_{name}")
                    setattr(norm, name, mixed)
                    setattr(self, f"mixed_{i}_{name}", own)
