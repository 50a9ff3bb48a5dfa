"""A linear probe of features in closed form: the yardstick of the scores, for it looks at the validation images.

Source: none; ridge regression on the labels, its strength by leave-one-out on the training images (Golub, Heath &
    Wahba 1979, Technometrics 21, equation 1.3), so that nothing is chosen on the images that score it.
"""

import numpy as np

from kfbench.ranking.scores import Floats, Labels, standardised

STRENGTHS = np.logspace(-4, 6, 31)  # of the ridge, in units of a training image


def probe(features: Floats, labels: Labels, val_features: Floats, val_labels: Labels) -> float:
    """Return the accuracy in % on the validation images [M] of a linear classifier of the training features [N, D]."""
    from sklearn.linear_model import RidgeClassifierCV

    fitted = RidgeClassifierCV(alphas=STRENGTHS).fit(standardised(features), labels)
    return 100 * float((fitted.predict(standardised(val_features, by=features)) == val_labels).mean())
