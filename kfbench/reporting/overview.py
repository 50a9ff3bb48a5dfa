"""What a reader wants first: which method won, by how much, whether that is decided, and how the claims ended."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from kfbench.reporting import intervals, pairs, stats
from kfbench.reporting.claims import Verdict
from kfbench.reporting.grid import Grid
from kfbench.reporting.pairs import Difference
from kfbench.reporting.render import count, listed

LISTED = 3  # names in a sentence before the rest is counted
BEAT, TIE = "beat it", "cannot be told from it"
AHEAD = " is clearly ahead of "
LARGER = 1.2  # times the baseline's parameters


@dataclass(frozen=True)
class Standing:
    """A method against the baseline, over the tasks that both have run."""

    row: str
    gap: Difference  # in the overview's unit
    tasks: int
    size: float  # parameters kept over the baseline's; NaN if not stated

    @property
    def is_larger(self) -> bool:
        """Say whether what is kept is larger than the baseline by more than a new head."""
        return self.size > LARGER

    @property
    def text(self) -> str:
        """The difference with its interval."""
        numbers = [f"{number:+.1f}".replace("-", "−") for number in self.gap.interval]
        return numbers[0] if np.isnan(self.gap.low) else f"{numbers[0]} [{numbers[1]}, {numbers[2]}]"


@dataclass(frozen=True)
class Overview:
    """The top of a page."""

    verdicts: list[Verdict]
    standings: list[Standing]  # best first
    headline: str
    baseline: str
    unit: str  # of the standings
    tasks: int  # most that a method has in common with the baseline

    @property
    def words(self) -> list[tuple[str, int]]:
        """Verdicts and how many claims have each, decided ones first."""
        words = [verdict.word for verdict in self.verdicts]
        return [(word, words.count(word)) for word in ("reproduced", "not reproduced", "undecided") if word in words]

    @property
    def scale(self) -> tuple[float, float]:
        """The ends of a scale that holds zero, every value and, within reason, every interval."""
        return intervals.scale([standing.gap.interval for standing in self.standings])

    @property
    def fades(self) -> bool:
        """Say whether an interval goes on beyond the scale."""
        return any(self.is_cut(end) for s in self.standings for end in s.gap.interval[1:] if not np.isnan(end))

    def is_cut(self, end: float) -> bool:
        """Say whether an end of an interval lies beyond the scale."""
        return not self.scale[0] <= end <= self.scale[1]

    def place(self, value: float) -> float:
        """Return where a value stands on the scale, in percent, cut at its ends."""
        low, high = self.scale
        return round(float(np.clip(100 * (value - low) / max(high - low, 1e-9), 0, 100)), 2)


def of(grid: Grid, verdicts: list[Verdict]) -> Overview:
    """Return the overview of a study."""
    base, unit = grid.study.baseline, _unit(grid)
    standings = _standings(grid) if base in grid.rows else []
    tasks = max((standing.tasks for standing in standings), default=0)
    said = (_headline(grid, standings, unit), _left_out(grid, standings), _unmade(grid, tasks))
    headline = " ".join(filter(None, said))
    return Overview(verdicts, standings, headline, base, unit, tasks)


def _unit(grid: Grid) -> str:
    kinds = {grid.kind(column) for column in grid.columns}
    only = grid.kind(grid.columns[0])
    is_own = grid.is_raw or (len(kinds) == 1 and only.is_percent)
    return only.gained if is_own else "points of the normalised score"


def _standings(grid: Grid) -> list[Standing]:
    theirs = grid.overall(grid.study.baseline)
    standings = []
    for row in grid.rows:
        own = grid.overall(row)
        if row != grid.study.baseline and not np.isnan(own - theirs).all():
            gap = pairs.difference(own, theirs)
            standings.append(Standing(row, gap, int((stats.counts(own - theirs) > 0).sum()), _size(grid, row)))
    return sorted(standings, key=lambda standing: -standing.gap.value)


def _size(grid: Grid, row: str) -> float:
    sizes = [
        [
            grid.cells[name, column].cost("parameters") if (name, column) in grid.cells else np.nan
            for column in grid.columns
        ]
        for name in (row, grid.study.baseline)
    ]
    ratios = np.array(sizes[0]) / np.array(sizes[1])
    return float(np.nanmean(ratios)) if not np.isnan(ratios).all() else np.nan


def _headline(grid: Grid, standings: list[Standing], unit: str) -> str:
    """Say which of the clearly better methods is best, by how much, and who is not told from it; or that none is."""
    base = grid.study.baseline
    if not grid.done():
        return "No run has finished yet."
    if not standings:
        return ""
    most = max(standing.tasks for standing in standings)
    whole = [standing for standing in standings if standing.tasks == most]
    clear = [standing for standing in standings if standing.gap.mark == "▲"]
    if not clear:
        return _undecided(standings, whole, base, unit)
    best = next((standing for standing in whole if standing in clear), clear[0])
    others = [standing for standing in standings if standing is not best]
    ahead = f"{best.row}, {best.text} {unit} over {base}"
    if best.tasks < most:
        text = f"Over {count(most, 'task')} no method is clearly better than {base}; on {best.tasks} of them: {ahead}."
    elif best is whole[0]:
        text = f"Best on average{_over(standings, best)}: {ahead}."
    else:
        higher = [f"{standing.row}, {standing.text}" for standing in whole[: whole.index(best)]]
        text = f"Best of what is clearly better than {base}: {ahead}. Higher, but not clearly: {'; '.join(higher)}."
    rivals = _rivals(grid, best, others)
    return f"{text}{rivals}{_beside(best, others, base, is_named=AHEAD in rivals)}"


def _left_out(grid: Grid, standings: list[Standing]) -> str:
    """Say of which columns the headline is, where scores of others have no place on the scale that tasks share."""
    told = grid.unscaled(grid.columns)
    if not told or grid.is_raw or not grid.done():
        return ""
    if not grid.scaled:
        return f"There is no mean over tasks: {told}."
    return f"All this is over {len(grid.scaled)} of {count(len(grid.columns), 'task')}: {told}." if standings else ""


def _unmade(grid: Grid, tasks: int) -> str:
    """Say of how many tasks the headline is, where runs of others are still to be made."""
    unmade = grid.planned - len(grid.done()) - len(grid.failed())
    if unmade <= 0 or not tasks:
        return ""
    every = len(grid.scaled or grid.columns)
    where = f"This is over {tasks} of {count(every, 'task')}; " if 0 < tasks < every else ""
    return f"{where}{unmade} of {count(grid.planned, 'run')} {'is' if unmade == 1 else 'are'} not made yet."


def _undecided(standings: list[Standing], whole: list[Standing], base: str, unit: str) -> str:
    """Return the headline where no method is clearly better than the baseline."""
    best = whole[0]
    if best.gap.value > 0:
        ahead = f"{best.row}, {best.text} {unit} over {base}"
        if np.isnan(best.gap.low):
            return f"Best on average{_over(standings, best)}: {ahead}, from too few runs to say more."
        return f"No method is clearly better than {base}. Best on average{_over(standings, best)}: {ahead}."
    ties = [standing for standing in standings if not standing.gap.is_clear]
    if not ties:
        return f"No method is better than {base} on average, and all are clearly worse."
    told = _told((TIE, _on(standing.tasks, best.tasks), standing.row) for standing in ties)
    return f"No method is better than {base} on average{_over(standings, best)}.{told}"


def _over(standings: list[Standing], best: Standing) -> str:
    """Name the tasks of a mean if a method that ran on fewer gained more on those."""
    more = [s for s in standings if s.tasks < best.tasks and s.gap.value > max(best.gap.value, 0)]
    return f" over {count(best.tasks, 'task')}" if more else ""


def _rivals(grid: Grid, best: Standing, others: list[Standing]) -> str:
    """Say who beats the best and who is not told from it, and on how much of what it ran."""
    said = []
    for standing in others:
        own, theirs = grid.overall(standing.row), grid.overall(best.row)
        gap = pairs.difference(own, theirs)
        where = _on(int((stats.counts(own - theirs) > 0).sum()), best.tasks)
        if not gap.pairs:
            said.append(("cannot be compared with it", "", standing.row))
        elif np.isnan(gap.low):
            said.append(("cannot be compared with it from so few runs", where, standing.row))
        elif gap.value > 0 or not gap.is_clear:
            said.append((BEAT if gap.is_clear else TIE, where, standing.row))
    is_ahead = bool(others) and all(where for _, where, _ in said)
    ahead = f" {best.row}{AHEAD}the rest." if said else f" It{AHEAD}all others."
    return _told(said) + ahead * is_ahead


def _on(tasks: int, most: int) -> str:
    return " on fewer tasks" if tasks < most else ""


def _told(said: Iterable[tuple[str, str, str]]) -> str:
    """Return a sentence for each (what, where), of all rows of which it is said."""
    rows: dict[tuple[str, str], list[str]] = {}
    for what, where, row in said:
        rows.setdefault((what, where), []).append(row)
    return "".join(
        f" {_listed(names)} {what if len(names) > 1 else what.replace('beat', 'beats')}{where}."
        for (what, where), names in sorted(rows.items())
    )


def _beside(best: Standing, others: list[Standing], base: str, *, is_named: bool) -> str:
    """Say of a winner that keeps more than the baseline who wins among those that do not."""
    if not best.is_larger:
        return ""
    plain = next((standing for standing in others if standing.size <= LARGER), None)
    size = f" {'It' if is_named else best.row} keeps {best.size:.1f} times {base}'s parameters"
    if plain is None:
        return f"{size}."
    told = f"{plain.row}, {plain.text}{_on(plain.tasks, best.tasks)}"
    return f"{size}; best of those that keep about as much: {told}."


def _listed(names: list[str]) -> str:
    shown = names[:LISTED] if len(names) > LISTED + 1 else names
    rest = len(names) - len(shown)
    return listed([*shown, *([f"{rest} more"] if rest else [])])
