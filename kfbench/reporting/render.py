"""A table as data, and its text in Markdown, LaTeX (booktabs) and CSV."""

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from kfbench.reporting import escape
from kfbench.reporting.intervals import Interval


@dataclass(frozen=True)
class Shown:
    """One cell of a table as it is printed, with the runs it comes from."""

    text: str
    is_best: bool = False
    mark: str = ""  # "▲" or "▼": clearly better or worse than the baseline
    published: str = ""  # a published number, as printed
    source: str = ""  # of the published number
    note: str = ""  # why there is nothing, or what is not whole
    values: dict[str, float | int | str] = field(default_factory=dict)  # unrounded, for CSV
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table: `head` names the columns after the first, `rows` are (label, cells)."""

    name: str
    title: str
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Shown, ...]], ...]
    corner: str = "method"

    def notes(self) -> list[str]:
        """Return each different note once, in order of appearance."""
        return list(dict.fromkeys(cell.note for _, cells in self.rows for cell in cells if cell.note))

    def sources(self) -> list[str]:
        """Return each source of a published number once."""
        return list(dict.fromkeys(cell.source for _, cells in self.rows for cell in cells if cell.source))

    def provenance(self) -> dict[str, dict[str, list[str]]]:
        """Return {row: {column: keys of the runs}}."""
        return {
            label: {head: list(cell.keys) for head, cell in zip(self.head, cells, strict=True) if cell.keys}
            for label, cells in self.rows
        }


def count(number: int, thing: str) -> str:
    """Return a number of things: "1 task", "2 pairs of runs" of "pair of runs"."""
    head, of, tail = thing.partition(" of ")
    return f"{number:,} {head}{'s' if number != 1 else ''}{of}{tail}"


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence has them: "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def interval(estimate: Interval, keys: tuple[str, ...], *, sign: str = "", digits: int = 3) -> Shown:
    """Return an estimate with the ends of its interval: "0.41 [0.38, 0.44]"; "–" for NaN."""
    if math.isnan(estimate.value):
        return Shown("–")
    form = f"{sign}.{digits}f"
    ends = f" [{estimate.low:{form}}, {estimate.high:{form}}]" if not math.isnan(estimate.low) else ""
    numbers = {name: value for name, value in estimate._asdict().items() if not math.isnan(value)}
    return Shown(f"{estimate.value:{form}}{ends}".replace("-", "−"), values=dict(numbers), keys=keys)


def markdown(table: Table) -> str:
    """Return the table as GitHub's Markdown, with its caption and notes."""
    notes, line = table.notes(), escape.markdown

    def cell(shown: Shown) -> str:
        text = f"**{shown.text}**" if shown.is_best else shown.text
        number = f"[^{table.name}-{notes.index(shown.note) + 1}]" if shown.note else ""
        published = f" (published {shown.published})" if shown.published else ""
        return f"{text}{' ' + shown.mark if shown.mark else ''}{published}{number}"

    lines = [f"### {line(table.title)}", "", f"| {' | '.join([table.corner, *map(line, table.head)])} |"]
    lines.append("|---" + "|---:" * len(table.head) + "|")
    lines += [f"| {' | '.join([line(label), *map(cell, cells)])} |" for label, cells in table.rows]
    lines += ["", line(table.caption)]
    lines += [f"Published: {line(source)}." for source in table.sources()]
    lines += ["", *(f"[^{table.name}-{n}]: {line(note)}" for n, note in enumerate(notes, 1))] if notes else []
    return "\n".join(lines) + "\n"


def latex(table: Table, study: str) -> str:
    r"""Return the table for \input, labelled `tab:STUDY-NAME`: needs `\usepackage{booktabs,amssymb}`."""
    notes, tex = table.notes(), escape.tex

    def cell(shown: Shown) -> str:
        text = tex(shown.text)
        text = rf"\textbf{{{text}}}" if shown.is_best else text
        text += f" {tex(shown.mark)}" if shown.mark else ""
        text += rf" \textit{{[{tex(shown.published)}]}}" if shown.published else ""
        return text + (rf"\textsuperscript{{{notes.index(shown.note) + 1}}}" if shown.note else "")

    lines = [r"\begin{table}[t]", r"\centering", rf"\caption{{{tex(table.title)}. {tex(table.caption)}}}"]
    label = re.sub("[^a-zA-Z0-9.-]", "-", f"{study}-{table.name}")
    lines += [rf"\label{{tab:{label}}}", r"\begin{tabular}{l" + "r" * len(table.head) + "}", r"\toprule"]
    lines.append(" & ".join([tex(table.corner), *map(tex, table.head)]) + r" \\")
    lines.append(r"\midrule")
    # to TeX a [ or * there belongs to the rule or line end before it
    for name, cells in table.rows:
        guard = "{}" if name.startswith(("[", "*")) else ""
        lines.append(" & ".join([guard + tex(name), *map(cell, cells)]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    small = [f"Published, in brackets: {source}." for source in table.sources()]
    small += [f"({n}) {note}." for n, note in enumerate(notes, 1)]
    lines += [rf"\par\smallskip{{\footnotesize {tex(' '.join(small))}}}"] if small else []
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def as_csv(table: Table) -> str:
    """Return one line a cell, with unrounded numbers and the keys of its runs."""
    names = list(dict.fromkeys(name for _, cells in table.rows for cell in cells for name in cell.values))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["row", "column", "shown", *names, "is_best", "mark", "published", "source", "note", "keys"])
    for label, cells in table.rows:
        for head, cell in zip(table.head, cells, strict=True):
            numbers = [cell.values.get(name, "") for name in names]
            tail = [int(cell.is_best), cell.mark, cell.published, cell.source, cell.note, " ".join(cell.keys)]
            writer.writerow([label, head, cell.text, *numbers, *tail])
    return out.getvalue()
