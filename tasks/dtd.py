"""Describable Textures: 5,640 photographs of textures in 47 classes (3,760 train and validation, 1,880 test).

Source: Cimpoi, Maji, Kokkinos, Mohamed & Vedaldi, CVPR 2014; the first of its ten partitions. `paper`: the recipe of
L2-SP, Li et al. 2018, arXiv 1802.01483, which fine-tunes: --method finetune --network torchvision:resnet101
--teachers torchvision:resnet101:pretrained.
Differs: of training and validation images together a tenth is `val`. The middle square of each photograph is packed,
so crops never show what lies outside it. Its 9,000 steps are given in epochs. There are no default teachers: none
that suits can be had without a download.
"""

from kfbench.tasks import ImageTask

TASK = ImageTask(
    shape=(3, 224, 224),
    classes=47,
    variants={
        "64": {
            "shape": (3, 64, 64),
            "dataset": "dtd-64",
            "budgets": {"small": {"train_size": None, "epochs": 22}},
        },
    },
    budgets={
        "all": {"flip": True, "crop": 0.08},
        "smoke": {"train_size": 100, "epochs": 1, "batch_size": 32, "evaluations": 1},
        "small": {"train_size": 1000, "epochs": 5, "batch_size": 32, "evaluations": 2},
        "standard": {
            "like": "fine-tuning",
            "network": "torchvision:resnet18",
            "teacher": "torchvision:resnet50",
            "epochs": 30,
            "precision": "bf16",
        },
        "paper": {"like": "fine-tuning", "epochs": 170},
    },
)
