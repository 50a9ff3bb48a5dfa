"""Tiny ImageNet: 110,000 photographs of 64×64 in 200 classes (100,000 train, 10,000 test).

Source: Le & Yang 2015, Stanford CS231N; classes of ImageNet. `paper`: the recipe of L2-SP, Li et al. 2018, arXiv
1802.01483, which fine-tunes: --method finetune --network torchvision:resnet101 --teachers
torchvision:resnet101:pretrained.
Differs: its validation split is our test split, as its test images have no labels; 5,000 of the training images are
`val`. Its 9,000 steps are given in epochs. There are no default teachers: none that suits can be had without a
download.
"""

from kfbench.tasks import ImageTask

TASK = ImageTask(
    shape=(3, 64, 64),
    classes=200,
    budgets={
        "all": {"flip": True, "crop": 0.08},
        "smoke": {"train_size": 200, "epochs": 1, "batch_size": 32, "evaluations": 1},
        "small": {"train_size": 5000, "epochs": 15},
        "standard": {
            "like": "fine-tuning",
            "network": "torchvision:resnet18",
            "teacher": "torchvision:resnet50",
            "epochs": 30,
            "precision": "bf16",
        },
        "paper": {"like": "fine-tuning", "epochs": 6.1},
    },
)
