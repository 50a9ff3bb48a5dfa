"""The scores by their names; no torch, no numpy: the command line offers them."""

SCORES = {
    "logme": "log evidence of a linear model",
    "leep": "log likelihood by the teacher's outputs",
    "nleep": "the same by a Gaussian mixture of its features",
    "h-score": "spread between classes over all spread",
    "h-shrunk": "the same with a shrunk covariance",
    "parc": "correlation of distances by features and by labels",
    "probe": "accuracy in % of a linear classifier, on validation images",
}
DEFAULT = "logme"
