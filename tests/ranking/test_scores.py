"""Scores against slow numpy written from their formulas, and against what public implementations gave."""

import math

import numpy as np
import pytest

from kfbench.ranking import scores
from kfbench.ranking.probe import STRENGTHS, probe


def made(rows: int, dimensions: int, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features [N, D] behind a ReLU, probabilities [N, 7] and labels [N] of classes that differ in their means."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(rows) % classes)
    noise = rng.normal(size=(rows, dimensions))
    features = np.maximum(noise + 0.8 * rng.normal(size=(classes, dimensions))[labels], 0)
    logits = rng.normal(size=(rows, 7)) + 1.5 * rng.normal(size=(classes, 7))[labels]
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return features, odds / odds.sum(1, keepdims=True), labels


WIDE, LONG = (60, 90, 3), (200, 12, 4)  # fewer images than dimensions; more


@pytest.mark.parametrize(
    ("size", "logme", "leep", "h_score", "parc", "nleep"),
    [
        # each public code on these arrays: thuml/LogME's ICML form, TLlib's leep and h_score, dbolya/parc (its label
        # distances rounded to 12 digits: without that their ties are rounding), scikit-learn's mixture and TLlib's leep
        (LONG, -0.2839939298867668, -0.9256816058181735, 1.650775883224486, 42.3272881174, -0.5269554413111285),
        (WIDE, 0.011018477753680894, -0.5128011439060433, 1.999999999999992, 74.6390684478, -0.10181071700914891),
    ],
)
def test_values_of_public_implementations(
    size: tuple[int, int, int], logme: float, leep: float, h_score: float, parc: float, nleep: float
) -> None:
    features, probabilities, labels = made(*size)
    ours = scores.logme(features, labels)
    assert logme <= ours < logme + 1e-4  # theirs stops within 1 % of the best ratio, and adds 1e-5 to denominators
    assert scores.leep(probabilities, labels) == pytest.approx(leep, abs=1e-12)
    assert scores.h_score(features, labels) == pytest.approx(h_score, abs=1e-10)
    assert scores.parc(features, labels) == pytest.approx(parc, abs=1e-8)
    assert scores.nleep(features, labels) == pytest.approx(nleep, abs=1e-5)


@pytest.mark.parametrize("size", [(40, 5, 3), (12, 20, 3)])
def test_logme_is_the_evidence_at_its_largest(size: tuple[int, int, int]) -> None:
    """The density of the labels under N(0, I / beta + F F' / alpha), over a fine grid of both precisions."""
    features, _, labels = made(*size)
    rows = len(labels)
    best = []
    for number in range(size[2]):
        targets = (labels == number).astype(float)
        found = -math.inf
        for alpha in np.logspace(-2, 4, 49):
            for beta in np.logspace(-1, 4, 41):
                covariance = np.eye(rows) / beta + features @ features.T / alpha
                sign, log_size = np.linalg.slogdet(2 * np.pi * covariance)
                assert sign == 1
                fit = targets @ np.linalg.solve(covariance, targets)
                found = max(found, -0.5 * (log_size + fit) / rows)
        best.append(found)
    assert scores.logme(features, labels) == pytest.approx(np.mean(best), abs=2e-3)
    assert scores.logme(features, labels) >= np.mean(best)


def test_logme_is_that_wherever_the_best_ratio_lies() -> None:
    """One direction dominates, as with a large common offset: the value is Nelder and Mead's over both precisions."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 300)
    features = rng.normal(size=(300, 12)) + np.eye(12)[labels] * 2
    assert scores.logme(features + 1e4, labels) == pytest.approx(-0.27757, abs=1e-4)


def test_leep_by_loops() -> None:
    _, probabilities, labels = made(*LONG)
    rows, outputs = probabilities.shape
    joint = np.zeros((4, outputs))
    for i in range(rows):
        for z in range(outputs):
            joint[labels[i], z] += probabilities[i, z] / rows
    total = 0.0
    for i in range(rows):
        total += math.log(sum(joint[labels[i], z] / joint[:, z].sum() * probabilities[i, z] for z in range(outputs)))
    assert scores.leep(probabilities, labels) == pytest.approx(total / rows, abs=1e-12)


def test_h_scores_by_loops() -> None:
    features, _, labels = made(*LONG)
    rows, mean = len(labels), features.mean(0)
    spread, between = np.zeros((12, 12)), np.zeros((12, 12))
    for i in range(rows):
        own = features[labels == labels[i]].mean(0) - mean
        spread += np.outer(features[i] - mean, features[i] - mean) / rows
        between += np.outer(own, own) / rows
    assert scores.h_score(features, labels) == pytest.approx(np.trace(np.linalg.inv(spread) @ between))
    # Ledoit & Wolf 2004, lemma 3.2 to 3.5: shrunk towards m I by b^2 / d^2
    size = np.trace(spread) / 12
    apart = ((spread - size * np.eye(12)) ** 2).sum()
    unsure = sum(((np.outer(x - mean, x - mean) - spread) ** 2).sum() for x in features) / rows**2
    strength = min(unsure, apart) / apart
    shrunk = (1 - strength) * spread + strength * size * np.eye(12)
    expected = (1 - strength) * np.trace(np.linalg.inv(shrunk) @ between)
    assert 0 < strength < 1 and scores.h_shrunk(features, labels) == pytest.approx(expected)


def test_h_score_knows_nothing_of_few_images_in_many_dimensions_and_the_shrunk_one_does() -> None:
    features, _, labels = made(*WIDE)
    shuffled = np.random.default_rng(1).permutation(labels)
    assert scores.h_score(features, shuffled) == pytest.approx(2)  # K - 1, whatever the labels
    assert scores.h_shrunk(features, shuffled) < scores.h_shrunk(features, labels) - 0.5


def test_parc_by_loops() -> None:
    features, _, labels = made(30, 6, 3)
    whole = (features - features.mean(0)) / features.std(0)
    ours, theirs = [], []
    for i in range(30):
        for j in range(i):
            a, b = whole[i] - whole[i].mean(), whole[j] - whole[j].mean()
            ours.append(1 - a @ b / math.sqrt((a @ a) * (b @ b)))
            theirs.append(0.0 if labels[i] == labels[j] else 1.5)  # 1 - (-1/2) of one-hot rows of three classes

    def ranks(values: list[float]) -> np.ndarray:
        return np.array([sum(v < w for v in values) + (sum(v == w for v in values) + 1) / 2 for w in values])

    expected = 100 * np.corrcoef(ranks(ours), ranks(theirs))[0, 1]
    assert scores.parc(features, labels) == pytest.approx(expected, abs=1e-9)


def test_the_probe_leaves_one_out_as_training_without_it_would() -> None:
    features, _, labels = made(25, 4, 3)
    taken, targets = scores.standardised(features), np.eye(3)[labels]

    def fitted(rows: np.ndarray, strength: float) -> np.ndarray:
        inputs = np.hstack([taken[rows], np.ones((rows.sum(), 1))])
        ridge = np.diag([strength] * 4 + [0.0])  # the mean is not shrunk
        return np.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ targets[rows])

    errors = []
    for strength in STRENGTHS:
        each = [targets[i] - np.append(taken[i], 1) @ fitted(np.arange(25) != i, strength) for i in range(25)]
        errors.append(np.square(each).sum())
    best = int(np.argmin(errors))
    assert 0 < best < len(STRENGTHS) - 1
    others, _, theirs = made(200, 4, 3)
    told = (np.hstack([scores.standardised(others, by=features), np.ones((200, 1))])) @ fitted(
        np.full(25, True), STRENGTHS[best]
    )
    assert probe(features, labels, others, theirs) == 100 * (told.argmax(1) == theirs).mean()


def test_the_probe_tells_what_a_linear_classifier_can_tell() -> None:
    features, _, labels = made(300, 12, 4)
    clean = np.eye(4)[labels] + 0.01 * features[:, :4]
    assert probe(clean[:200], labels[:200], clean[200:], labels[200:]) == 100
    noise = np.random.default_rng(3).normal(size=(300, 250))
    chance = probe(noise[:200], labels[:200], noise[200:], labels[200:])
    assert 10 < chance < 40 and chance < probe(features[:200], labels[:200], features[200:], labels[200:])


@pytest.mark.parametrize("value", [0.0, 1.0, 1e5])
def test_features_that_are_all_alike_score_least_and_finite(value: float) -> None:
    features, _, labels = made(*LONG)
    alike = np.full_like(features, value)
    for score in (scores.logme, scores.nleep, scores.h_score, scores.h_shrunk, scores.parc):
        assert np.isfinite(score(alike, labels)) and score(alike, labels) < score(features, labels), score.__name__
    assert scores.nleep(alike, labels) == pytest.approx(-math.log(4))
    assert probe(alike, labels, alike, labels) == pytest.approx(25)


def test_some_dead_features_and_labels_with_gaps_change_nothing() -> None:
    features, probabilities, labels = made(*LONG)
    dead = np.hstack([features, np.zeros((200, 3))])
    for score in (scores.logme, scores.nleep, scores.h_score):
        assert score(dead, 2 * labels + 5) == pytest.approx(score(features, labels), abs=1e-9), score.__name__
    assert scores.leep(probabilities, 2 * labels + 5) == pytest.approx(scores.leep(probabilities, labels))
    assert np.isfinite([scores.parc(dead, labels), scores.h_shrunk(dead, labels)]).all()


def test_an_output_that_is_never_given_is_no_division_by_zero() -> None:
    _, probabilities, labels = made(*LONG)
    wider = np.hstack([probabilities, np.zeros((200, 2))])
    assert scores.leep(wider, labels) == pytest.approx(scores.leep(probabilities, labels), abs=1e-12)
