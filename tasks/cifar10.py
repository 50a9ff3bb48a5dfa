"""CIFAR-10: 60,000 colour photographs of 32×32 in ten classes (50,000 train, 10,000 test).

Source: Krizhevsky, "Learning multiple layers of features from tiny images", 2009. `paper`: DenseNet, Huang et al. 2017,
arXiv 1608.06993, "C10+" (random crops from 4 pixels of padding, flips), as Knowledge Flow trains it.
Differs: 45,000 of the training images are trained on; 5,000 are `val`.
"""

from kfbench.tasks import ImageTask

TASK = ImageTask(
    shape=(3, 32, 32),
    classes=10,
    sources=("cifar100",),
    budgets={"all": {"pad": 4, "flip": True}},
)
