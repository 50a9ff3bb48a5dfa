"""Losses that several methods share, each a mean over the batch and tested against numpy written from its formula."""

import torch
import torch.nn.functional as F
from torch import Tensor


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
    return kl(target, logits / temperature) * temperature**2


def dependency(weights: list[Tensor]) -> Tensor:
    """Return -mean_j log p_0^j from the candidates' logits of each student layer j; the student's own comes first.

    Source: the form of Knowledge Flow's dependency loss as released descendants have it (see `methods/kf.py`).
    """
    return -torch.stack([F.log_softmax(w, dim=0)[0] for w in weights]).mean()
