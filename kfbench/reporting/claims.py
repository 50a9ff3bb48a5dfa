"""Claims of a study and their verdicts, computed from its records."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from kfbench.reporting import pairs
from kfbench.reporting.grid import Array, Grid
from kfbench.reporting.render import count
from kfbench.studies.definition import Claim

Word = Literal["reproduced", "not reproduced", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """A claim with the difference that decides it: reproduced if its interval lies wholly on the claimed side."""

    claim: Claim
    word: Word
    difference: pairs.Difference  # positive on the claimed side, less the margin or threshold: it decides
    plain: pairs.Difference  # the same with the margin, as it is told
    unit: str  # of the difference
    columns: tuple[str, ...]  # columns with at least one pair
    absent: tuple[str, ...]  # columns of the claim without a pair, but for those that can have none on the unit's scale
    impossible: tuple[str, ...]  # those of them that a row cannot run on
    unmade: int  # runs of the claim that are planned and not made yet: it is not decided before
    failed: int  # runs of the claim that failed, and are in no pair
    is_everywhere: bool = True  # whether the difference is of one size in every task
    unscaled: str = ""  # which columns have no score on the scale that tasks share, where that is the unit's

    @property
    def told(self) -> str:
        """One sentence: effect with its interval, and what an open verdict would take."""
        gap, plain, margin = self.difference, self.plain, self.claim.margin
        if not gap.pairs:
            if self.claim.curve is not None and not self.unmade:
                return f"no run states '{self.claim.curve}' there"
            return "; ".join(filter(None, ("no finished runs to compare yet" * bool(self.absent), self.unscaled)))
        text = f"{_signed(plain.value)} {self.unit}" + (f" (claimed: above {_signed(margin)})" if margin else "")
        runs = count(gap.pairs, "pair of runs" if self.claim.better else "run")
        if gap.is_constant:
            same = "in each of" if self.is_everywhere else "on average, the same in every run of a task, from"
            text += f" {same} {runs}: without any spread there is no interval"
        elif np.isnan(gap.low):
            return f"{text} from {runs}: too few to decide"
        else:
            text += f", 95 % interval {_signed(plain.low)} to {_signed(plain.high)}, {runs}"
            text += f", effect size {_signed(plain.effect)}"
            if not gap.is_clear:
                more = "over a thousand more seeds" if gap.more_seeds is None else count(gap.more_seeds, "more seed")
                text += f"; about {more} would decide it if the effect stays"
        awaited = [column for column in self.absent if column not in self.impossible]
        text += f"; nothing yet on {', '.join(awaited)}" if awaited else ""
        text += f"; n/a on {', '.join(self.impossible)}" if self.impossible else ""
        text += f"; {self.unscaled}" if self.unscaled else ""
        text += f"; {count(self.unmade, 'run')} not made yet" if self.unmade else ""
        return text + (f"; without {count(self.failed, 'failed run')}" if self.failed else "")


def _signed(number: float) -> str:
    return f"{number:+.2f}".replace("-", "−")


def verdict(claim: Claim, grid: Grid) -> Verdict:
    """Judge one claim, once its planned runs are made: who looks after each seed finds luck.

    What a curve states can be the same in every run, as a share of exactly 1 is; such a value decides without an
    interval. Scores that differ by the same in every pair decide nothing: three coins may fall alike.
    """
    rows = [row for row in (claim.better, claim.than, claim.row) if row is not None]
    shared = [column for column in grid.columns if all(_can_run(grid, row, column) for row in rows)]
    columns = claim.on or shared or grid.columns
    is_normalised = _is_normalised(claim, grid, columns)
    unscaled = grid.unscaled(columns) if is_normalised else ""
    if unscaled and not claim.on:
        columns = [column for column in columns if column in grid.scaled] or columns
    ours, theirs, unit = _sides(claim, grid, columns, is_normalised=is_normalised)
    paired = [bool(np.isfinite(gaps).any()) for gaps in (ours - theirs).T]
    gap = pairs.difference(ours, theirs)
    plain = pairs.difference(ours, theirs - claim.margin)
    is_same = claim.curve is not None and gap.is_constant and gap.value != 0
    word: Word = "undecided"
    cells = [grid.cells[row, column] for row in rows for column in columns if (row, column) in grid.cells]
    unmade, failed = sum(cell.missing for cell in cells), sum(len(cell.failed) for cell in cells)
    if (gap.is_clear or is_same) and all(paired) and not unmade:
        word = "reproduced" if gap.value > 0 else "not reproduced"
    ready = tuple(column for column, has_pairs in zip(columns, paired, strict=True) if has_pairs)
    known = grid.scaled if is_normalised else columns
    absent = tuple(column for column in columns if column not in ready and column in known)
    refused = {at for at, cell in grid.cells.items() if cell.planned.spec is None}
    impossible = tuple(column for column in absent if any((row, column) in refused for row in rows))
    gaps = (ours - theirs)[np.isfinite(ours - theirs)]
    is_everywhere = not gap.is_constant or bool(np.allclose(gaps, gaps[0]))
    return Verdict(claim, word, gap, plain, unit, ready, absent, impossible, unmade, failed, is_everywhere, unscaled)


def _can_run(grid: Grid, row: str, column: str) -> bool:
    return (row, column) in grid.cells and grid.cells[row, column].planned.spec is not None


def _is_normalised(claim: Claim, grid: Grid, columns: list[str]) -> bool:
    """Say whether a claim is about the scale that tasks share: it compares over several, and not percentages alone."""
    kinds = {grid.kind(column) for column in columns}
    is_percent = len(kinds) == 1 and grid.kind(columns[0]).is_percent
    return claim.curve is None and len(columns) > 1 and not is_percent


def _sides(claim: Claim, grid: Grid, columns: list[str], *, is_normalised: bool) -> tuple[Array, Array, str]:
    """Return what is compared, [N, M] each, higher on the claimed side, and its unit."""
    if claim.better is not None and claim.than is not None:
        if is_normalised:
            ours, theirs = (100 * grid.normalised(row, columns) for row in (claim.better, claim.than))
            return ours, theirs + claim.margin, "points of the normalised score"
        ours, theirs = grid.better(claim.better, columns), grid.better(claim.than, columns)
        return ours, theirs + claim.margin, grid.kind(columns[0]).gained
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
