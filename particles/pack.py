"""Pack a source into a folder: `python -m particles.pack --data PATH --out DIR`."""

from dataclasses import dataclass, field
from pathlib import Path

from particles.packing import pack
from particles.sets import DataSettings, find_source
from provenance.run import RunSettings
from provenance.settings import entry


@dataclass(frozen=True)
class Settings:
    """Pack a source of particles once, to use it many times with --data DIR."""

    out: Path
    """Folder for table.parquet, pixels/, rejected.csv."""
    data: DataSettings = field(default_factory=DataSettings)
    """Which particles."""
    common: RunSettings = field(default_factory=RunSettings)
    """Seed and folders."""


def main(settings: Settings) -> None:
    """Pack a source of particles once, to use it many times with --data DIR."""
    source = find_source(settings.data.data, settings.data, settings.common.seed)
    pack(source, settings.out, settings.data.pack, say=print)
    print(settings.out)


if __name__ == "__main__":
    entry(Settings, main)
