"""What is looked at besides the latents, with no network: the measured scalars and the plain pixels."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA

from clustering.excess import FOLDS, Excess, enough, excess
from clustering.kept import Kept, split_scores
from clustering.outliers import OutlierSettings, latent_scores
from clustering.parts import SLICE
from particles.latents import Latents
from particles.measures import COMPARED, normalized_scalars
from particles.pixels import PixelStore
from particles.sets import ParticleSet

COMPONENTS = 64
"""Leading principal components of the pixels."""
MORE_MISSING = 0.02
"""By how much the shares of core and labeled particles that lack a scalar may differ, besides chance (three standard
errors); beyond it the scalar would tell whose table has gaps, not what a particle is."""
MOST_MISSING = 0.5
"""Share of the scalars that a particle may lack; of one with fewer the scalars say nothing, and do not count."""
Scores = tuple[pd.DataFrame, pd.DataFrame]
"""Of the core and of the known: `particle_id` and a column a score."""


def scalar_scores(
    table: pd.DataFrame, names: Sequence[str], kept: Kept, how: OutlierSettings, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame, float | None]:
    """The measured scalars of these names as one more view.

    Returns:
        Scores of the core and of the known, missing where scalars are, with an `excess` if there are labeled particles
        to have more than and it is credible; and how far core and labeled are told apart (`Excess.told_apart`), if
        there are any.
    """
    seen = _measured(table, names, kept)
    is_core, _, is_reference = _who(table, seen)
    vectors = Latents(normalized_scalars(table, is_core | is_reference, names), table)
    mine, theirs = _scored(vectors, seen, how, seed)
    more = _excess(vectors, seen, how.trees, seed)
    if more is not None and more.credible:
        mine, theirs = mine.assign(excess=more.core), theirs.assign(excess=more.known)
    told_apart = None if more is None else more.told_apart
    return _of_all(mine, kept.core), _of_all(theirs, kept.known), told_apart


def _measured(table: pd.DataFrame, names: Sequence[str], kept: Kept) -> Kept:
    """Those that have most of the scalars: filled up with medians, the others would be the most ordinary of all."""
    lacking = ~np.isfinite(table[list(names)].to_numpy(dtype=np.float64, na_value=np.nan))
    without = table.loc[lacking.mean(axis=1) > MOST_MISSING, "particle_id"]
    who = {name: ids[~ids.isin(without)] for name, ids in vars(kept).items() if name in ("core", "known", "reference")}
    return replace(kept, **who)


def _of_all(scores: pd.DataFrame, ids: pd.Series) -> pd.DataFrame:
    """A row for each id, in their order; no scores where there are none."""
    return scores.set_index("particle_id").reindex(ids).reset_index()


def comparable_scalars(table: pd.DataFrame, kept: Kept) -> list[str]:
    """Names of the scalars that core and labeled particles lack as often, but for `MORE_MISSING` and chance.

    The labeled ones count as in the core's mixture of classes, so that a scalar which one class often lacks is no gap.
    Particles without any scalar are no evidence on a single one; where most of a side are such, there is no name.
    """
    is_core, is_known, is_reference = _who(table, kept)
    is_labeled = is_known | is_reference
    lacking = ~np.isfinite(table[list(COMPARED)].to_numpy(dtype=np.float64, na_value=np.nan))
    core, labeled = lacking[is_core], lacking[is_labeled]
    weight = kept.weights(table.loc[is_labeled, "particle_id"])
    weight = weight if weight.any() else np.ones(len(weight))  # no class in common
    of_core, of_labeled = ~core.all(axis=1), ~labeled.all(axis=1)
    labeled_have = np.average(of_labeled, weights=weight) if len(weight) else 1.0
    if min(of_core.mean(), labeled_have) < 1 - MOST_MISSING:
        return []
    if not len(weight):
        return list(COMPARED)
    weight = weight[of_labeled]
    core_share, labeled_share = core[of_core].mean(axis=0), np.average(labeled[of_labeled], axis=0, weights=weight)
    n_core, n_labeled = of_core.sum(), weight.sum() ** 2 / (weight**2).sum()  # Kish: as good as so many of equal weight
    both = (n_core * core_share + n_labeled * labeled_share) / (n_core + n_labeled)
    by_chance = 3 * np.sqrt(both * (1 - both) * (1 / n_core + 1 / n_labeled))
    gaps = np.abs(core_share - labeled_share)
    return [name for name, gap, chance in zip(COMPARED, gaps, by_chance, strict=True) if gap <= MORE_MISSING + chance]


def pixel_scores(particles: ParticleSet, kept: Kept, how: OutlierSettings, seed: int) -> Scores:
    """The pixels as they are, by their principal components, as one more view."""
    table = particles.table
    is_core, _, is_reference = _who(table, kept)
    learned = (is_core & (table["split"] == "train").fillna(False).to_numpy(dtype=bool)) | is_reference
    z = pixel_vectors(particles.pixels, table["position"].to_numpy(dtype=np.int64), learned, seed)
    return _scored(Latents(z, table), kept, how, seed)


def pixel_vectors(pixels: PixelStore, positions: np.ndarray, learned: np.ndarray, seed: int) -> np.ndarray:
    """Principal components of the pixels: (N, `COMPONENTS`) float32, fewer of few or tiny crops.

    Args:
        pixels: the store.
        positions: (N,) places of the particles in it.
        learned: (N,) bool, those that the components are of.
        seed: of the randomized decomposition.
    """

    def flat(rows: np.ndarray) -> np.ndarray:
        return pixels[rows].reshape(len(rows), -1).astype(np.float32)

    most = min(COMPONENTS, int(learned.sum()), pixels.size**2)
    pca = PCA(most, svd_solver="randomized", random_state=seed).fit(flat(positions[learned]))
    steps = [positions[start : start + SLICE] for start in range(0, len(positions), SLICE)]
    return np.concatenate([pca.transform(flat(rows)) for rows in steps]).astype(np.float32)


def _who(table: pd.DataFrame, kept: Kept) -> list[np.ndarray]:
    """(N,) bool each: the core, the known, the reference."""
    return [table["particle_id"].isin(ids).to_numpy() for ids in (kept.core, kept.known, kept.reference)]


def _scored(vectors: Latents, kept: Kept, how: OutlierSettings, seed: int) -> Scores:
    """By the scores that a latent has."""
    core, known, reference = (vectors.where(rows) for rows in _who(vectors.index, kept))
    fitted = kept.is_fitted(core.index["particle_id"])
    both = split_scores(latent_scores(core, reference, how, seed, known, fitted), len(core))
    mine, theirs = (
        pd.concat([who.index[["particle_id"]], of], axis=1) for who, of in zip((core, known), both, strict=True)
    )
    return mine, theirs


def _excess(vectors: Latents, kept: Kept, trees: int, seed: int) -> Excess | None:
    """With the labeled ones weighted to the mixture of classes that the core has; None of too few."""
    core, known, reference = (vectors.where(rows) for rows in _who(vectors.index, kept))
    fitted = kept.is_fitted(core.index["particle_id"])
    weights = (kept.weights(known.index["particle_id"]), kept.weights(reference.index["particle_id"]))
    if fitted.sum() < FOLDS or not enough(weights[1]):
        return None
    return excess(core.z, known.z, reference.z, weights, fitted, trees, seed)
