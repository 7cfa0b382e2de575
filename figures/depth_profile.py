"""Down the core: what share each class has in each water sample, with counting errors, and which repeats disagree."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from figures.depth_chart import draw_profile, sample_names
from figures.finished import pictures_folder
from particles.profile import (
    COLUMNS,
    COVERAGE,
    UNCLASSIFIED,
    Counts,
    Tally,
    class_table,
    sample_table,
    share_interval,
)
from particles.repeats import compare_repeats, offender_lines
from particles.sets import DataSettings, open_set, packed_folder
from particles.table import read_parquet, write_parquet
from provenance.errors import UserError
from provenance.files import read_json, replacing
from provenance.progress import show_table
from provenance.run import Run, RunSettings, find
from provenance.settings import entry

BATCH_ROWS = 65_536
NOTHING_CLASSIFIED = "none, nothing has classified it"


@dataclass(frozen=True)
class Settings:
    """Draw classes, concentrations and outliers down the core."""

    data: DataSettings = field(default_factory=DataSettings)
    """Which particles."""
    latent: str = "classifier"
    """Whose word the classes are: classifier (the newest finished run on this data, without one the labels), or
    classifier/<id>."""
    predictions: str | None = None
    """Take classes and samples from a run that classified a core: predictions (the newest; of the data that --data or
    --core names, where they do) or predictions/<id>."""
    top: int = 100
    """The first so many of the consensus ranking count as outliers."""
    group: tuple[str, ...] = ("tephra=camp+grim", "pollen=corylus+qrob+qsub")
    """Classes that share a panel: NAME=CLASS+CLASS; the tables keep them apart."""
    level: float = 0.05
    """Chance of even one false alarm among all tests of repeats."""
    common: RunSettings = field(default_factory=RunSettings)
    """Seed and folders."""


@dataclass(frozen=True)
class Input:
    """Rows to count, and what is said of them."""

    name: str
    """Of the set."""
    counted: str
    """Fingerprint of the set, by which its folder of pictures is known."""
    fingerprint: str
    """Of the data that a search of these rows has ranked."""
    classes: str
    """Where the classes are from, for the picture."""
    frames: Iterator[pd.DataFrame]
    """With `particle_id`, `class`, and the columns that say where a particle is from."""


def main(settings: Settings) -> None:
    """Draw classes, concentrations and outliers down the core, with counting errors; name repeats that disagree."""
    groups = parse_groups(settings.group)
    if settings.top < 1 or not 0 < settings.level < 1:
        raise UserError("--top must be at least 1, and --level between 0 and 1")
    given = _of_predictions(settings) if settings.predictions else _of_set(settings)
    flagged, ranking = _flagged(settings, given.fingerprint)
    tally = Tally()
    for frame in given.frames:
        tally.add(frame if flagged is None else frame.assign(outlier=flagged.reindex(frame["particle_id"]).array))
    counts = tally.counts()
    repeats = compare_repeats(counts, settings.level, settings.common.seed)
    folder = pictures_folder(settings.common.work, given.name, given.counted)
    for name, table in {"classes": class_table(counts), "samples": sample_table(counts), "repeats": repeats}.items():
        _write_table(table, folder / f"profile-{name}")
    _show(counts.merged(groups))
    print("\n".join(offender_lines(repeats)) or "no repeats disagree by more than counting allows")
    if tally.left_out:
        print(f"{tally.left_out:,} particles left out: nothing says which sample they are from")
    classes = NOTHING_CLASSIFIED if counts.classes == [UNCLASSIFIED] else given.classes
    note = f"Classes: {classes}. Outliers: {ranking}."
    print(f"picture: {draw_profile(counts, repeats, groups, folder / 'profile.png', given.name, note)}")


def parse_groups(given: tuple[str, ...]) -> dict[str, str]:
    """`("tephra=camp+grim",)` -> {"camp": "tephra", "grim": "tephra"}.

    Raises:
        UserError: one is not written so, or a class stands in two.
    """
    groups: dict[str, str] = {}
    for text in given:
        name, _, classes = text.partition("=")
        for found in classes.split("+"):
            if not name or not found or found in groups:
                raise UserError(f"--group {text}: write NAME=CLASS+CLASS, each class once")
            groups[found] = name
    return groups


def read_frames(path: Path, columns: tuple[str, ...], where: str = "") -> Iterator[pd.DataFrame]:
    """The columns that a Parquet file has of those asked for, some rows at a time.

    Args:
        path: the file.
        columns: their names.
        where: keep only rows whose `role` is this.

    Raises:
        UserError: the file is missing or cut.
    """
    try:
        with pq.ParquetFile(path) as file:
            wanted = [name for name in (*columns, *(["role"] if where else [])) if name in file.schema_arrow.names]
            for batch in file.iter_batches(BATCH_ROWS, columns=wanted):
                frame = pa.Table.from_batches([batch]).to_pandas()
                yield frame[(frame["role"] == where).fillna(False).to_numpy(dtype=bool)] if where else frame
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read as Parquet ({error}); delete its folder and run again") from error


def _of_predictions(settings: Settings) -> Input:
    """Rows that a run has classified; without --data and --core the newest, whatever it classified."""
    named = (settings.data.data, settings.data.core) != (DataSettings().data, None)
    _, folder, ranked = _opened(settings) if named else ("", None, None)
    classified = read_json(folder / "set.json") if folder else None
    run = find(str(settings.predictions), settings.common.work, "predictions.parquet", classified)
    path, data = run.path / "predictions.parquet", run.info["data"]
    if "predicted" not in pq.read_schema(path).names:
        raise UserError(f"{path}: has no column predicted; give a run that classified particles")
    frames = (f.rename(columns={"predicted": "class"}) for f in read_frames(path, (*COLUMNS, "predicted")))
    name, counted = str(data["name"]), str(data["fingerprint"])
    return Input(name, counted, ranked or counted, f"predicted in {run.name}", frames)


def _of_set(settings: Settings) -> Input:
    """The core of a set, or all of a set that has only labels, with the classifier's word or the labels.

    Of --core every row is counted, because every row is searched, and its labels are not used.
    """
    name, folder, fingerprint = _opened(settings)
    path, alone = folder / "table.parquet", settings.data.core is None
    has_core = alone and any((frame["role"] == "core").any() for frame in read_frames(path, ("role",)))
    role = "core" if has_core else ""
    run = _classifier(settings, fingerprint)
    if run is None:
        labels = ("label",) if alone else ()
        frames = (f.rename(columns={"label": "class"}) for f in read_frames(path, (*COLUMNS, *labels), role))
        return Input(name, fingerprint, fingerprint, "labels" if alone else NOTHING_CLASSIFIED, frames)
    if "predicted" not in pq.read_schema(run.path / "index.parquet").names:
        raise UserError(f"--latent {settings.latent}: {run.name} says of no particle what it is; give a classifier")
    index = read_parquet(run.path / "index.parquet")
    predicted = index.set_index("particle_id")["predicted"].astype("category")
    frames = (
        f.assign(**{"class": predicted.reindex(f["particle_id"]).array}) for f in read_frames(path, COLUMNS, role)
    )
    return Input(name, fingerprint, fingerprint, f"predicted by {run.name}", frames)


def _opened(settings: Settings) -> tuple[str, Path, str]:
    """Name, the packed folder whose rows are counted, and the fingerprint that runs on this data have."""
    data = settings.data
    if data.core is None and not data.held_out and data.use_labels and not data.extra_labels:
        folder = packed_folder(data.data, data, settings.common, print)  # need not be read whole
        info = read_json(folder / "set.json")
        return str(info["name"]), folder, str(info["fingerprint"])
    particles = open_set(data, settings.common)
    if data.core is None:
        return particles.name, particles.folder, particles.fingerprint
    core = open_set(replace(data, data=data.core, core=None, held_out=(), use_labels=False), settings.common)
    return particles.name, core.folder, particles.fingerprint


def _classifier(settings: Settings, fingerprint: str) -> Run | None:
    try:
        return find(settings.latent, settings.common.work, "index.parquet", {"fingerprint": fingerprint})
    except UserError:
        if settings.latent != "classifier":  # a run that is named must be there
            raise
        return None


def _flagged(settings: Settings, fingerprint: str) -> tuple[pd.Series | None, str]:
    """Who was ranked (ids) and whether among the first, and how the picture says it; None where nothing is ranked."""
    try:
        run = find("consensus", settings.common.work, "outliers.parquet", {"fingerprint": fingerprint})
    except UserError:
        return None, "this data has not been ranked"
    ranked = pq.read_table(run.path / "outliers.parquet", columns=["particle_id", "rank"]).to_pandas()
    first = (ranked.set_index("particle_id")["rank"] <= settings.top).astype("boolean")
    return first, f"the first {first.sum():,} of {len(first):,} ranked ({run.name}), a cut and not a test"


def _write_table(table: pd.DataFrame, stem: Path) -> None:
    write_parquet(table, stem.with_name(f"{stem.name}.parquet"))
    with replacing(stem.with_name(f"{stem.name}.csv")) as beside:
        table.to_csv(beside, index=False)


def _show(counts: Counts) -> None:
    """The table in the terminal: percent of each class, with half the width of its 68 % interval."""
    low, high = share_interval(counts.n, counts.total[:, None], COVERAGE["68"])
    share, half = 100 * counts.n / counts.total[:, None], 50 * (high - low)
    columns: dict[str, list[object]] = {"sample": [*_short_names(counts)], "n": counts.total.tolist()}
    for place, name in enumerate(counts.classes if counts.classes != [UNCLASSIFIED] else []):
        columns[name] = [f"{s:.1f}±{h:.1f}" for s, h in zip(share[:, place], half[:, place], strict=True)]
    if counts.samples["volume_ml"].notna().any():
        per_ml = counts.total / counts.volume_ml
        columns["per mL"] = [None if np.isnan(value) else f"{value:,.0f}" for value in per_ml]
    if counts.judged.any():
        columns["outliers"] = counts.outliers.sum(axis=1).tolist()
    rows = zip(*columns.values(), strict=True)
    said = "" if counts.classes == [UNCLASSIFIED] else ": % of each class ± half of the 68 % interval"
    show_table(f"Down the core{said}", list(columns), rows)


def _short_names(counts: Counts) -> list[str]:
    """Bag, depth and repeat, for a narrow terminal; without a depth the sample's name."""
    rows = zip(counts.samples.to_dict("records"), sample_names(counts), strict=True)
    return [
        name if pd.isna(r["top_cm"]) else f"{r['bag']} {r['top_cm']:g}-{r['bottom_cm']:g} #{r['repeat']}"
        for r, name in rows
    ]


if __name__ == "__main__":
    entry(Settings, main)
