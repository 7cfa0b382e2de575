"""Fetch a published data set: `python -m particles.download icelearning --out DIR`."""

import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Literal

import pooch
import requests
import tyro
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import Progress

from particles.record import RemoteFile, Resuming, connect, list_files, note_of, size_of
from provenance.errors import UserError
from provenance.files import made
from provenance.progress import progress as progress_bar
from provenance.progress import show_table
from provenance.settings import entry

RECORDS = {"icelearning": 7591282}
"""Zenodo's number of each data set; doi:10.5281/zenodo.<number>."""
MARK = ".extracted"
"""Holds the checksum of the archive that a folder was extracted from."""
BLOCK = 4096
"""A small file takes a whole block: three million crops need far more disk than bytes."""


@dataclass(frozen=True)
class Settings:
    """Fetch a published data set; a broken or stopped download goes on when run again."""

    record: tyro.conf.Positional[Literal["icelearning"]]
    """Which data set."""
    out: Path | None = None
    """Folder for the files; x.zip is extracted into x/ there."""
    only: tuple[str, ...] = ()
    """Only the files that match one of these patterns, for example --only '*.csv' 'test*'."""
    extract: bool = True
    """Extract zip archives; an archive that is extracted may be deleted and is not fetched again."""
    list: bool = False
    """Show the files and their sizes, and fetch nothing."""
    api: str = "https://zenodo.org/api/records"
    """Where records are looked up."""


def main(settings: Settings) -> None:
    """Fetch a published data set; a broken or stopped download goes on when run again."""
    session = connect()
    listed = list_files(session, f"{settings.api.rstrip('/')}/{RECORDS[settings.record]}")
    files = chosen(listed, settings.only)
    if settings.list:
        total = decimal(sum(file.size for file in files))
        rows = [(escape(file.name), decimal(file.size), file.checksum) for file in files]
        show_table(f"{settings.record}: {len(files)} files, {total}", ("file", "size", "checksum"), rows)
        return
    if settings.out is None:
        raise UserError("say where the files go: --out DIR, or --list to see them first")
    out = made(settings.out.expanduser().resolve(), "--out")
    fetch(session, files, out, settings.extract)
    print(out)


def chosen(files: Sequence[RemoteFile], patterns: Sequence[str]) -> Sequence[RemoteFile]:
    """The files whose name matches a pattern; all of them without patterns."""
    for pattern in patterns:
        if not any(fnmatch(file.name, pattern) for file in files):
            names = ", ".join(file.name for file in files)
            raise UserError(f"--only {pattern}: no file of the record has such a name; it holds {names}")
    return [file for file in files if not patterns or any(fnmatch(file.name, pattern) for pattern in patterns)]


def fetch(session: requests.Session, files: Sequence[RemoteFile], out: Path, extract: bool) -> None:
    """Bring `files` to the folder `out`, each verified by its checksum, and extract the archives.

    Raises:
        UserError: too little disk, a broken line, a wrong checksum, an archive that cannot be trusted, or something
            else in `out` under a name of the record's.
    """
    todo = [file for file in files if not (extract and _is_extracted(file, out))]
    archives = [file for file in todo if extract and _is_archive(file)]
    missing = [file for file in todo if not _is_here(file, out)]
    _refuse_full_disk(missing, archives, out)
    with progress_bar() as progress:
        for file in missing:
            _bring(session, file, out, progress)
    for file in archives:
        unzip(out / file.name, _folder(file, out), file.checksum)


def _bring(session: requests.Session, file: RemoteFile, out: Path, progress: Progress) -> None:
    part = _part(file, out)
    # The bar counts in whole numbers: megabytes can be read, bytes cannot.
    bar = progress.add_task(f"{escape(file.name)}, MB", total=file.size / 1e6)

    def report(size: int) -> None:
        progress.update(bar, completed=size / 1e6)

    report(size_of(part))
    Resuming(session, file, report)(file.url, part)
    found = _checksum(part, file)
    if found != file.checksum:
        part.unlink()
        raise UserError(
            f"{file.name}: expected {file.checksum}, found {found}: damaged on the way and removed; run again to fetch "
            "this file anew"
        )
    os.replace(part, out / file.name)
    note_of(part).unlink(missing_ok=True)


