"""From records to what people read: tables, plots, one HTML page a study, and an index. Never imports torch.

Everything follows from `study.toml`, `plan.json` and the records: the same input gives the same bytes.
"""

import json
import shlex
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from kfbench.errors import KfbenchError, KfbenchWarning
from kfbench.reporting import claims, escape, grid, overview, plots, readme, render, run_list, style, tables
from kfbench.reporting.curve_plots import Plot
from kfbench.reporting.grid import Grid
from kfbench.reporting.overview import Overview
from kfbench.reporting.render import Table
from kfbench.running.files import write_text
from kfbench.studies import definition, plan

MARKS = (b"Made by `kfbench report`", " · kfbench</title>".encode())  # in every page, of any version


@dataclass(frozen=True)
class Page:
    """What the index says of a study."""

    name: str
    title: str
    about: str
    done: int
    planned: int
    overview: Overview
    failed: int = 0  # runs that failed in the `kfbench.study` that made this

    @property
    def percent(self) -> int:
        """Share of the runs that are done, in whole percent."""
        return round(100 * self.done / self.planned) if self.planned else 0

    @property
    def told(self) -> str:
        """How many runs there are: "1 of 2 runs"."""
        return f"{self.done} of {render.count(self.planned, 'run')}"


@dataclass(frozen=True)
class Drawing:
    """A plot inside a page."""

    name: str
    title: str
    caption: str
    svg: Markup
    width: float  # inches


def make(folder: Path, results: Path) -> Page:
    """Write everything of one study into its folder. Raises KfbenchError if study, plan or a record is not sound."""
    cells = grid.load(folder, definition.load(folder), results)
    every = tables.tables(cells)
    _drop_tables(folder, {table.name for table in every})
    for table in every:
        base = folder / "tables" / table.name
        write_text(base.with_suffix(".md"), render.markdown(table))
        write_text(base.with_suffix(".tex"), render.latex(table, cells.study.name))
        write_text(base.with_suffix(".csv"), render.as_csv(table))
    provenance = {table.name: table.provenance() for table in every}
    write_text(folder / "provenance.json", json.dumps(provenance, indent=1) + "\n")
    top = overview.of(cells, claims.verdicts(cells))
    drawings = _draw(cells, folder / "plots")
    settings = _chosen(folder, cells)
    _write_own(folder / "index.html", _page(cells, top, every, drawings, settings, folder=folder, results=results))
    _write_own(folder / "README.md", readme.text(cells, top, every, drawings, settings))
    return _of(cells, top)


def _write_own(path: Path, text: str) -> None:
    """Write a page, but in place of no file that is not one of kfbench: warn instead."""
    if path.is_file() and not any(mark in path.read_bytes() for mark in MARKS):
        told = f"'{path}' is left as it is: it is no page of kfbench; move it away, and the next report puts one there"
        warnings.warn(told, KfbenchWarning, stacklevel=2)
        return
    write_text(path, text)


def _drop_tables(folder: Path, names: set[str]) -> None:
    """Delete the files of tables that the last report made and this one does not: a paper may include them."""
    try:
        made = json.loads((folder / "provenance.json").read_bytes())
    except (OSError, ValueError):
        return
    for name in {*made} - names if isinstance(made, dict) else ():
        for ending in (".md", ".tex", ".csv"):
            (folder / "tables" / f"{Path(name).name}{ending}").unlink(missing_ok=True)


def page_of(folder: Path, results: Path) -> Page:
    """Return what the index says of a study, without making its page. Raises KfbenchError if it is not sound."""
    cells = grid.load(folder, definition.load(folder), results)
    return _of(cells, overview.of(cells, claims.verdicts(cells)))


def _of(cells: Grid, top: Overview) -> Page:
    return Page(
        cells.study.name,
        cells.study.title,
        cells.study.about.strip().split("\n\n")[0],
        len(cells.done()),
        cells.planned,
        top,
    )


