"""The particle table: one row a particle, its schema, its validation, Parquet in and out."""

from pathlib import Path

import pandas as pd

from particles.scalars import SCALARS
from provenance.errors import UserError
from provenance.files import replacing

TEXT, WHOLE, REAL = "string", "Int64", "Float64"

# What a source says of a particle, in this order.
ROW_COLUMNS = {
    "particle_id": TEXT,  # unique, e.g. GRIP_3046_0_20_1_1081
    "image": TEXT,  # path or key that the source reads the crop by
    "label": TEXT,  # what the user knows
    "truth": TEXT,  # what is true; for judging only, no model sees it
    "role": TEXT,  # labeled or core
    "split": TEXT,  # train, val, test where the source prescribes it
    "sample": TEXT,  # the run or section of a core that the particle was imaged in
    "volume_ml": REAL,  # mL of fluid imaged for that sample
    "core": TEXT,
    "bag": WHOLE,
    "top_cm": REAL,
    "bottom_cm": REAL,
    "repeat": WHOLE,
    "um_per_px": REAL,
}
REJECT = {"reject": TEXT}  # a source may say here why a row cannot be used
# What packing measures on the crop.
MEASURED_COLUMNS = {
    "width_px": WHOLE,
    "height_px": WHOLE,
    "scale": REAL,  # packed px per crop px
    "background": REAL,  # grey level 0-255
    **dict.fromkeys(SCALARS, "Float64"),
}
ROLES = ("labeled", "core")


def empty_rows(n: int) -> pd.DataFrame:
    """A table of `n` rows with every row column missing, for a source to fill in."""
    return pd.DataFrame({name: pd.array([pd.NA] * n, dtype=kind) for name, kind in ROW_COLUMNS.items()})


def rejected_rows(ids: list[str], images: list[str], reasons: list[str], role: str) -> pd.DataFrame:
    """Rows that are listed in `rejected.csv` and nowhere else, each with its reason."""
    return empty_rows(len(ids)).assign(particle_id=ids, image=images, role=role, reject=reasons)


def validated(rows: pd.DataFrame, where: str) -> pd.DataFrame:
    """Rows in the schema's order and types.

    Args:
        rows: what a source gave.
        where: named in errors.

    Raises:
        UserError: no rows, a missing column, a missing or duplicate id, an unknown role.
    """
    if rows.empty:
        raise UserError(f"{where}: no particles found; give a folder with PNG, JPEG, TIFF or BMP crops")
    missing = [name for name in ROW_COLUMNS if name not in rows.columns]
    if missing:
        raise UserError(f"{where}: the table lacks the column(s) {', '.join(missing)}")
    known = {name: kind for name, kind in (ROW_COLUMNS | REJECT | MEASURED_COLUMNS).items() if name in rows}
    rows = rows[list(known)].astype(known)
    usable = rows[rows["reject"].isna()] if "reject" in rows else rows
    if usable["particle_id"].isna().any():
        raise UserError(f"{where}: row {int(usable['particle_id'].isna().idxmax())} has no particle_id")
    refuse_duplicates(usable, where)
    unknown = set(rows["role"].dropna()) - set(ROLES)
    if unknown or rows["role"].isna().any():
        raise UserError(f"{where}: role must be one of {', '.join(ROLES)}, not {sorted(unknown) or 'missing'}")
    return rows.reset_index(drop=True)


def refuse_duplicates(rows: pd.DataFrame, where: str) -> None:
    """Raise a UserError that names the first id that stands twice in `rows`, with its images."""
    ids = rows["particle_id"]
    if ids.duplicated().any():
        twice = ids[ids.duplicated()].iloc[0]
        images = ", ".join(rows.loc[ids == twice, "image"].astype(str).head(2))
        raise UserError(f"{where}: particle_id '{twice}' stands twice ({images}); rename or remove one")


def write_parquet(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame as Parquet, whole or not at all."""
    with replacing(path) as beside:
        frame.to_parquet(beside, index=False)


def read_parquet(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """Read a Parquet file of this project, or some columns of it.

    Raises:
        UserError: the file is missing or cut.
    """
    try:
        return pd.read_parquet(path, columns=columns)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as Parquet ({error}); delete its folder and run again") from error
