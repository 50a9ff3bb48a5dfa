"""The fields of a dataclass or a schema as its file writes them, for lists and pages: read by `ast`, nothing is run."""

import ast
from typing import NamedTuple


class Field(NamedTuple):
    """A field with the comment that stands behind it, or on the line above."""

    name: str
    annotation: str
    default: str | None  # as it is written; None: it has none
    note: str


def fields(node: ast.ClassDef, source: str) -> list[Field]:
    """Return the fields of a class in a file with this text; class attributes (`ClassVar`) are none."""
    lines, found = source.splitlines(), []
    for field in node.body:
        if not isinstance(field, ast.AnnAssign) or "ClassVar" in ast.unparse(field.annotation):
            continue
        behind = lines[(field.end_lineno or field.lineno) - 1].encode()[field.end_col_offset or 0 :].decode()
        above = lines[field.lineno - 2].strip()
        note = behind.partition("#")[2].strip() or (above.removeprefix("# ") if above.startswith("# ") else "")
        default = None if field.value is None else ast.unparse(field.value)
        found.append(Field(ast.unparse(field.target), ast.unparse(field.annotation), default, note))
    return found
