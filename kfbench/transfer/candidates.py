"""What becomes of a teacher's features before they are mixed into a student's layer, and the mix itself."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kfbench.errors import KfbenchError


class Norm(nn.Module):
    """Mean and standard deviation [C] of a teacher's features, measured once: the teacher is frozen."""

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    def measure(self, features: Tensor) -> None:
        """Take the statistics of features [N, C, …]; a channel that is always the same keeps std 1."""
        axes = [axis for axis in range(features.dim()) if axis != 1]
        std, mean = torch.std_mean(features.float(), dim=axes, correction=0)
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 1e-4, std, 1.0))

    def forward(self, features: Tensor) -> Tensor:
        """Return features [B, C, …] with mean 0 and standard deviation 1 a channel."""
        tiny = 1e-30  # above 0, as older versions of torch ask, and below what a variance of 1e-8 can feel
        return F.batch_norm(features, self.mean, self.std.square(), eps=tiny)


class Transform(nn.Module):
    """Q: a learned linear map from a teacher's features to the shape of a student's layer, without bias.

    Between maps a 1×1 convolution, with average pooling before it or interpolation after it where sizes differ; from a
    map to a vector global average pooling and a linear map; from a vector to a map the vector is spread over it.
    """

    def __init__(self, taken: tuple[int, ...], made: tuple[int, ...]) -> None:
        super().__init__()
        for shape in (taken, made):
            if len(shape) not in (1, 3):
                raise KfbenchError(
                    f"features of shape {shape} can be neither mixed nor read; choose layers with links="
                )
        self.taken, self.made = taken, made
        dimensions = 2 if len(taken) == len(made) == 3 else 0
        self.weight = nn.Parameter(torch.empty(made[0], taken[0], *(1,) * dimensions))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    @property
    def is_pointwise(self) -> bool:
        """True if the features can be brought to the layer's positions first, so that Q maps one position at a time."""
        larger = all(theirs >= ours for theirs, ours in zip(self.taken[1:], self.made[1:], strict=False))
        return larger and len(self.taken) >= len(self.made)

    def placed(self, features: Tensor) -> Tensor:
        """Bring features [B, *taken] to the layer's positions: [B, taken[0], *made[1:]]. Only if `is_pointwise`."""
        if len(self.taken) > len(self.made):
            return features.mean((2, 3))
        if self.taken[1:] == self.made[1:]:
            return features
        return F.adaptive_avg_pool2d(features, (self.made[1], self.made[2]))

    def folded(self, scale: Tensor | float, norm: Norm | None) -> tuple[Tensor, Tensor | None]:
        """Return weight [C made, C taken] and bias [C made] of scale · Q(norm(·)): no pass over features for either."""
        weight = self.weight.flatten(1) * scale
        if norm is None:
            return weight, None
        weight = weight / norm.std
        return weight, -weight @ norm.mean

    def forward(self, features: Tensor, scale: Tensor | float = 1.0, norm: Norm | None = None) -> Tensor:
        """Map features [B, *taken] to scale · Q(norm(features)), [B, *made], or [B, C, 1, 1] if they are spread."""
        weight, bias = self.folded(scale, norm)
        if self.is_pointwise:
            features = self.placed(features)
        if features.dim() == 2:
            made = F.linear(features, weight, bias)
            return made.view(*made.shape, 1, 1) if len(self.made) == 3 else made  # broadcasts over H and W
        made = F.conv2d(features, weight[:, :, None, None], bias)
        return made if self.is_pointwise else F.interpolate(made, self.made[1:], mode="bilinear", align_corners=False)


Candidate = tuple[Transform, Tensor, Tensor, Norm | None]  # Q, the teacher's features, their weight, their norm


def mix(own: Tensor, share: Tensor, candidates: Sequence[Candidate]) -> Tensor:
    """Return share · own + sum_k weight_k · Q_k(norm_k(features_k)), of own's shape, [B, C, …].

    What is mapped by position goes through `Mix`, the rest is added.
    """
    near = [candidate for candidate in candidates if candidate[0].is_pointwise]
    maps = [transform.folded(weight, norm) for transform, _, weight, norm in near]
    biases = [bias for _, bias in maps if bias is not None]
    placed = [transform.placed(features).to(own.dtype) for transform, features, _, _ in near]
    bias = torch.stack(biases).sum(0).to(own.dtype) if biases else None
    mixed: Tensor = Mix.apply(own, share, bias, *placed, *(weight.to(own.dtype) for weight, _ in maps))
    for transform, features, weight, norm in candidates:
        if not transform.is_pointwise:
            mixed = mixed + transform(features, weight, norm)
    return mixed


