"""Lateral connections through embeddings: frozen teachers see what a learned network makes of the observation.

What MIKT and CAT, descendants of Knowledge Flow, share (their code: michaelwan11/MIKT and
TJU-DRL-LAB/transfer-and-multi-task-reinforcement-learning, CAT). At layer j, before its activation,
    z_j  <-  p_0 z_j + sum_k v_k U_k z_jk(phi(s)),
with the shares p and v made by `Laterals`, U learned and z_jk the pre-activation of teacher k, through which the
gradient goes on to the embedding phi.
"""

from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kfbench.batch import Parts
from kfbench.networks import taps
from kfbench.networks.network import Network, Output
from kfbench.networks.network import floats as floats
from kfbench.teachers import Teacher, fit
from kfbench.transfer.candidates import Transform

OWN, THEIRS = -0.1, 0.01  # logits of the shares at the start (student_models.py): the student's is the smaller one
NARROWEST = 0.05  # of a decoder's deviation: black pixels that are told exactly have no bound


class Correction(nn.Module):
    """s + W_2 tanh(W_1 s) of observations [B, C, H, W], from patches and back to them; the identity at the start.

    Patches, since convolutions at full size would cost several times what the student's own network does.
    """

    def __init__(self, channels: int, width: int, patch: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, patch, stride=patch)
        self.last = nn.ConvTranspose2d(width, channels, patch, stride=patch)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(cast(Tensor, self.last.bias))

    def forward(self, images: Tensor) -> Tensor:
        """Map [B, C, H, W] to the same shape."""
        correction: Tensor = self.last(torch.tanh(self.first(images)), output_size=list(images.shape[2:]))
        return images + correction


