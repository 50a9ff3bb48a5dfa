"""Handwritten digits, 8×8 in 17 grey levels: 1,797 images that scikit-learn carries, so nothing is downloaded.

Source: Alpaydin & Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998; the copy
of `sklearn.datasets.load_digits` (UCI's test part).
Differs: of each class a fifth, fixed, is our test split. `paper` is Hinton's recipe for MNIST (see `mnist`).
"""

from kfbench.tasks import ImageTask

TASK = ImageTask(
    shape=(1, 8, 8),
    classes=10,
    sources=("digits/low", "digits/high"),
    variants={
        "low": {"keep": (0, 1, 2, 3, 4), "sources": ("digits/high",)},
        "high": {"keep": (5, 6, 7, 8, 9), "sources": ("digits/low",)},
    },
    budgets={
        "all": {"train_size": None},
        "smoke": {"network": "cnn-16", "teacher": "cnn-32", "epochs": 10, "evaluations": 5},
        "small": {"epochs": 30},
        "paper": {"like": "hinton", "epochs": 100},
    },
)
