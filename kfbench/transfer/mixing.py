"""A network whose layers mix in features of frozen teachers, by hooks: the student of Knowledge Flow while it flows.

At a layer j the features h become p_0 h + sum_k p_k Q_k(z_k) with weights p that sum to 1. Without teachers' features
(`student(images)`) the hooks do nothing and the plain network runs.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import cast

import torch
from torch import Tensor, nn

from kfbench.batch import Batch, Parts
from kfbench.errors import KfbenchError
from kfbench.networks import taps
from kfbench.networks.network import Network, Output
from kfbench.networks.taps import Position
from kfbench.teachers import Teacher
from kfbench.transfer.candidates import Matched, Norm, Transform, mix, rms
from kfbench.transfer.hints import Hints
from kfbench.transfer.previous import LastOutputs, Snapshot
from kfbench.transfer.shares import Shares
from kfbench.transfer.statistics import MixedStatistics
from kfbench.transfer.transplant import places

Links = dict[str, list[tuple[int, str]]]  # student layer -> (teacher, its layer) of each candidate
HELD = 2**30  # numbers of features held at once to measure them: 4 GiB in fp32


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
    """The plain network, and what flows into its layers: shares, transformations of the teachers' features, statistics.

    `links` names each layer's candidates, `shares` weighs them. With `matched` every candidate is scaled to the root
    mean square of the student's own features, so that a share says how much flows. A method adds what else it needs:
    `hints`, the `last` outputs, a `snapshot`.
    """

    def __init__(
        self,
        network: Network,
        teachers: Sequence[Teacher],
        links: Links,
        *,
        position: Position,
        normalise: bool,
        initial_share: float,
        floor: float,
        learned: bool,
        matched: bool,
        separate_statistics: bool,
        hints: bool,
    ) -> None:
        super().__init__()
        self.network, self.links, self.position = network, links, position
        self.names = _distinct([teacher.name for teacher in teachers])
        self.asked = [
            sorted({name for pairs in links.values() for k, name in pairs if k == i}) for i in range(len(teachers))
        ]
        own = taps.shapes(network, list(links), position)
        theirs = [teacher.shapes(asked, position) for teacher, asked in zip(teachers, self.asked, strict=True)]
        counts = {_key(layer): len(pairs) for layer, pairs in links.items()}
        self.shares = Shares(counts, initial=initial_share, floor=floor, learned=learned)
        self.transforms, self.norms = nn.ModuleDict(), nn.ModuleDict()
        self.hints = Hints() if hints else None
        for k, shapes in enumerate(theirs):
            self.norms.update({_key(f"{k}/{name}"): Norm(shape[0]) for name, shape in shapes.items() if normalise})
        for layer, pairs in links.items():
            shapes_of_links = [theirs[k][name] for k, name in pairs]
            self.transforms[_key(layer)] = nn.ModuleList(Transform(shape, own[layer]) for shape in shapes_of_links)
            if self.hints is not None:
                self.hints.add(_key(layer), own[layer], shapes_of_links)
        self.matched = nn.ModuleDict({key: Matched(count) for key, count in counts.items()} if matched else {})
        self.statistics = MixedStatistics(network) if separate_statistics else None
        self.last: LastOutputs | None = None
        self.snapshot: Snapshot | None = None
        self.stands_alone = False  # in the stage after the cut
        self._features: Parts | None = None  # of the present pass, as is the schedule
        self._schedule: Sequence[float] | None = None
        self._own: Parts = {}  # the student's features in the latest pass, where hints regress them
        self._latest: dict[str, tuple[Tensor, list[Tensor]]] = {}  # what the latest mixed pass mixed, for `influences`
        taps.rewrite(network, {layer: self._mixer(layer) for layer in links}, position)

    def forward(self, images: Tensor, features: Parts | None = None, schedule: Sequence[float] | None = None) -> Output:
        """Map images [B, C, H, W] to an Output, mixed with teachers' features {"k/layer": [B, …]} if they are given.

        `schedule` sets the student's own share of every layer where shares are not learned.
        """
        self._features, self._schedule = features, schedule
        try:
            with nullcontext() if self.statistics is None or features is None else self.statistics.lent():
                output: Output = self.network(images)
                return output
        finally:
            self._features = self._schedule = None

    def _mixer(self, layer: str) -> Callable[[Tensor], Tensor | None]:
        key = _key(layer)
        transforms = cast(Iterable[Transform], self.transforms[key])
        places = [f"{k}/{name}" for k, name in self.links[layer]]
        norms = [self._norm(place) for place in places]

        def rewritten(own: Tensor) -> Tensor | None:
            if self.hints is not None:
                self._own[key] = own
            if self._features is None:
                return None
            features = [self._features[place] for place in places]
            self._latest[layer] = (own.detach(), features)
            first, *rest = self.shares(key, self._schedule).to(own.dtype).unbind()
            candidates = list(zip(transforms, features, rest, norms, strict=True))
            mixed: Tensor = self.matched[key](own, first, candidates) if self.matched else mix(own, first, candidates)
            return mixed

        return rewritten

    def ask(self, teachers: Sequence[Teacher], batch: Batch) -> Parts:
        """Return the linked teachers' features {"k/layer": [B, …]}, each teacher run once and no deeper than needed."""
        return {
            f"{k}/{name}": features
            for k, (teacher, asked) in enumerate(zip(teachers, self.asked, strict=True))
            for name, features in (teacher.features(batch, asked, self.position) if asked else {}).items()
        }

    def _norm(self, place: str) -> Norm | None:
        return cast(Norm, self.norms[_key(place)]) if _key(place) in self.norms else None

    @torch.no_grad()
    def measure(self, teachers: Sequence[Teacher], batches: Iterable[Batch], *, images: int = 2000) -> None:
        """Measure the teachers' features over the first `images` training images, to standardise them from now on.

        Over fewer, if features of so many are more than `HELD` numbers: large maps say as much with fewer images.
        """
        if not self.norms:
            return
        features_of: dict[str, list[Tensor]] = {}
        seen = held = 0
        for batch in batches:
            for place, features in self.ask(teachers, batch).items():
                features_of.setdefault(place, []).append(features)
                held += features.numel()
            seen += len(batch.images)
            if seen >= images or held >= HELD:
                break
        for place, chunks in features_of.items():
            cast(Norm, self._norm(place)).measure(torch.cat(chunks))

    def hint_loss(self, features: Parts) -> Tensor:
        """Return the mean squared error between the latest pass's own features, regressed, and the teachers'."""
        assert self.hints is not None
        return cast(
            Tensor, self.hints(self._own, {_key(layer): self._targets(layer, features) for layer in self.links})
        )

    def _targets(self, layer: str, features: Parts) -> list[Tensor]:
        """Return the features linked to a layer, standardised."""
        places = [f"{k}/{name}" for k, name in self.links[layer]]
        norms = [self._norm(place) for place in places]
        return [
            features[place] if norm is None else norm(features[place])
            for place, norm in zip(places, norms, strict=True)
        ]

    def _tensors(self) -> dict[str, Tensor]:
        """What a snapshot remembers: all that a mixed pass reads or, as BatchNorm does, writes."""
        parts = ("network.", "shares.logits.", "transforms.", "norms.", "matched.", "statistics.")
        state = self.state_dict(keep_vars=True)
        return {name: state[name] for name in places(self) if name in state and name.startswith(parts)}

    def take_snapshots(self) -> None:
        """Keep a frozen copy of the student from now on, for `before`."""
        self.snapshot = Snapshot(self._tensors())

    def before(
        self, images: Tensor, features: Parts | None, schedule: Sequence[float] | None, *, refresh: int
    ) -> Tensor:
        """Return the logits [B, K] of the snapshot, which is replaced by the present weights every `refresh` steps."""
        assert self.snapshot is not None
        own, latest = dict(self._own), dict(self._latest)
        logits = self.snapshot.outputs(self, self._tensors(), (images, features, schedule), refresh).logits
        self._own, self._latest = own, latest  # hints and influences are the present pass's
        return logits

    def forget(self) -> None:
        """Let go of what the latest mixed pass mixed: nothing flows any more."""
        self._latest.clear()

    @torch.no_grad()
    def numbers(self) -> dict[str, float]:
        """Return shares and influences for the curve.

        `share/LAYER/student` and `share/LAYER/TEACHER` are the candidates' weights, `share/student` the mean of the
        student's over layers. `influence/LAYER/TEACHER` is the root mean square of what a teacher brings to the mix,
        p_k Q_k(z_k), over that of the student's own part, p_0 h, in the latest mixed pass: Q's scale is free, so a
        share alone does not say how much flows. None after the teachers are removed.
        """
        numbers: dict[str, float] = {}
        for layer, pairs in self.links.items():
            weights = self.shares(_key(layer)).tolist()
            numbers[f"share/{layer}/student"] = weights[0]
            for (k, _), weight in zip(pairs, weights[1:], strict=True):
                place = f"share/{layer}/{self.names[k]}"
                numbers[place] = numbers.get(place, 0.0) + weight
        own = [numbers[f"share/{layer}/student"] for layer in self.links]
        return {"share/student": sum(own) / len(own), **numbers, **self._influences()}

    def _influences(self) -> dict[str, float]:
        numbers: dict[str, float] = {}
        for layer, (own, features) in self._latest.items():
            first, *rest = self.shares(_key(layer)).unbind()
            parts: dict[str, Tensor] = {}
            for i, (k, name) in enumerate(self.links[layer]):
                transform = cast(Transform, cast(nn.ModuleList, self.transforms[_key(layer)])[i])
                part = transform(features[i].float(), 1.0, self._norm(f"{k}/{name}"))
                if self.matched:
                    part = part * rms(own) / rms(part).clamp(min=1e-6)
                place = f"influence/{layer}/{self.names[k]}"
                parts[place] = parts.get(place, torch.zeros(())) + rest[i] * part
            numbers |= {place: float(rms(part) / (first * rms(own)).clamp(min=1e-12)) for place, part in parts.items()}
        return numbers


def _distinct(names: list[str]) -> list[str]:
    """Return teachers' names, numbered where two are the same."""
    return names if len(set(names)) == len(names) else [f"{k}:{name}" for k, name in enumerate(names)]


def _key(place: str) -> str:
    """Return a layer's name, or "k/layer", as a module's name can be."""
    return place.replace(".", "/")
