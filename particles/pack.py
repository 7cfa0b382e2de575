"""Pack a source into a folder: `python -m particles.pack --data PATH --out DIR`."""

from dataclasses import dataclass, field
from pathlib import Path

from particles.packing import pack
from particles.sets import DataSettings, find_source, folder_labels
from provenance.errors import UserError
from provenance.files import made
from provenance.run import RunSettings
from provenance.settings import changed_flags, entry


@dataclass(frozen=True)
class Settings:
    """Pack a source of particles once, to use it many times with --data DIR."""

    out: Path
    """Folder for table.parquet, pixels/, rejected.csv."""
    data: DataSettings = field(default_factory=DataSettings)
    """Which particles."""
    common: RunSettings = field(default_factory=RunSettings)
    """Seed and folders."""


_LATER = "give it to the training and the search, beside --data DIR"
_BELONGS = {
    "--core": "pack it by itself, then give both folders to the search, --data DIR --core OTHER",
    "--held-out": _LATER,
    "--extra-labels": _LATER,
    "--no-use-labels": _LATER,
}
"""Flags of who plays what, which a packed set does not hold -> where they belong."""


def main(settings: Settings) -> None:
    """Pack a source of particles once, to use it many times with --data DIR."""
    for flag in changed_flags(settings.data):
        if flag in _BELONGS:
            raise UserError(f"{flag}: packing takes one set as it is; {_BELONGS[flag]}")
    source = find_source(settings.data.data, settings.data, settings.common.seed)
    made(settings.out, "--out")
    pack(source, settings.out, settings.data.pack, say=print)
    if line := folder_labels(settings.out):
        print(line)
    print(settings.out)


if __name__ == "__main__":
    entry(Settings, main)
