"""Of which kinds does the core hold more than the labeled set? What comes in numbers is no outlier to a distance."""

from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

LEAF = 10
"""Particles in a leaf of a tree, at least; chosen on sets that no result is reported on (docs/architecture.md)."""
FOLDS = 5
"""Each particle is judged by a forest that four fifths of the others have grown."""
TOO_DIFFERENT = 0.75
"""Area under the curve from which more than half of a core would have to be new: its labels do not fit it then."""


@dataclass(frozen=True)
class Excess:
    """How much more at home each particle is in the core than among the labeled; shares of trees in [0, 1]."""

    core: np.ndarray
    """(N,), higher = stranger."""
    known: np.ndarray
    """(K,)."""
    told_apart: float
    """Area under the curve of core against reference, each particle judged by a forest that it did not grow: 0.5
    where nothing tells them apart, (1 + pi) / 2 where a share pi of the core is new and all the rest alike."""

    @property
    def credible(self) -> bool:
        """Whether what is told apart can be what is new, and is not the whole core (other optics, other dust)."""
        return self.told_apart < TOO_DIFFERENT


def excess(
    core: np.ndarray, known: np.ndarray, reference: np.ndarray, weights: tuple[np.ndarray, np.ndarray],
    fitted: np.ndarray, trees: int, seed: int,
) -> Excess:  # fmt: skip
    """A forest that tells the core from labeled particles: its vote is high where the core has more than they.

    Known particles and unlabeled ones are all that is needed to rank what is new: the best rank is by the ratio of
    their densities (Blanchard et al. 2010, jmlr.org/papers/v11/blanchard10a.html, section 3). The known that p-values
    come from stand with the core, so that forest and votes treat them as they treat the core's own known particles
    (Marandon et al. 2024, doi:10.1214/23-AOS2338, "AdaDetect", equation 5).

    Args:
        core: (N, D).
        known: (K, D), labeled particles held back; may be none.
        reference: (M, D), labeled particles of the train split, at least one.
        weights: (K,) and (M,), how much those count, so that both have the core's mixture of classes.
        fitted: (N,) bool, those of the core that the forest is grown on; it judges the others from outside.
        trees: how many.
        seed: of the forest.
    """
    n, k, m = int(fitted.sum()), len(known), len(reference)
    z = np.concatenate([core[fitted], known, reference])
    in_core = np.repeat([1, 0], [n + k, m])
    heavy = np.concatenate([np.ones(n), *weights])
    if not heavy[n + k :].any():
        heavy[n + k :] = 1.0  # nothing of the core is taken for what the labeled are
    heavy[n + k :] *= heavy[: n + k].sum() / heavy[n + k :].sum()  # both sides weigh alike
    # one thread: with several, which adds its votes first would decide the last bits
    forest = RandomForestClassifier(trees, min_samples_leaf=LEAF, random_state=seed, n_jobs=1)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    # out of folds, not of bags: a heavy particle is in nearly every bag
    votes = cross_val_predict(
        forest, z, in_core, cv=folds, method="predict_proba", params={"sample_weight": heavy}, n_jobs=-1
    )[:, 1]
    of_core = np.empty(len(core))
    of_core[fitted] = votes[:n]
    if not fitted.all():
        of_core[~fitted] = forest.fit(z, in_core, heavy).predict_proba(core[~fitted])[:, 1]
    judged = np.r_[np.arange(n), np.arange(n + k, n + k + m)]
    apart = roc_auc_score(in_core[judged], votes[judged], sample_weight=heavy[judged])
    return Excess(of_core, votes[n : n + k], float(apart))
