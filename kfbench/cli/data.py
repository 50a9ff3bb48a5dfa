"""`kfbench data list|import|download|delete`: see what data are on this machine, bring more, delete some."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kfbench.cli import complete
from kfbench.cli.commands import group
from kfbench.cli.housekeeping import delete_data
from kfbench.cli.options import AsJson, argument, json_text
from kfbench.errors import KfbenchError

if TYPE_CHECKING:
    from kfbench.data.packs import Pack

NAMED = 12  # classes that are told after an import: wrong folders show

app = group("See what data are on this machine, bring more, delete some.")
app.command("delete")(delete_data)


@app.command("list")
def list_data(as_json: AsJson = False) -> None:
    """List data sets: those packed here, and those that can be had."""
    from kfbench.data import packs, sources

    rows = [_row(name) for name in sources.known()]
    if as_json:
        typer.echo(json_text({"folder": str(packs.data_folder()), "data": rows}))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("data set", "train", "test", "classes", "C×H×W", "from, or how to get it", box=None, pad_edge=False)
    for row in rows:
        if row["here"]:
            shape = "×".join(str(side) for side in row["shape"])
            numbers = (f"{row['train']:,}", f"{row['test']:,}", str(len(row["classes"])), shape)
            table.add_row(row["name"], *numbers, row["source"])
        else:
            table.add_row(row["name"], "", "", "", "", row["remedy"], style="dim")
    Console().print(table)
    typer.echo(f"packed in {packs.data_folder()}")


@app.command("import")
def import_data(
    name: Annotated[
        str, argument(help="Name of the data set; yours are the task imagefolder/NAME.", offers=complete.imports)
    ],
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Folders, zip or tar archives with train/<class>/ and test/<class>/, or <class>/, parts together; "
            "Parquet or .npz files with images; hf:ORG/NAME of the Hugging Face hub; or what a known data set is "
            "published as: kfbench data list."
        ),
    ],
    size: Annotated[str, typer.Option(help="HxW: resize every image to it, for example 32x32.")] = "",
    crop: Annotated[
        bool, typer.Option("--crop", help="With --size: cut the middle out of each image, where else it is stretched.")
    ] = False,
    test: Annotated[
        float | None, typer.Option(help="Share of every class to hold out as test split where there is no test/.")
    ] = None,
    val: Annotated[
        float | None,
        typer.Option(help="Share to hold out as validation split; else val/, or a tenth of train in every run."),
    ] = None,
    labels: Annotated[
        list[Path] | None,
        typer.Option(help="A table, as CSV, of images and their classes, where these do not lie in class folders."),
    ] = None,
    label: Annotated[
        str, typer.Option(help="The column that holds the classes, in --labels or Parquet.", metavar="COLUMN")
    ] = "",
    rgb: Annotated[bool, typer.Option("--rgb", help="Pack grey images as colour: three equal channels.")] = False,
    as_json: AsJson = False,
) -> None:
    """Pack images that lie in class folders or archives of them, or a copy of a published data set.

    Images become 8 bits a channel, grey if all are grey; transparent parts are laid over white; EXIF's orientation is
    applied.
    """
    from kfbench.data import named
    from kfbench.data.decode import Form, size_of
    from kfbench.data.photos import PHOTOS

    if crop and not size:
        raise KfbenchError("--crop needs the size to cut to: --size HxW")
    form = Form(*size_of(size), crop=crop) if size else None
    if name not in PHOTOS:
        named.require_own(name)
    if name in PHOTOS and (labels or label):
        raise KfbenchError(f"'{name}' is packed as published; leave --labels and --label out")
    if named.copy_of(name) and (form or test is not None or val is not None or rgb):
        side = f", at {PHOTOS[name].side}×{PHOTOS[name].side}" if name in PHOTOS else ""
        raise KfbenchError(f"'{name}' is packed as published{side}; leave --size, --test, --val and --rgb out")
    named.require_paths(name, [*paths, *(labels or ())])

    from kfbench.data.importing import import_images  # torch
    from kfbench.data.originals import ORIGINALS, import_originals
    from kfbench.data.published import import_published

    older = _older(name)
    if name in PHOTOS:
        pack = import_published(name, paths, quiet=as_json)
    elif name in ORIGINALS and (original := import_originals(name, paths, quiet=as_json)) is not None:
        pack = original
    else:
        pack = import_images(
            name,
            paths,
            form=form,
            test=test,
            val=val,
            rgb=rgb,
            tables=labels or (),
            column=label,
            quiet=as_json,
            say=lambda line: typer.echo(line, err=True),
        )
    if older is not None and older.checksum != pack.checksum:
        train, tested = older.counts["train"], older.counts["test"]
        typer.echo(f"in place of an older '{name}' of {train:,} training and {tested:,} test images", err=True)
    _tell(pack, as_json)


def _older(name: str) -> "Pack | None":
    from kfbench.data import packs

    try:
        return packs.open_pack(packs.data_folder() / name) if name in packs.packed() else None
    except KfbenchError:
        return None  # damaged: the new one mends it


@app.command("download")
def download_data(
    name: Annotated[
        str, argument(help="A published data set: kfbench data list shows which.", offers=complete.downloads)
    ],
    as_json: AsJson = False,
) -> None:
    """Download a published data set, check it and pack it."""
    from kfbench.data import named

    named.require_download(name)
    from kfbench.data.sources import download  # torch

    _tell(download(name), as_json)


def _row(name: str) -> dict[str, Any]:
    """Tell what is known of a data set: its facts if it is packed and sound, else what to type."""
    from kfbench.data import packs, sources

    if name not in packs.packed():
        return {"name": name, "here": False, "remedy": sources.remedy(name)}
    try:
        return {"name": name, "here": True, **_facts(sources.find(name))}
    except KfbenchError as error:
        return {"name": name, "here": False, "remedy": str(error)}


def _facts(pack: "Pack") -> dict[str, Any]:
    return {
        "train": pack.counts["train"],
        "test": pack.counts["test"],
        "val": pack.counts.get("val", 0),
        "classes": list(pack.classes),
        "shape": list(pack.shape),
        "source": pack.source,
        "checksum": pack.checksum,
        "folder": str(pack.folder),
    }


def _tell(pack: "Pack", as_json: bool) -> None:
    if as_json:
        typer.echo(json_text({"name": pack.name, **_facts(pack)}))
        return
    shape = "×".join(str(side) for side in pack.shape)
    own = f", {pack.counts['val']:,} validation" if pack.has_val else ""
    typer.echo(
        f"{pack.name}: {pack.counts['train']:,} training{own} and {pack.counts['test']:,} test images, {shape}, "
        f"{len(pack.classes)} classes, sha256 {pack.checksum[:12]}…, in {pack.folder}"
    )
    shown = [repr(name) if "," in name else name for name in pack.classes[:NAMED]]
    typer.echo(f"classes: {', '.join(shown)}{', …' if len(pack.classes) > NAMED else ''}")
