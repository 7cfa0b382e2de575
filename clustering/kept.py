"""Who is judged, who is known, who was learned from: ids, for every view alike."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from clustering.mixture import class_shares


@dataclass(frozen=True)
class Kept:
    """Whom to look at."""

    core: pd.Series
    """Ids of the core particles."""
    known: pd.Series
    """Ids of labeled particles that nothing was learned from: what a known particle scores."""
    reference: pd.Series
    """Ids of labeled particles that were learned from: what a core is compared with besides itself."""
    predicted: pd.Series | None
    """The classifier's class by id, where there is a classifier."""
    label: pd.Series | None = None
    """The true class of labeled particles by id; needed where there is a classifier."""
    fitted: pd.Series | None = None
    """Ids of the core particles that maps, groups and neighbors are fitted on; None for all."""

    @property
    def n_steps(self) -> int:
        """Particles to place and to score, each counted."""
        to_place = 0 if self.fitted is None else len(self.core) - len(self.fitted)
        return to_place + len(self.core) + len(self.known)

    def weights(self, ids: pd.Series) -> np.ndarray:
        """How much labeled particles count, so that they have the classes of the core: (M,) ids -> (M,)."""
        if self.predicted is None or self.label is None or not len(ids):
            return np.ones(len(ids))
        labels = self.label.loc[ids].to_numpy(dtype=object)
        among = pd.Series(labels).value_counts(normalize=True)
        weight = self._shares.reindex(among.index, fill_value=0.0) / among  # of a class that was dropped, nothing
        return weight.loc[labels].to_numpy(dtype=float)

    @cached_property
    def _shares(self) -> pd.Series:
        assert self.predicted is not None
        assert self.label is not None
        return class_shares(self.predicted.loc[self.core], self.predicted.loc[self.known], self.label.loc[self.known])

    def is_fitted(self, ids: pd.Series) -> np.ndarray:
        """(N,) ids of the core -> (N,) bool."""
        return np.ones(len(ids), dtype=bool) if self.fitted is None else ids.isin(self.fitted).to_numpy(dtype=bool)


def split_scores(scores: pd.DataFrame, n_core: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores of the core, and of the known particles that stand after it."""
    return scores[:n_core], scores[n_core:].reset_index(drop=True)
