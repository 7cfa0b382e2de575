"""All views of a core -> one rank, one p-value and the reasons for each particle."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from clustering.agreement import found_in
from clustering.calibration import class_weights, conformal_p_values, discoveries, known_as_strange
from clustering.consensus import EXCESS, consensus, consensus_of, score_weights
from clustering.excess import FOLDS, Excess, excess
from clustering.metrics import outlier_metrics
from clustering.outliers import OutlierSettings, latent_scores
from particles.latents import Latents
from particles.measures import has_scalars, normalized_scalars
from particles.sets import ParticleSet
from particles.table import read_parquet, write_parquet
from provenance.files import write_json
from provenance.run import Run

UNUSUAL = 0.05
"""A p-value that one known particle in twenty has."""


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


def write_consensus(
    run: Run, done: Sequence[Run], particles: ParticleSet, kept: Kept, how: OutlierSettings, seed: int
) -> None:
    """Rank the core over all views and calibrate the rank.

    Args:
        run: the `consensus` run; gets outliers.parquet, metrics.json.
        done: the `clusters-<latent>` runs.
        particles: the set, for its scalars and, where it is known, its truth.
        kept: whom to look at.
        how: scores of the scalars.
        seed: of those.
    """
    views, of_known, own_ranks, told_apart = {}, {}, {}, None
    for latent in done:
        name = latent.kind.removeprefix("clusters-")
        scored = read_parquet(latent.path / "outliers.parquet")
        views[name], own_ranks[name] = scored.drop(columns=["score", "rank"]), scored.set_index("particle_id")["rank"]
        of_known[name] = read_parquet(latent.path / "known.parquet")
    if len(done) > 1 and has_scalars(particles.table):  # who asks for one latent wants to see that one
        views["scalars"], of_known["scalars"], told_apart = scalar_scores(particles.table, kept, how, seed)
    ranked = consensus(views)
    weights = score_weights(ranked)
    ranked = calibrated(ranked, consensus_of(of_known, views, weights), kept)
    if len(done) > 1:
        found = found_in(pd.DataFrame(own_ranks)).loc[ranked["particle_id"]].to_numpy()
        ranked.insert(list(ranked).index("reasons") + 1, "found_in", found)
    truth = particles.table.set_index("particle_id").loc[ranked["particle_id"], "is_outlier"].reset_index(drop=True)
    write_parquet(ranked, run.path / "outliers.parquet")
    found_by = {"told_apart": told_apart, "excess_weight": weights.get(EXCESS)}
    metrics = outlier_metrics(truth, ranked["score"].to_numpy()) | _promise(ranked, truth) | found_by
    write_json(run.path / "metrics.json", metrics)


def scalar_scores(
    table: pd.DataFrame, kept: Kept, how: OutlierSettings, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame, float | None]:
    """The measured scalars as one more view: no network, nothing learned.

    Returns:
        Scores of the core and of the known, with an `excess` if there are labeled particles to have more than and it
        is credible; and how far core and labeled are told apart (`Excess.told_apart`), if there are any.
    """
    is_core, is_known, is_reference = (
        table["particle_id"].isin(ids) for ids in (kept.core, kept.known, kept.reference)
    )
    vectors = Latents(normalized_scalars(table, is_core | is_reference), table)
    core, known, reference = (vectors.where(rows) for rows in (is_core, is_known, is_reference))
    fitted = kept.is_fitted(core.index["particle_id"])
    both = split_scores(latent_scores(core, reference, how, seed, known, fitted), len(core))
    mine, theirs = (
        pd.concat([who.index[["particle_id"]], of], axis=1) for who, of in zip((core, known), both, strict=True)
    )
    if min(len(reference), fitted.sum()) < FOLDS:
        return mine, theirs, None
    more = _excess(core, known, reference, kept, fitted, how.trees, seed)
    if more.credible:
        mine, theirs = mine.assign(excess=more.core), theirs.assign(excess=more.known)
    return mine, theirs, more.told_apart


def _excess(
    core: Latents, known: Latents, reference: Latents, kept: Kept, fitted: np.ndarray, trees: int, seed: int
) -> Excess:
    """With the labeled ones weighted to the mixture of predicted classes that the core has."""
    weights = np.ones(len(known)), np.ones(len(reference))
    if kept.predicted is not None:
        said = [kept.predicted.loc[who.index["particle_id"]] for who in (core, known, reference)]
        weights = said[1].map(class_weights(said[0], said[1])), said[2].map(class_weights(said[0], said[2]))
    heavy = (np.asarray(weight, dtype=float) for weight in weights)
    return excess(core.z, known.z, reference.z, (next(heavy), next(heavy)), fitted, trees, seed)


def calibrated(ranked: pd.DataFrame, known: pd.DataFrame, kept: Kept) -> pd.DataFrame:
    """With `p_value`, `known_as_strange`, `discovery`.

    The first two are missing where no labeled particle was kept from the models, or none of a particle's class: it
    cannot be a discovery then. A class that a person made of marks is such a one.
    """
    if known.empty:
        none = pd.Series(pd.NA, index=ranked.index, dtype="Int64")
        return ranked.assign(p_value=np.nan, known_as_strange=none, discovery=False)
    weight, own_weight = np.ones(len(known)), np.ones(len(ranked))
    if kept.predicted is not None:
        of_known, of_core = (kept.predicted.loc[frame["particle_id"]] for frame in (known, ranked))
        by_class = class_weights(of_core, of_known)
        weight, own_weight = (of.map(by_class).to_numpy(dtype=float) for of in (of_known, of_core))
    scores = ranked["score"].to_numpy(), known["score"].to_numpy()
    p_values, told = conformal_p_values(*scores, weight, own_weight), np.isfinite(own_weight)
    as_strange = pd.array(known_as_strange(*scores), dtype="Int64")
    as_strange[~told] = pd.NA
    return ranked.assign(p_value=np.where(told, p_values, np.nan), known_as_strange=as_strange,
                         discovery=told & discoveries(p_values))  # fmt: skip


def _promise(ranked: pd.DataFrame, truth: pd.Series) -> dict[str, float | int | None]:
    """How many discoveries there are and, where the truth is known, the share of them that is false."""
    found = ranked["discovery"].to_numpy()
    judged = truth[found].dropna()
    wrong = float((~judged.astype(bool)).mean()) if len(judged) else None
    p_values = ranked["p_value"].dropna()
    share = float((p_values <= UNUSUAL).mean()) if len(p_values) else None
    return {"discoveries": int(found.sum()), "false_discoveries": wrong, "share_unusual": share}
