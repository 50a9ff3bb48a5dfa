"""Losses on logits against their sources' code; and a younger setting that leaves old keys alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch
from golden import leaf, numbers, same, wave
from torch import Tensor

from kfbench import registry
from kfbench.conformance import tiny
from kfbench.errors import KfbenchError
from kfbench.running import resolve, stand_in
from kfbench.studies import search
from kfbench.train.supervised import Supervised
from kfbench.transfer import losses

OWN, THEIRS = 3 * wave(8, 7), 3 * wave(8, 7, step=1.3)
LABELS = torch.tensor([0, 3, 6, 3, 1, 2, 5, 4])
RESULTS = Path(__file__).parents[2] / "results"
dist, nkd, mlkd = (registry.load_module("methods", name) for name in ("dist", "nkd", "mlkd"))


def softened(logits: Tensor) -> Tensor:
    return losses.softened(logits, 4.0)


def standard_kd(logits: Tensor) -> Tensor:
    own, theirs = losses.standardised(logits), losses.standardised(THEIRS)
    return losses.distillation(own, losses.softened(theirs, 2.0), 2.0)


def standard_dkd(logits: Tensor, which: int) -> Tensor:
    own, theirs = losses.standardised(logits), losses.standardised(THEIRS)
    return losses.decoupled(own, theirs, LABELS, 2.0)[which]


CASES: dict[str, tuple[Callable[[Tensor], Tensor], list[float]]] = {
    # hunto/image_classification_sota, lib/models/losses/dist_kd.py, tau 4
    "dist, images": (
        lambda z: 16 * dist.decorrelation(softened(z), softened(THEIRS)),
        [16.2025814, 6.07002904, 0.50088285],
    ),
    "dist, classes": (
        lambda z: 16 * dist.decorrelation(softened(z).T, softened(THEIRS).T),
        [16.8546028, 7.63725252, -0.0263046552],
    ),
    # sunshangquan/logit-standardization-KD, mdistiller/distillers/KD.py and DKD.py, logit_stand, T 2
    "standardised": (standard_kd, [0.790456533, 0.281531226, 0.010305334]),
    "standardised, target": (lambda z: standard_dkd(z, 0), [0.161141381, 0.100087299, -0.0227629123]),
    "standardised, rest": (lambda z: standard_dkd(z, 1), [0.722048819, 0.328954833, 0.0427242639]),
    # yzd-v/cls_KD, mmcls/models/dis_losses/nkd.py, temp 3, gamma 0 and 3.5
    "nkd, target": (
        lambda z: nkd.normalised(z, THEIRS, LABELS, 3.0)[0],
        [0.531270504, 0.199563559, -0.0795799236],
    ),
    "nkd": (
        lambda z: sum(w * part for w, part in zip((1, 3.5), nkd.normalised(z, THEIRS, LABELS, 3.0), strict=True)),
        [62.9915428, 7.31129167, 0.53779176],
    ),
    # Jin-Ying/Multi-Level-Logit-Distillation, mdistiller/distillers/KD_ours.py, T 3; bc_loss / B, cc_loss / B²
    "mlkd, images": (lambda z: mlkd.levels(z, THEIRS, 3.0)[0], [3.83513761, 2.1137211, -0.0876138502]),
    "mlkd, among": (lambda z: mlkd.levels(z, THEIRS, 3.0)[1], [0.00122722902, 0.00164010486, 5.23285789e-05]),
    "mlkd, classes": (lambda z: mlkd.levels(z, THEIRS, 3.0)[2], [0.000644866901, 0.00115576675, 4.37329732e-05]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_loss_is_its_sources(case: str) -> None:
    loss, told = CASES[case]
    own = leaf(OWN)
    same(numbers(loss(own), own), told)


def test_standardised_logits_forget_shift_and_scale() -> None:
    assert torch.allclose(losses.standardised(5 * OWN + 2), losses.standardised(OWN), atol=1e-6)
    assert losses.standardised(torch.ones(2, 3)).tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize("method", ["dist", "nkd", "mlkd", "logit_standardisation", "kd/standardised"])
def test_the_weights_are_those_of_the_parts(method: str) -> None:
    """A part with its weight doubled doubles, and the others stay."""
    weights = {
        "dist": {"images": "beta", "classes": "gamma"},
        "nkd": {"non-target": "gamma"},
        "mlkd": {"instance": "instance", "batch": "batch", "classes": "classes", "cross-entropy": "hard"},
        "logit_standardisation": {"distillation": "weight", "cross-entropy": "hard"},
        "kd/standardised": {},
    }[method]
    made = stand_in.setup(tiny.spec_of(method), rows=48)
    batch = Supervised(made).batch()

    def parts(**changes: float) -> dict[str, float]:
        chosen = registry.load_method(method, {**made.spec.settings, **changes})
        _, found = chosen.losses(made.student, made.teachers, batch, made.task, 0.5)
        return {name: float(part.detach()) for name, part in found.items()}

    made.student.eval()
    before = parts()
    assert all(value > 0 for value in before.values())
    for part, setting in weights.items():
        after = parts(**{setting: 2 * cast(float, made.spec.settings[setting])})
        for name, value in before.items():
            assert after[name] == pytest.approx(2 * value if name == part else value, rel=1e-5)


def test_temperatures_are_read_or_refused() -> None:
    for text in ("2+x", "", "2+0"):
        with pytest.raises(KfbenchError, match="write them as 2"):
            stand_in.setup(tiny.spec_of("mlkd", {"temperatures": text}), rows=48)


@pytest.mark.parametrize("method", ["kd", "dkd"])
def test_a_younger_setting_is_no_part_of_old_specs(method: str) -> None:
    plain, asked = (resolve.resolve(method, "digits", settings=chosen) for chosen in ({}, {"standardise": "true"}))
    assert "standardise" not in plain.settings and asked.settings["standardise"] is True
    assert resolve.resolve(method, "digits", settings={"standardise": False}) == plain
    assert resolve.resolve(f"{method}/standardised", "digits").settings["standardise"] is True
    assert set(search.own_values(plain)) == set(search.space(method))


@pytest.mark.skipif(not RESULTS.is_dir(), reason="the records are not here")
def test_records_of_old_are_found_by_their_keys() -> None:
    files = [path for path in RESULTS.rglob("*.json") if path.parent.name in ("kd", "dkd")]
    assert files
    for path in files:
        spec = json.loads(path.read_text())["spec"]
        assert registry.load_method(spec["method"], spec["settings"]).settings() == spec["settings"]
