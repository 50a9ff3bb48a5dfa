"""STL-10: 13,000 labelled colour photographs of 96×96 in ten classes (5,000 train, 8,000 test).

Source: Coates, Lee & Ng, AISTATS 2011.
Differs: the one official split of the 5,000 is used, not the ten folds of 1,000; the unlabelled images are not. No
method of the suite was published on it: `paper` is DenseNet's recipe for CIFAR (see `cifar10`).
"""

from kfbench.tasks import ImageTask

TASK = ImageTask(
    shape=(3, 96, 96),
    classes=10,
    sources=("cifar10",),
    budgets={
        "all": {"pad": 12, "flip": True},
        "smoke": {"train_size": 100},
        "small": {"train_size": 2_000, "epochs": 6},
    },
)
