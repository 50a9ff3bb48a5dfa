"""EuroSAT: 27,000 satellite pictures of 64×64 in ten kinds of land (21,600 train, 5,400 test).

Source: Helber, Bischke, Dengel & Borth 2019, arXiv 1709.00029; the RGB version. `paper`: the recipe of L2-SP, Li et
al. 2018, arXiv 1802.01483, which fine-tunes: --method finetune --network torchvision:resnet101 --teachers
torchvision:resnet101:pretrained.
Differs: there is no official test split: of each class a fifth, fixed, is ours. Its 9,000 steps are given in epochs.
There are no default teachers: none that suits can be had without a download.
"""

from kfbench.tasks import ImageTask

TASK = ImageTask(
    shape=(3, 64, 64),
    classes=10,
    budgets={
        "all": {"flip": True, "crop": 0.08},
        "smoke": {"train_size": 100, "epochs": 1, "batch_size": 32, "evaluations": 1},
        "small": {"train_size": 5000, "epochs": 15},
        "standard": {
            "like": "fine-tuning",
            "network": "torchvision:resnet18",
            "teacher": "torchvision:resnet50",
            "epochs": 30,
            "precision": "bf16",
        },
        "paper": {"like": "fine-tuning", "epochs": 30},
    },
)
