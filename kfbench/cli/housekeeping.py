"""Commands that delete: `clean`, `delete`, `data delete`, `teacher delete`. They say what would go, and ask."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kfbench.cli import complete, options
from kfbench.cli.options import DEFAULT_RESULTS, argument, ask, option, tell
from kfbench.errors import KfbenchError

if TYPE_CHECKING:
    from kfbench.running.housekeeping import Doomed

AsAsked = Annotated[
    bool, option("--json", help="Print JSON; it does not ask: with --yes it deletes, else it says what would go.")
]


def clean(
    kinds: Annotated[
        list[str] | None,
        argument(help="checkpoints, memory, logs, status, leftovers; none: all of these.", offers=complete.piles),
    ] = None,
    results: options.Results = DEFAULT_RESULTS,
    yes: options.Yes = False,
    as_json: AsAsked = False,
) -> None:
    """Delete what can be made again; asks first.

    Records, weights, teachers and studies' databases stay.
    """
    from kfbench.running import housekeeping

    piles = [pile for pile in housekeeping.piles(results, kinds or ()) if pile.paths]
    bags = housekeeping.jobs(results)
    if as_json:
        if yes:
            housekeeping.remove(path for pile in piles for path in pile.paths)
        rows = [{"kind": pile.name, "paths": _texts(pile.paths), "bytes": pile.size} for pile in piles]
        tell({"deleted": yes, "piles": rows, "left_alone": _texts(bags)}, "", as_json=True)
        return
    if bags:
        typer.echo(
            f"left alone: {len(bags)} runs in '{bags[0].parent}' that SLURM may have, and what they need; the same "
            "kfbench study --on slurm finds them. A run whose job is gone for good: delete its file 'job'"
        )
    if not piles:
        typer.echo(f"nothing to clean in '{results}'")
        return
    for pile in piles:
        typer.echo(f"{housekeeping.spoken_size(pile.size):>9}  {pile.name}: {pile.about}")
    total = housekeeping.spoken_size(sum(pile.size for pile in piles))
    ask(f"delete {total}?", yes=yes)
    piles = housekeeping.piles(results, kinds or ())  # a run may have begun while the question stood
    housekeeping.remove(path for pile in piles for path in pile.paths)
    typer.echo(f"deleted {total}")


def delete(
    key: options.Key,
    results: options.Records = DEFAULT_RESULTS,
    force: Annotated[bool, option("--force", help="Also if other runs were made with it as teacher.")] = False,
    yes: options.Yes = False,
    as_json: AsAsked = False,
) -> None:
    """Delete a recorded run and its weights; asks first.

    A run or teacher that other runs learned from stays, unless --force says otherwise.
    """
    from kfbench.running import housekeeping

    run = housekeeping.doomed(results, key)
    _delete(run, f"run '{run.name}' taught", {"key": run.name}, force=force, yes=yes, as_json=as_json)


def delete_teacher(
    name: Annotated[
        str,
        argument(help="imported:NAME, TASK[/network][@budget], or a key: kfbench teacher list.", offers=complete.store),
    ],
    results: options.Results = DEFAULT_RESULTS,
    force: Annotated[bool, option("--force", help="Also if runs learned from it.")] = False,
    yes: options.Yes = False,
    as_json: AsAsked = False,
) -> None:
    """Delete a teacher of the store; asks first.

    One that recorded runs learned from stays, unless --force says otherwise.
    """
    from kfbench.running import housekeeping

    teacher = housekeeping.doomed_teacher(results, name)
    told = {"name": teacher.name}
    _delete(teacher, f"teacher '{teacher.name}' taught", told, force=force, yes=yes, as_json=as_json)


def delete_data(
    name: Annotated[str, argument(help="A data set that is packed here: kfbench data list.", offers=complete.packs)],
    results: Annotated[
        Path, option("--results", help="Folder of records in which runs that need the data are looked for.")
    ] = DEFAULT_RESULTS,
    force: Annotated[bool, option("--force", help="Also if recorded runs learned from it.")] = False,
    yes: options.Yes = False,
    as_json: AsAsked = False,
) -> None:
    """Delete a packed data set; asks first.

    What it was imported from stays, and so does a data set that recorded runs learned from, unless --force says
    otherwise.
    """
    from kfbench.running import housekeeping

    data = housekeeping.doomed_data(results, name)
    if not results.is_dir():
        typer.echo(f"note: no folder '{results}' in which to look for runs of it; name yours with --results", err=True)
    _delete(data, f"data set '{name}' taught", {"name": name}, force=force, yes=yes, as_json=as_json)


def _delete(found: "Doomed", taught: str, told: dict[str, str], *, force: bool, yes: bool, as_json: bool) -> None:
    from kfbench.running import housekeeping

    if found.pupils and not force:
        first, others = found.pupils[0], len(found.pupils) - 1
        more = f" and {others} more" if others else ""
        raise KfbenchError(
            f"{taught} '{first.key}' ({first.spec['method']} on {first.spec['task']}){more}, "
            "which could not be verified without it; give --force to delete it all the same"
        )
    sizes = {path: housekeeping.size_of(path) for path in found.paths}
    if as_json:
        if yes:
            housekeeping.remove(found.paths)
        rows = [{"path": str(path), "bytes": size} for path, size in sizes.items()]
        tell({"deleted": yes, **told, "files": rows}, "", as_json=True)
        return
    typer.echo(found.about)
    for path, size in sizes.items():
        typer.echo(f"{housekeeping.spoken_size(size):>9}  {path}")
    ask("delete it?", yes=yes)
    housekeeping.remove(found.paths)
    typer.echo(f"deleted '{found.name}'")


def _texts(paths: Iterable[Path]) -> list[str]:
    return [str(path) for path in paths]
