"""A study as data: `reports/<name>/study.toml` checked against its schema, where a mistake names its line.

A study is a table: its rows are methods (with settings, teachers or labels of their own), its columns tasks (with a
network, a training size, teachers), and each cell holds one run a seed. It imports neither torch nor optuna.
"""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from kfbench.errors import KfbenchError, near
from kfbench.spec import Setting

Need = Literal["features", "outputs", "architecture"]
Teachers = list[str] | dict[Need, list[str]]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Row(_Part):
    """A method as it appears in a table."""

    method: str  # "kf", or with a variant "kf/alone"
    label: str = ""  # default: the method's name
    # default: the column's; "random": those, untrained and frozen
    teachers: list[str] | Literal["random"] | None = None
    settings: dict[str, Setting] = {}  # of the method, as with --set
    recipe: dict[str, Any] = {}  # fields of the recipe, as with --set-recipe
    columns: list[str] = []  # labels of the columns it runs on; default: all


class Column(_Part):
    """A task as it appears in a table; `teachers` is one list for all methods, or a list for each kind of need.

    The list for "outputs" is not for methods whose teacher is by default the student's twin (`born_again`).
    """

    task: str  # "cifar100", or with a variant "cifar100/0-49"
    label: str = ""  # default: the task's name, with network and training size where these vary
    teachers: Teachers | None = None  # default: those that follow from what the method needs
    network: str | None = None  # the student's; default: the budget's
    train_size: Annotated[int, Gt(0)] | None = None  # training images, balanced over classes; default: the budget's
    recipe: dict[str, Any] = {}  # fields of the recipe, for all methods


