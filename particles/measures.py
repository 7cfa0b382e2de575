"""The 34 scalars as vectors that can be compared: each brought to a standard normal by its ranks."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.preprocessing import QuantileTransformer

from particles.scalars import SCALARS

COMPARED = tuple(name for name, unit in SCALARS.items() if unit != "deg")
"""Scalars that say what a particle is; the Feret angles say only how it lay in the flow cell."""
SCALE_FREE = tuple(name for name, unit in SCALARS.items() if unit in ("", "grey") and name != "Sum Intensity")
"""Scalars that can be read off an image whose size in px says nothing, turned by any angle."""

_CLIP = 3.0  # standard deviations; a rank transform puts the extremes of a finite sample at infinity


def has_scalars(table: pd.DataFrame) -> bool:
    """Whether a set was packed with its scalars."""
    return bool(table[list(SCALARS)].notna().any().any())


def normalized_scalars(
    table: pd.DataFrame, fit: np.ndarray | pd.Series, names: Sequence[str] = COMPARED, missing: float = 0.0
) -> np.ndarray:
    """Scalars through the quantiles of some of the rows, so that areas and angles weigh alike.

    Args:
        table: N rows with the scalar columns.
        fit: (N,) bool, the rows whose quantiles are taken.
        names: M of the scalars.
        missing: for what is missing; 0 is the median.

    Returns:
        (N, M) float32 in [-3, 3]; 0 where a scalar is the same for all, `missing` where it is missing.
    """
    values = table[list(names)].to_numpy(dtype=np.float64, na_value=np.nan, copy=True)
    values[~np.isfinite(values)] = np.nan
    unknown = np.isnan(values)
    sample = values[np.asarray(fit, dtype=bool)]
    known = np.isfinite(sample).any(axis=0)
    values[:, ~known], sample[:, ~known] = 0.0, 0.0  # nothing to learn quantiles from
    # of each scalar those that are known alone: filled up, all others would be pushed outwards
    transform = QuantileTransformer(n_quantiles=min(500, len(sample)), output_distribution="normal", random_state=0)
    normal = np.clip(transform.fit(sample).transform(values), -_CLIP, _CLIP)
    normal[:, np.nanmax(sample, axis=0) == np.nanmin(sample, axis=0)] = 0.0
    normal[unknown] = missing
    return normal.astype(np.float32)
