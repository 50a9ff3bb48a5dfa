"""A study's page in Markdown, for readers of the repository."""

from collections.abc import Sequence
from typing import Protocol

from kfbench.reporting import escape, render
from kfbench.reporting.grid import Grid
from kfbench.reporting.overview import Overview
from kfbench.reporting.render import Table

UNKNOWN = (
    "The numbers of the Knowledge Flow paper's own tables are not known to this project, and none is printed. Who has "
    "the paper can enter them in this study's study.toml, and they stand beside ours: one [[reference]] each, with "
    "row, column, value (in the table's unit) and source."
)


class Drawn(Protocol):
    """A plot that has been saved."""

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def caption(self) -> str: ...


def text(grid: Grid, top: Overview, tables: list[Table], plots: Sequence[Drawn], settings: list[str]) -> str:
    """Return the page of a study."""
    line = escape.markdown
    lines = [f"# {line(grid.study.title)}", "", escape.markdown(grid.study.about.strip(), is_line=False), ""]
    lines += ["Made by `kfbench report` from the records; do not edit. The page with all runs: `index.html`.", ""]
    for sentence in filter(None, (top.headline, *grid.mixed())):
        lines += [f"**{line(sentence)}**", ""]
    if top.verdicts:
        lines += ["## Claims", "", "| claim | verdict | |", "|---|---|---|"]
        lines += [
            f"| {line(v.claim.text)} ({line(v.claim.source)}) | **{v.word}** | {line(v.told)} |" for v in top.verdicts
        ]
        lines += [""]
    lines += ["## Tables", "", *(render.markdown(table) for table in tables)]
    if settings:
        lines += [
            "Settings that a search chose (accuracy in %, or return):",
            "",
            *(f"- {line(s)}" for s in settings),
            "",
        ]
    lines += [escape.markdown(note(grid), is_line=False), ""] if note(grid) else []
    lines += ["## Plots", ""] if plots else []
    for plot in plots:
        title = line(plot.title)
        lines += [f"![{title}](plots/{plot.name}.png)", "", f"**{title}.** {line(plot.caption)}", ""]
    return "\n".join(lines).rstrip() + "\n"


def note(grid: Grid) -> str:
    """Return what is said of published numbers: the study's own words, else that Knowledge Flow's are not known."""
    mixes = any(row.method.partition("/")[0] == "kf" for row in grid.study.methods)
    is_own = all(column.task.startswith("imagefolder/") for column in grid.study.tasks)  # the reader's: in no paper
    return grid.study.reference_note.strip() or (UNKNOWN if mixes and not is_own else "")
