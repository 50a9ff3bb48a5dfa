"""EMNIST letters: 145,600 handwritten letters of 28×28, upper and lower case of a letter being one class.

Source: Cohen, Afshar, Tapson & van Schaik 2017, arXiv 1702.05373 (split "letters": 124,800 train, 20,800 test).
Differs: images are turned upright, as MNIST's are. No method of the suite was published on it: `paper` is Hinton's
recipe for MNIST (see `mnist`).
"""

from kfbench.tasks import ImageTask

TASK = ImageTask(
    shape=(1, 28, 28),
    classes=26,
    sources=("mnist/5k",),
    budgets={
        "smoke": {"train_size": 520},
        "small": {"pad": 2},
        "standard": {"pad": 2},
        "paper": {"like": "hinton"},
    },
)
