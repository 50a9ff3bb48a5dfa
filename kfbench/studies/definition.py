"""A study as data: `reports/<name>/study.toml` checked against its schema, where a mistake names its key.

A study is a table: its rows are methods (with settings, teachers or labels of their own), its columns tasks (with a
network, a training size, teachers), and each cell holds one run a seed. It imports neither torch nor optuna.
"""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from kfbench.errors import KfbenchError, near
from kfbench.running.teacher_names import listed
from kfbench.spec import MOST_SEED, Setting

Need = Literal["features", "outputs", "architecture"]
Names = Annotated[list[str], AfterValidator(listed)]
Teachers = Names | dict[Need, Names]
TrainSize = Annotated[int, Gt(0)] | Literal["all"]
REPORTS = Path("reports")  # where studies lie
MOST_SEEDS = 1000
FIRST_SEED = 1000  # of a search; the runs that are reported have seeds of their own
OWN_TABLES = "scores|summary|cost|learning|teachers(-[0-9]+)?"  # of every page


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Row(_Part):
    """A method as it appears in a table."""

    method: str  # "kf", or with a variant "kf/alone"
    label: str = ""  # default: the method's name
    # default: the column's; "random": those, untrained and frozen
    teachers: Names | Literal["random"] | None = None
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
    train_size: TrainSize | None = None  # training images, balanced over classes, or "all"; default: the budget's
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
    on: list[str] = []  # labels of columns; default: all that its rows are for
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
        if watches and self.margin:
            raise ValueError("a claim about a curve has no margin; 'above' or 'below' is its threshold")
        if compares and self.better == self.than:
            raise ValueError("a claim compares two rows, not one with itself")
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
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    if not 0 < value <= MOST_SEEDS:
        raise ValueError(f"there are 1 to {MOST_SEEDS:,} seeds, or a list")
    return list(range(value))


def _searched(value: Any) -> Any:
    return {True: {}, False: None}[value] if isinstance(value, bool) else value


class Study(_Part):
    """What `study.toml` holds. Rows and columns carry unique labels once it is loaded."""

    title: str  # of the page
    about: str = ""  # what a reader should know: setting, teachers, cost
    budget: str = "small"  # smoke, small, standard or paper
    # a list, or how many: 3 is [0, 1, 2]
    seeds: Annotated[list[Annotated[int, Ge(0), Le(MOST_SEED)]], BeforeValidator(_listed), Field(min_length=1)] = [
        0,
        1,
        2,
    ]
    score: Literal["last", "best"] = "last"  # of the last weights, or of those best on validation
    baseline: str = "scratch"  # the row against which transfer is called negative
    methods: Annotated[list[Annotated[Row, _named("method")]], Field(min_length=1)]  # rows: names, or tables
    tasks: Annotated[list[Annotated[Column, _named("task")]], Field(min_length=1)]  # columns: names, or tables
    networks: list[str] = []  # every task with each of them
    train_sizes: list[TrainSize] = []  # every task with each of them; "all" for all images
    recipe: dict[str, Any] = {}  # fields of the recipe, for all runs
    tables: list[Table] = []  # parts of the whole table, each a table of its own
    claims: list[Claim] = []  # each gets a verdict
    reference: list[Reference] = []  # published numbers beside ours
    reference_note: str = ""  # what a reader should know of them
    rank: bool = False  # what `kfbench rank` says of teachers beside what rows with one teacher each measured
    # true or a table: tune every method on `val` before the table's runs
    search: Annotated[Search | None, BeforeValidator(_searched)] = None
    _name: str = ""

    @property
    def name(self) -> str:
        """The name of the study's folder, and no key of the file."""
        return self._name

    def row(self, label: str) -> Row:
        """Return the row with a label."""
        return next(row for row in self.methods if row.label == label)


def below(folder: Path) -> list[Path]:
    """Return the folders of the studies that lie in a folder."""
    return sorted(path.parent for path in folder.glob("*/study.toml"))


