"""One rank over all scores of all views, and the reasons for it."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import norm

from provenance.errors import UserError

WORDS = {
    "knn": "far from its nearest neighbors",
    "cosine": "in a direction where few lie",
    "whitened": "unlike its neighbors in what seldom varies",
    "mahalanobis": "far from every known class",
    "isolation_forest": "easily isolated",
    "neg_max_logit": "claimed by no known class",
    "reconstruction": "badly reconstructed",
    "kl": "costly to encode",
    "neg_elbo": "improbable",
    "excess": "commoner here than among the labels",
}
"""What a score says, in a reader's words."""

NOTHING = "nothing unusual"

LATENT_WEIGHT = {"classifier": 1.0, "scalars": 1.0, "pixels": 0.0, "ae": 0.02, "vae": 0.02, "planar-vae": 0.02}
TRUSTED_WEIGHT = LATENT_WEIGHT | {"pixels": 1.0}
"""What a view counts where the excess says that it sees what is new; the plain pixels count there alone."""
SCORE_WEIGHT = {
    "knn": 1.0,
    "cosine": 1.0,
    "whitened": 1.0,
    "mahalanobis": 0.5,
    "isolation_forest": 1.0,
    "neg_max_logit": 2.0,
    "reconstruction": 0.25,
    "kl": 0.1,
    "neg_elbo": 0.1,
    "excess": 2.0,
}
"""How much a view and a score count in the consensus, by what they found on sets that no result is reported on
(docs/architecture.md, "The consensus"). A score that is not here (GLOSH, of the map and so of the core
alone) is shown, but does not count."""
REASON_FROM = 0.9
"""Rarity from which a score is a reason: the strangest tenth."""
EXCESS = "scalars.excess"
"""The score that tells by itself whether it has something to say, and which others see the same."""
FULL_AGREEMENT = 1 / 6
"""How far beyond chance the area under the curve of a score's strangest tenth against the excess must be for all of its
weight; chosen on sets that no result is reported on."""
MAY_LACK = ("scalars",)
"""Views that need not have seen every particle: where its scores are missing the others decide."""
ONLY_OF = {"cosine": ("ae", "vae", "planar-vae")}
"""Latents of which alone a score counts; of the others it is shown."""


def rarity(score: np.ndarray, core: np.ndarray | None = None) -> np.ndarray:
    """A score's rank in the core as a share: 0.99 means stranger than 99 % of the core.

    Args:
        score: (N,).
        core: (M,) the scores of the core, if others than `score`.

    Returns:
        (N,) in (0, 1); NaN where the score is missing.
    """
    among = np.sort(score if core is None else core)
    among = among[~np.isnan(among)]
    below, up_to = (np.searchsorted(among, score, side=side) for side in ("left", "right"))
    shares = np.clip((below + up_to) / 2, 0.5, len(among) - 0.5) / len(among)
    return np.where(np.isnan(score), np.nan, shares)


def consensus(scores: dict[str, pd.DataFrame], with_reasons: bool = True) -> pd.DataFrame:
    """One rank over all scores of all latents.

    Each score's rarity r becomes a surprise, the normal deviate that is exceeded by a share 1 - r; the consensus is
    the weighted mean of the surprises (Stouffer's way to combine p-values). What is rare by one score but ordinary by
    the others comes after what is rare by all. The weights are those of `score_weights`.

    Args:
        scores: for each latent a frame with `particle_id` and one column per score.
        with_reasons: put them into words; of a few million particles that takes a minute.

    Returns:
        A frame in the order of the first latent's rows: `particle_id`, `<latent>.<score>` rarities, `score` (mean
        surprise), `rank` (1 = strangest), `reasons`.

    Raises:
        UserError: a score that counts is missing or infinite, of another view than `MAY_LACK`.
    """
    ids = next(iter(scores.values()))["particle_id"].reset_index(drop=True)
    rarities = _rarities(scores, scores, ids)
    shares = _shares(rarities, score_weights(rarities))  # (N, scores), in what each contributes
    result = pd.concat([ids, rarities], axis=1)
    result["score"] = shares.sum(axis=1)
    result["rank"] = ranks(result["score"].to_numpy())
    if not with_reasons:
        return result
    columns = list(rarities)
    result["reasons"] = [reasons(columns, r, s) for r, s in zip(rarities.to_numpy(), shares, strict=True)]
    return result


def consensus_of(
    others: dict[str, pd.DataFrame], core: dict[str, pd.DataFrame], weights: dict[str, float]
) -> pd.DataFrame:
    """The consensus score that particles outside the core would have within it.

    Args:
        others: as the core's, for the other particles.
        core: what `consensus` was given.
        weights: `score_weights` of what it gave.

    Returns:
        `particle_id` and `score`, in the order of the first latent's rows.
    """
    ids = next(iter(others.values()))["particle_id"].reset_index(drop=True)
    shares = _shares(_rarities(others, core, ids), weights)
    return pd.DataFrame({"particle_id": ids, "score": shares.sum(axis=1)})


