"""`kfbench check`: whether methods, tasks and networks keep the rules."""

from collections.abc import Iterator
from typing import Annotated

import typer

from kfbench.cli import complete, methods_page
from kfbench.cli.options import AsJson, argument, tell
from kfbench.errors import KfbenchError, near

Row = tuple[str, str, str | None]  # of what, which rule, how it is broken


def check(
    name: Annotated[
        str | None,
        argument(
            help="A method, a task, a network, or the path of a method's file; none: all.", offers=complete.checked
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check that methods, tasks and networks keep the rules.

    Frozen teachers, finite losses, resume to the bit, a task's data and variants, …
    """
    if name is not None and not name.strip():
        raise KfbenchError(f"'{name}' names no method, task or network; leave it out for all of them")
    rows: list[Row] = []
    said = None  # of the last rule that was broken: a file that fails at once fails every rule alike
    for row in _rows(name or ""):
        of, rule, broken = row
        rows.append(row)
        why = "" if broken is None else ": as above" if broken == said else f": {broken}"
        said = broken or said
        if not as_json:
            typer.echo(f"{'ok    ' if broken is None else 'BROKEN'}  {of}: {rule}{why}")
    if as_json:
        tell([{"of": of, "rule": rule, "broken": broken} for of, rule, broken in rows], "", as_json=True)
    is_broken = any(broken for _, _, broken in rows)
    if not is_broken and methods_page.has(name or "") and methods_page.is_stale():
        place, remedy = methods_page.place(), "python -m kfbench.cli.methods_page"
        typer.echo(f"note: '{place}' is not what the method files say, which fails a test; type: {remedy}", err=True)
    if name and not is_broken and (unseen := _unseen(name)):
        typer.echo(f"note: {unseen}", err=True)
    if is_broken:
        raise typer.Exit(1)


def _unseen(name: str) -> str:
    """Return what was not looked at of a task; "" nothing, or it is no task."""
    from kfbench import registry
    from kfbench.conformance import checks

    return checks.not_fetched(name) if registry.split(name)[0] in registry.names("tasks") else ""


def _rows(name: str) -> Iterator[Row]:
    """Yield what each check finds. Raises KfbenchError if there is nothing of this name."""
    from kfbench import networks, registry
    from kfbench.networks.family import families

    methods, tasks = registry.names("methods"), registry.names("tasks")
    files = [family.file for family in families()]
    stem, _ = registry.split(name)
    if stem.endswith(".py") or stem in methods:
        registry.require("methods", name)
    elif name and stem not in [*tasks, *files] and not networks.is_name(name):
        there = [*methods, *tasks, *files, *networks.names()]
        raise KfbenchError(f"no method, task or network '{name}'; {near(name, there)}")
    import torch  # takes seconds: nobody is to wait for being told of a mistyped name

    from kfbench.conformance import checks
    from kfbench.conformance.networks import check_network

    torch.set_num_threads(1)
    for each in [name] if name else [*methods, *tasks, *files]:
        own, _ = registry.split(each)
        if own in tasks:
            yield from checks.check_task(each)
        elif own in methods or own.endswith(".py"):
            yield from checks.check_method(each)
        else:
            yield from check_network(each)