class Decoder(nn.Module):
    """q(s | phi): a normal distribution around a correction of phi, with a learned deviation for each channel."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.mean = Correction(channels, width)
        self.spread = nn.Parameter(torch.zeros(channels))  # sigma = NARROWEST + (1 - NARROWEST) exp(spread), 1 at first

    def forward(self, embedded: Tensor, images: Tensor) -> Tensor:
        """Return -log q(images | embedded) without its constant, a mean over all numbers, []."""
        deviation = NARROWEST + (1 - NARROWEST) * self.spread.exp()  # not clamped: it could never widen again
        return surprise(images, self.mean(embedded), deviation.log()[:, None, None])


def surprise(images: Tensor, mean: Tensor, logarithm: Tensor) -> Tensor:
    """Return mean(log sigma + (s - mu)² / (2 sigma²)), sigma given as its logarithm: minus a bound of I(s; phi)."""
    return (logarithm + (images - mean).square() / (2 * (2 * logarithm).exp())).mean()


class Laterals(nn.Module):
    """The plain network, one embedding for all teachers or one for each, U, and the shares of a layer's sources.

    Shares are p = softmax over {student, teachers}; with `split` they are softmax over {student, all teachers} times a
    second softmax over the teachers, whose logits `weights` get no gradient from the mix.
    """

    def __init__(self, network: Network, teachers: Sequence[Teacher], *, split: bool, width: int) -> None:
        super().__init__()
        self.network, self.split = network, split
        self.names = [teacher.name for teacher in teachers]
        links = [taps.match(network.layers, teacher.network.layers) for teacher in teachers]
        self.reads = {layer: [(k, link[layer][0]) for k, link in enumerate(links)] for layer in network.layers}
        self.asked = [sorted({name for (name,) in link.values()}) for link in links]
        own = taps.shapes(network, network.layers, "pre")
        theirs = [teacher.shapes(asked, "pre") for teacher, asked in zip(teachers, self.asked, strict=True)]
        channels, count = network.shape[0], len(teachers)
        self.embeddings = nn.ModuleList(Correction(channels, width) for _ in range(count if split else 1))
        self.decoders = nn.ModuleList(Decoder(channels, width) for _ in self.embeddings)
        self.shares, self.weights, self.transforms = nn.ParameterDict(), nn.ParameterDict(), nn.ModuleDict()
        for layer, reads in self.reads.items():
            key = layer.replace(".", "/")
            start = torch.full((2 if split else 1 + count,), THEIRS)
            start[0] = OWN
            self.shares[key] = nn.Parameter(start)
            if split:
                self.weights[key] = nn.Parameter(torch.zeros(count), requires_grad=count > 1)
            self.transforms[key] = nn.ModuleList(Transform(theirs[k][name], own[layer]) for k, name in reads)
        self._features: Parts | None = None  # of the present pass
        taps.rewrite(network, {layer: self._mixer(layer) for layer in self.reads}, "pre")

    def forward(self, images: Tensor, features: Parts | None = None) -> Output:
        """Map images [B, C, H, W] to an Output, mixed with teachers' features {"k/layer": [B, …]} if they are given."""
        self._features = features
        try:
            output: Output = self.network(images)
            return output
        finally:
            self._features = None

    def embed(self, images: Tensor) -> list[Tensor]:
        """Return phi of observations [B, C, H, W], one for each embedding, of the same shape."""
        return [embedding(floats(images)) for embedding in self.embeddings]

    def ask(self, teachers: Sequence[Teacher], embedded: Sequence[Tensor]) -> Parts:
        """Return the teachers' pre-activations {"k/layer": [B, …]} of what they are shown, with gradients to it."""
        features: Parts = {}
        for k, (teacher, asked) in enumerate(zip(teachers, self.asked, strict=True)):
            shown = embedded[k % len(embedded)]
            with taps.read(teacher.network, asked, "pre", stop=True) as found:
                teacher.network(fit(shown, teacher.network.shape))
            features |= {f"{k}/{name}": value for name, value in found.items()}
        return features

    def information(self, embedded: Sequence[Tensor], images: Tensor) -> Tensor:
        """Return the decoders' surprise at the observations [B, C, H, W], a sum over embeddings, []."""
        each = [decoder(shown, floats(images)) for decoder, shown in zip(self.decoders, embedded, strict=True)]
        return torch.stack(each).sum()

    def of(self, key: str) -> Tensor:
        """Return the shares of a layer's sources, [1 + teachers], the student's first; they sum to 1."""
        shares = F.softmax(self.shares[key], dim=0)
        if not self.split:
            return shares
        return torch.cat([shares[:1], shares[1] * F.softmax(self.weights[key].detach(), dim=0)])

    def _mixer(self, layer: str) -> Callable[[Tensor], Tensor | None]:
        key = layer.replace(".", "/")
        places = [f"{k}/{name}" for k, name in self.reads[layer]]

        def mixed(own: Tensor) -> Tensor | None:
            if self._features is None:
                return None
            first, *rest = self.of(key).unbind()
            made = first.to(own.dtype) * own
            for transform, place, share in zip(cast(nn.ModuleList, self.transforms[key]), places, rest, strict=True):
                made = made + transform(self._features[place], share)
            return made

        return mixed

    def dependency(self) -> Tensor:
        """Return -mean_j log p_0^j, []."""
        return -torch.stack([F.log_softmax(logits, dim=0)[0] for logits in self.shares.values()]).mean()

    def metrics(self) -> dict[str, float]:
        """Return `share/LAYER/student`, `share/LAYER/TEACHER` and the mean over layers, `share/student`."""
        numbers: dict[str, float] = {}
        with torch.no_grad():
            for layer in self.reads:
                own, *theirs = self.of(layer.replace(".", "/")).tolist()
                numbers[f"share/{layer}/student"] = own
                for k, (name, share) in enumerate(zip(self.names, theirs, strict=True)):
                    place = name if self.names.count(name) == 1 else f"{k}:{name}"
                    numbers[f"share/{layer}/{place}"] = share
        own_shares = [numbers[f"share/{layer}/student"] for layer in self.reads]
        return {"share/student": sum(own_shares) / len(own_shares), **numbers}


def near_old(output: Output, before: Output, actions: Tensor, counts: Tensor | None = None) -> Tensor:
    """Return 1/2 mean (log pi(a|s) - log pi_acting(a|s))² of actions [B], over the rows that count ([B], 0 or 1)."""
    now, then = (
        F.log_softmax(said.logits.float(), dim=1).gather(1, actions[:, None]).squeeze(1) for said in (output, before)
    )
    each = (now - then.detach()).square() / 2
    return each.mean() if counts is None else (each * counts).sum() / counts.sum().clamp(min=1)
