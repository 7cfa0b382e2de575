"""Tables that people open in a spreadsheet: CSV whose texts compute nothing, and the list of the strangest."""

from pathlib import Path

import pandas as pd

from particles.sets import ParticleSet
from provenance.files import replacing

LISTED = 1000
"""Particles in outliers.csv; more than anybody looks at, and opened by any spreadsheet."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_OF_RANKING = ("score", "p_value", "known_as_strange", "discovery", "reasons", "found_in")
_OF_TABLE = (
    "label", "truth", "is_outlier", "sample", "core", "bag", "top_cm", "bottom_cm", "repeat", "um_per_px", "width_px",
    "height_px", "Diameter (ESD)", "Area (ABD)",
)  # fmt: skip


def write_list(particles: ParticleSet, ranked: pd.DataFrame, predicted: pd.Series, folder: Path) -> Path:
    """The strangest of a consensus, a row each, into `folder`/outliers.csv.

    Args:
        particles: the set, for files, samples, depths and sizes.
        ranked: the consensus.
        predicted: the classifier's word by id; empty where there is none.
        folder: of the pictures.

    Returns:
        The file: `rank`, `particle_id`, `image` (the crop's file, as its source names it), p-values and reasons,
        `predicted`, and what the table says; no empty columns.
    """
    first = ranked.nsmallest(LISTED, "rank").reset_index(drop=True)
    ids = first["particle_id"]
    table = particles.table.set_index("particle_id").reindex(ids).reset_index()
    rows = pd.DataFrame({"rank": first["rank"], "particle_id": ids, "image": table["image"]})
    rows = rows.join(first[[name for name in _OF_RANKING if name in first]])
    if len(predicted):
        rows["predicted"] = predicted.reindex(ids).to_numpy()
    rows = rows.join(table[[name for name in _OF_TABLE if name in table]])
    return write_spreadsheet(rows.dropna(axis="columns", how="all"), folder / "outliers.csv", digits=6)


def write_spreadsheet(rows: pd.DataFrame, path: Path, digits: int | None = None) -> Path:
    """Write CSV, whole or not at all; ids and names cannot become formulas.

    Args:
        rows: what to write.
        path: where.
        digits: to which numbers are rounded for people to read; all of them for programs.
    """
    texts = [name for name in rows if isinstance(rows[name].dtype, pd.StringDtype) or rows[name].dtype == object]
    safe = {name: rows[name].map(_harmless, na_action="ignore") for name in texts}
    with replacing(path) as beside:
        rows.assign(**safe).to_csv(beside, index=False, float_format=None if digits is None else f"%.{digits}g")
    return path


def _harmless(value: object) -> object:
    """Text that a spreadsheet would compute gets a quote before it, as OWASP advises."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
