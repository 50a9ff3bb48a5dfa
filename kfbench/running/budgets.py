"""Budgets: what `smoke`, `small`, `standard` and `paper` mean, as literals; a task file says where it differs.

A budget's fields are those of the recipe of the task's kind, and "teacher": the network of a default teacher. They are
looked up here, then in the task's `budgets["all"]`, then in the task's `budgets[budget]`, then in what the user set;
later ones win. "like" in a task's budget starts from a published recipe of `PUBLISHED` instead. A task that keeps a
part of its classes gets that part of the training images. No torch here.
"""

from collections.abc import Mapping
from typing import Any

from kfbench.errors import KfbenchError, near
from kfbench.kinds import Declared
from kfbench.registry import validated
from kfbench.spec import AnyRecipe

BUDGETS = ("smoke", "small", "standard", "paper")

IMAGES: dict[str, dict[str, Any]] = {
    # seconds on one CPU core: shows that everything works, measures nothing
    "smoke": {
        "network": "cnn-8",
        "teacher": "cnn-16",
        "train_size": 300,
        "epochs": 2,
        "batch_size": 32,
        "evaluations": 2,
    },
    # at most 4 minutes on 2 CPU cores, teachers aside
    "small": {"network": "cnn-16", "teacher": "cnn-32", "train_size": 10_000, "epochs": 12, "batch_size": 64},
    # minutes on a GPU: the pair of the distillation literature, trained shorter with one cycle
    "standard": {
        "network": "resnet8x4",
        "teacher": "resnet32x4",
        "epochs": 30,
        "batch_size": 128,
        "optimizer": "sgd",
        "lr": 0.1,
        "precision": "bf16",
        "evaluations": 15,
    },
    "paper": {"like": "densenet"},
}
PUBLISHED: dict[str, dict[str, Any]] = {
    # Huang et al., CVPR 2017, arXiv 1608.06993, section 4.2; Knowledge Flow's students and teachers are these
    "densenet": {
        "network": "densenet-100-24",
        "teacher": "densenet-100-24",
        "epochs": 300,
        "batch_size": 64,
        "optimizer": "sgd",
        "lr": 0.1,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "schedule": "step",
        "milestones": (0.5, 0.75),
        "decay": 0.1,
        "evaluations": 30,
    },
    # Hinton, Vinyals & Dean 2015, arXiv 1503.02531, section 3: the networks. It states no optimiser, batch size or
    # schedule: those are our choice
    "hinton": {
        "network": "mlp-800",
        "teacher": "mlp-1200-dropout",
        "epochs": 60,
        "batch_size": 64,
        "optimizer": "adamw",
        "lr": 1e-3,
        "weight_decay": 0.0,
        "schedule": "one-cycle",
        "evaluations": 30,
    },
    # Li, Grandvalet & Davoine, ICML 2018, arXiv 1802.01483, as its authors' script has it: 9,000 steps of 64 images,
    # the rate falls tenfold after 5,000; a task says how many epochs that is. Crops are torchvision's, resized ones
    "fine-tuning": {
        "network": "torchvision:resnet101",
        "teacher": "torchvision:resnet101",
        "batch_size": 64,
        "optimizer": "sgd",
        "lr": 0.01,
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 1e-4,
        "schedule": "step",
        "milestones": (5 / 9,),
        "decay": 0.1,
        "crop": 0.08,
        "flip": True,
        "evaluations": 18,
    },
}
BASE = {"images": IMAGES}  # of other kinds: their recipe as it is


def fields(task: Declared, budget: str) -> dict[str, Any]:
    """Return a budget's fields for a task, "teacher" among them. Raises KfbenchError for an unknown budget."""
    require(budget)
    if strange := sorted(set(task.budgets) - {"all", *BUDGETS}):
        raise KfbenchError(f"task '{task.name}' has fields for a budget '{strange[0]}'; {near(strange[0], BUDGETS)}")
    own = {**task.budgets.get("all", {}), **task.budgets.get(budget, {})}
    base = BASE.get(task.kind.name, {}).get(budget, {})
    published = own.pop("like", base.get("like"))
    if published and published not in PUBLISHED:
        raise KfbenchError(f"no published recipe '{published}' for task '{task.name}'; {near(published, PUBLISHED)}")
    return task.fitted({**(PUBLISHED[published] if published else base), **own})


def require(budget: str) -> None:
    """Raise KfbenchError with the nearest name unless there is such a budget."""
    if budget not in BUDGETS:
        raise KfbenchError(f"no budget '{budget}'; {near(budget, BUDGETS)}")


def recipe(task: Declared, budget: str, overrides: Mapping[str, Any] | None = None) -> AnyRecipe:
    """Return how a task is trained at a budget, with the user's changes (values may be strings).

    Raises KfbenchError for an unknown budget or field (nearest match offered), or a value of the wrong type or range.
    """
    chosen = {name: value for name, value in fields(task, budget).items() if name != "teacher"}
    return validated(
        task.kind.recipe, {**chosen, **(overrides or {})}, of=f"the recipe of task '{task.name}'", word="field"
    )


def teacher_network(task: Declared, budget: str) -> str:
    """Return the network of a task's default teachers at a budget. Raises KfbenchError for an unknown budget."""
    network: str = fields(task, budget).get("teacher") or recipe(task, budget).network
    return network