def load(folder: Path) -> Study:
    """Read `study.toml` of a folder. Raises KfbenchError that names file, key and remedy."""
    path = folder / "study.toml"
    if not path.is_file():
        if folder.name == path.name and folder.is_file():
            raise KfbenchError(f"'{folder}' is the file of a study; name its folder, '{folder.parent}'")
        if inside := below(folder):
            raise KfbenchError(f"'{folder}' holds studies and is none; name one: {', '.join(map(str, inside))}")
        neighbours = {each.name: each.name for each in below(folder.parent)}
        titles = {each.name: str(each) for each in below(REPORTS)} | neighbours
        raise KfbenchError(
            f"no study '{folder}' (no file '{path}'); {near(folder.name, titles.values(), titles=titles)}"
        )
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # Windows' editors begin it with a mark
        study = Study.model_validate(values)
        study._name = folder.resolve().name
        return _labelled(study, path)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise KfbenchError(f"'{path}' is not TOML: {error}") from error
    except ValidationError as error:
        first, *others = error.errors()
        where = _path(first["loc"], values, is_missing=first["type"] == "missing")
        beside = [other["msg"] for other in others if other["loc"][:-1] == first["loc"][:-1] == (*where,)]  # of a union
        raise KfbenchError(f"'{path}', {_told(where, first, beside)}") from error


def _told(where: list[int | str], error: Any, beside: Sequence[str]) -> str:
    place = _place(where)
    if error["type"] == "extra_forbidden":
        if where == ["name"]:
            return f"{place}: no such key; the folder's name is the study's, 'title' is for the page"
        owner: type[BaseModel] = Study
        for part in where[:-1]:
            owner = PARTS.get(str(part), owner)
        return f"{place}: no such key; {near(str(where[-1]), owner.model_fields)}"
    if error["type"] == "missing":
        return f"{place}: is missing"
    messages = [error["msg"].removeprefix("Value error, "), *(text.removeprefix("Input should be ") for text in beside)]
    told = re.sub("dictionary or instance of [a-z]+", "table", " or ".join(messages).lower())
    return f"{place}: cannot be {error['input']!r}: {told.replace('dictionary', 'table')}"


def _path(parts: Sequence[int | str], values: Any, *, is_missing: bool) -> list[int | str]:
    """Return the part of an error's location that is a path in the file: pydantic adds names of a union's members."""
    path: list[int | str] = []
    for part in parts:
        if (isinstance(values, dict) and part in values) or (isinstance(values, list) and isinstance(part, int)):
            values = values[part]  # type: ignore[index]  # an index of a list, a key of a table
            path.append(part)
    return [*path, parts[-1]] if is_missing else path


def _place(where: Sequence[int | str]) -> str:
    """Name a key by its path, entries of a list counted from 1: "claims, entry 2, 'better'"."""
    return ", ".join(
        f"entry {part + 1}" if isinstance(part, int) else f"'{part}'" if part == where[-1] else part for part in where
    )


PARTS: dict[str, type[BaseModel]] = {
    "methods": Row,
    "tasks": Column,
    "tables": Table,
    "claims": Claim,
    "reference": Reference,
    "search": Search,
}


def require(study: Study, *, row: str | None, column: str | None) -> None:
    """Raise KfbenchError unless a study has a row and a column of these labels, where they are asked for."""
    for word, asked, there in (
        ("row", row, [each.label for each in study.methods]),
        ("column", column, [each.label for each in study.tasks]),
    ):
        if asked is not None and asked not in there:
            raise KfbenchError(f"study '{study.name}' has no {word} '{asked}'; {near(asked, there)}")