def rms(features: Tensor) -> Tensor:
    """Return the root mean square of all elements, []."""
    return features.float().square().mean().sqrt()


class Matched(nn.Module):
    """A mix whose candidates are scaled to the root mean square of the student's own features: a share is an influence.

    In training the scale is the batch's, and its gradient is part of the candidate's (Q cannot grow to make up for a
    falling share); in an evaluation it is a running mean, so that it does not depend on the batch.
    """

    squares: Tensor
    steps: Tensor

    def __init__(self, candidates: int, momentum: float = 0.05) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("squares", torch.zeros(1 + candidates))  # running mean squares; the student's own first
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, own: Tensor, share: Tensor, candidates: Sequence[Candidate]) -> Tensor:
        """Return share · own + sum_k weight_k · scale_k · Q_k(norm_k(features_k)), of own's shape [B, C, …]."""
        parts = [transform(features, 1.0, norm) for transform, features, _, norm in candidates]
        squares = torch.stack([part.float().square().mean() for part in (own.detach(), *parts)])
        if self.training and torch.is_grad_enabled():
            self._note(squares.detach())
        if not self.training:
            squares = torch.where(self.steps > 0, self.squares, squares)
        ratios = squares[0] / squares[1:].clamp(min=1e-12)
        lives = ratios > 0  # the root of 0 has no slope: where the student's features have died, nothing is added
        scales = (torch.where(lives, ratios, 1.0).sqrt() * lives).to(own.dtype)
        mixed = share * own
        for part, scale, (_, _, weight, _) in zip(parts, scales.unbind(), candidates, strict=True):
            mixed = mixed + weight * scale * part
        return mixed

    def _note(self, squares: Tensor) -> None:
        """Take a batch's mean squares into the running means; the first are taken whole."""
        rate = torch.where(self.steps == 0, 1.0, self.momentum)
        self.squares.lerp_(squares, rate)
        self.steps += 1


class Mix(torch.autograd.Function):
    """share · own + bias + sum_k W_k z_k, where z_k [B, C_k, …] are frozen and W_k [C, C_k] maps one position.

    Autograd's own way copies a sum before a product is added to it, and makes products of gradients only to sum them.
    Without that a step of Knowledge Flow in games takes 0.975 of its time (median of 60 interleaved turns,
    one thread of an Intel Xeon with AVX512).
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor, share: Tensor, bias: Tensor | None, *given: Tensor) -> Tensor:
        """Take z_1, z_2, …, W_1, W_2, …; maps come out channels_last."""
        features, weights = given[: len(given) // 2], given[len(given) // 2 :]
        ctx.save_for_backward(own, share, *features)
        mine = _rows(own)
        rows = mine * share if bias is None else torch.addcmul(bias, mine, share)
        for z, weight in zip(features, weights, strict=True):
            rows.addmm_(_rows(z), weight.t())
        if own.dim() == 2:
            return rows
        count, _, height, width = own.shape
        return rows.view(count, height, width, -1).permute(0, 3, 1, 2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        """Return gradients for `own`, `share`, `bias` and each W."""
        own, share, *features = ctx.saved_tensors
        rows = _rows(slope)
        dot, bias = None, None
        if ctx.needs_input_grad[1]:  # not where a schedule sets it
            whole = rows.dtype in (torch.float32, torch.float64)  # a dot product of bf16 would be summed in bf16
            dot = torch.dot(rows.flatten(), _rows(own).flatten()) if whole else (slope.float() * own.float()).sum()
            dot = dot.to(share.dtype)
        if ctx.needs_input_grad[2]:
            bias = rows.sum(0)
        weights = [rows.t() @ _rows(z) for z in features]
        return slope * share, dot, bias, *(None for _ in features), *weights


def _rows(features: Tensor) -> Tensor:
    """Return features [B, C, …] as rows [B · positions, C]; of maps in channels_last without a copy."""
    return features if features.dim() == 2 else features.permute(0, 2, 3, 1).flatten(0, 2)