def index(folder: Path, results: Path, made: Mapping[Path, Page], say: Callable[[str], None]) -> Path:
    """Write the index of the studies in a folder that are planned; `made` are pages that are known by their folder.

    A study at fault costs its own line, which is said.
    """
    path, pages = folder / "index.html", list[Page]()
    for each in sorted(place.parent for place in folder.glob("*/study.toml") if (place.parent / "plan.json").is_file()):
        try:
            pages.append(made.get(each) or page_of(each, results))
        except KfbenchError as error:
            say(f"left out of {path}: {error}")
    begun = sorted(pages, key=lambda page: page.done == 0)  # those with results first
    _write_own(path, _template("index.html").render(css=Markup(_asset("style.css")), pages=begun))
    return path


def _asset(name: str) -> str:
    return (files("kfbench.reporting") / "templates" / name).read_text(encoding="utf-8")


def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    environment.filters["inline"] = escape.html
    return environment.from_string(_asset(name))


def _draw(cells: Grid, folder: Path) -> list[Drawing]:
    """Save every plot, drop files of plots that no longer exist, return them for the page.

    Plots of a report are pairs of files; what lies there alone, as `kfbench compare --out` draws it, is the user's.
    """
    with style.in_style():
        drawings = [_drawing(plot, folder) for plot in plots.plots(cells)]
    names = {drawing.name for drawing in drawings}
    for path in folder.glob("*.svg") if folder.is_dir() else []:
        if path.stem not in names and path.with_suffix(".png").is_file():
            path.unlink()
            path.with_suffix(".png").unlink()
    return drawings


def _drawing(plot: Plot, folder: Path) -> Drawing:
    svg = _themed(style.save(plot.figure, folder / plot.name), plot.name)
    return Drawing(plot.name, plot.title, plot.caption, Markup(svg), plot.figure.get_figwidth())


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
    cells: Grid,
    top: Overview,
    every: list[Table],
    drawings: list[Drawing],
    settings: list[str],
    *,
    folder: Path,
    results: Path,
) -> str:
    done = cells.done()
    return _template("study.html").render(
        css=Markup(_asset("style.css")),
        study=cells.study,
        study_words=shlex.join([cells.place, *cells.source]),
        source=shlex.join(["", *cells.source])[2:],
        mixed=cells.mixed(),
        note=readme.note(cells),
        about=[part for part in cells.study.about.strip().split("\n\n") if part],
        facts=_facts(cells),
        overview=top,
        tables=every,
        chosen=settings,
        plots=drawings,
        cells=[run_list.cell(cells, cell, folder, results) for cell in cells.cells.values()],
        places=run_list.places(done),
        example=done[0].key if done else "KEY",
        total=render.count(len(done) + len(cells.failed()), "record"),
    )


def _facts(cells: Grid) -> list[tuple[Any, str]]:
    done, failed = cells.done(), len(cells.failed())
    hours = sum(record.cost.get("seconds", 0.0) for record in done) / 3600
    facts: list[tuple[Any, str]] = [(f"{len(done)} of {cells.planned}", _many(cells.planned, "run"))]
    sizes = {"method": len(cells.rows), "task": len(cells.columns), "seed": len(cells.study.seeds)}
    facts += [(number, _many(number, thing)) for thing, number in sizes.items()]
    facts += [(cells.study.budget, "budget")]
    facts += [(f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.0f} min", "training, students")] if done else []
    return facts + ([(failed, _many(failed, "failed run"))] if failed else [])


def _many(number: int, thing: str) -> str:
    return render.count(number, thing).partition(" ")[2]


def _chosen(folder: Path, cells: Grid) -> list[str]:
    """Say what the study's searches chose, a sentence a row; nothing of rows and searches that it has no more."""
    lines = []
    for row, choice in plan.chosen(folder).items() if cells.study.search is not None else ():
        if row not in cells.rows:
            continue
        values = ", ".join(
            f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in choice["settings"].items()
        )
        began = choice.get("started")
        before = f"; {began:.1f} with the settings it began with" if began is not None else ""
        lines.append(
            f"{row}: {values} (the best of {render.count(choice['trials'], 'trial')} on {choice['column']}: "
            f"{choice['validation']:.1f} on validation data{before})"
        )
    return lines
