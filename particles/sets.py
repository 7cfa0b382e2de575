"""`--data ...` -> an open particle set: rows and pixels, with everybody's role in this run."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from particles.marks import marks_digest, read_marks, with_extra_labels
from particles.packing import pack, pack_key
from particles.pixels import PixelStore
from particles.sources.digits import Digits, Mnist
from particles.sources.flowcam import FlowCam, is_flowcam
from particles.sources.folder import Folder
from particles.sources.icelearning import UM_PER_PX, IceLearning, is_icelearning
from particles.sources.icelearning_csv import PATHS
from particles.sources.source import Source
from particles.sources.synthetic import Synthetic
from particles.splits import assign
from particles.squares import PackSettings
from particles.table import read_parquet
from provenance.errors import UserError
from provenance.files import read_json
from provenance.progress import listed
from provenance.run import RunSettings


@dataclass(frozen=True)
class DataSettings:
    """Which particles, and who plays what."""

    data: str = "synthetic"
    """synthetic, mnist, digits, or a path: a packed set, FlowCam runs, an ICELEARNING tree, a folder of crops."""
    core: str | None = None
    """Another set to search for outliers; its labels, if any, are not used."""
    held_out: tuple[str, ...] = ()
    """Classes kept out of the labeled set: what the core has of them, or else their test particles put into it, is what
    the search should find."""
    extra_labels: Path | None = None
    """CSV of marks from the explorer: particles of the core that have a label there become labeled ones."""
    use_labels: bool = True
    """--no-use-labels hides every label: the whole set is one unlabeled core."""
    data_dir: Path | None = None
    """Where data lies: default $NUNATAK_DATA, else data/."""
    um_per_px: float | None = None
    """Scale of the crops of a folder in µm per px (FlowCam 20x: 0.2752); without it sizes are in px."""
    bit_depth: int = 0
    """Bits that 16-bit crops of a folder hold, such as 12; 0: all 16. 8-bit files are read as they are."""
    flat_field: bool = False
    """FlowCam runs: divide each crop by the run's calibration image, so that the background is even."""
    n_per_class: int = Synthetic.n_per_class
    """Synthetic: labeled particles of each class."""
    n_core: int = Synthetic.n_core
    """Synthetic: particles of the unlabeled core."""
    n_per_kind: int = Synthetic.n_per_kind
    """Synthetic: planted outliers of each kind within the core; 0 for a core without outliers."""
    pack: PackSettings = field(default_factory=PackSettings)
    """How crops become squares."""

    def __post_init__(self) -> None:
        if self.um_per_px is not None and not 0 < self.um_per_px < float("inf"):
            raise UserError(f"--um-per-px {self.um_per_px:g}: give a number above 0, or leave it away for sizes in px")

    @property
    def root(self) -> Path:
        """The resolved data folder."""
        return Path(self.data_dir or os.environ.get("NUNATAK_DATA") or "data").expanduser().resolve()


@dataclass(frozen=True)
class ParticleSet:
    """Rows and pixels of a run. `table.position` says where a row's pixels lie in the store."""

    name: str
    table: pd.DataFrame
    pixels: PixelStore
    fingerprint: str
    folder: Path
    oriented: bool
    squares: dict[str, Any] = field(default_factory=dict)
    """How crops became squares, as far as a network must not see it changed: `fit`, `mean_correction`."""
    scalars: dict[str, Any] = field(default_factory=dict)
    """Who measured the scalars, and whether all are in µm: `scalars_by`, `in_um`."""
    core_folder: Path | None = None
    """The packed folder of `--core`; `folder` is that of `--data`."""

    @property
    def classes(self) -> list[str]:
        """The known classes: the labels of the labeled set, sorted."""
        return sorted(self.table.loc[self.table["role"] == "labeled", "label"].dropna().unique())

    @property
    def classifiable(self) -> bool:
        """Whether a classifier has anything to tell apart."""
        return len(self.classes) > 1

    @property
    def identity(self) -> dict[str, Any]:
        """What run.json keeps of the data."""
        return {
            "name": self.name, "fingerprint": self.fingerprint, "path": str(self.folder), "size": self.pixels.size,
            "squares": self.squares, "scalars": self.scalars,
        }  # fmt: skip

    def positions(self, mask: pd.Series | np.ndarray) -> np.ndarray:
        """Store positions of the rows that a boolean mask over `table` keeps."""
        return self.table.loc[np.asarray(mask, dtype=bool), "position"].to_numpy(dtype=np.int64)

    def training_positions(self, split: str, with_labeled: bool) -> np.ndarray:
        """Store positions that an autoencoder may see in `split`: the true core, and the labeled set if asked."""
        rows = self.table
        return self.positions((rows["split"] == split) & ((rows["role"] == "core") | with_labeled))


