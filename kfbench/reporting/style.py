"""How plots look, and how they are saved: the same bytes for the same content, readable in print and by all."""

import io
import re
import textwrap
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kfbench.errors import KfbenchWarning

# Okabe & Ito's colours for all kinds of colour vision, without yellow and black, then darker and lighter mates
COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9",
    "#7A5195", "#8C6D31", "#5F9EA0", "#B22222", "#6B8E23", "#708090",
)  # fmt: skip
DASHES = ("-", "--", "-.", ":")
MARKERS = "osD^vP*X<>hp"
INK, GRID, PAPER = "#1f2430", "#d9dce3", "#fdfdfe"  # told apart in SVG, so that a page can give them its own colours

LONGEST = 44  # characters of a label that plots have room for
LETTER = 0.07  # inches, the mean width of one
BOLD = 0.105  # of a title

STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.facecolor": PAPER,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "figure.facecolor": PAPER,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.7,
    "text.color": INK,
    "text.parse_math": False,  # a label with dollars is a label
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "svg.fonttype": "none",
    "svg.hashsalt": "kfbench",
}


@contextmanager
def in_style() -> Iterator[None]:
    """Draw and save in the suite's style, whatever the user's own settings."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        with matplotlib.rc_context(dict(sns.axes_style("white")) | STYLE), _missing_told():
            yield


@contextmanager
def _missing_told() -> Iterator[None]:
    """Say in one line which characters the font lacks: matplotlib warns of each, wherever it draws it."""
    missing: dict[str, None] = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("always", "Glyph ")
        show = warnings.showwarning

        def keep(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if glyph := re.match(r"Glyph (\d+) .*missing from", str(message)):
                missing[chr(int(glyph[1]))] = None
            else:
                show(message, category, *place, **more)

        warnings.showwarning = keep
        yield
    if missing:
        told = f"plots in PNG and PDF show boxes for what their font lacks ({' '.join(missing)}); those in SVG keep it"
        warnings.warn(told, KfbenchWarning, stacklevel=2)


def short(labels: Iterable[str]) -> dict[str, str]:
    """Return each label as plots have room for it: long ones without their middle, and no two alike."""
    every = list(dict.fromkeys(labels))
    names = {label: label for label in every if len(label) <= LONGEST}
    for label in every:
        if label not in names:
            name = cut = f"{label[: LONGEST - 20].rstrip()}…{label[-13:].lstrip()}"
            number = 1
            while name in names.values():
                number += 1
                name = f"{cut} ({number})"
            names[label] = name
    return {label: names[label] for label in every}


def folded(text: str, figure: Figure, axis: Axes, *, beside: int = 0, letter: float = LETTER) -> str:
    """Return an axis's name in lines that its panel has room for, beside labels of that many characters.

    `letter` is the width of one in inches: `BOLD` in titles.
    """
    grid = axis.get_gridspec()
    room = (figure.get_figwidth() - LETTER * beside) / (grid.ncols if grid else 1)
    return textwrap.fill(text, max(12, int(room / letter)))


def panels(count: int, *, width: float = 3.4, height: float = 2.6, most: int = 3, legend: bool = True) -> "Panels":
    """Return a figure with `count` axes, at most `most` in a line (four stand two by two), and room for a legend.

    A lone panel is half as wide again.
    """
    width = max(width, 5.1) if count == 1 else width
    across = 2 if count == 4 and most == 3 else min(count, most)
    down = -(-count // across)
    figure = Figure(figsize=(width * across, height * down + (0.45 if legend else 0.1)), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False)
    axes = [axis for line in grid for axis in line]
    for axis in axes[count:]:
        axis.set_visible(False)
    for axis in axes[:count]:
        sns.despine(ax=axis)
    return figure, axes[:count]


Panels = tuple[Figure, list[Axes]]


def colour(index: int) -> str:
    """Return the colour of the n-th thing."""
    return COLOURS[index % len(COLOURS)]


def dash(index: int) -> str:
    """Return the dashes of the n-th thing, so that lines differ without colour too, and where colours repeat."""
    return DASHES[(index + index // len(COLOURS)) % len(DASHES)]


def marker(index: int) -> str:
    """Return the marker of the n-th thing."""
    return MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]


def legend(figure: Figure, axes: list[Axes]) -> None:
    """Put one legend above all axes, each label `short`, once, in as many columns as fit; the figure grows with it."""
    handles: dict[str, Artist] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        labels = [*short(handles).values()]
        longest = max(map(len, labels))
        across = max(1, min(len(handles), int(figure.get_figwidth() / (0.55 + 0.075 * longest))))
        figure.set_figheight(figure.get_figheight() + 0.19 * (-(-len(handles) // across) - 1))
        figure.legend([*handles.values()], labels, loc="outside upper left", ncols=across, fontsize=8.5)


def save(figure: Figure, path: Path) -> str:
    """Write `<path>.svg` and `<path>.png` (200 dots an inch), without date or program; return the SVG text."""
    picture, drawing = io.BytesIO(), io.StringIO()
    figure.savefig(drawing, format="svg", metadata={"Date": None, "Creator": None})
    figure.set_layout_engine(None)  # where things stand holds for both, and was dear to find
    figure.savefig(picture, format="png", dpi=200, metadata={"Software": None})
    text = "\n".join(line.rstrip() for line in drawing.getvalue().splitlines()) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".png").write_bytes(picture.getvalue())
    path.with_suffix(".svg").write_bytes(text.encode())
    return text
