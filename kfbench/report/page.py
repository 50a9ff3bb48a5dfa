"""From records to what people read: tables, plots, one HTML page a study, and an index. Never imports torch.

Everything follows from `study.toml`, `plan.json` and the records: the same input gives the same bytes.
"""

import json
import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from kfbench.report import claims, grid, plots, render, style, tables
from kfbench.report.claims import Verdict
from kfbench.report.grid import Cell, Grid
from kfbench.report.render import Table
from kfbench.run.records import RunRecord, path_of, write_text
from kfbench.study import definition, plan

UNKNOWN = (
    "The numbers of the Knowledge Flow paper's own tables are not known to this project, and none is printed. Who has "
    "the paper can enter them in this study's study.toml, and they stand beside ours: one [[reference]] each, with "
    "row, column, value (in the table's unit) and source."
)


@dataclass(frozen=True)
class Page:
    """What the index says of a study."""

    name: str
    title: str
    about: str
    done: int
    planned: int
    words: tuple[tuple[str, int], ...]  # verdicts and how many claims have each
    failed: int = 0  # runs that failed in the `kfbench.study` that made this

    @property
    def percent(self) -> int:
        """Share of the runs that are done, in whole percent."""
        return round(100 * self.done / self.planned) if self.planned else 0


@dataclass(frozen=True)
class Shown:
    """A plot inside a page."""

    name: str
    title: str
    caption: str
    svg: Markup
    width: float  # inches


def make(folder: Path, results: Path) -> Page:
    """Write everything of one study into its folder. Raises KfbenchError if study, plan or a record is not sound."""
    made = grid.load(folder, definition.load(folder), results)
    found = tables.tables(made)
    for table in found:
        base = folder / "tables" / table.name
        write_text(base.with_suffix(".md"), render.markdown(table))
        write_text(base.with_suffix(".tex"), render.latex(table))
        write_text(base.with_suffix(".csv"), render.as_csv(table))
    provenance = {table.name: table.provenance() for table in found}
    write_text(folder / "provenance.json", json.dumps(provenance, indent=1) + "\n")
    judged = claims.verdicts(made)
    drawn = _draw(made, folder / "plots")
    write_text(folder / "index.html", _page(made, found, judged, drawn, folder=folder, results=results))
    write_text(folder / "README.md", _readme(made, found, judged, drawn, _chosen(folder)))
    return _of(made, judged)


def page_of(folder: Path, results: Path) -> Page:
    """Return what the index says of a study, without making its page."""
    made = grid.load(folder, definition.load(folder), results)
    return _of(made, claims.verdicts(made))


def _of(made: Grid, judged: list[Verdict]) -> Page:
    words = [verdict.word for verdict in judged]
    return Page(
        made.study.name,
        made.study.title,
        made.study.about.strip().split("\n\n")[0],
        sum(len(cell.done) for cell in made.cells.values()),
        sum(len(cell.records) for cell in made.cells.values()),
        tuple((word, words.count(word)) for word in dict.fromkeys(words)),
    )


def index(folder: Path, pages: list[Page]) -> Path:
    """Write the index of all studies."""
    path = folder / "index.html"
    write_text(path, _template("index.html").render(css=Markup(_asset("style.css")), pages=pages))
    return path


def _asset(name: str) -> str:
    return (files("kfbench.report") / "templates" / name).read_text(encoding="utf-8")


def _inline(text: str) -> Markup:
    """Escape text, and set what stands in backticks as code."""
    parts = text.split("`")
    return Markup("").join(Markup("<code>{}</code>").format(p) if n % 2 else escape(p) for n, p in enumerate(parts))


def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    environment.filters["inline"] = _inline
    return environment.from_string(_asset(name))


def _draw(made: Grid, folder: Path) -> list[Shown]:
    """Save every plot, drop files of plots that no longer exist, return them for the page."""
    shown = []
    with style.in_style():
        for plot in plots.plots(made):
            text = _themed(style.save(plot.figure, folder / plot.name), plot.name)
            shown.append(Shown(plot.name, plot.title, plot.caption, Markup(text), plot.figure.get_figwidth()))
    names = {plot.name for plot in shown}
    for path in folder.glob("*.*") if folder.is_dir() else []:
        if path.stem not in names and path.suffix in (".svg", ".png"):
            path.unlink()
    return shown


def _themed(svg: str, name: str) -> str:
    """Make a figure part of a page: ink, grid and paper follow its light or dark theme; ids are the figure's own."""
    body = svg[svg.index("<svg") :]
    for colour, variable in ((style.INK, "currentColor"), (style.GRID, "var(--line)"), (style.PAPER, "var(--paper)")):
        body = body.replace(colour, variable)
    for reference in ('id="', 'href="#', "url(#"):
        body = body.replace(reference, f"{reference}{name}-")
    start, end = body.index("<metadata"), body.index("</metadata>") + len("</metadata>")
    return body[:start] + body[end:].lstrip()


