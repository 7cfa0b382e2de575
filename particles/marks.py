"""What a person has marked in the explorer: stars and labels by particle id, as its CSV export holds them."""

import csv
import hashlib
from pathlib import Path

import pandas as pd

from provenance.errors import UserError

COLUMNS = ("particle_id", "star", "label")
LONGEST_LABEL = 200
"""Characters; longer ones are no names of classes."""


def read_marks(path: Path) -> pd.DataFrame:
    """Read an export of the explorer, or a CSV written by hand with its first three columns.

    Args:
        path: CSV with the columns `particle_id`, `star` (1 or nothing), `label` (text or nothing), in any order; others
            are left alone.

    Returns:
        `particle_id`, `star` (bool), `label` (text, missing where there is none), in the order of the file.

    Raises:
        UserError: no such file, no CSV, a column missing, an id missing or twice, a label that is too long.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            separator = max(",;\t", key=file.readline().count)  # a spreadsheet's own may be another than ours
            file.seek(0)
            rows = list(csv.DictReader(file, strict=True, delimiter=separator))
            names = rows[0].keys() if rows else ()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as CSV ({error}); export it from the explorer again") from error
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise UserError(f"{path}: no rows with the column(s) {', '.join(missing)}; export it from the explorer again")
    seen: dict[str, int] = {}
    for line, row in enumerate(rows, start=2):
        _check(path, line, row, seen)
    labels = pd.array([(row["label"] or "").strip() or None for row in rows], dtype="string")
    stars = [(row["star"] or "").strip().lower() in ("1", "true", "yes") for row in rows]
    return pd.DataFrame({"particle_id": pd.array(list(seen), dtype="string"), "star": stars, "label": labels})


def _check(path: Path, line: int, row: dict[str, str], seen: dict[str, int]) -> None:
    name = row["particle_id"]
    if not name:
        raise UserError(f"{path}: row {line} has no particle_id")
    if name in seen:
        raise UserError(f"{path}: particle_id '{name}' stands in rows {seen[name]} and {line}; remove one")
    if len(row["label"] or "") > LONGEST_LABEL:
        raise UserError(f"{path}: row {line}, column label: longer than {LONGEST_LABEL} characters")
    seen[name] = line


def with_extra_labels(table: pd.DataFrame, marks: pd.DataFrame, where: Path) -> pd.DataFrame:
    """The rows of a set in which marked particles have become labeled ones.

    Args:
        table: rows of a packed set.
        marks: of `read_marks`; those with a label count.
        where: the marks' file, for errors.

    Returns:
        The rows, in their order, with a column `marked`: whether the label is one of these. What is true of a particle
        (`truth`), where it is known, stays as it is.

    Raises:
        UserError: a labeled mark is no particle of the set.
    """
    labels = marks.dropna(subset=["label"]).set_index("particle_id")["label"]
    unknown = labels.index.difference(table["particle_id"])
    if len(unknown):
        raise UserError(f"{where}: particle_id '{unknown[0]}' is not in this set ({len(unknown)} such rows)")
    named = table["particle_id"].map(labels).astype("string")
    known = named.notna()
    role = table["role"].mask(known, "labeled")
    # what a person labels is there to be learned from; picked because it is strange, it may judge nothing
    split = table["split"].mask(known, "train")
    return table.assign(label=table["label"].mask(known, named), role=role, split=split, marked=known)


def marks_digest(marks: pd.DataFrame) -> str:
    """Short digest of the labels given: models trained with other labels are other models."""
    text = marks.dropna(subset=["label"]).sort_values("particle_id")[["particle_id", "label"]].to_csv(index=False)
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