def _labelled(study: Study, path: Path) -> Study:
    """Give every row and column its label, spread tasks over networks and training sizes, check all names used."""
    rows = [row if row.label else row.model_copy(update={"label": row.method}) for row in study.methods]
    columns = [spread for task in study.tasks for spread in _spread(study, task)]
    named = {"methods": [row.label for row in rows], "tasks": [column.label for column in columns]}
    named["tables"] = [table.name for table in study.tables]
    taken = next((name for name in named["tables"] if re.fullmatch(OWN_TABLES, name)), None)
    if taken is not None:
        raise KfbenchError(f"'{path}': a table of every page is called '{taken}'; give yours another name")
    hidden = next((label for labels in named.values() for label in labels if label.startswith("_")), None)
    if hidden is not None:
        raise KfbenchError(f"'{path}': label '{hidden}' begins with _, which plots leave out; begin it otherwise")
    for kind, labels in named.items():
        twice = next((n for n, label in enumerate(labels) if label in labels[:n]), None)
        if twice is not None:
            remedy = "give each a name of its own" if kind == "tables" else "give each a 'label'"
            raise KfbenchError(f"'{path}': two {kind} are called '{labels[twice]}'; {remedy}")
    if len(set(study.seeds)) < len(study.seeds):
        raise KfbenchError(f"'{path}', 'seeds': {study.seeds} names one twice; each is a run of its own")
    searched = range(FIRST_SEED, FIRST_SEED + study.search.seeds_per_trial) if study.search else ()
    shared = next((seed for seed in study.seeds if seed in searched), None)
    if shared is not None:
        raise KfbenchError(
            f"'{path}', 'seeds': the search chooses by seed {shared}; runs that are reported need others"
        )
    labelled = study.model_copy(update={"methods": rows, "tasks": columns})
    mentions = _mentions(labelled)
    for n, (where, label, known) in enumerate(mentions):
        if label not in known:
            raise KfbenchError(f"'{path}', {_place(where)}: no row or column '{label}'; {near(label, known)}")
        if (where, label, known) in mentions[:n]:  # a claim would count its runs twice
            raise KfbenchError(f"'{path}', {_place(where)}: '{label}' stands twice; name it once")
    return labelled


def _spread(study: Study, task: Column) -> list[Column]:
    networks: list[str | None] = [task.network] if task.network or not study.networks else [*study.networks]
    is_told = task.train_size or not study.train_sizes
    sizes: list[TrainSize | None] = [task.train_size] if is_told else [*study.train_sizes]
    spread = []
    for network in networks:
        for size in sizes:
            parts = [task.label or task.task]
            parts += [network] if network and len(networks) > 1 else []
            parts += [f"{size if size == 'all' else f'{size:,}'} images"] if size and len(sizes) > 1 else []
            spread.append(task.model_copy(update={"label": ", ".join(parts), "network": network, "train_size": size}))
    return spread


def _mentions(study: Study) -> list[tuple[list[int | str], str, list[str]]]:
    """Return (where, label, labels that would be right) of every mention of a row or column."""
    rows, columns = [row.label for row in study.methods], [column.label for column in study.tasks]
    mentions: list[tuple[list[int | str], str, list[str]]] = []
    if "baseline" in study.model_fields_set:  # else `scratch`, which a study need not have
        mentions.append((["baseline"], study.baseline, rows))
    for n, row in enumerate(study.methods):
        mentions += [(["methods", n, "columns"], label, columns) for label in row.columns]
    for n, table in enumerate(study.tables):
        mentions += [(["tables", n, "rows"], label, rows) for label in table.rows]
        mentions += [(["tables", n, "columns"], label, columns) for label in table.columns]
    for n, claim in enumerate(study.claims):
        used = {"better": claim.better, "than": claim.than, "row": claim.row}
        mentions += [(["claims", n, key], label, rows) for key, label in used.items() if label is not None]
        mentions += [(["claims", n, "on"], label, columns) for label in claim.on]
    for n, reference in enumerate(study.reference):
        mentions += [
            (["reference", n, "row"], reference.row, rows),
            (["reference", n, "column"], reference.column, columns),
        ]
    if study.search is not None and study.search.column:
        mentions.append((["search", "column"], study.search.column, columns))
    return mentions
