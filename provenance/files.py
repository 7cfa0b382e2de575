"""Writing files so that a reader never sees half of one."""

import errno
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from provenance.errors import UserError


def made(folder: Path, flag: str) -> Path:
    """The folder that a user gave to write into, made where it is not there.

    Args:
        folder: its path.
        flag: where the user gave it, for errors.

    Raises:
        UserError: it cannot be made, or not be written into.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        reason = "is a file" if folder.is_file() else f"cannot be made or written into ({error.strerror})"
        raise UserError(f"{flag} {folder}: {reason}; give another folder") from error
    return folder


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a name beside `path` to write to; rename it over `path` only if the block succeeds.

    The temporary name keeps the suffix, because writers such as matplotlib choose the format by it. A part of it is
    random: on a file system that several machines share, a process number does not tell two writers apart.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all; NaN is refused because JSON has none."""
    with replacing(path) as beside:
        beside.write_text(json.dumps(value, indent=2, allow_nan=False, default=str) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file written by `write_json`.

    Raises:
        UserError: it is not JSON; a file of ours is written whole or not at all, so somebody changed it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); delete its folder and run again") from error