def _part(file: RemoteFile, out: Path) -> Path:
    return out / f"{file.name}.part"


def _folder(file: RemoteFile, out: Path) -> Path:
    return out / Path(file.name).stem


def _is_archive(file: RemoteFile) -> bool:
    return file.name.lower().endswith(".zip")


def _checksum(path: Path, file: RemoteFile) -> str:
    algorithm = file.checksum.partition(":")[0]
    return f"{algorithm}:{pooch.file_hash(str(path), alg=algorithm)}"


def _is_extracted(file: RemoteFile, out: Path) -> bool:
    """Whether this very archive has been extracted into `out` before, whole."""
    folder = _folder(file, out)
    if not _is_archive(file) or not os.path.lexists(folder):
        return False
    mark = folder / MARK
    if not folder.is_symlink() and mark.is_file() and mark.read_text(encoding="utf-8") == file.checksum:
        return True
    raise UserError(f"{folder}: is in the way of {file.name}, not extracted from it; move it or give --no-extract")


def _is_here(file: RemoteFile, out: Path) -> bool:
    path, part = out / file.name, _part(file, out)
    for link in (path, part, note_of(part)):
        if link.is_symlink():
            raise UserError(f"{link}: is a link, which is not written through; delete it or choose another --out")
    if not path.exists():
        return False
    if size_of(path) == file.size and _checksum(path, file) == file.checksum:
        return True
    raise UserError(f"{path}: differs from the record's file of that name ({file.checksum}); move or delete it")


def _refuse_full_disk(missing: Sequence[RemoteFile], archives: Sequence[RemoteFile], out: Path) -> None:
    rest = sum(max(0, file.size - size_of(_part(file, out))) for file in missing)
    need, free = rest + sum(file.size for file in archives), shutil.disk_usage(out).free
    if need > free:
        raise UserError(
            f"{out}: {decimal(need)} needed ({decimal(rest)} to fetch, the rest to extract), {decimal(free)} free; "
            "free space, choose another --out, or fetch less with --only or --no-extract"
        )


def unzip(archive: Path, folder: Path, checksum: str) -> None:
    """Extract a zip archive into a new folder, whole or not at all.

    Raises:
        UserError: the archive is damaged, names a path outside the folder, holds a link, or needs more than the disk.
    """
    beside = folder.with_name(f".{folder.name}.extracting")
    if beside.exists():  # left by a run that was killed
        shutil.rmtree(beside)
    try:
        with zipfile.ZipFile(archive) as opened, progress_bar() as progress:
            _refuse_unsafe(archive, opened.infolist())
            beside.mkdir()
            for member in progress.track(opened.infolist(), description=f"extracting {escape(archive.name)}"):
                opened.extract(member, beside)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise UserError(f"{archive}: does not extract ({error}); give --no-extract and use another unzip") from error
    (beside / MARK).write_text(checksum, encoding="utf-8")
    os.replace(beside, folder)


def _refuse_unsafe(archive: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    """No name that leads out of the folder, nothing but files and folders, no more than the disk holds."""
    for member in members:
        path, kind = PurePosixPath(member.filename), stat.S_IFMT(member.external_attr >> 16)
        outside = path.is_absolute() or ".." in path.parts or "\\" in member.filename
        if outside or kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            what = "it leads out of the folder" if outside else "it is a link or a device"
            raise UserError(f"{archive}: refuses {member.filename!r}: {what}; nothing is extracted")
    need = sum(-(-member.file_size // BLOCK) * BLOCK for member in members)
    free = shutil.disk_usage(archive.parent).free
    if need > free:
        raise UserError(f"{archive}: {decimal(need)} needed to extract it, {decimal(free)} free; free space, run again")


if __name__ == "__main__":
    entry(Settings, main)
