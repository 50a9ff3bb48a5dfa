"""Archives laid out in a folder: zip and tar, archives in archives too, nothing outside of it."""

import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from kfbench.errors import KfbenchError

PIECE = 2**20  # bytes that are read at once
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


def is_tar(path: Path) -> bool:
    """Whether a file is a tar archive, or at least called so."""
    if path.name.lower().endswith(TARS):
        return path.is_file()
    try:
        return path.is_file() and not zipfile.is_zipfile(path) and tarfile.is_tarfile(path)
    except (OSError, EOFError, zlib.error):
        return False


def unpack(path: Path, folder: Path, *, place: Callable[[str], str] = str) -> None:
    """Lay out an archive in a folder, archives in it too; another file is copied there.

    `place` says what a file of that name is to be called below the folder; "": it stays out. Raises KfbenchError if the
    archive is not sound.
    """
    if not os.access(path, os.R_OK):
        raise KfbenchError(f"'{path}' may not be read; change its permissions, or copy it")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if tarfile.is_tarfile(path):
            with tarfile.open(path) as archive:
                for member in archive:
                    if (member.isfile() or member.islnk() or member.issym()) and _leads_to_a_file(archive, member):
                        _lay(member.name, partial(_extracted, archive, member), folder, place)
                while archive.fileobj and archive.fileobj.read(PIECE):
                    pass  # to the end, where gzip's checksum is
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as zipped:
                for info in zipped.infolist():
                    if not info.is_dir():
                        _lay(info.filename, partial(zipped.open, info), folder, place)
        elif is_tar(path):
            raise tarfile.ReadError("not what its name says")
        else:
            _lay(path.name, partial(_opened, path), folder, place)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, NotImplementedError, zlib.error, lzma.LZMAError) as error:
        raise KfbenchError(f"'{path}' is no sound archive ({error}); fetch it again") from error
    except OSError as error:
        if error.errno is not None:
            raise  # the disk's, not gzip's or bzip2's
        raise KfbenchError(f"'{path}' is no sound archive ({error}); fetch it again") from error


def _leads_to_a_file(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bool:
    """Say whether a member is a file or a link to one. Raises TarError for a link to what the archive has not."""
    try:
        return archive.extractfile(member) is not None
    except KeyError as error:
        raise tarfile.TarError(f"'{member.name}' is a link to '{member.linkname}', which is not in it") from error


def _opened(path: Path) -> IO[bytes]:
    return path.open("rb")


def _extracted(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    stream = archive.extractfile(member)
    assert stream is not None  # it is a file
    return stream


def _lay(name: str, opened: Callable[[], IO[bytes]], folder: Path, place: Callable[[str], str]) -> None:
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("..", "/", ".")]
    if not parts or any(part.startswith("._") or part == "__MACOSX" for part in parts):
        return
    inner = "/".join(parts)
    is_archive = inner.lower().endswith(TARS)  # Caltech-101 is archives in an archive
    placed = inner if is_archive else place(inner)
    if not placed:
        return
    target = folder / placed
    target.parent.mkdir(parents=True, exist_ok=True)
    with opened() as stream, target.open("wb") as file:
        shutil.copyfileobj(stream, file)
    if is_archive:
        unpack(target, folder, place=place)
        target.unlink()