def open_set(settings: DataSettings, common: RunSettings, say: Callable[[str], None] = print) -> ParticleSet:
    """Find, pack if need be, and open the particles of a run.

    Args:
        settings: which data.
        common: seed and work folder; packed sets are kept under `<work>/packed/`.
        say: takes one-line messages: what the path was taken for, what was left out.

    Raises:
        UserError: nothing there, nothing usable, or a held-out class that does not exist.
    """
    folders = [packed_folder(settings.data, settings, common, say)]
    if settings.core:
        folders.append(packed_folder(settings.core, settings, common, say, "--core"))
    infos = [read_json(folder / "set.json") for folder in folders]
    if settings.core:
        _refuse_mixture(*infos)
    tables = [read_parquet(folder / "table.parquet") for folder in folders]
    rows = pd.concat(tables, ignore_index=True).assign(position=np.arange(sum(map(len, tables))))
    shards = [
        f / "pixels" / f"{n:05d}.npy" for f, info in zip(folders, infos, strict=True) for n in range(info["shards"])
    ]
    pixels = PixelStore(shards)
    if len(rows) != len(pixels):
        raise UserError(f"{folders[0]}: its table and its pixels differ in length; delete the folder and run again")
    if settings.core:
        rows = _searched(rows, len(tables[0]), pixels, say)
    marks = read_marks(settings.extra_labels) if settings.extra_labels else None
    if settings.extra_labels and marks is not None:
        rows = with_extra_labels(rows, marks, settings.extra_labels)
    if settings.use_labels and not (rows["role"] == "core").any():
        say("no core of its own: the test split of the labeled particles is searched in its place")
    table = assign(rows, settings.held_out, settings.use_labels)
    return ParticleSet(
        name=_run_name(settings, infos),
        table=table,
        pixels=pixels,
        fingerprint=_run_fingerprint(settings, infos, marks),
        folder=folders[0],
        oriented=infos[0]["oriented"],
        squares=squares_of(folders[0]),
        scalars=measured_by(folders[0]),
        core_folder=folders[1] if settings.core else None,
    )


def squares_of(folder: Path) -> dict[str, Any]:
    """How the crops of a packed set became squares: `fit`, `mean_correction`."""
    settings = read_json(folder / "set.json")["settings"]
    return {name: settings[name] for name in ("fit", "mean_correction")}


def measured_by(folder: Path) -> dict[str, Any]:
    """Who measured the scalars of a packed set, and whether all are in µm: `scalars_by`, `in_um`."""
    info = read_json(folder / "set.json")
    return {name: info.get(name) for name in ("scalars_by", "in_um")}


