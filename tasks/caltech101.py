"""Caltech-101: 8,677 photographs of things in 101 classes (30 of each train, 5,647 test).

Source: Fei-Fei, Fergus & Perona, CVPR workshop 2004. `paper`: the recipe of L2-SP, Li et al. 2018, arXiv 1802.01483,
which fine-tunes: --method finetune --network torchvision:resnet101 --teachers torchvision:resnet101:pretrained.
Differs: there is no official split: 30 images of each class, fixed, are for training, as is common; the clutter class
is left out. The middle square of each photograph is packed, so crops never show what lies outside it. Its 9,000 steps
are given in epochs. There are no default teachers: none that suits can be had without a download.
"""

from kfbench.tasks import ImageTask

TASK = ImageTask(
    shape=(3, 224, 224),
    classes=101,
    variants={
        "64": {
            "shape": (3, 64, 64),
            "dataset": "caltech101-64",
            "budgets": {"small": {"train_size": None, "epochs": 28}},
        },
    },
    budgets={
        "all": {"flip": True, "crop": 0.08},
        "smoke": {"train_size": 101, "epochs": 1, "batch_size": 32, "evaluations": 1},
        "small": {"train_size": 1000, "epochs": 5, "batch_size": 32, "evaluations": 2},
        "standard": {
            "like": "fine-tuning",
            "network": "torchvision:resnet18",
            "teacher": "torchvision:resnet50",
            "epochs": 30,
            "precision": "bf16",
        },
        "paper": {"like": "fine-tuning", "epochs": 211},
    },
)
