"""Who is judged, who is known, who was learned from: ids, for every view alike."""

from dataclasses import dataclass

import numpy as np
import pandas as pd


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
    fitted: pd.Series | None = None
    """Ids of the core particles that maps, groups and neighbors are fitted on; None for all."""

    @property
    def n_steps(self) -> int:
        """Particles to place and to score, each counted."""
        to_place = 0 if self.fitted is None else len(self.core) - len(self.fitted)
        return to_place + len(self.core) + len(self.known)

    def is_fitted(self, ids: pd.Series) -> np.ndarray:
        """(N,) ids of the core -> (N,) bool."""
        return np.ones(len(ids), dtype=bool) if self.fitted is None else ids.isin(self.fitted).to_numpy(dtype=bool)


def split_scores(scores: pd.DataFrame, n_core: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores of the core, and of the known particles that stand after it."""
    return scores[:n_core], scores[n_core:].reset_index(drop=True)
