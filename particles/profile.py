"""Down the core: how many of each class a water sample holds, with counting errors, and whether its repeats agree.

Counts are of the particles that a set kept: what was left out when it was packed is in no share and no concentration.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from provenance.errors import UserError

SECTION = {"core": "string", "bag": "Int64", "top_cm": "Float64", "bottom_cm": "Float64"}
"""What names a piece of ice; its repeats are aliquots of the same water."""
SAMPLE = {**SECTION, "repeat": "Int64", "sample": "string"}
"""What names a water sample."""
COLUMNS = ("particle_id", *SAMPLE, "volume_ml", "class", "outlier")
"""What `Tally.add` reads; of these only `class` must be there."""
UNCLASSIFIED = "unclassified"
COVERAGE = {"68": 0.6827, "95": 0.95}
"""Suffix of a column -> how often its interval covers the true value."""
_GROUPED = [*SAMPLE, "class"]
_SUMMED = {"n": ("n", "sum"), "judged": ("judged", "sum"), "outliers": ("outliers", "sum"),
           "low": ("low", "min"), "high": ("high", "max")}  # fmt: skip


@dataclass(frozen=True)
class Counts:
    """Particles by sample (S, down the core) and class (K)."""

    samples: pd.DataFrame
    """S rows: the columns of `SAMPLE`, and `volume_ml`, mL of fluid imaged for the sample, missing where unknown."""
    classes: list[str]
    n: np.ndarray
    """(S, K) int64."""
    judged: np.ndarray
    """(S, K) int64, of how many of them somebody knows whether they are outliers."""
    outliers: np.ndarray
    """(S, K) int64, how many are."""

    @property
    def total(self) -> np.ndarray:
        """Particles of each sample: (S,) int64."""
        return np.asarray(self.n.sum(axis=1))

    @property
    def volume_ml(self) -> np.ndarray:
        """(S,) float64, NaN where unknown."""
        return np.asarray(self.samples["volume_ml"].to_numpy(dtype=float, na_value=np.nan))

    def merged(self, groups: Mapping[str, str]) -> "Counts":
        """The same particles with classes put together: class -> group; a class that is not named stays itself."""
        names = [groups.get(name, name) for name in self.classes]
        found = list(dict.fromkeys(names))
        into = np.array([[name == group for group in found] for name in names], dtype=np.int64)
        return replace(self, classes=found, n=self.n @ into, judged=self.judged @ into, outliers=self.outliers @ into)


class Tally:
    """Takes rows frame by frame and keeps sums only, so that memory does not grow with the number of particles."""

    def __init__(self) -> None:
        self._sums: pd.DataFrame | None = None
        self.left_out = 0
        """Rows that name neither a sample nor a bag nor a depth."""

    def add(self, frame: pd.DataFrame) -> None:
        """Count the rows of one frame.

        Args:
            frame: a row a particle, with the columns of `COLUMNS` that are known: `class` (missing: unclassified),
                `outlier` (boolean, missing where nobody knows) and where the particle is from.
        """
        rows = frame.reindex(columns=list(COLUMNS[1:])).astype({**SAMPLE, "volume_ml": float, "outlier": "boolean"})
        rows["class"] = rows["class"].astype("string").fillna(UNCLASSIFIED)
        placed = rows[["sample", "bag", "top_cm"]].notna().any(axis=1)
        self.left_out += int((~placed).sum())
        rows = rows[placed]
        flagged, judged = rows["outlier"].fillna(False).astype(np.int64), rows["outlier"].notna().astype(np.int64)
        rows = rows.assign(n=1, judged=judged, outliers=flagged, low=rows["volume_ml"], high=rows["volume_ml"])
        part = _summed(rows)
        self._sums = part if self._sums is None else _summed(pd.concat([self._sums, part], ignore_index=True))

    def counts(self) -> Counts:
        """What was counted.

        Raises:
            UserError: no row was placed, or a sample is said to have two volumes.
        """
        if self._sums is None or self._sums.empty:
            raise UserError(
                "no particle has a sample, a bag or a depth: these are read from the names "
                "GRIP_<bag>_<top>_<bottom>_<repeat>_<particle> and QCY_<a>_<b>_<c>_<particle>, or from FlowCam runs"
            )
        by_sample = self._sums.groupby(list(SAMPLE), dropna=False, sort=True)
        samples = by_sample.agg(low=("low", "min"), high=("high", "max")).reset_index()
        row = by_sample.ngroup().to_numpy()
        _refuse_two_volumes(samples)
        classes = sorted(self._sums["class"].unique())
        place = (row, pd.Categorical(self._sums["class"], classes).codes)
        sums = np.zeros((3, len(samples), len(classes)), np.int64)
        sums[:, *place] = self._sums[["n", "judged", "outliers"]].to_numpy(dtype=np.int64).T
        samples = samples.drop(columns="low").rename(columns={"high": "volume_ml"})
        return Counts(samples, classes, *sums)


def _summed(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.groupby(_GROUPED, dropna=False, sort=False).agg(**_SUMMED).reset_index()


def _refuse_two_volumes(samples: pd.DataFrame) -> None:
    differ = (samples["high"] > samples["low"] * (1 + 1e-6)).to_numpy()
    if differ.any():
        row = samples[differ].iloc[0]
        raise UserError(
            f"{section_name(row)}, sample {row['sample']}: volume_ml is {row['low']:g} and {row['high']:g}; "
            "it is that of the whole sample and must be the same in all its rows"
        )


def section_name(row: Any) -> str:
    """A section as a reader would call it: `GRIP, bag 3046, 0-20 cm`; a dash where nothing names it."""
    parts = [str(row["core"])] if pd.notna(row["core"]) else []
    parts += [f"bag {row['bag']}"] if pd.notna(row["bag"]) else []
    if pd.notna(row["top_cm"]):
        bottom = f"\N{EN DASH}{row['bottom_cm']:g}" if pd.notna(row["bottom_cm"]) else ""
        parts.append(f"{row['top_cm']:g}{bottom} cm")
    return ", ".join(parts) or "\N{EN DASH}"


def share(n: np.ndarray, total: np.ndarray) -> np.ndarray:
    """How many of `total` are `n`, as a fraction; NaN where there are none: of the shape that both broadcast to."""
    return np.asarray(n / np.where(total > 0, total, np.nan))


def share_interval(n: np.ndarray, total: np.ndarray, coverage: float) -> tuple[np.ndarray, np.ndarray]:
    """Exact interval of a share: of `total` particles, `n` are of a class.

    Clopper & Pearson (1934), Biometrika 26:404: with a = 1 - coverage, the a/2 quantile of Beta(n, total - n + 1) and
    the 1 - a/2 quantile of Beta(n + 1, total - n); 0 below n = 0, and 1 above n = total.

    Returns:
        Low and high, of the shape that `n` and `total` broadcast to; NaN where total is 0.
    """
    n, total = np.broadcast_arrays(np.asarray(n, float), np.asarray(total, float))
    tail = (1 - coverage) / 2
    low = np.where(n > 0, stats.beta.ppf(tail, n, total - n + 1), 0.0)
    high = np.where(n < total, stats.beta.ppf(1 - tail, n + 1, total - n), 1.0)
    return np.where(total > 0, low, np.nan), np.where(total > 0, high, np.nan)


def mean_interval(n: np.ndarray, coverage: float) -> tuple[np.ndarray, np.ndarray]:
    """Exact interval of a Poisson mean of which `n` was counted; divided by a volume it is that of a concentration.

    Garwood (1936), Biometrika 28:437: with a = 1 - coverage, half the a/2 quantile of chi-square with 2 n degrees of
    freedom, and half the 1 - a/2 quantile with 2 n + 2; 0 below n = 0.
    """
    n, tail = np.asarray(n, float), (1 - coverage) / 2
    low = np.where(n > 0, stats.chi2.ppf(tail, 2 * n) / 2, 0.0)
    return low, np.asarray(stats.chi2.ppf(1 - tail, 2 * n + 2) / 2)


def class_table(counts: Counts) -> pd.DataFrame:
    """One row a sample and class: n, total, share, per_ml; intervals in `*_low_68`, `*_high_95`, ...

    Where somebody knows, how many were judged, and how many of them are outliers. A class that a sample lacks has a row
    too: its upper limit says how much could have been missed.
    """
    rows, classes = counts.n.shape
    table = counts.samples.loc[np.repeat(np.arange(rows), classes)].reset_index(drop=True)
    n, total = counts.n.ravel(), np.repeat(counts.total, classes)
    table = table.assign(**{"class": np.tile(counts.classes, rows)}, n=n, total=total)
    table = pd.concat([table, _shares(n, total, "share", 1), _per_ml(n, np.repeat(counts.volume_ml, classes))], axis=1)
    known = {"judged": counts.judged.ravel(), "outliers": counts.outliers.ravel()}
    return table.assign(**known) if counts.judged.any() else table


def sample_table(counts: Counts) -> pd.DataFrame:
    """One row a sample: total, per_ml; judged, outliers, and outliers_per_1000 of the judged; as in `class_table`."""
    total = counts.total
    table = pd.concat([counts.samples.assign(total=total), _per_ml(total, counts.volume_ml)], axis=1)
    if not counts.judged.any():
        return table
    judged, flagged = counts.judged.sum(axis=1), counts.outliers.sum(axis=1)
    table = table.assign(judged=judged, outliers=flagged)
    return pd.concat([table, _shares(flagged, judged, "outliers_per_1000", 1000)], axis=1)


def _shares(n: np.ndarray, total: np.ndarray, name: str, unit: float) -> pd.DataFrame:
    columns = {name: unit * share(n, total)}
    for suffix, coverage in COVERAGE.items():
        low, high = share_interval(n, total, coverage)
        columns |= {f"{name}_low_{suffix}": unit * low, f"{name}_high_{suffix}": unit * high}
    return pd.DataFrame(columns)


def _per_ml(n: np.ndarray, volume_ml: np.ndarray) -> pd.DataFrame:
    volume = np.where(volume_ml > 0, volume_ml, np.nan)
    columns = {"per_ml": n / volume}
    for suffix, coverage in COVERAGE.items():
        low, high = mean_interval(n, coverage)
        columns |= {f"per_ml_low_{suffix}": low / volume, f"per_ml_high_{suffix}": high / volume}
    return pd.DataFrame(columns)
