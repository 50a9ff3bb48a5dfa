"""FGVC-Aircraft: 10,000 photographs of aeroplanes in 100 variants (6,667 train and validation, 3,333 test).

Source: Maji, Rahtu, Kannala, Blaschko & Vedaldi 2013, arXiv 1306.5151. `paper`: the recipe of L2-SP, Li et al. 2018,
arXiv 1802.01483, which fine-tunes: --method finetune --network torchvision:resnet101 --teachers
torchvision:resnet101:pretrained.
Differs: of training and validation images together a tenth is `val`. The 20 rows with the photographer's name are cut
off. The middle square of each photograph is packed, so crops never show what lies outside it. Its 9,000 steps are
given in epochs. There are no default teachers: none that suits can be had without a download.
"""

from kfbench.tasks import ImageTask

TASK = ImageTask(
    shape=(3, 224, 224),
    classes=100,
    variants={
        "64": {
            "shape": (3, 64, 64),
            "dataset": "aircraft-64",
            "budgets": {"small": {"train_size": None, "epochs": 12}},
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
        "paper": {"like": "fine-tuning", "epochs": 96},
    },
)
