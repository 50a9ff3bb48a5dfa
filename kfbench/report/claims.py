"""Claims of a study and their verdicts, computed from its records."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from kfbench.report import stats
from kfbench.report.grid import Array, Grid
from kfbench.study.definition import Claim

Word = Literal["reproduced", "not reproduced", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """A claim with the difference that decides it: reproduced if its interval lies wholly on the claimed side."""

    claim: Claim
    word: Word
    difference: stats.Difference  # positive on the claimed side, less the margin or threshold
    unit: str  # of the difference
    columns: tuple[str, ...]  # columns with at least one pair
    absent: tuple[str, ...]  # columns of the claim without a pair

    @property
    def told(self) -> str:
        """One sentence: effect with its interval, and what an open verdict would take."""
        d = self.difference
        if not d.pairs:
            return "no finished runs to compare yet"
        effect = f"{d.value:+.2f} {self.unit}"
        pairs = "pairs of runs" if self.claim.better else "runs"
        if np.isnan(d.low):
            return (
                f"{effect} from {d.pairs} {pairs if d.pairs > 1 else pairs.replace('runs', 'run')}: too few to decide"
            )
        text = f"{effect}, 95 % interval {d.low:+.2f} to {d.high:+.2f}, {d.pairs} {pairs}"
        if np.isfinite(d.effect):
            text += f", effect size {d.effect:+.2f}"
        if self.word == "undecided" and not d.is_clear:
            more = "over a thousand more seeds" if d.more_seeds is None else _seeds(d.more_seeds)
            text += f"; about {more} would decide it if the effect stays"
        return text + (f"; nothing yet on {', '.join(self.absent)}" if self.absent else "")


def _seeds(count: int) -> str:
    return f"{count} more seed{'s' if count > 1 else ''}"


def verdict(claim: Claim, grid: Grid) -> Verdict:
    """Judge one claim."""
    columns = claim.on or grid.columns
    ours, theirs, unit = _sides(claim, grid, columns)
    paired = [bool(np.isfinite(gaps).any()) for gaps in (ours - theirs).T]
    found = stats.difference(ours, theirs)
    word: Word = "undecided"
    if found.is_clear and all(paired):
        word = "reproduced" if found.value > 0 else "not reproduced"
    there = tuple(column for column, known in zip(columns, paired, strict=True) if known)
    return Verdict(claim, word, found, unit, there, tuple(column for column in columns if column not in there))


def _sides(claim: Claim, grid: Grid, columns: list[str]) -> tuple[Array, Array, str]:
    """Return what is compared, [N, M] each, higher on the claimed side, and its unit."""
    if claim.better is not None and claim.than is not None:
        if len(columns) > 1 and any(grid.is_game(column) for column in columns):
            ours, theirs = (100 * grid.normalised(row, columns) for row in (claim.better, claim.than))
            return ours, theirs + claim.margin, "points of the normalised score"
        ours, theirs = grid.better(claim.better, columns), grid.better(claim.than, columns)
        return ours, theirs + claim.margin, "game points" if grid.is_game(columns[0]) else "points of accuracy"
    assert claim.row is not None and claim.curve is not None
    values = curve_values(grid, claim.row, columns, claim.curve, claim.at)
    if claim.above is not None:
        return values, np.full_like(values, claim.above), f"above {claim.above:g}"
    assert claim.below is not None
    return -values, np.full_like(values, -claim.below), f"below {claim.below:g}"


def curve_values(grid: Grid, row: str, columns: list[str], metric: str, at: float) -> Array:
    """Return a curve's metric [N, M] at the last point that states it, no later than the fraction `at` of the run."""
    values = np.full((len(grid.study.seeds), len(columns)), np.nan)
    for m, column in enumerate(columns):
        cell = grid.cells.get((row, column))
        for n, record in enumerate(cell.records if cell else ()):
            if record is not None and record.status == "done":
                stated = [r[metric] for r in record.curve if metric in r and r.get("progress", 0.0) <= at + 1e-9]
                values[n, m] = stated[-1] if stated else np.nan
    return values


def verdicts(grid: Grid) -> list[Verdict]:
    """Judge every claim of a study, in its order."""
    return [verdict(claim, grid) for claim in grid.study.claims]
