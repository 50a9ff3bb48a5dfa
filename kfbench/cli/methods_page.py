"""The page `docs/methods.md`, written from the method files: `python -m kfbench.cli.methods_page` renews it."""

import ast
import re
from pathlib import Path
from typing import Any

from kfbench import registry
from kfbench.cli.fields import fields
from kfbench.folders import PACKAGE
from kfbench.running.files import write_text

INTRO = """# Methods

One file in `methods/` is one method; this page is written from those files, by `kfbench new method` or
`python -m kfbench.cli.methods_page`; `kfbench check` says when it is stale. A setting is changed with
`--set name=value`. A comment that begins with `choice:`, or ends with `choice`, marks a default that no source gives.
"""
NEEDS = {
    "nothing": "",
    "features": "may be any network, of any classes: only its features are read",
    "outputs": "must have the student's classes or actions",
    "architecture": "must be the student's network",
}


def page() -> str:
    """Return the whole page as Markdown."""
    described = {name: registry.describe("methods", name) for name in sorted(_ours())}
    return "\n".join([INTRO, *_overview(described), *(_section(name, row) for name, row in described.items())])


def has(name: str) -> bool:
    """Say whether the page tells of a method, `name` or `name/variant`; "" stands for all."""
    return not name or registry.split(name)[0] in _ours()


def _ours() -> list[str]:
    files = registry.files("methods")
    return [name for name, path in files.items() if path.parent == files["scratch"].parent]  # not the user's


def _overview(described: dict[str, dict[str, Any]]) -> list[str]:
    lines = ["| method | for | teachers | keeps at inference |", "|---|---|---|---|"]
    for name, row in described.items():
        attributes = row["attributes"]
        kinds = " and ".join(attributes.get("kinds", ("images", "games")))
        lines.append(f"| [`{name}`](#{name}) | {kinds} | {_teachers(attributes)} | {_kept(attributes)} |")
    return [*lines, ""]


def _teachers(attributes: dict[str, Any]) -> str:
    fewest, most = attributes.get("teachers", (0, 0))
    if most == 0:
        return "none"
    return f"{fewest} or more" if most is None else str(fewest) if fewest == most else f"{fewest} to {most}"


def _kept(attributes: dict[str, Any]) -> str:
    return "more than the student's network" if attributes.get("keeps_teachers") else "the student's network"


def _section(name: str, row: dict[str, Any]) -> str:
    source = Path(row["file"]).read_text(encoding="utf-8")
    tree = ast.parse(source)
    attributes = row["attributes"]
    lines = [f"## {name}", "", about(ast.get_docstring(tree) or ""), ""]
    if needs := attributes.get("of_teachers") or NEEDS[attributes.get("needs", "nothing")]:
        twin = ", and by default has the student's network" if attributes.get("teacher_is_twin") else ""
        lines += [f"Teachers: {_teachers(attributes)}. Each {needs}{twin}.", ""]
    if attributes.get("starts_from_teacher"):
        lines += ["The student starts from its teacher's weights.", ""]
    if why := attributes.get("above_floor"):
        lines += [f"A step costs more than the networks' passes: {why}.", ""]
    variants = attributes.get("variants", {})
    for variant, changes in variants.items():
        shown = ", ".join(f"{key}={value}" for key, value in changes.items()) or "the defaults"
        own = attributes.get("variant_search", {}).get(variant)
        searched = "" if own is None else f"; searched: {', '.join(own) or 'nothing'}"
        lines.append(f"- `{name}/{variant}`: {shown}{searched}")
    lines += [""] if variants else []
    if settings := _settings(tree, source):
        lines += ["| setting | default | meaning | searched |", "|---|---|---|---|"]
        for key, default, note in settings:
            usual = {optimizer: f"`{own[key]}`" for optimizer, own in _own(attributes, "by_optimizer", key)}
            ranges = {optimizer: _space(own[key]) for optimizer, own in _own(attributes, "search_by_optimizer", key)}
            searched = _or(_space(attributes.get("search", {}).get(key)), ranges)
            lines.append(f"| `{key}` | {_or(default, usual)} | {note} | {searched} |")
        lines.append("")
    return "\n".join(lines)


def about(docstring: str) -> str:
    """Return a docstring as Markdown: indented lines stay as they are, "Source:" and "Differs:" start paragraphs."""
    text = re.sub(r"^(Source|Differs):", r"\n**\1:**", docstring, flags=re.MULTILINE)
    lines = [line.strip() for line in text.replace("||", r"\|\|").replace("*", r"\*").splitlines()]
    return "\n".join(lines).replace(r"\*\*Source:\*\*", "**Source:**").replace(r"\*\*Differs:\*\*", "**Differs:**")


def _settings(tree: ast.Module, source: str) -> list[tuple[str, str, str]]:
    """Return (name, default, comment) of each field of the method's class."""
    return [
        (field.name, f"`{field.default}`", field.note.replace("|", r"\|"))
        for top in tree.body
        if isinstance(top, ast.ClassDef) and "Method" in [ast.unparse(base) for base in top.bases]
        for field in fields(top, source)
        if field.default is not None
    ]


def _own(attributes: dict[str, Any], name: str, key: str) -> list[tuple[str, dict[str, Any]]]:
    """Return (optimizer, what differs with it) where a setting is among what differs."""
    return [(optimizer, own) for optimizer, own in attributes.get(name, {}).items() if key in own]


def _or(usual: str, others: dict[str, str]) -> str:
    return "; ".join([usual, *(f"with {optimizer} {other}" for optimizer, other in others.items())])


def _space(space: dict[str, Any] | None) -> str:
    if space is None:
        return ""
    if "choices" in space:
        return ", ".join(str(choice) for choice in space["choices"])
    return f"{space['low']:g} to {space['high']:g}" + (", log" if space.get("log") else "")


def place() -> Path | None:
    """Return where the page lies in the checkout that is used; None if kfbench is installed without one."""
    path = PACKAGE.parent / "docs" / "methods.md"
    return path if path.is_file() and (PACKAGE.parent / "methods").is_dir() else None


def is_stale() -> bool:
    """Tell whether the checkout's page differs from what the files say."""
    path = place()
    return path is not None and path.read_text(encoding="utf-8") != page()


def refresh() -> None:
    """Write the checkout's page anew, if there is one."""
    if path := place():
        write_text(path, page())


if __name__ == "__main__":
    refresh()
