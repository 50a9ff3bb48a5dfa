"""`kfbench new method|task|network|study NAME`: a commented file in the right place, valid at once."""

import keyword
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from kfbench.cli import methods_page, templates
from kfbench.cli.commands import group
from kfbench.cli.options import argument, option
from kfbench.errors import KfbenchError
from kfbench.folders import PACKAGE, files, folders
from kfbench.running.files import write_text

app = group("Start a method, a task, a network or a study.")
TEXTS = {"methods": templates.METHOD, "tasks": templates.TASK, "networks": templates.NETWORK}
Name = Annotated[str, argument(help="Its name, and that of its file.")]
Folder = Annotated[Path | None, option("--folder", help="Where the file goes; none: your folder, else the checkout's.")]


@app.command("method")
def new_method(name: Name, folder: Folder = None) -> None:
    """Write a method that passes `kfbench check`.

    Without --folder it goes to the folder in $KFBENCH_METHODS, else to methods/ of the checkout, whose page of methods
    then says of it.
    """
    path = write("methods", name, folder, taken=_taken("methods"))
    if methods_page.is_stale():
        methods_page.refresh()
        typer.echo(f"{methods_page.place()} is written anew", err=True)
    typer.echo(f"{path}\nnext: kfbench check {_typed('methods', path)}")


@app.command("task")
def new_task(
    name: Name,
    data: Annotated[str, option("--data", help="The data set it is of: see kfbench data list.")] = "digits",
    folder: Folder = None,
) -> None:
    """Write a task of images, which runs at once.

    Without --folder it goes to the folder in $KFBENCH_TASKS, else to tasks/ of the checkout.
    """
    path = write("tasks", name, folder, taken=_taken("tasks"), dataset=data)
    here = _first_line("tasks", path)
    typer.echo(f"{path}\nnext: {here}kfbench run --method scratch --task {name} --budget smoke")


@app.command("network")
def new_network(name: Name, folder: Folder = None) -> None:
    """Write a network that passes `kfbench check`.

    Without --folder it goes to the folder in $KFBENCH_NETWORKS, else to kfbench/networks/ of the checkout.
    """
    from kfbench import networks

    path = write("networks", name, folder, taken=[*files("networks"), *([name] if networks.is_name(name) else [])])
    here = _first_line("networks", path)
    typer.echo(f"{path}\nnext: {here}kfbench check {name}, and --network {name}")


@app.command("study")
def new_study(
    name: Annotated[str, argument(help="Its name, and that of its folder.")],
    folder: Annotated[Path, option("--folder", help="Where its folder goes.")] = Path("reports"),
) -> None:
    """Write a study that runs at once: reports/NAME/study.toml."""
    if not name or not set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_"):
        raise KfbenchError(f"'{name}' cannot be a study's name; use small letters, digits, - and _")
    place = folder / name
    path = _put(place / "study.toml", templates.STUDY.format(name=name, folder=place))
    typer.echo(f"{path}\nnext: kfbench study {place} --dry-run")


def write(kind: str, name: str, folder: Path | None, *, taken: Iterable[str] = (), **words: str) -> Path:
    """Write the template of a kind as `<folder>/<name>.py`, by default at home. Raises KfbenchError if it cannot be."""
    if not name.isidentifier() or keyword.iskeyword(name) or name != name.lower():
        raise KfbenchError(f"'{name}' cannot be a {kind[:-1]}'s name; use small letters, digits and underscores")
    if name in taken:
        raise KfbenchError(f"the name '{name}' is taken among the {kind}; choose another name")
    title = "".join(part.title() for part in name.split("_"))
    return _put((folder or home(kind)) / f"{name}.py", TEXTS[kind].format(name=name, title=title, **words))


def home(kind: str) -> Path:
    """Return the user's first folder of a kind, else ours in a checkout; never an installed package's.

    Raises KfbenchError where there is neither.
    """
    ours = PACKAGE / "networks" if kind == "networks" else PACKAGE.parent / kind
    theirs = [folder for folder in folders(kind) if Path(folder) not in (ours, PACKAGE / kind)]
    if theirs:
        return Path(theirs[0])
    if not (PACKAGE.parent / "methods").is_dir() or {"site-packages", "dist-packages"} & set(PACKAGE.parts):
        variable = f"KFBENCH_{kind.upper()}"
        raise KfbenchError(f"no folder of {kind} of your own; type: export {variable}=~/{kind}, or give --folder")
    return ours


def _taken(kind: str) -> list[str]:
    from kfbench import registry

    return registry.names(kind)


def _put(path: Path, text: str) -> Path:
    if path.exists():
        raise KfbenchError(f"'{path}' exists already; choose another name")
    try:
        write_text(path, text)
    except OSError as error:
        raise KfbenchError(f"cannot write '{path}' ({error.strerror}); give a folder with --folder") from error
    return path


def _typed(kind: str, path: Path) -> str:
    """Return what names a new file: its name where it is found, else its path."""
    return path.stem if str(path.parent.resolve()) in folders(kind) else str(path)


def _first_line(kind: str, path: Path) -> str:
    """Return what must be typed first where a new file's folder is not looked through."""
    is_found = str(path.parent.resolve()) in folders(kind)
    return "" if is_found else f"export KFBENCH_{kind.upper()}={path.parent}; "
