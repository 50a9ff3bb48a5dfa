"""Write the generated parts of the pages anew, between their markers: `python docs/_write.py`.

Fields of recipes and records and keys of a study come from the code; tables of results, here and in the README, from
the reports.
"""

import ast
import inspect
import itertools
import json
import re
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import cast

from pydantic import BaseModel

from kfbench import registry
from kfbench.cli import recipe
from kfbench.cli.fields import fields
from kfbench.running import budgets
from kfbench.running.records import RunRecord
from kfbench.studies import definition

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PARTS = {
    "the file": definition.Study,
    "a row, in `methods`": definition.Row,
    "a column, in `tasks`": definition.Column,
    "`[[tables]]`": definition.Table,
    "`[[claims]]`": definition.Claim,
    "`[[reference]]`": definition.Reference,
    "`[search]`": definition.Search,
}


def study_keys() -> str:
    """Return a table of keys for each part of a study, from the schema's classes."""
    lines: list[str] = []
    for title, model in PARTS.items():
        lines += [f"### {title[0].upper()}{title[1:]}", "", "| key | values | default | meaning |", "|---|---|---|---|"]
        lines += [f"| `{key}` | {kind} | {default} | {note} |" for key, kind, default, note in _fields(model)]
        lines.append("")
    return "\n".join(lines)


def _fields(model: type[BaseModel]) -> list[tuple[str, str, str, str]]:
    """Return (key, kind of value, default, comment) of each field of a schema's class that a user writes."""
    source = inspect.getsource(model)
    return [
        (
            field.name,
            _kind(field.annotation),
            "required" if field.default is None else f"`{field.default}`",
            field.note.replace("|", r"\|"),
        )
        for field in fields(cast(ast.ClassDef, ast.parse(source).body[0]), source)
        if not field.name.startswith("_")
    ]


def _kind(annotation: str) -> str:
    """Return a type as a reader of TOML says it."""
    if annotation.startswith("Literal"):
        return ", ".join(re.findall(r"'([^']*)'", annotation))
    said = {
        "dict": "table",
        "list": "list",
        "Names": "list",
        "Teachers": "list, or a list for each need",
        "TrainSize": 'whole number, or "all"',
        "bool": "true or false",
    }
    said |= {"str": "text", "int": "whole number", "float": "number", "Search": "true or a table"}
    first = re.sub(r"^Annotated\[", "", annotation)
    return next((word for name, word in said.items() if first.startswith(name)), annotation)


def recipe_fields() -> str:
    """Return a table of the recipe's fields for each kind of task."""
    lines: list[str] = []
    for kind, rows in itertools.groupby(recipe.rows(), key=lambda row: row["kind"]):
        lines += [f"### {kind.capitalize()}", "", "| field | values | default | meaning |", "|---|---|---|---|"]
        lines += [f"| `{row['name']}` | {row['values']} | {row['default']} | {row['about']} |" for row in rows]
        lines.append("")
    return "\n".join(lines)


def budget_fields() -> str:
    """Return what the budgets give on two tasks, where it is not the default of the field."""
    lines: list[str] = []
    for name in ("cifar100", "atari/krull"):
        task = registry.load_task(name)
        given = {budget: asdict(budgets.recipe(task, budget)) for budget in budgets.BUDGETS}
        networks = {budget: budgets.teacher_network(task, budget) for budget in budgets.BUDGETS}
        lines += [f"### {name}", "", f"| field | {' | '.join(budgets.BUDGETS)} |", "|---|" + "---|" * len(given)]
        plain = asdict(task.kind.recipe())  # type: ignore[call-arg]
        changed = [field for field in plain if any(each[field] != plain[field] for each in given.values())]
        for field in changed:
            lines.append(f"| `{field}` | {' | '.join(recipe.shown(each[field]) for each in given.values())} |")
        lines += [f"| network of a default teacher | {' | '.join(networks.values())} |", ""]
    return "\n".join(lines)


def record_fields() -> str:
    """Return the fields of a record as a table, and its JSON Schema."""
    schema = RunRecord.model_json_schema()
    lines = ["| field | is |", "|---|---|"]
    lines += [
        f"| `{name}` | {field.get('description', field.get('title', ''))} |"
        for name, field in schema["properties"].items()
    ]
    return "\n".join(
        [
            *lines,
            "",
            '??? note "JSON Schema"',
            "",
            "    ```json",
            *(f"    {line}" for line in json.dumps(schema, indent=1).splitlines()),
            "    ```",
            "",
        ]
    )


def table_of(study: str) -> str:
    """Return the first table of a study's page, without its footnotes."""
    lines = (ROOT / "reports" / study / "README.md").read_text(encoding="utf-8").splitlines()
    first = next(number for number, line in enumerate(lines) if number > lines.index("## Tables") and line[:1] == "|")
    end = next(number for number, line in enumerate(lines) if number > first and line[:1] != "|")
    return re.sub(r"\[\^[^]]*\]", "", "\n".join(lines[first:end]))


def _tables() -> dict[tuple[str, str], Callable[[], str]]:
    """Return what writes the tables of results that pages have, by page and study."""
    return {
        (page, study): partial(table_of, study)
        for page in ("../README.md", "results.md")
        for study in re.findall(r"^<!-- ([a-z0-9-]+) -->$", (HERE / page).read_text(encoding="utf-8"), re.MULTILINE)
    }


GENERATED: dict[tuple[str, str], Callable[[], str]] = {
    ("recipe.md", "fields"): lambda: f"\n{recipe_fields()}",
    ("recipe.md", "budgets"): lambda: f"\n{budget_fields()}",
    ("studies.md", "keys"): lambda: f"\n{study_keys()}",
    ("records.md", "fields"): lambda: f"\n{record_fields()}",
    **_tables(),
}


def current(page: str, marker: str) -> tuple[str, str]:
    """Return a page as it is and as it should be."""
    text = (HERE / page).read_text(encoding="utf-8")
    start, end = f"<!-- {marker} -->\n", f"<!-- /{marker} -->"
    before, rest = text.split(start)
    return text, f"{before}{start}{GENERATED[page, marker]()}\n{end}{rest.split(end)[1]}"


if __name__ == "__main__":
    for page, marker in GENERATED:
        (HERE / page).write_text(current(page, marker)[1], encoding="utf-8", newline="\n")
