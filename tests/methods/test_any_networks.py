"""Distillation methods on students and teachers of every family, of other widths, depths and map sizes."""

import pytest
import torch
from torch import nn

from kfbench import registry
from kfbench.networks.network import Network
from kfbench.running import resolve, stand_in
from kfbench.train.images import shortened
from kfbench.train.supervised import Supervised

METHODS = [
    "activation_boundaries",
    "aekd",
    "dist",
    "factor_transfer",
    "kd/standardised",
    "logit_standardisation",
    "mgd",
    "mlkd",
    "neuron_selectivity",
    "nkd",
    "overhaul",
    "probabilistic_transfer",
    "reviewkd",
    "semckd",
    "similarity_preserving",
    "simkd",
    "variational_information",
]
PAIRS = [
    ("cnn-4", "resnet8"),
    ("resnet8", "cnn-8"),
    ("wrn-10-1", "cnn-4"),
    pytest.param("vgg8", "wrn-10-1", marks=pytest.mark.slow),
    pytest.param("mobilenetv2", "resnet8", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("student", "teacher"), PAIRS)
def test_a_step_of_each_stage_reaches_the_student_and_stays_finite(method: str, student: str, teacher: str) -> None:
    made = registry.load_method(method)
    needed = made.teachers[0]
    recipe = {"network": student, "batch_size": 4, "epochs": 3, "evaluations": 1}
    settings = {"share": 0.34} if len(made.stages) > 1 else {}
    if method == "semckd":
        settings = {"width": 0.25}
    teachers = [f"cifar10/{teacher}", "cifar10/cnn-8"][:needed]
    spec = resolve.resolve(method, "cifar10", budget="smoke", teachers=teachers, recipe=recipe, settings=settings)
    setup = stand_in.setup(shortened(spec, steps=3), rows=12)
    network = next(module for module in setup.student.modules() if isinstance(module, Network))
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d)).weight
    before = first.detach().clone()
    loop = Supervised(setup)
    for _ in loop:
        assert all(value.isfinite().all() for value in setup.student.state_dict().values())
    assert not torch.equal(first, before)
    kept = setup.method.export(setup.student).eval()
    with torch.no_grad():
        assert kept(loop.batch().images).logits.shape == (4, 10)
