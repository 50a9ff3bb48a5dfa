"""A linear probe of features in closed form: the yardstick of the scores, for it looks at the validation images.

Source: none; ridge regression on one-hot labels, its strength by leave-one-out on the training images (Golub, Heath &
    Wahba 1979, Technometrics 21, equation 1.3), so that nothing is chosen on the images that score it.
"""

from typing import Any

import numpy as np

from kfbench.ranking.scores import Floats, Labels, standardised

STRENGTHS = np.logspace(-4, 6, 31)  # of the ridge, in units of a training image


def probe(features: Floats, labels: Labels, val_features: Floats, val_labels: Labels) -> float:
    """Return the accuracy in % on the validation images [M] of a linear classifier of the training features [N, D]."""
    taken = standardised(features)
    classes = np.unique(labels)
    one_hot = (labels[:, None] == classes).astype(float)
    centre = one_hot.mean(0)
    left, singular, right = np.linalg.svd(taken, full_matrices=False)
    errors = [_left_out(left, singular**2, one_hot - centre, strength) for strength in STRENGTHS]
    strength = STRENGTHS[int(np.argmin(errors))]
    weights = right.T @ ((singular / (singular**2 + strength))[:, None] * (left.T @ (one_hot - centre)))  # [D, K]
    told = classes[(standardised(val_features, by=features) @ weights + centre).argmax(1)]
    return 100 * float((told == val_labels).mean())


def _left_out(left: Floats, spectrum: Floats, targets: Floats, strength: float) -> Any:
    """Return the mean squared error [one number] of each training image, told by all others."""
    kept = spectrum / (spectrum + strength)
    residual = targets - left @ (kept[:, None] * (left.T @ targets))
    weight = (left**2 * kept).sum(1) + 1 / len(left)  # of an image in its own prediction; 1/N by the mean
    return ((residual / np.maximum(1 - weight, 1e-12)[:, None]) ** 2).mean()
