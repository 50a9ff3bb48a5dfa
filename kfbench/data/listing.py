"""A user's folder, zip or tar archive as a list of files: links followed, circles not, a system's own told apart."""

import io
import os
import tempfile
import weakref
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from kfbench.data.decode import BYTES
from kfbench.data.unpacking import is_tar, unpack
from kfbench.errors import KfbenchError

PIECE = 2**20  # bytes that are unpacked at once


class Listed(NamedTuple):
    """A file or folder; `read` gives a file's content."""

    name: str  # with slashes, below what was given
    is_folder: bool
    read: Callable[[], bytes]


def is_hidden(name: str) -> bool:
    """Whether a file or a folder above it is a system's own: .DS_Store, __MACOSX, Thumbs.db."""
    parts = PurePosixPath(name).parts
    return any(part.startswith((".", "__MACOSX")) for part in parts) or parts[-1:] in (("Thumbs.db",), ("desktop.ini",))


def is_system(name: str) -> bool:
    """Whether a hidden file is macOS's copy of what it knows of another: ._cat.png, or below __MACOSX."""
    return any(part.startswith(("._", "__MACOSX")) for part in PurePosixPath(name).parts)


def listed(path: Path, room: Path) -> Iterator[Listed]:
    """List what is in a folder or archive; a tar, whose files cannot be read out of order, is unpacked below `room`.

    Raises KfbenchError for a path that is neither, or not sound.
    """
    if path.is_dir():
        yield from _in_folder(path, "", ())
    elif is_tar(path):
        folder = Path(tempfile.mkdtemp(dir=room))
        unpack(path, folder)
        yield from _in_folder(folder, "", ())
    elif path.is_file():
        yield from _in_zip(path)
    else:
        raise KfbenchError(f"no file or folder '{path}'")


def _in_folder(folder: Path, before: str, above: tuple[tuple[int, int], ...]) -> Iterator[Listed]:
    """Walk a folder, links too, but for one that leads back to a folder above it."""
    try:
        state = folder.stat()
        with os.scandir(folder) as there:
            children = sorted((child.name, child.is_dir()) for child in there)
    except OSError as error:
        raise KfbenchError(
            f"cannot look into '{error.filename or folder}' ({error.strerror}); mend or remove it"
        ) from error
    here = (state.st_dev, state.st_ino)
    if here in above:
        return
    for child, is_folder in children:
        name, file = before + child, folder / child
        if is_folder:
            yield Listed(name, True, bytes)
            if not is_hidden(child):
                yield from _in_folder(file, f"{name}/", (*above, here))
        else:
            yield Listed(name, False, partial(_bounded, partial(_opened, file)))


def _opened(file: Path) -> IO[bytes]:
    return file.open("rb")


def _in_zip(path: Path) -> Iterator[Listed]:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        if isinstance(error, zipfile.BadZipFile) and not _is_meant_as_zip(path):
            raise KfbenchError(
                f"'{path}' is neither a folder nor a zip or tar archive; unpack it if it is another archive, lay "
                "images into class folders, and give the folder that holds those"
            ) from error
        raise KfbenchError(f"'{path}' is no sound zip archive ({error}); fetch or make it again") from error
    # else the collector, which takes what stands in a circle in any order, may find it before its archive, and warn
    if archive.fp is not None:
        weakref.finalize(archive, archive.fp.close)
    for info in archive.infolist():
        name = _decoded_name(info).replace("\\", "/")  # as some programs of Windows write it
        yield Listed(name, name.endswith("/"), partial(_bounded, partial(archive.open, info)))


def _is_meant_as_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return path.suffix.lower() == ".zip" or file.read(2) == b"PK"


def _decoded_name(info: zipfile.ZipInfo) -> str:
    """Return a member's name; many programs write UTF-8 without the flag that says so."""
    if info.flag_bits & 0x800:
        return info.filename
    try:
        return info.filename.encode("cp437").decode()
    except UnicodeError:
        return info.filename


def _bounded(opened: Callable[[], IO[bytes]]) -> bytes:
    """Read a file to its end in pieces. Raises ValueError once it goes past BYTES, whatever its header says."""
    content = io.BytesIO()
    with opened() as stream:
        while piece := stream.read(PIECE):
            content.write(piece)
            if content.tell() > BYTES:
                raise ValueError(f"it unpacks to more than the {BYTES >> 20} MiB that an image file may have")
    return content.getvalue()
