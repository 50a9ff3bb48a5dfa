"""Write the generated parts of the pages anew, between their markers: `python docs/_write.py`.

Keys of a study and fields of a record come from the code; tables of results, here and in the README, from the reports.
"""

import ast
import inspect
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pydantic import BaseModel

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
    written = source.splitlines()
    fields = []
    for node in ast.parse(source).body[0].body:  # type: ignore[attr-defined]
        if not isinstance(node, ast.AnnAssign) or ast.unparse(node.target) == "name" and model is definition.Study:
            continue
        rest = written[(node.end_lineno or 0) - 1][node.end_col_offset or 0 :].partition("#")[2].strip()
        above = written[node.lineno - 2].strip()
        note = rest or (above.removeprefix("# ") if above.startswith("# ") else "")
        default = "required" if node.value is None else f"`{ast.unparse(node.value)}`"
        fields.append(
            (ast.unparse(node.target), _kind(ast.unparse(node.annotation)), default, note.replace("|", r"\|"))
        )
    return fields


def _kind(annotation: str) -> str:
    """Return a type as a reader of TOML says it."""
    if annotation.startswith("Literal"):
        return ", ".join(re.findall(r"'([^']*)'", annotation))
    said = {"dict": "table", "list": "list", "Teachers": "list, or a list for each need", "bool": "true or false"}
    said |= {"str": "text", "int": "whole number", "float": "number", "Search": "true or a table"}
    first = re.sub(r"^Annotated\[", "", annotation)
    return next((word for name, word in said.items() if first.startswith(name)), annotation)


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
