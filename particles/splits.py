"""Who is what in a run: labeled or core, train, val or test, known or held out."""

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd

from provenance.errors import UserError

TEST_SHARE = 0.2
VAL_SHARE = 0.1
SMALLEST_CLASS = 5
"""Below this a class cannot be in train, val and test, and a classifier cannot be judged on it."""


def hash_share(ids: Sequence[str], salt: str) -> np.ndarray:
    """A number in [0, 1) for each id, the same on every machine and in any order: (N,) float64."""
    digests = (hashlib.blake2b(f"{salt}:{i}".encode(), digest_size=8).digest() for i in ids)
    return np.array([int.from_bytes(d, "big") / 2**64 for d in digests])


def assign(table: pd.DataFrame, held_out: Sequence[str] = (), use_labels: bool = True) -> pd.DataFrame:
    """Fill in `role`, `split` and `is_outlier` for a run; the order of the rows that stay is kept.

    - A labeled particle goes to train, val or test by the hash of its id, unless its source prescribes a split. One
      that a person has marked is for train alone.
    - Where a set has only labels, its test split plays the core, its labels hidden (kept in `truth`).
    - A held-out class leaves the labeled set. What the core is known to have of it are then the true outliers, learned
      from like the rest of the core: in a search nobody takes the unknown ones out of the bulk either.
    - Where the core has none of its own, the class's test particles join it; nothing learns from those, so that each
      is sought as if it were the only one of its kind. All other particles of the class are dropped.
    - `is_outlier` is true for core particles whose truth is no known class (where no class is known: whose truth is
      held out), and missing where nothing is known.

    Args:
        table: the rows of a packed set; `position` where they are not all of it, `marked` where a person's marks are
            among the labels (`particles.marks`).
        held_out: classes to leave out.
        use_labels: False hides every label: the whole set is one unlabeled core.

    Returns:
        The rows of the run, with the columns `position`: the row's place in the pixel store, and `marked`.

    Raises:
        UserError: a held-out class does not exist, or a class is too small to train on.
    """
    rows = table if "position" in table else table.assign(position=np.arange(len(table)))
    rows = rows if "marked" in rows else rows.assign(marked=False)
    if not use_labels:
        rows = rows.assign(label=pd.NA, role="core")
    labels_only = use_labels and not (rows["role"] == "core").any()  # asked before the held-out ones make a core
    rows = _without_labels_of(held_out, _with_splits(rows))
    known = _known_classes(rows)
    if held_out and labels_only and not known:
        raise UserError("--held-out names every class: nothing is left to learn from; hold out fewer")
    if labels_only:
        rows.loc[rows["split"] == "test", "role"] = "core"
    rows.loc[rows["role"] == "core", "label"] = pd.NA
    rows["is_outlier"] = _outlier_truth(rows, known, held_out)
    dtypes = {"label": "string", "role": "string", "split": "string"}
    return rows.astype(dtypes).reset_index(drop=True)


def _with_splits(rows: pd.DataFrame) -> pd.DataFrame:
    share = hash_share(rows["particle_id"].tolist(), "split")
    labeled = (rows["role"] == "labeled").to_numpy()
    test_share = np.where(labeled, TEST_SHARE, 0.0)
    drawn = np.where(share < test_share, "test", np.where(share < test_share + VAL_SHARE, "val", "train"))
    split = pd.Series(drawn, index=rows.index, dtype="string")
    prescribed = rows["split"].astype("string")
    # A source that only knows train and test (MNIST) still needs a validation split, carved from its train. Marks are
    # not carved: they were picked because they are strange, and would put off what is calibrated with them.
    share_carved = 0.0 if (prescribed == "val").any() else VAL_SHARE
    carved = np.where(hash_share(rows["particle_id"].tolist(), "val") < share_carved, "val", "train")
    of_source = (prescribed == "train").fillna(False) & ~rows["marked"].astype("boolean")
    prescribed = prescribed.mask(of_source, pd.Series(carved, index=rows.index))
    if not labeled.any():  # with all labels hidden a prescribed test split has nothing to be held back from
        prescribed = prescribed.mask(prescribed.notna(), split)
    return rows.assign(split=prescribed.fillna(split))


def _without_labels_of(held_out: Sequence[str], rows: pd.DataFrame) -> pd.DataFrame:
    classes = sorted(set(rows["truth"].dropna()) | set(rows["label"].dropna()))
    for name in held_out:
        if name not in classes:
            has = ", ".join(classes[:20]) or "none"
            raise UserError(f"--held-out {name}: this data has no such class; it has {has}")
        named = ((rows["truth"] == name) | (rows["label"] == name)).fillna(False).to_numpy(dtype=bool)
        labeled = named & (rows["role"] == "labeled").to_numpy(dtype=bool)
        joins = labeled & (rows["split"] == "test").to_numpy(dtype=bool) & (not (named & ~labeled).any())
        rows = rows.assign(role=rows["role"].mask(joins, "core"))[~labeled | joins]
    return rows


def _known_classes(rows: pd.DataFrame) -> list[str]:
    labeled = rows[rows["role"] == "labeled"]
    counts = labeled["label"].value_counts()
    trained = labeled.loc[labeled["split"] == "train", "label"].value_counts()
    for name, count in counts.items():
        if count < SMALLEST_CLASS or name not in trained:  # of a handful, the hash may send none to train
            few = count < SMALLEST_CLASS
            wrong = f"at least {SMALLEST_CLASS}" if few else "but none in the train split, where some"
            way_out = (
                f"add crops or marks of it, take its crops or its marks out, or leave it out with --held-out {name}"
            )
            if labeled.loc[labeled["label"] == name, "marked"].all():  # held out, they would not even be searched
                way_out = "mark more or take its marks out"
            others = [f"{other} ({n})" for other, n in counts.items() if n < SMALLEST_CLASS and other != name]
            as_well = f"; as small: {', '.join(others)}" if others else ""
            raise UserError(f"class '{name}' has {count} particle(s), {wrong} are needed: {way_out}{as_well}")
    return sorted(str(name) for name in counts.index)


def _outlier_truth(rows: pd.DataFrame, known: list[str], held_out: Sequence[str]) -> pd.Series:
    judged = (rows["role"] == "core") & rows["truth"].notna()
    strange = ~rows["truth"].isin(known) if known else rows["truth"].isin(list(held_out))
    answer = pd.Series(pd.NA, index=rows.index, dtype="boolean")
    if known or held_out:
        answer[judged] = strange[judged].astype("boolean")
    return answer
