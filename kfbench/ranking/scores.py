"""Scores of a teacher for a task, from its features or outputs on the training images; higher is better in each.

All are functions of float64 arrays: features [N, D] or probabilities [N, Z], with labels [N] of at least two classes.
Features that are all alike give a finite score, never NaN.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

COMPONENTS = 5  # NLEEP: components of the mixture a class, as in section 4 of Li et al.
ENERGY = 0.8  # NLEEP: share of the variance that the principal components keep, as there
PAIRED = 2000  # PARC: images that are paired, at most
SPACING = np.log(1e15) / 199  # LogME: of the grid of log t
ROUNDING = 1e-24  # LogME: a squared singular value below this share of the largest says nothing


def logme(features: Floats, labels: Labels) -> float:
    """Return the largest log evidence of a Bayesian linear model, an image, as the mean over one-against-rest labels.

    Source: You, Liu, Wang, Long, ICML 2021, arXiv 2102.11005, equation 2 and algorithm 1.
    Differs: the evidence is maximised over the ratio t of the two precisions, the best second one being known for each
        t, by a grid and a bounded search; the authors' iteration stops within 1 % of t. Their later code
        (arXiv 2110.10545) leaves zero singular values out of the determinant where D > N; here they count.
    """
    vectors, singular, _ = np.linalg.svd(features, full_matrices=False)
    one_hot = _one_hot(labels)
    strengths = (vectors.T @ one_hot) ** 2  # [R, K], R = min(N, D)
    rest = np.maximum((one_hot**2).sum(0) - strengths.sum(0), 0)  # [K], of labels outside the features' span
    classes = zip(strengths.T, rest, strict=True)
    return float(np.mean([_evidence(singular**2, mine, left, len(labels)) for mine, left in classes]))


def _evidence(spectrum: Floats, strengths: Floats, rest: float, rows: int) -> float:
    """Return the log evidence an image: labels are drawn from N(0, (I + FF'/t) / beta), maximised over beta and t."""
    largest = spectrum.max()
    if largest <= 0:
        spectrum, largest = np.zeros_like(spectrum), 1.0

    def negative(log_t: Any) -> Any:
        stretched = 1 + spectrum / np.exp(np.asarray(log_t)[..., None])  # [..., R]
        variance = np.maximum(((strengths / stretched).sum(-1) + rest) / rows, 1e-300)  # 1 / beta, the best for this t
        return 0.5 * (np.log(2 * np.pi * variance) + 1 + np.log(stretched).sum(-1) / rows)

    # from far below the weakest direction (there is none weaker than rounding) to far above the strongest
    weakest = spectrum[spectrum > ROUNDING * largest].min(initial=largest)
    grid = np.log(largest * 1e-9) + SPACING * np.arange(-int(np.ceil(np.log(largest / weakest) / SPACING)), 200)
    best = int(np.argmin(negative(grid)))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    return -float(optimize.minimize_scalar(negative, bounds=(low, high), method="bounded", options={"xatol": 1e-8}).fun)


def leep(probabilities: Floats, labels: Labels) -> float:
    """Return the mean log probability of the labels, told from the teacher's outputs by how they go together.

    Source: Nguyen, Hassner, Seeger, Archambeau, ICML 2020, arXiv 2002.12462, equations 1 and 2.
    Differs: nothing known.
    """
    joint = _one_hot(labels).T @ probabilities  # [K, Z], times N
    marginal = joint.sum(0)
    given = np.divide(joint, marginal, out=np.zeros_like(joint), where=marginal > 0)  # P(label | output)
    told = (probabilities * given[_numbered(labels)]).sum(1)
    return float(np.log(np.maximum(told, np.finfo(float).tiny)).mean())


def nleep(features: Floats, labels: Labels, *, seed: int = 0) -> float:
    """Return LEEP with the components of a Gaussian mixture of the features in the place of the teacher's outputs.

    Source: Li, Jia, Sang, Zhu, Green, Zhang, Gong, CVPR 2021, arXiv 2011.11200, section 3.3: principal components that
        keep 80 % of the variance, five Gaussians a class.
    Differs: at most a Gaussian for every four images, or single images become components; where a covariance
        degenerates it is made rounder.
    """
    from sklearn.decomposition import PCA
    from sklearn.mixture import GaussianMixture

    if not (features.std(0) > 0).any():
        return leep(np.ones((len(labels), 1)), labels)
    reduced = PCA(ENERGY, svd_solver="full").fit_transform(features)
    reduced /= reduced.std()  # the mixture's regularisation is then a part of the variance, whatever the unit
    components = max(1, min(COMPONENTS * len(np.unique(labels)), len(labels) // 4))
    mixture = GaussianMixture(components, random_state=seed, reg_covar=1e-6).fit(reduced)
    return leep(mixture.predict_proba(reduced), labels)


def h_score(features: Floats, labels: Labels) -> float:
    """Return tr(cov(f)^+ cov(E[f | y])): how much of the features' spread lies between classes; 0 to K - 1.

    Source: Bao et al., ICIP 2019, "An Information-Theoretic Approach to Transferability in Task Transfer Learning",
        equation 4; covariances over N - 1, and the pseudo-inverse, as in the authors' code.
    Differs: nothing known.
    """
    centred, between = _spreads(features, labels)
    return float(np.trace(np.linalg.pinv(_covariance(centred), hermitian=True) @ _covariance(between)))


def h_shrunk(features: Floats, labels: Labels) -> float:
    """Return the H-score with the covariance shrunk towards a sphere, which few images in many dimensions need.

    Source: Ibrahim, Ponomareva, Mazumder, ECML 2022, arXiv 2110.06893, section 3; the strength a is Ledoit and Wolf's:
        tr(cov_a(f)^-1 (1 - a) cov(E[f | y])).
    Differs: nothing known.
    """
    from sklearn.covariance import ledoit_wolf

    centred, between = _spreads(features, labels)
    if not centred.any():
        return 0.0
    shrunk, strength = ledoit_wolf(centred, assume_centered=True)
    return float((1 - strength) * np.trace(np.linalg.pinv(shrunk, hermitian=True) @ between.T @ between) / len(labels))


def parc(features: Floats, labels: Labels) -> float:
    """Return 100 times Spearman's correlation of pairs' distances by features and by labels.

    Distances are one minus Pearson's correlation of two images' standardised features, or one-hot labels.

    Source: Bolya, Mittapalli, Hoffman, NeurIPS 2021, arXiv 2111.06977, section 3.
    Differs: without their optional reduction to 32 dimensions; the first 2,000 images only (their time and memory grow
        with pairs); equal distances of labels are equal, which rounding parts in the authors' code; an image whose
        features are all alike correlates with none.
    """
    features, labels = features[:PAIRED], labels[:PAIRED]
    above = np.triu_indices(len(labels), 1)
    ours = (1 - _correlations(standardised(features)))[above]
    theirs = (labels[:, None] != labels[None, :])[above]  # in order as 1 - the correlation of one-hot labels is
    if ours.min() == ours.max() or theirs.min() == theirs.max():
        return 0.0
    return 100 * float(np.corrcoef(stats.rankdata(ours), stats.rankdata(theirs))[0, 1])


def standardised(features: Floats, by: Floats | None = None) -> Floats:
    """Return features [N, D] less the mean, over the deviation, of `by` (None: of themselves); a constant gives 0."""
    by = features if by is None else by
    deviation = by.std(0)
    alike = deviation <= 1e-12 * np.abs(by).max(0, initial=0)
    centred: Floats = (features - by.mean(0)) / np.where(alike, 1, deviation)
    return np.where(alike, 0, centred)


def _correlations(rows: Floats) -> Floats:
    """Return Pearson's correlations [N, N] of rows; 0 for a row whose numbers are all the same."""
    centred = rows - rows.mean(1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = np.divide(centred, length, out=np.zeros_like(centred), where=length > 1e-12)
    product: Floats = unit @ unit.T
    return product


def _spreads(features: Floats, labels: Labels) -> tuple[Floats, Floats]:
    """Return the features less their mean, and in their place each one's class mean less that mean, [N, D] both."""
    centred = features - features.mean(0)
    one_hot = _one_hot(labels)
    means = one_hot.T @ centred / one_hot.sum(0)[:, None]  # [K, D]
    return centred, means[_numbered(labels)]


def _covariance(centred: Floats) -> Floats:
    product: Floats = centred.T @ centred / (len(centred) - 1)
    return product


def _numbered(labels: Labels) -> Labels:
    """Return labels 0..K-1 of the K classes that are there."""
    return np.unique(labels, return_inverse=True)[1]


def _one_hot(labels: Labels) -> Floats:
    """Return [N, K] of the K classes that are there."""
    numbers = _numbered(labels)
    return np.eye(int(numbers.max()) + 1)[numbers]
