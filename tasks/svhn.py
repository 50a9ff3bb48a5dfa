"""Street View House Numbers: 99,289 colour pictures of digits, 32×32 (73,257 train, 26,032 test).

Source: Netzer et al., NIPS Workshop on Deep Learning 2011. `paper`: DenseNet, Huang et al. 2017, arXiv 1608.06993:
40 epochs, no augmentation.
Differs: the 531,131 "extra" images that DenseNet's 40 epochs include are not used, and no dropout is.
"""

from kfbench.tasks import ImageTask

TASK = ImageTask(
    shape=(3, 32, 32),
    classes=10,
    sources=("cifar10",),
    budgets={
        "small": {"pad": 2},
        "standard": {"pad": 2},
        "paper": {"epochs": 40},
    },
)
