"""Fashion-MNIST: 70,000 grey pictures of clothes, 28×28, ten classes; Debian ships it as dataset-fashion-mnist.

Source: Xiao, Rasul & Vollgraf 2017, arXiv 1708.07747.
Differs: no method of the suite was published on it: `paper` is Hinton's recipe for MNIST (see `mnist`).
"""

from kfbench.tasks import ImageTask

TASK = ImageTask(
    shape=(1, 28, 28),
    classes=10,
    sources=("mnist/5k",),
    budgets={
        "smoke": {"flip": True},
        "small": {"pad": 2, "flip": True},
        "standard": {"pad": 2, "flip": True},
        "paper": {"like": "hinton"},
    },
)