def _page(
    made: Grid, found: list[Table], judged: list[Verdict], drawn: list[Shown], *, folder: Path, results: Path
) -> str:
    done = made.done()
    planned = sum(len(cell.records) for cell in made.cells.values())
    failed = sum(len(cell.failed) for cell in made.cells.values())
    hours = sum(record.cost.get("seconds", 0.0) for record in done) / 3600
    facts = [(f"{len(done)} of {planned}", "runs"), (str(len(made.rows)), "methods"), (str(len(made.columns)), "tasks")]
    facts += [(str(len(made.study.seeds)), "seeds"), (made.study.budget, "budget")]
    facts += [(f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.0f} min", "training, students")] if done else []
    facts += [(str(failed), "failed runs")] if failed else []
    return _template("study.html").render(
        css=Markup(_asset("style.css")),
        study=made.study,
        note=_note(made),
        about=[part for part in made.study.about.strip().split("\n\n") if part],
        facts=facts,
        verdicts=judged,
        tables=found,
        chosen=_chosen(folder),
        plots=drawn,
        cells=[_cell(made, cell, folder, results) for cell in made.cells.values()],
        places=_places(done),
        example=done[0].key if done else "KEY",
        total=len(done) + failed,
    )


def _cell(made: Grid, cell: Cell, folder: Path, results: Path) -> dict[str, Any]:
    planned = cell.planned
    parts = [f"{len(cell.done)} done"]
    parts += [f"{len(cell.failed)} failed"] if cell.failed else []
    parts += [f"{cell.missing} not run yet"] if cell.missing else []
    runs = [_run(made, planned.column, record, folder, results) for record in cell.records if record is not None]
    return {
        "row": planned.row,
        "column": planned.column,
        "told": ", ".join(parts) if planned.spec else f"n/a, because {planned.reason}",
        "command": tables.fill(made, planned.row, planned.column) if cell.missing or cell.failed else "",
        "runs": runs,
    }


def _run(made: Grid, column: str, record: RunRecord, folder: Path, results: Path) -> dict[str, Any]:
    metric = made.metric(column)
    score = record.scores.get(made.study.score, {}).get(metric)
    unit = "" if made.is_game(column) else " %"
    kept = {name: value for name, value in record.model_dump().items() if name not in ("curve", "traceback")}
    kept.pop("identity")
    path = path_of(results, record.key, record.run_spec())
    return {
        "seed": record.spec["seed"],
        "key": record.key,
        "score": "failed" if score is None else f"{score:.1f}{unit}",
        "time": f"{record.cost['seconds']:.0f} s" if "seconds" in record.cost else record.error or "",
        "curve": _spark(record, made.curve_metric(column)),
        "path": Path(os.path.relpath(path, folder)).as_posix(),
        "traceback": record.traceback,
        "record": json.dumps(kept, indent=1),
    }


def _spark(record: RunRecord, metric: str) -> Markup:
    """Draw a run's curve in the size of a word."""
    points = [(row["progress"], row[metric]) for row in record.curve if metric in row and "progress" in row]
    if len(points) < 2:
        return Markup("")
    low, high = min(y for _, y in points), max(y for _, y in points)
    span = (high - low) or 1.0
    places = " ".join(f"{100 * x:.1f},{24 - 22 * (y - low) / span:.1f}" for x, y in points)
    return Markup(
        '<svg viewBox="0 0 100 26" preserveAspectRatio="none" role="img" aria-label="curve of the run">'
        f'<polyline points="{places}" fill="none" stroke="currentColor" stroke-width="1.5" '
        'vector-effect="non-scaling-stroke"/></svg>'
    )


def _places(done: list[RunRecord]) -> list[str]:
    """Say on what hardware and with which versions the runs were made, each kind once with its number of runs."""
    counted: dict[str, int] = {}
    for record in done:
        kept = record.provenance
        versions = ", ".join(f"{name} {version}" for name, version in sorted(kept.get("versions", {}).items()))
        threads = kept.get("threads")
        parts = [kept.get("processor") or kept.get("device"), f"{threads} thread(s)" if threads else None, versions]
        commit = f"commit {kept['commit'][:12]}" if kept.get("commit") else None
        changed = "with changes not committed" if kept.get("code_changed") else None
        text = "; ".join(part for part in [*parts, commit, changed] if part)
        counted[text] = counted.get(text, 0) + 1
    return [f"{count} run{'s' if count > 1 else ''}: {text}." for text, count in sorted(counted.items())]


def _chosen(folder: Path) -> list[str]:
    """Say what the study's searches chose, a sentence a row."""
    lines = []
    for row, found in plan.chosen(folder).items():
        values = ", ".join(
            f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in found["settings"].items()
        )
        before = f"; {found['started']:.1f} with the settings it began with" if found.get("started") is not None else ""
        lines.append(
            f"{row}: {values} (the best of {found['trials']} trials on {found['column']}: "
            f"{found['validation']:.1f} on validation data{before})"
        )
    return lines


def _note(made: Grid) -> str:
    """What is said of published numbers: the study's own words, else that those of Knowledge Flow are not known."""
    mixes = any(row.method.partition("/")[0] == "kf" for row in made.study.methods)
    return made.study.reference_note.strip() or (UNKNOWN if mixes else "")


def _readme(made: Grid, found: list[Table], judged: list[Verdict], drawn: list[Shown], chosen: list[str]) -> str:
    """The same in Markdown, for readers of the repository."""
    lines = [f"# {made.study.title}", "", made.study.about.strip(), ""]
    lines += ["Made by `kfbench report` from the records; do not edit. The page with all runs: `index.html`.", ""]
    if judged:
        lines += ["## Claims", "", "| claim | verdict | |", "|---|---|---|"]
        lines += [f"| {v.claim.text} ({v.claim.source}) | **{v.word}** | {v.told} |" for v in judged]
        lines += [""]
    lines += ["## Tables", "", *(render.markdown(table) for table in found)]
    if chosen:
        lines += ["Settings that a search chose (accuracy in %, or return):", "", *(f"- {c}" for c in chosen), ""]
    lines += [_note(made), ""] if _note(made) else []
    lines += ["## Plots", ""] if drawn else []
    for plot in drawn:
        lines += [f"![{plot.title}](plots/{plot.name}.png)", "", f"**{plot.title}.** {plot.caption}", ""]
    return "\n".join(lines).rstrip() + "\n"
