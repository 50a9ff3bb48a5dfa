"""Similarities, neighbourhoods, channels and Gaussians: losses of four methods against their sources' code."""

import pytest
import torch
from golden import fill, leaf, numbers, same, wave

from kfbench import registry
from kfbench.transfer import maps

LARGE, SMALL = wave(8, 9, 5, 5, step=1.3), wave(8, 9, 3, 3, step=1.3)
ROWS = 8  # where a source's loss falls as 1/B, the constants are B times it


@pytest.mark.parametrize(
    ("theirs", "told"),
    [
        (LARGE, [0.0181396492, 0.600113231, 0.0327689395]),
        (SMALL, [0.0524692461, 1.02809035, 0.0773609874]),
    ],
)
def test_similarities_are_repdistillers(theirs: torch.Tensor, told: list[float]) -> None:
    """HobbitLong/RepDistiller, distiller_zoo/SP.py, verified by the paper's author."""
    own = leaf(wave(ROWS, 6, 5, 5))
    same(numbers(registry.load_module("methods", "similarity_preserving").similarity(own, theirs), own), told)


def test_neighbourhoods_are_the_authors() -> None:
    """HobbitLong/RepDistiller, distiller_zoo/PKT.py, from passalis/probabilistic_kt."""
    own = leaf(wave(ROWS, 6))
    found = registry.load_module("methods", "probabilistic_transfer").divergence(own, wave(ROWS, 9, step=1.3))
    same(numbers(found, own), [0.139273807, 0.485137094, 0.00408971224])


def test_a_feature_that_is_nothing_has_neighbours_and_a_gradient() -> None:
    own = wave(ROWS, 6)
    own[3] = 0
    own = leaf(own)
    found = registry.load_module("methods", "probabilistic_transfer").divergence(own, wave(ROWS, 9))
    assert torch.autograd.grad(found, own)[0].isfinite().all()


@pytest.mark.parametrize(
    ("own", "theirs", "told"),
    [  # pixels that outnumber channels, and the reverse: two ways to one number
        ((8, 6, 5, 5), (8, 9, 3, 3), [0.235092998, 1.61821012, 0.0812750724]),
        ((8, 40, 3, 3), (8, 30, 6, 6), [0.0403077751, 0.245917944, -0.000400957174]),
    ],
)
def test_selectivity_is_repdistillers(own: tuple[int, ...], theirs: tuple[int, ...], told: list[float]) -> None:
    """HobbitLong/RepDistiller, distiller_zoo/NST.py."""
    features = leaf(wave(*own))
    found = registry.load_module("methods", "neuron_selectivity").discrepancy(features, wave(*theirs, step=1.3))
    same(numbers(found, features), told)


def test_the_gaussian_is_the_authors() -> None:
    """HobbitLong/RepDistiller, distiller_zoo/VID.py, from ssahn0215/variational-information-distillation."""
    own = leaf(wave(8, 6, 5, 5))
    made = registry.load_module("methods", "variational_information").Gaussian
    for variance in (0.002, 1.0, 1e6):  # the ends of what is allowed, and beyond what exp can say
        assert made(1, 1, variance).variance().item() == pytest.approx(variance)
    gaussian = made(6, 9, 5.0)
    assert gaussian.variance().tolist() == pytest.approx([5.0] * 9, rel=1e-6)
    fill(gaussian.mean)
    gaussian.scale.data = 1 + 0.2 * wave(9, step=0.7)
    found = numbers(gaussian(*maps.shrink(own, SMALL)), own, gaussian.scale, *gaussian.mean.parameters())
    told = [0.340351194, 0.102935505, 0.0017636927, 0.168366481, 0.061267857, 0.0492382921, -0.0125571775]
    same(found, [*told, 0.0776604972, 0.0101835773, 0.0655436063, 0.0231308939])
