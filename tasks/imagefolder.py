"""Your own images: `kfbench data import flowers PATH…`, then the task is `imagefolder/flowers`.

Source: none; shape and classes are those of the imported folder.
Differs: `paper` is DenseNet's recipe for CIFAR (see `cifar10`).
"""

from kfbench.tasks import ImageTask

TASK = ImageTask(
    any_dataset=True,
    budgets={"all": {"train_size": None, "flip": True}, "smoke": {"epochs": 1}},
)