def score_weights(rarities: pd.DataFrame) -> dict[str, float]:
    """How much each score counts in this core: by the tables above, and by what the core has more of than the labels.

    Where novelties come in numbers, the excess tells which scores see them: those whose strangest tenth it votes for.
    With the best of these agreements, G in [0, 1], the excess itself comes in and every score's own agreement takes
    the place of a blind faith in it: w (1 - G) + w G agreement, where the second w is also that of views that count
    there alone. Where there are few novelties among thousands, or none, what excess there is lies elsewhere, G is near
    0 and the tables stand as they are; in a core of some hundred G is some 0.2 by chance.

    Args:
        rarities: (N, ...) of the core, columns `<latent>.<score>`; others are passed over.

    Returns:
        By column; those of the tables where there is no excess among them.
    """
    tables, trusted = (
        {name: _weight(name, of) for name in rarities if "." in name} for of in (LATENT_WEIGHT, TRUSTED_WEIGHT)
    )
    if EXCESS not in tables:
        return tables
    votes = rarities[EXCESS].to_numpy()
    agreement = {name: _agreement(rarities[name].to_numpy(), votes) for name in tables if name != EXCESS}
    most = max(value for name, value in agreement.items() if _full(name))
    found = {name: (1 - most) * tables[name] + most * value * trusted[name] for name, value in agreement.items()}
    return {name: found.get(name, most * tables[name]) for name in tables}


def _full(column: str) -> bool:
    """Whether a score's view may bring the excess in: an autoencoder's word alone does not."""
    return TRUSTED_WEIGHT.get(column.partition(".")[0], 1.0) == 1.0


def _agreement(score: np.ndarray, votes: np.ndarray) -> float:
    """From 0, the score's strangest tenth has no more votes than all others or chance gives it (one sigma), to 1.

    Args:
        score: (N,) rarities.
        votes: (N,) rarities, whose mean says the area under the curve (Mann & Whitney 1947).
    """
    seen = np.isfinite(score) & np.isfinite(votes)
    score, votes = score[seen], votes[seen]
    top, n = score >= REASON_FROM, len(score)
    m = int(top.sum())
    if m in (0, n):
        return 0.0
    area = (n * votes[top].mean() - m / 2) / (n - m)
    by_chance = np.sqrt((n + 1) / (12 * m * (n - m)))
    return float(np.clip((area - 0.5 - by_chance) / FULL_AGREEMENT, 0.0, 1.0))


def _rarities(scores: dict[str, pd.DataFrame], core: dict[str, pd.DataFrame], ids: pd.Series) -> pd.DataFrame:
    columns = {}
    for latent, frame in scores.items():
        ordered = frame.set_index("particle_id").loc[ids]  # joined by id, never by position
        counted = [name for name in ordered if name in SCORE_WEIGHT and latent in ONLY_OF.get(name, (latent,))]
        for name in counted:
            _refuse_missing(ordered[name], latent)
            columns[f"{latent}.{name}"] = rarity(ordered[name].to_numpy(), core[latent][name].to_numpy())
    return pd.DataFrame(columns)


def _refuse_missing(score: pd.Series, latent: str) -> None:
    """A number that is missing has no rank: sorted, it would come after the strangest."""
    values = score.to_numpy(dtype=float)
    wrong = np.isinf(values) if latent in MAY_LACK else ~np.isfinite(values)
    if wrong.any():
        raise UserError(f"{latent}: the score {score.name} of {score.index[wrong][0]} is not a number; train again, "
                        "with a lower --lr")  # fmt: skip


def _shares(rarities: pd.DataFrame, weights: dict[str, float]) -> np.ndarray:
    """What each score contributes to the consensus, the mean over those that a particle has: (N, scores)."""
    surprise = norm.ppf(rarities.to_numpy())
    seen = np.isfinite(surprise)
    heavy = np.array([weights[name] for name in rarities]) * seen
    silent = ~heavy.any(axis=1)  # only the scalars count in this core, and they are missing: as in any other core
    heavy[silent] = np.array([_weight(name, LATENT_WEIGHT) for name in rarities]) * seen[silent]
    return np.nan_to_num(surprise) * heavy / heavy.sum(axis=1, keepdims=True)


def _weight(column: str, of_latent: dict[str, float]) -> float:
    latent, score = column.split(".")
    return of_latent.get(latent, 1.0) * SCORE_WEIGHT[score]


def ranks(score: np.ndarray) -> np.ndarray:
    """1 = strangest; equal scores keep the order of the rows: (N,) -> (N,) int64."""
    order = np.argsort(-score, kind="stable")
    rank = np.empty(len(score), dtype=np.int64)
    rank[order] = np.arange(1, len(score) + 1)
    return rank


def reasons(columns: Sequence[str], rarities: np.ndarray, shares: np.ndarray, most: int = 3) -> str:
    """The scores by which a particle is unusual, the largest contribution first, in plain words.

    What no score finds unusual has a rank too, but no reason for it: `nothing unusual`. A score that does not count in
    this core is no reason either.

    Args:
        columns: `<latent>.<score>` names, one a score.
        rarities: (scores,) share of the core that is less strange.
        shares: (scores,) what each score contributes to the consensus.
        most: how many reasons.
    """
    strongest = [i for i in np.argsort(-shares, kind="stable") if rarities[i] >= REASON_FROM and shares[i] > 0]
    named = ((*columns[i].split("."), rarities[i]) for i in strongest[:most])
    return "; ".join(f"{WORDS[score]} ({latent}, {_top(value)})" for latent, score, value in named) or NOTHING


def _top(value: float) -> str:
    share = 100 * (1 - value)
    return f"top {share:.2g} %" if share < 10 else f"top {share:.0f} %"
