"""Of which kinds does the core hold more than the labeled set? What comes in numbers is no outlier to a distance."""

from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

from clustering.parts import SLICE

LEAF = 10
"""Particles in a leaf of a tree, at least; chosen on sets that no result is reported on (docs/architecture.md)."""
FOLDS = 5
"""Each particle is judged by a forest that four fifths of the others have grown."""
LEAST_REFERENCE = 25
"""Labeled particles of equal weight (Kish) below which there is nothing to have more than."""
NOTHING_APART = 0.5
"""Area under the curve up to which the core has no more of anything than the labeled set."""
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
    where nothing tells them apart, at most (1 + pi) / 2 where a share pi of the core is new and all the rest alike."""

    @property
    def credible(self) -> bool:
        """Whether what is told apart can be what is new: something is, and not the whole core (optics, other dust)."""
        return NOTHING_APART < self.told_apart < TOO_DIFFERENT


def excess(
    core: np.ndarray, known: np.ndarray, reference: np.ndarray, weights: tuple[np.ndarray, np.ndarray],
    fitted: np.ndarray, trees: int, seed: int,
) -> Excess:  # fmt: skip
    """A forest that tells the core from labeled particles: its vote is high where the core has more than they.

    Known particles and unlabeled ones are all that is needed to rank what is new: the best rank is by the ratio of
    their densities (Blanchard et al. 2010, jmlr.org/papers/v11/blanchard10a.html, section 3). The known that p-values
    come from stand with the core, so that forest and votes treat them nearly as they treat the core's own known
    particles (after Marandon et al. 2024, doi:10.1214/23-AOS2338, equation 5, who have no weights).

    Args:
        core: (N, D).
        known: (K, D), labeled particles held back; may be none.
        reference: (M, D), labeled particles of the train split, at least one.
        weights: (K,) and (M,), how much those count, so that both have the core's mixture of classes.
        fitted: (N,) bool, those of the core that the forests are grown on; each of the others is judged by one.
        trees: how many.
        seed: of the forest.
    """
    n, k, m = int(fitted.sum()), len(known), len(reference)
    z = np.concatenate([core[fitted], known, reference])
    in_core = np.repeat([1, 0], [n + k, m])
    heavy = np.concatenate([np.ones(n), *weights])
    heavy[n + k :] *= heavy[: n + k].sum() / heavy[n + k :].sum()  # both sides weigh alike
    votes, forests = np.empty(len(z)), []
    for grown, judged in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(z, in_core):
        forest = RandomForestClassifier(trees, min_samples_leaf=LEAF, random_state=seed, n_jobs=-1)
        forests.append(forest.fit(z[grown], in_core[grown], heavy[grown]))
        votes[judged] = _votes(forest, z[judged])
    of_core = np.empty(len(core))
    of_core[fitted] = votes[:n]
    placed = np.flatnonzero(~fitted)
    for number, forest in enumerate(forests):  # one forest each, as the fitted are judged: a mean varies less
        mine = placed[number::FOLDS]
        of_core[mine] = _votes(forest, core[mine])
    judged = np.r_[np.arange(n), np.arange(n + k, n + k + m)]
    apart = roc_auc_score(in_core[judged], votes[judged], sample_weight=heavy[judged])
    return Excess(of_core, votes[n : n + k], float(apart))


def enough(weights: np.ndarray) -> bool:
    """Whether labeled particles of these weights (M,) are as good as `LEAST_REFERENCE` of equal weight."""
    return bool(weights.any() and weights.sum() ** 2 / (weights**2).sum() >= LEAST_REFERENCE)


def _votes(forest: RandomForestClassifier, z: np.ndarray) -> np.ndarray:
    """Share of trees that take each of z (n, D) for one of the core: (n,)."""
    forest.n_jobs = 1  # with several threads, which adds its votes first would decide the last bits
    steps = [z[start : start + SLICE] for start in range(0, len(z), SLICE)]
    return np.concatenate([np.empty(0), *(forest.predict_proba(step)[:, 1] for step in steps)])
