"""Optimisers and learning-rate schedules, as functions of the recipe and of the fraction of a stage."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from kfbench.errors import KfbenchError
from kfbench.methods import Method
from kfbench.spec import GameRecipe, Recipe
from kfbench.train.rmsprop import RMSProp
from kfbench.train.told import groups_of

Groups = list[dict[str, Any]]


def make(method: Method, student: nn.Module, recipe: Recipe | GameRecipe) -> torch.optim.Optimizer:
    """Make the optimiser of a stage from the method's parameter groups; `lr_scale` multiplies the recipe's rate.

    Raises KfbenchError if a parameter is in two groups or there is nothing to train.
    """
    return MAKERS[recipe.optimizer](_groups(method, student), recipe)


def _groups(method: Method, student: nn.Module) -> Groups:
    groups: Groups = []
    for group in groups_of(method, student):
        params = [weight for weight in group["params"] if weight.requires_grad]
        if params:
            groups.append({"lr_scale": 1.0, **group, "params": params})
    ids = [id(weight) for group in groups for weight in group["params"]]
    if not ids or len(set(ids)) < len(ids):
        what = "no parameters to train" if not ids else "a parameter in two groups"
        raise KfbenchError(f"method {type(method).__name__} gives {what}; see its parameter_groups")
    return groups


def _sgd(groups: Groups, recipe: Any) -> torch.optim.Optimizer:
    momentum, decay = recipe.momentum, recipe.weight_decay
    nesterov = recipe.nesterov and momentum > 0
    return torch.optim.SGD(groups, recipe.lr, momentum, weight_decay=decay, nesterov=nesterov, fused=True)


# fused: one kernel for all parameters, on CPU too
MAKERS: dict[str, Callable[[Groups, Any], torch.optim.Optimizer]] = {
    "adamw": lambda groups, r: torch.optim.AdamW(groups, lr=r.lr, weight_decay=r.weight_decay, fused=True),
    "sgd": _sgd,
    "adam": lambda groups, r: torch.optim.Adam(groups, lr=r.lr, eps=r.epsilon, fused=True),
    "rmsprop": lambda groups, r: RMSProp(groups, lr=r.lr, epsilon=r.epsilon),
}


def set_rate(optimizer: torch.optim.Optimizer, recipe: Recipe | GameRecipe, fraction: float) -> float:
    """Set every group's rate for a fraction (0..1) of its stage; return the rate of a group with lr_scale 1."""
    rate = recipe.lr * factor(recipe, fraction)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]
    return rate


def factor(recipe: Recipe | GameRecipe, fraction: float) -> float:
    """Return the schedule's multiple of the largest rate, 0..1.

    "one-cycle" is a cosine from 1/25 up to 1 over the first 30 %, and down to 0 over the rest (Smith & Topin 2018,
    arXiv 1708.07120, in the cosine form of torch's OneCycleLR); "step" multiplies by `decay` at each milestone;
    "linear" falls from 1 to 0.
    """
    if recipe.schedule == "constant":
        return 1.0
    if recipe.schedule == "linear":
        return 1 - fraction
    if recipe.schedule == "step":
        return recipe.decay ** sum(fraction >= milestone for milestone in recipe.milestones)
    warm = 0.3
    if fraction < warm:
        return 1 / 25 + (1 - 1 / 25) * (1 - math.cos(math.pi * fraction / warm)) / 2
    return (1 + math.cos(math.pi * (fraction - warm) / (1 - warm))) / 2