class Table(_Part):
    """Part of the whole table, in its own order."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]  # of its files: small letters, digits, hyphens
    title: str  # above it
    rows: list[str] = []  # labels; default: all
    columns: list[str] = []  # labels; default: all


class Claim(_Part):
    """A sentence and the comparison that decides it.

    Either `better` scores above `than` by more than `margin`, on average over the columns `on` (in points of accuracy;
    game points for one game, hundredths of the human-normalised score for several; a negative margin asks for "not
    worse by more than"); or the `curve` metric of `row` at a fraction `at` of the
    run lies `above` or `below` a number.
    """

    text: str  # the sentence
    source: str = "this study"  # who says so
    on: list[str] = []  # labels of columns; default: all
    better: str | None = None  # label of the row that is said to be better
    than: str | None = None  # label of the row it is said to be better than
    margin: float = 0.0  # by how much more
    row: str | None = None  # label of the row whose curve is looked at
    curve: str | None = None  # name of the metric in its curve, as "share/student"
    at: Annotated[float, Ge(0), Field(le=1)] = 1.0  # fraction of the run
    above: float | None = None  # the metric is said to be above this
    below: float | None = None  # or below this

    @model_validator(mode="after")
    def _is_one_kind(self) -> "Claim":
        compares = self.better is not None and self.than is not None
        watches = self.row is not None and self.curve is not None and (self.above is None) != (self.below is None)
        if compares == watches:
            raise ValueError("a claim has 'better' and 'than', or 'row', 'curve' and one of 'above' and 'below'")
        return self


class Reference(_Part):
    """A published number beside ours, in the unit of the table."""

    row: str  # label of the row
    column: str  # label of the column
    value: float  # in the table's unit: test error in %, or raw return
    source: str  # where the number stands


class Search(_Part):
    """Tune every method on `val` before the table's runs: the same number of trials for each."""

    trials: Annotated[int, Gt(0)] = 25  # of each method
    seeds_per_trial: Annotated[int, Gt(0)] = 1  # above 1: settings are judged by the mean, Wilcoxon's test prunes
    column: str = ""  # label of the column tuned on; default: the first


def _named(key: str) -> BeforeValidator:
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


def _listed(value: Any) -> Any:
    return list(range(value)) if isinstance(value, int) and not isinstance(value, bool) else value


def _searched(value: Any) -> Any:
    return {True: {}, False: None}[value] if isinstance(value, bool) else value


class Study(_Part):
    """What `study.toml` holds. Rows and columns carry unique labels once it is loaded."""

    title: str  # of the page
    about: str = ""  # what a reader should know: setting, teachers, cost
    budget: str = "small"  # smoke, small, standard or paper
    # a list, or how many: 3 is [0, 1, 2]
    seeds: Annotated[list[int], BeforeValidator(_listed), Field(min_length=1)] = [0, 1, 2]
    score: Literal["last", "best"] = "last"  # of the last weights, or of those best on validation
    baseline: str = "scratch"  # the row against which transfer is called negative
    methods: Annotated[list[Annotated[Row, _named("method")]], Field(min_length=1)]  # rows: names, or tables
    tasks: Annotated[list[Annotated[Column, _named("task")]], Field(min_length=1)]  # columns: names, or tables
    networks: list[str] = []  # every task with each of them
    train_sizes: list[Annotated[int, Gt(0)]] = []  # every task with each of them
    recipe: dict[str, Any] = {}  # fields of the recipe, for all runs
    tables: list[Table] = []  # parts of the whole table, each a table of its own
    claims: list[Claim] = []  # each gets a verdict
    reference: list[Reference] = []  # published numbers beside ours
    reference_note: str = ""  # what a reader should know of them
    # true or a table: tune every method on `val` before the table's runs
    search: Annotated[Search | None, BeforeValidator(_searched)] = None
    name: str = ""  # the folder's

    def row(self, label: str) -> Row:
        """Return the row with a label."""
        return next(row for row in self.methods if row.label == label)


def load(folder: Path) -> Study:
    """Read `study.toml` of a folder. Raises KfbenchError that names file, line and remedy."""
    path = folder / "study.toml"
    if not path.is_file():
        there = sorted(p.parent.name for p in folder.parent.glob("*/study.toml"))
        raise KfbenchError(f"no study '{folder}' (no file '{path}'); {near(folder.name, there)}")
    text = path.read_text()
    try:
        values = tomllib.loads(text)
        return _labelled(Study.model_validate({"name": folder.resolve().name, **values}), path, text)
    except tomllib.TOMLDecodeError as error:
        raise KfbenchError(f"'{path}' is not TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = [part for part in first["loc"] if not (isinstance(part, str) and "[" in part)]
        raise KfbenchError(f"'{path}', line {line_of(text, where)}: {_told(where, first)}") from error


def _told(where: list[int | str], error: Any) -> str:
    key = ".".join(str(part) for part in where)
    if error["type"] == "extra_forbidden":
        owner: type[BaseModel] = Study
        for part in where[:-1]:
            owner = PARTS.get(str(part), owner)
        return f"no key '{key}'; {near(str(where[-1]), owner.model_fields)}"
    if error["type"] == "missing":
        return f"'{key}' is missing"
    return f"'{key}' cannot be {error['input']!r}: {error['msg'].removeprefix('Value error, ').lower()}"


PARTS: dict[str, type[BaseModel]] = {
    "methods": Row,
    "tasks": Column,
    "tables": Table,
    "claims": Claim,
    "reference": Reference,
    "search": Search,
}


def line_of(text: str, where: list[int | str]) -> int:
    """Return the line, counted from 1, of a key's path in TOML text: its own line, else that of the nearest parent."""
    lines = text.splitlines()
    line, rest = 0, list(where)
    if where and len(where) > 1 and isinstance(where[1], int):
        headers = [n for n, content in enumerate(lines) if re.match(rf"\s*\[\[\s*{where[0]}\s*\]\]", content)]
        if where[1] < len(headers):
            line, rest = headers[where[1]], list(where[2:])
    for part in rest:
        if isinstance(part, int):
            entries = _entries(lines, line)
            line = entries[part] if part < len(entries) else line
            continue
        pattern = re.compile(rf'(?<![\w"-])"?{re.escape(part)}"?\s*=|^\s*\[+[^\]]*\b{re.escape(part)}\s*\]')
        line = next((n for n in range(line, len(lines)) if pattern.search(lines[n].partition("#")[0])), line)
    return line + 1


def _entries(lines: list[str], start: int) -> list[int]:
    """Return the line of each entry of the array that begins on a line."""
    found: list[int] = []
    depth, quote, fresh = 0, "", False
    for number in range(start, len(lines)):
        text = lines[number] if number > start else lines[number].partition("=")[2]
        for char in text:
            if quote:
                quote = "" if char == quote else quote
                continue
            if char == "#":
                break
            if fresh and depth == 1 and not char.isspace() and char not in "],":
                found.append(number)
                fresh = False
            if char in "\"'":
                quote = char
            elif char in "[{":
                depth += 1
                fresh = fresh or depth == 1
            elif char in "]}":
                depth -= 1
                if depth == 0:
                    return found
            elif char == "," and depth == 1:
                fresh = True
    return found


def _labelled(study: Study, path: Path, text: str) -> Study:
    """Give every row and column its label, spread tasks over networks and training sizes, check all names used."""
    rows = [row if row.label else row.model_copy(update={"label": row.method}) for row in study.methods]
    columns = [spread for task in study.tasks for spread in _spread(study, task)]
    for kind, labels in {"methods": [r.label for r in rows], "tasks": [c.label for c in columns]}.items():
        twice = next((n for n, label in enumerate(labels) if label in labels[:n]), None)
        if twice is not None:
            place: list[int | str] = [kind, twice] if kind == "methods" else [kind]
            raise KfbenchError(
                f"'{path}', line {line_of(text, place)}: two {kind} are called '{labels[twice]}'; give each a 'label'"
            )
    made = study.model_copy(update={"methods": rows, "tasks": columns})
    for where, label, known in _mentions(made):
        if label not in known:
            line = line_of(text, where)
            raise KfbenchError(f"'{path}', line {line}: no row or column '{label}'; {near(label, known)}")
    return made


def _spread(study: Study, task: Column) -> list[Column]:
    networks: list[str | None] = [task.network] if task.network or not study.networks else [*study.networks]
    sizes: list[int | None] = [task.train_size] if task.train_size or not study.train_sizes else [*study.train_sizes]
    made = []
    for network in networks:
        for size in sizes:
            parts = [task.label or task.task]
            parts += [network] if network and len(networks) > 1 else []
            parts += [f"{size:,} images"] if size and len(sizes) > 1 else []
            made.append(task.model_copy(update={"label": ", ".join(parts), "network": network, "train_size": size}))
    return made


def _mentions(study: Study) -> list[tuple[list[int | str], str, list[str]]]:
    """Return (where, label, labels that would be right) of every mention of a row or column."""
    rows, columns = [row.label for row in study.methods], [column.label for column in study.tasks]
    found: list[tuple[list[int | str], str, list[str]]] = []
    for n, row in enumerate(study.methods):
        found += [(["methods", n, "columns"], label, columns) for label in row.columns]
    for n, table in enumerate(study.tables):
        found += [(["tables", n, "rows"], label, rows) for label in table.rows]
        found += [(["tables", n, "columns"], label, columns) for label in table.columns]
    for n, claim in enumerate(study.claims):
        used = {"better": claim.better, "than": claim.than, "row": claim.row}
        found += [(["claims", n, key], label, rows) for key, label in used.items() if label is not None]
        found += [(["claims", n, "on"], label, columns) for label in claim.on]
    for n, reference in enumerate(study.reference):
        found += [
            (["reference", n, "row"], reference.row, rows),
            (["reference", n, "column"], reference.column, columns),
        ]
    if study.search is not None and study.search.column:
        found.append((["search", "column"], study.search.column, columns))
    return found
