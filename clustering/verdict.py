"""All views of a core -> one rank, one p-value and the reasons for each particle."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from clustering.agreement import found_in
from clustering.calibration import class_weights, conformal_p_values, discoveries, known_as_strange
from clustering.consensus import EXCESS, consensus, consensus_of, score_weights
from clustering.excess import NOTHING_APART
from clustering.kept import Kept
from clustering.metrics import outlier_metrics
from clustering.outliers import OutlierSettings
from clustering.views import comparable_scalars, pixel_scores, scalar_scores
from particles.measures import COMPARED, has_scalars
from particles.sets import ParticleSet
from particles.table import read_parquet, write_parquet
from provenance.files import write_json
from provenance.run import Run

UNUSUAL = 0.05
"""A p-value that one known particle in twenty has."""


def write_consensus(
    run: Run, done: Sequence[Run], particles: ParticleSet, kept: Kept, how: OutlierSettings, seed: int
) -> None:
    """Rank the core over all views and calibrate the rank.

    Args:
        run: the `consensus` run; gets outliers.parquet, metrics.json.
        done: the `clusters-<latent>` runs.
        particles: the set, for its scalars, its pixels and, where it is known, its truth.
        kept: whom to look at.
        how: scores of the scalars and the pixels.
        seed: of those.
    """
    views, of_known, own_ranks = {}, {}, {}
    for latent in done:
        name = latent.kind.removeprefix("clusters-")
        scored = read_parquet(latent.path / "outliers.parquet")
        views[name], own_ranks[name] = scored.drop(columns=["score", "rank"]), scored.set_index("particle_id")["rank"]
        of_known[name] = read_parquet(latent.path / "known.parquet")
    found_by: dict[str, Any] = {"told_apart": None, "scalars_left_out": None}
    if len(done) > 1 and has_scalars(particles.table):  # who asks for one latent wants to see that one
        found_by = _look_besides(views, of_known, particles, kept, how, seed)
    ranked = consensus(views)
    weights = score_weights(ranked)
    ranked = calibrated(ranked, consensus_of(of_known, views, weights), kept)
    if len(done) > 1:
        found = found_in(pd.DataFrame(own_ranks)).loc[ranked["particle_id"]].to_numpy()
        ranked.insert(list(ranked).index("reasons") + 1, "found_in", found)
    truth = particles.table.set_index("particle_id").loc[ranked["particle_id"], "is_outlier"].reset_index(drop=True)
    write_parquet(ranked, run.path / "outliers.parquet")
    found_by["excess_weight"] = excess_weight(weights, found_by["told_apart"])
    metrics = outlier_metrics(truth, ranked["score"].to_numpy()) | _promise(ranked, truth) | found_by
    write_json(run.path / "metrics.json", metrics)


def excess_weight(weights: dict[str, float], told_apart: float | None) -> float | None:
    """What the excess counts: 0 where nothing is told apart, None where it is not to be believed or there is none."""
    nothing_apart = told_apart is not None and told_apart <= NOTHING_APART
    return 0.0 if nothing_apart else weights.get(EXCESS)


def _look_besides(
    views: dict[str, pd.DataFrame], of_known: dict[str, pd.DataFrame], particles: ParticleSet, kept: Kept,
    how: OutlierSettings, seed: int,
) -> dict[str, Any]:  # fmt: skip
    """Add the views that no network makes; what is to be told of them."""
    names, told_apart = comparable_scalars(particles.table, kept), None
    if names:
        views["scalars"], of_known["scalars"], told_apart = scalar_scores(particles.table, names, kept, how, seed)
        if "excess" in views["scalars"] and kept.fitted is None:  # nothing else says whether plain pixels count
            views["pixels"], of_known["pixels"] = pixel_scores(particles, kept, how, seed)
    return {"told_apart": told_apart, "scalars_left_out": [name for name in COMPARED if name not in names]}


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
    """How many discoveries there are and, where the truth is known, the share of them that is false.

    `share_unusual` is of the particles that have a p-value: how many of the others look unusual, nothing tells.
    """
    found = ranked["discovery"].to_numpy()
    judged = truth[found].dropna()
    wrong = float((~judged.astype(bool)).mean()) if len(judged) else None
    p_values = ranked["p_value"].dropna()
    share = float((p_values <= UNUSUAL).mean()) if len(p_values) else None
    return {"discoveries": int(found.sum()), "false_discoveries": wrong, "share_unusual": share}
