"""Losses against slow numpy written from the papers' formulas, and what must hold of any of them."""

import ast
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from kfbench import registry
from kfbench.transfer import losses

B, K, C = 5, 7, 6


def drawn(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def softmax(z: np.ndarray) -> np.ndarray:
    return np.exp(z) / np.exp(z).sum()


def kl(p: np.ndarray, q: np.ndarray) -> float:
    return float(sum(a * np.log(a / b) for a, b in zip(p, q, strict=True)))


def huber(x: float) -> float:
    return 0.5 * x * x if abs(x) <= 1 else abs(x) - 0.5


LABELS = torch.tensor([0, 3, 6, 3, 1])


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_distillation_is_t_squared_kl(temperature: float) -> None:
    own, theirs = drawn(B, K), drawn(B, K, seed=1)
    target = losses.softened(theirs, temperature)
    rows = [
        temperature**2 * kl(softmax(t / temperature), softmax(s / temperature))
        for s, t in zip(own.double().numpy(), theirs.double().numpy(), strict=True)
    ]
    assert float(losses.distillation(own, target, temperature)) == pytest.approx(np.mean(rows), rel=1e-5)


def test_gradient_of_distillation_keeps_its_size_whatever_the_temperature() -> None:
    theirs = drawn(B, K, seed=1)
    sizes = []
    for temperature in (10.0, 20.0):
        own = drawn(B, K).requires_grad_()
        losses.distillation(own, losses.softened(theirs, temperature), temperature).backward()
        assert own.grad is not None
        sizes.append(float(own.grad.norm()))
    assert sizes[1] / sizes[0] == pytest.approx(1, rel=0.05)


def test_cross_entropy_is_kl_and_the_targets_entropy() -> None:
    own, target = drawn(B, K), torch.softmax(drawn(B, K, seed=1), 1)
    rows = [
        -sum(p * np.log(q) for p, q in zip(t, softmax(s), strict=True))
        for s, t in zip(own.numpy(), target.numpy(), strict=True)
    ]
    found = losses.cross_entropy(target, own)
    assert float(found) == pytest.approx(np.mean(rows), rel=1e-5)
    entropy = -(target * target.log()).sum(1).mean()
    assert float(losses.kl(target, own)) == pytest.approx(float(found - entropy), rel=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_decoupled_parts_are_the_papers(temperature: float) -> None:
    own, theirs = drawn(B, K, scale=3), drawn(B, K, seed=1, scale=3)
    binary, rest = [], []
    for s, t, y in zip(own.double().numpy(), theirs.double().numpy(), LABELS.tolist(), strict=True):
        p, q = softmax(t / temperature), softmax(s / temperature)
        binary.append(kl(np.array([p[y], 1 - p[y]]), np.array([q[y], 1 - q[y]])))
        others = [c for c in range(K) if c != y]
        rest.append(kl(softmax(t[others] / temperature), softmax(s[others] / temperature)))
    found = losses.decoupled(own, theirs, LABELS, temperature)
    assert float(found[0]) == pytest.approx(temperature**2 * np.mean(binary), rel=1e-4)
    assert float(found[1]) == pytest.approx(temperature**2 * np.mean(rest), rel=1e-4)


def test_decoupled_parts_add_up_to_distillation() -> None:
    """KD = TCKD + (1 - p_y of the teacher) · NCKD, image by image."""
    own, theirs = drawn(1, K), drawn(1, K, seed=1)
    label = LABELS[:1]
    binary, rest = losses.decoupled(own, theirs, label, 4.0)
    target = losses.softened(theirs, 4.0)
    whole = losses.distillation(own, target, 4.0)
    assert float(binary + (1 - target[0, label]) * rest) == pytest.approx(float(whole), rel=1e-4)


def test_decoupled_parts_survive_a_teacher_that_is_certain() -> None:
    own = drawn(B, K).requires_grad_()
    certain = torch.nn.functional.one_hot(LABELS, K).float() * 200
    sum(losses.decoupled(own, certain, LABELS, 4.0)).backward()
    assert own.grad is not None and bool(own.grad.isfinite().all())


def test_attention_is_the_mean_squared_difference_of_unit_maps() -> None:
    own, theirs = drawn(B, 4, 3, 3), drawn(B, 2, 3, 3, seed=1)

    def unit(a: np.ndarray) -> np.ndarray:
        summed = np.array([[np.mean([a[c, i, j] ** 2 for c in range(len(a))]) for j in range(3)] for i in range(3)])
        return (summed / np.sqrt((summed**2).sum())).ravel()

    rows = [np.mean((unit(s) - unit(t)) ** 2) for s, t in zip(own.numpy(), theirs.numpy(), strict=True)]
    assert float(losses.attention(own, theirs)) == pytest.approx(np.mean(rows), rel=1e-5)
    assert losses.attention_map(own).norm(dim=1).tolist() == pytest.approx([1] * B)


def test_attention_pools_the_larger_map() -> None:
    own, theirs = drawn(B, 4, 6, 6), drawn(B, 4, 3, 3)
    small = own.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    assert float(losses.attention(own, theirs)) == pytest.approx(float(losses.attention(small, theirs)))
    assert float(losses.attention(theirs, own)) == pytest.approx(float(losses.attention(own, theirs)))


def test_attention_ignores_scale_and_sees_no_difference_from_itself() -> None:
    own = drawn(B, 4, 3, 3)
    assert float(losses.attention(own, 5 * own)) == pytest.approx(0, abs=1e-12)


def test_relational_losses_are_the_papers() -> None:
    own, theirs = drawn(B, C), drawn(B, 3, seed=1)

    def scaled(x: np.ndarray) -> np.ndarray:
        apart = np.array([[np.linalg.norm(a - b) for b in x] for a in x])
        return apart / np.mean([apart[i, j] for i in range(B) for j in range(B) if i != j])

    def angle(x: np.ndarray, i: int, j: int, k: int) -> float:
        if j in (i, k):
            return 0.0  # no direction: the code of the authors has 0 there, and counts it in the mean
        a, b = x[i] - x[j], x[k] - x[j]
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    s, t = own.double().numpy(), theirs.double().numpy()
    distance = np.mean([huber(d) for d in (scaled(s) - scaled(t)).ravel()])
    seen = np.mean([huber(angle(s, *ijk) - angle(t, *ijk)) for ijk in itertools.product(range(B), repeat=3)])
    found = losses.relational(own, theirs)
    assert float(found[0]) == pytest.approx(distance, rel=1e-4)
    assert float(found[1]) == pytest.approx(seen, rel=1e-4)


def test_relational_losses_do_not_see_scale_place_or_rotation() -> None:
    own = drawn(B, C)
    turned = 3 * own @ torch.linalg.qr(drawn(C, C, seed=2))[0] + 1
    assert [float(part) for part in losses.relational(own, turned)] == pytest.approx([0, 0], abs=1e-8)


def test_relational_losses_have_gradients_where_rows_coincide() -> None:
    own = drawn(B, C)
    own[1] = own[0]
    own.requires_grad_()
    sum(losses.relational(own, drawn(B, C, seed=1))).backward()
    assert own.grad is not None and bool(own.grad.isfinite().all())


def test_noise_contrastive_loss_is_the_papers() -> None:
    scores, rows = drawn(B, 1 + K).exp() / 50, 40
    noise = K / rows
    each = [-(np.log(h[0] / (h[0] + noise)) + sum(np.log(noise / (g + noise)) for g in h[1:])) for h in scores.numpy()]
    assert float(losses.noise_contrastive(scores, rows)) == pytest.approx(np.mean(each), rel=1e-4)


def test_confidence_weighs_teachers_by_their_certainty_of_the_label() -> None:
    logits = drawn(3, B, K)
    weights = losses.confidence(logits, LABELS).numpy()
    for b, y in enumerate(LABELS.tolist()):
        costs = [-np.log(softmax(logits[m, b].numpy())[y]) for m in range(3)]
        expected = [(1 - np.exp(c) / sum(np.exp(costs))) / 2 for c in costs]
        assert weights[:, b].tolist() == pytest.approx(expected, rel=1e-4)
    assert weights.sum(0).tolist() == pytest.approx([1] * B)


def test_pooled_is_the_mean_over_the_map() -> None:
    maps = drawn(B, C, 2, 3)
    assert torch.allclose(losses.pooled(maps), maps.flatten(2).mean(2))
    assert torch.equal(losses.pooled(maps[:, :, 0, 0]), maps[:, :, 0, 0])


def test_no_loss_grows_with_the_batch() -> None:
    def all_of(repeated: int) -> list[float]:
        def wide(tensor: Tensor) -> Tensor:
            return tensor.repeat(repeated, *(1,) * (tensor.dim() - 1))

        own, theirs, labels = wide(drawn(B, K)), wide(drawn(B, K, seed=1)), wide(LABELS)
        maps = wide(drawn(B, 4, 3, 3)), wide(drawn(B, 2, 3, 3, seed=1))
        target = losses.softened(theirs, 4.0)
        parts = [losses.kl(target, own), losses.distillation(own, target, 4.0), losses.cross_entropy(target, own)]
        parts += [
            *losses.decoupled(own, theirs, labels, 4.0),
            losses.attention(*maps),
            losses.relational(own, theirs)[0],
        ]
        parts += [losses.noise_contrastive(wide(drawn(B, 9).exp()), 40)]
        return [float(part) for part in parts]

    assert all_of(3) == pytest.approx(all_of(1), rel=1e-4)


def similarities_of(method: str, function: str) -> Callable[..., object]:
    return cast(Callable[..., object], getattr(registry.load_module("methods", method), function))


@pytest.mark.parametrize(
    "made",
    [
        losses.distances,
        losses.angles,
        similarities_of("probabilistic_transfer", "neighbours"),
        similarities_of("similarity_preserving", "alike"),
        similarities_of("semckd", "similarities"),
        lambda x: similarities_of("neuron_selectivity", "discrepancy")(x.view(8, 8, 3, 3), x.flip(1).view(8, 8, 3, 3)),
        lambda x: similarities_of("mlkd", "levels")(x, x.flip(0), 4.0),
        lambda x: registry.load_module("methods", "crd").Banks(9, 72, 3).scores(x, x, torch.arange(8)[:, None], 0.07),
    ],
)
def test_bf16_steps_do_not_round_what_similarities_are_made_of(made: Callable[[Tensor], object]) -> None:
    """Under autocast a product rounds both its factors, whatever their type; in what a loss is made of none does."""
    rows = drawn(8, 72)
    values = []
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found = made(rows)
        values.append(found if isinstance(found, tuple) else (found,))
    assert all(torch.equal(one, other) for one, other in zip(*values, strict=True))


def test_no_method_makes_a_loss_of_a_product_that_autocast_would_round() -> None:
    """`losses.product` is the matrix product of losses; others are of passes through networks, or of doubles."""
    passes = {"lora.py", "aekd.py", "co_tuning.py", "candidates.py", "losses.py"}
    folders = [Path(str(registry.load_module("methods", "kf").__file__)).parent, Path(losses.__file__).parent]
    files = [path for folder in folders for path in folder.glob("*.py")]
    assert len(files) > 50
    for path in files:
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if any(isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult) for node in nodes):
            assert path.name in passes, f"{path}: use losses.product"