def refuse_other_squares(model: str, learned: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Squares made in another way than those a model has learned from: it would answer, and be wrong.

    Args:
        model: its name, for the message.
        learned: `squares` of what it was trained on; what is not in it (an older run) is not compared.
        given: those of the set to judge.

    Raises:
        UserError: they differ; with the flag that makes them alike.
    """
    for name, value in learned.items():
        if given[name] != value:
            flag = f"--fit {value}" if name == "fit" else "--mean-correction" if value else "--no-mean-correction"
            raise UserError(
                f"{model} learned from a set with {name} = {value}, this one has {given[name]}: give {flag}"
            )


def packed_folder(
    data: str, settings: DataSettings, common: RunSettings, say: Callable[[str], None], flag: str = "--data"
) -> Path:
    """The folder of a packed set: the given one, or one packed now or before from a source.

    Args:
        data: a built-in name or a path.
        settings: how to find and pack it.
        common: seed and work folder.
        say: takes one-line messages.
        flag: where the user gave it, for errors; the labels of `--core` are not used.

    Raises:
        UserError: nothing there, or nothing usable.
    """
    path = Path(data).expanduser()
    if data not in NAMED and (path / "set.json").is_file():
        say(f"data: {path} is a packed set; size, fit and corrections are those it was packed with")
        folder = path.resolve()
    else:
        source = find_source(data, settings, common.seed, say, flag)
        folder = common.made_work() / "packed" / f"{source.name}-{pack_key(source, settings.pack)}"
        if not (folder / "set.json").exists():
            pack(source, folder, settings.pack, say)
    if settings.use_labels and flag == "--data" and (line := folder_labels(folder)):
        say(line)
    return folder


_LABELS_SAID, _TABLES_SAID, _FOLDERS_SAID = 30, 5, 10
"""More names than these make no line that is read."""


def folder_labels(folder: Path) -> str | None:
    """One line that names and counts the labels of a packed set if they were names of subfolders; None of others.

    Nothing but a reader tells a class from a sample, and a core sorted by samples would be learned from as labels.
    """
    if read_json(folder / "set.json").get("source", {}).get("kind") != "folder":
        return None
    counts = read_parquet(folder / "table.parquet", ["label"])["label"].value_counts().sort_index()
    if counts.empty:
        return None
    names = listed([f"{name} ({n})" for name, n in counts.items()], _LABELS_SAID)
    return f"labels from subfolders: {names}; --no-use-labels if these are samples"


NAMED: dict[str, Callable[[DataSettings, int], Source]] = {
    "synthetic": lambda s, seed: Synthetic(seed, s.n_per_class, s.n_core, s.n_per_kind),
    "mnist": lambda s, seed: Mnist(s.root),
    "digits": lambda s, seed: Digits(),
}

DETECTED: tuple[tuple[Callable[[Path], bool], str, Callable[[DataSettings, Path], Source]], ...] = (
    (is_flowcam, "holds FlowCam runs", lambda s, path: FlowCam(path, s.flat_field)),
    (is_icelearning, "is an ICELEARNING tree", lambda s, path: IceLearning(path, s.um_per_px or UM_PER_PX)),
    (lambda path: True, "is a folder of crops", lambda s, path: Folder(path, s.um_per_px, bit_depth=s.bit_depth)),
)
"""What a folder may be, asked in this order."""


def find_source(
    data: str, settings: DataSettings, seed: int, say: Callable[[str], None] = print, flag: str = "--data"
) -> Source:
    """What `--data` means: a built-in name, else a path as given, else a folder below the data root.

    Args:
        data: the name or path.
        settings: where the data root is, and what a source needs to know.
        seed: of the synthetic set.
        say: takes one-line messages: what the path was taken for, and which tables in it are not used.
        flag: where the user gave it, for errors.

    Raises:
        UserError: it is neither, or its settings contradict each other.
    """
    if not data:
        raise UserError(f"{flag} is empty: give a path, or one of {', '.join(NAMED)}")
    if data in NAMED:
        try:
            return NAMED[data](settings, seed)
        except ValueError as error:  # counts that no synthetic set can have
            raise UserError(str(error)) from error
    for path in (Path(data).expanduser(), settings.root / data):
        if path.is_dir():
            what, make = next((what, make) for fits, what, make in DETECTED if fits(path))
            say(f"data: {path} {what}")
            source = make(settings, path.resolve())
            if isinstance(source, Folder) and source.lost_tables:
                say(_unused(source.lost_tables))
            return source
        if path.is_file():
            raise UserError(f"{flag} {data}: is a file; give the folder that it lies in")
    where = "" if Path(data).expanduser().is_absolute() else f"; {_looked_in(settings.root)}"
    raise UserError(f"{flag} {data}: no such folder; built in are {', '.join(NAMED)}{where}")


def _unused(tables: list[str]) -> str:
    """What a user must know of scalars that nothing ties to a crop."""
    return (
        f"scalars NOT used, for no column '{PATHS}' says whose they are: {listed(tables, _TABLES_SAID)}; to use them, "
        f"add that column with each row's image (dust/a.png), then labels come from the tables too"
    )


def _looked_in(root: Path) -> str:
    """Where a name was looked for, and what could have been named there."""
    if not root.is_dir():
        return f"looked in the current folder; {root} is not there (--data-dir or $NUNATAK_DATA names another)"
    found = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    return f"looked in the current folder and in {root} (there: {listed(found, _FOLDERS_SAID) or 'no folder'})"


_COMPARED = {
    "size": "pack both with the same --size",
    "fit": "pack both with the same --fit",
    "mean_correction": "pack both with --mean-correction, or both without",
    "in_um": "give --um-per-px, so that the scalars of both are in µm",
    "scalars_by": "pack both with --no-instrument-scalars, so that the same program measured all of them",
}
"""What two sets must have in common to be compared -> how to get there."""


def _refuse_mixture(data: dict[str, Any], core: dict[str, Any]) -> None:
    """Squares and scalars made in different ways differ for that reason alone."""
    for name, way_out in _COMPARED.items():
        mine, theirs = (info.get(name, info["settings"].get(name)) for info in (data, core))
        if mine != theirs:
            raise UserError(f"--data and --core cannot be compared ({name}: {mine} and {theirs}): {way_out}")


def _searched(rows: pd.DataFrame, n_data: int, pixels: PixelStore, say: Callable[[str], None]) -> pd.DataFrame:
    """The rows of --data, then those of --core without labels and without particles that --data has too."""
    of_core = np.arange(len(rows)) >= n_data
    rows = rows.assign(role=rows["role"].mask(of_core, "core"), label=rows["label"].mask(of_core))
    rows = rows.assign(split=rows["split"].mask(of_core))  # one that its source prescribes is of its labels
    if not rows.loc[of_core, "truth"].isin(rows["label"].dropna()).any():
        rows = rows.assign(truth=rows["truth"].mask(of_core))  # names of folders, not of classes
    again = of_core & rows["particle_id"].duplicated().to_numpy()
    if again.any():
        _refuse_namesakes(rows[rows["particle_id"].isin(rows.loc[again, "particle_id"])], pixels)
        if again.sum() == of_core.sum():  # or the test split of --data would be searched in its place, unasked
            raise UserError(f"--core: all of its {again.sum()} particles are in --data too, nothing is left to search; "
                            "take them out of --data, or leave --core away to search --data alone")  # fmt: skip
        say(f"{again.sum()} particles of --core are in --data too: they are left out of the core")
    return rows[~again].reset_index(drop=True)


_COMPARED_AT_ONCE = 1024
"""Pairs of squares: two times 4 MiB at 64 px, however many particles two sets share."""


def _refuse_namesakes(twice: pd.DataFrame, pixels: PixelStore) -> None:
    """One id for two crops: neither may be left out for the other.

    Crops are one where their sizes and their squares are equal, byte for byte: both sets were packed alike, or
    `_refuse_mixture` would have refused them.

    Args:
        twice: rows of --data, then those of --core with the same ids.
        pixels: where their squares are.

    Raises:
        UserError: an id names two crops.
    """
    pairs = twice.groupby("particle_id").agg(
        mine=("position", "first"), theirs=("position", "last"), widths=("width_px", "nunique"),
        heights=("height_px", "nunique"),
    )  # fmt: skip
    other = ((pairs["widths"] > 1) | (pairs["heights"] > 1)).to_numpy(dtype=bool, copy=True)
    mine, theirs = pairs["mine"].to_numpy(), pairs["theirs"].to_numpy()
    for start in range(0, len(pairs), _COMPARED_AT_ONCE):
        step = slice(start, start + _COMPARED_AT_ONCE)
        other[step] |= (pixels[mine[step]] != pixels[theirs[step]]).any(axis=(1, 2))
    if other.any():
        raise UserError(f"particle_id '{pairs.index[other][0]}' names one crop in --data and another in --core "
                        f"({other.sum()} such ids): rename the files of one")  # fmt: skip


def _run_name(settings: DataSettings, infos: list[dict[str, Any]]) -> str:
    """Folder name for pictures: the set, its core, and what is held out."""
    name = "+".join(info["name"] for info in infos)
    return f"{name}-without-{'-'.join(map(_one_part, settings.held_out))}" if settings.held_out else name


def _one_part(name: str) -> str:
    """A class in the name of a folder and in a fingerprint, both of which `/` takes apart."""
    return name.replace("/", "_")


def _run_fingerprint(settings: DataSettings, infos: list[dict[str, Any]], marks: pd.DataFrame | None) -> str:
    """Runs fit together only if they saw the same pixels in the same roles."""
    parts = [info["fingerprint"] for info in infos]
    if settings.held_out:
        parts.append("held out:" + ",".join(sorted(map(_one_part, settings.held_out))))
    if marks is not None:
        parts.append("labels:" + marks_digest(marks))
    if not settings.use_labels:
        parts.append("unlabeled")
    return "/".join(parts)
