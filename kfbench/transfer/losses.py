"""Losses that several methods share, each a mean over the batch and tested against numpy written from its formula."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kfbench.transfer import maps


def product(one: Tensor, other: Tensor) -> Tensor:
    """Return the matrix product in float32, also in a bf16 step, where autocast would round both factors first.

    What a loss makes of similarities is often a small difference of large ones, of which that leaves only rounding.
    """
    with torch.autocast(one.device.type, enabled=False):
        return one.float() @ other.float()


def kl(target: Tensor, logits: Tensor) -> Tensor:
    """Return the mean over the batch of KL(target || softmax(logits)): target probabilities and logits [B, K]."""
    logged = F.log_softmax(logits.float(), dim=1)
    return F.kl_div(logged, target.float(), reduction="batchmean")  # sum over classes, mean over B: not "mean"


def softened(logits: Tensor, temperature: float) -> Tensor:
    """Return softmax(logits / T), [B, K]."""
    return F.softmax(logits.float() / temperature, dim=1)


def distillation(logits: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Return T² · KL(target || softmax(logits / T)), target [B, K] already softened at T.

    T² keeps the size of the gradient whatever T. Source: Hinton, Vinyals & Dean 2015, arXiv 1503.02531, section 2.
    """
    return kl(target, logits.float() / temperature) * temperature**2


def standardised(logits: Tensor) -> Tensor:
    """Return logits [B, K] less their mean, over their standard deviation, row by row.

    Source: Sun et al. 2024, "Logit Standardization in Knowledge Distillation", arXiv 2403.01427, algorithm 1, with the
    1e-7 of the authors' code.
    """
    logits = logits.float()
    return (logits - logits.mean(1, keepdim=True)) / (logits.std(1, keepdim=True) + 1e-7)


def dependency(weights: list[Tensor]) -> Tensor:
    """Return -mean_j log p_0^j from the candidates' logits of each student layer j; the student's own comes first.

    Source: the form of Knowledge Flow's dependency loss as released descendants have it (see `methods/kf.py`).
    """
    return -torch.stack([F.log_softmax(w, dim=0)[0] for w in weights]).mean()


def cross_entropy(target: Tensor, logits: Tensor) -> Tensor:
    """Return -sum_c target_c log softmax(logits)_c, a mean over the batch: target probabilities and logits [B, K].

    It differs from `kl` by the target's entropy, which has no gradient.
    """
    return -(target.float() * F.log_softmax(logits.float(), dim=1)).sum(1).mean()


def decoupled(logits: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return T² KL(b_T || b_S) and T² KL(p_T || p_S): of the target class against the rest, and among the rest.

    `logits` and `teacher` (logits too) are [B, K], `labels` [B]; b = (p_y, 1 - p_y), p is the softmax without class y.
    Source: Zhao et al. 2022, "Decoupled Knowledge Distillation", arXiv 2203.08679, equations 5 to 7.
    """
    own, theirs = logits.float() / temperature, teacher.float() / temperature
    target = F.one_hot(labels, own.shape[1]).bool()
    binary = kl(_against_rest(theirs, target).exp(), _against_rest(own, target))
    others = own.masked_fill(target, -1000), theirs.masked_fill(target, -1000)  # finite: 0 · inf is nan
    rest = kl(F.softmax(others[1], dim=1), others[0])
    return temperature**2 * binary, temperature**2 * rest


def _against_rest(logits: Tensor, target: Tensor) -> Tensor:
    """Return (log p_y, log(1 - p_y)), [B, 2], from logits [B, K] and the mask of the target class, [B, K]."""
    whole = logits.logsumexp(1)
    own = logits.masked_fill(~target, -torch.inf).logsumexp(1)
    rest = logits.masked_fill(target, -torch.inf).logsumexp(1)
    return torch.stack([own - whole, rest - whole], dim=1)


def pooled(features: Tensor) -> Tensor:
    """Return one vector a row, [B, C], from feature maps [B, C, H, W] (their mean over H, W) or vectors, as float32."""
    return features.float().mean((2, 3)) if features.dim() == 4 else features.float()


def attention_map(features: Tensor) -> Tensor:
    """Return where the activations lie, [B, H·W], of length 1 each: the mean over channels of A², normalised.

    Source: Zagoruyko & Komodakis 2017, arXiv 1612.03928, section 3.1 (F_sum with p = 2, up to its constant).
    """
    return F.normalize(features.float().square().mean(1).flatten(1), dim=1)


def attention(features: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of two attention maps; the larger [B, C, H, W] is average-pooled first."""
    features, teacher = maps.shrink(features, teacher)
    return (attention_map(features) - attention_map(teacher)).square().mean()


def distances(features: Tensor) -> Tensor:
    """Return the distances among rows [B, C], over the mean of those that are not 0: [B, B].

    Source: Park et al. 2019, "Relational Knowledge Distillation", arXiv 1904.05068, equations 4 and 5.
    """
    features = features.float()
    squares = features.square().sum(1)
    apart = (
        (squares[:, None] + squares[None] - 2 * product(features, features.T)).clamp(min=1e-12).sqrt()
    )  # sqrt'(0) is inf
    apart = apart * (apart > 1e-6) * (1 - torch.eye(len(features), device=features.device))
    return apart / (apart.sum() / (apart > 0).sum().clamp(min=1)).clamp(min=1e-12)


def angles(features: Tensor) -> Tensor:
    """Return the cosine of the angle that rows i and k [B, C] make as seen from row j: [B (j), B (i), B (k)].

    Source: Park et al. 2019, arXiv 1904.05068, equation 7.
    """
    towards = F.normalize(features.float()[None] - features.float()[:, None], dim=2)  # [B, B, C], unit vectors from j
    return product(towards, towards.transpose(1, 2))


def relational(features: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return the Huber losses between the distances, and the angles, among rows [B, C] and [B, C of teacher]."""
    with torch.no_grad():
        apart, seen = distances(teacher), angles(teacher)
    return F.smooth_l1_loss(distances(features), apart), F.smooth_l1_loss(angles(features), seen)


def noise_contrastive(scores: Tensor, rows: int) -> Tensor:
    """Return -[log h₊/(h₊ + K/N) + sum log (K/N)/(h₋ + K/N)], a mean over the batch.

    `scores` [B, 1 + K] are above 0, the positive one's first; N = `rows` is the number of training images.
    Source: Tian, Krishnan & Isola 2020, arXiv 1910.10699, equations 17 to 19, with the 1e-7 of the authors' code.
    """
    noise = (scores.shape[1] - 1) / rows
    positive, negative = scores[:, 0], scores[:, 1:]
    found = (positive / (positive + noise + 1e-7)).log()
    refused = (noise / (negative + noise + 1e-7)).log().sum(1)
    return -(found + refused).mean()


def confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the weight of each of M teachers for each image, [M, B], from their logits [M, B, K]; it sums to 1 over M.

    w_m = (1 - softmax_m(cross-entropy of teacher m)) / (M - 1): who is surer of the label counts for more.
    Source: Zhang, Chen & Wang 2022, "Confidence-Aware Multi-Teacher Knowledge Distillation", arXiv 2201.00007.
    """
    each = -F.log_softmax(logits.float(), dim=2).gather(2, labels.expand(len(logits), -1)[..., None]).squeeze(2)
    return (1 - F.softmax(each, dim=0)) / (len(logits) - 1)
