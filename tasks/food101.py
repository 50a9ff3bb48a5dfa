"""Food-101: 101,000 photographs of dishes in 101 classes (75,750 train, 25,250 test).

Source: Bossard, Guillaumin & Van Gool, ECCV 2014. `paper`: the recipe of L2-SP, Li et al. 2018, arXiv 1802.01483,
which fine-tunes: --method finetune --network torchvision:resnet101 --teachers torchvision:resnet101:pretrained.
Differs: 5,000 of the training images are `val`. The middle square of each photograph is packed, so crops never show
what lies outside it. Its 9,000 steps are given in epochs. There are no default teachers: none that suits can be had
without a download.
"""

from kfbench.tasks import ImageTask

TASK = ImageTask(
    shape=(3, 224, 224),
    classes=101,
    variants={
        "64": {
            "shape": (3, 64, 64),
            "dataset": "food101-64",
            "budgets": {"small": {"train_size": 5000, "epochs": 15}},
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
        "paper": {"like": "fine-tuning", "epochs": 8.1},
    },
)
