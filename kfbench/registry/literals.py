"""What a file of a method or task says of itself in literals, read by `ast`: nothing is imported."""

import ast
from typing import Any


def of_method(tree: ast.Module) -> dict[str, Any]:
    """Return {"attributes", "settings"}: what the method's class has without and with a type; code as it is written."""
    attributes: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    for top in tree.body:
        if not isinstance(top, ast.ClassDef) or "Method" not in [ast.unparse(base) for base in top.bases]:
            continue
        for node in top.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
                inside = attributes if "ClassVar" in ast.unparse(node.annotation) else settings
                inside[node.target.id] = _literal(node.value)
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                attributes[node.targets[0].id] = _literal(node.value)
    return {"attributes": attributes, "settings": settings}


def of_task(tree: ast.Module) -> dict[str, Any]:
    """Return the arguments of `TASK = ImageTask(…)`; code as it is written."""
    found = _task(tree)
    return {} if found is None else {word.arg: _literal(word.value) for word in found.keywords if word.arg}


def lines_of_task(tree: ast.Module) -> dict[str, int]:
    """Return {"": the line of TASK, argument: its line, "/VARIANT": its line}; empty if there is no TASK."""
    if (found := _task(tree)) is None:
        return {}
    lines = {"": found.lineno} | {word.arg: word.value.lineno for word in found.keywords if word.arg}
    written = next((word.value for word in found.keywords if word.arg == "variants"), None)
    keys = written.keys if isinstance(written, ast.Dict) else []
    return lines | {f"/{key.value!s}": key.lineno for key in keys if isinstance(key, ast.Constant)}


def _task(tree: ast.Module) -> ast.Call | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "TASK" and isinstance(node.value, ast.Call):
            return node.value
    return None


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)
