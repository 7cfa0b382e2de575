from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist
from sklearn.covariance import LedoitWolf
from threadpoolctl import threadpool_limits

from clustering import consensus as module
from clustering.consensus import (
    EXCESS,
    LATENT_WEIGHT,
    SCORE_WEIGHT,
    WORDS,
    consensus,
    consensus_of,
    ranks,
    rarity,
    reasons,
    score_weights,
)
from clustering.outliers import (
    OutlierSettings,
    cosine_knn_distance,
    isolation,
    knn_distance,
    latent_scores,
    mahalanobis,
    whitened_knn_distance,
)
from particles.latents import Latents
from provenance.errors import UserError


def points(n: int, dims: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dims)).astype(np.float32)


def unlabeled(n: int) -> pd.Series:
    return pd.Series([pd.NA] * n, dtype="string")


def latents(z: np.ndarray, label: str | None = None, split: str = "train", **losses: np.ndarray) -> Latents:
    ids = [f"{label}_{i:03d}" for i in range(len(z))]
    labels = pd.Series([label] * len(z), dtype="string")
    index = pd.DataFrame({"particle_id": ids, "label": labels, "split": split} | losses)
    return Latents(z, index)


@pytest.mark.parametrize("k", [1, 5])
def test_knn_is_the_mean_distance_to_the_nearest_others(k: int) -> None:
    bulk = points(120)
    distances = cdist(bulk[:80], bulk)
    distances[np.arange(80), np.arange(80)] = np.inf
    expected = np.sort(distances, axis=1)[:, :k].mean(1)
    np.testing.assert_allclose(knn_distance(bulk[:80], bulk, k), expected, rtol=1e-4)


def test_knn_of_duplicates_counts_the_others_but_not_itself() -> None:
    z = np.concatenate([np.zeros((6, 2)), [[3.0, 4.0]]])
    np.testing.assert_allclose(knn_distance(z, z, 5), [0, 0, 0, 0, 0, 0, 5])
    np.testing.assert_allclose(knn_distance(z, z, 6), [5 / 6] * 6 + [5])
    pair = np.array([[0.0], [0.0], [2.0]])
    np.testing.assert_allclose(knn_distance(pair, pair, 1), [0, 0, 2])
    many = np.zeros((500, 3))
    np.testing.assert_array_equal(knn_distance(many, many, 10), np.zeros(500))


def test_whitened_knn_is_knn_in_the_eigenvectors_of_the_covariance_each_scaled_to_one() -> None:
    bulk = points(300, dims=6) @ np.diag([9, 5, 3, 1, 0.5, 0.2]) @ points(6, dims=6, seed=1)
    z = np.concatenate([bulk[:50], points(20, dims=6, seed=2)])
    variance, vectors = np.linalg.eigh(np.cov(bulk, rowvar=False))
    axes = vectors[:, ::-1][:, :3] / np.sqrt(variance[::-1][:3])
    own = np.where(np.arange(70) < 50, np.arange(70), -1)
    expected = knn_distance((z - bulk.mean(0)) @ axes, (bulk - bulk.mean(0)) @ axes, 5, own)
    np.testing.assert_allclose(whitened_knn_distance(z, bulk, 5, 32, own), expected, rtol=1e-3)


def test_whitened_knn_finds_what_differs_in_a_direction_that_seldom_varies() -> None:
    rng = np.random.default_rng(0)
    bulk = rng.normal(size=(400, 8)) * [50, 50, 40, 0.5, 0.01, 0.01, 0.01, 0.01]
    z = bulk.copy()
    z[7, 3] += 5.0  # ten standard deviations, and nothing beside 50
    own = np.arange(400)
    assert np.argmax(whitened_knn_distance(z, bulk, 10, 4, own)) == 7
    assert (knn_distance(z, bulk, 10, own) > knn_distance(z, bulk, 10, own)[7]).mean() > 0.2


def test_cosine_knn_is_the_chord_between_directions() -> None:
    bulk, z = points(300), np.concatenate([points(300)[:40], points(25, seed=2)])
    own = np.where(np.arange(65) < 40, np.arange(65), -1)
    chord = np.sqrt(np.clip(2 * cdist(z, bulk, "cosine"), 0, None))  # |a - b|^2 = 2 (1 - cos) for unit vectors
    chord[np.arange(40), np.arange(40)] = np.inf
    expected = np.sort(chord, axis=1)[:, :7].mean(1)
    np.testing.assert_allclose(cosine_knn_distance(z, bulk, 7, own), expected, rtol=1e-4)
    # however long the vectors are
    scales = np.random.default_rng(0).uniform(0.1, 90, (65, 1))
    np.testing.assert_allclose(cosine_knn_distance(z * scales, bulk * 3, 7, own), expected, rtol=1e-4)


def test_cosine_knn_finds_a_direction_where_nobody_lies_however_near_it_is() -> None:
    rng = np.random.default_rng(0)
    lengths = np.geomspace(2, 2000, 400)[:, None]
    bulk = lengths * (1 + 0.05 * rng.normal(size=(400, 6)))  # far out, they lie far apart
    z = np.concatenate([bulk, [[-0.5, 0.5, -0.5, 0.5, -0.5, 0.5]]])
    own = np.append(np.arange(400), -1)
    assert np.argmax(cosine_knn_distance(z, bulk, 10, own)) == 400
    assert (knn_distance(z, bulk, 10, own) > knn_distance(z, bulk, 10, own)[400]).mean() > 0.5


def test_cosine_knn_of_a_latent_without_directions_is_finite() -> None:
    nothing = np.zeros((30, 4), dtype=np.float32)
    np.testing.assert_array_equal(cosine_knn_distance(nothing, nothing, 3), np.zeros(30))
    np.testing.assert_allclose(cosine_knn_distance(nothing[:2], points(30, dims=4), 3, np.full(2, -1)), 1.0, rtol=1e-6)


@pytest.mark.parametrize("bulk", [np.ones((30, 4)), np.zeros((5, 1))])
def test_whitened_knn_of_a_collapsed_latent_is_zero(bulk: np.ndarray) -> None:
    np.testing.assert_array_equal(whitened_knn_distance(bulk, bulk, 3, 32), np.zeros(len(bulk)))


def test_whitened_knn_ignores_directions_that_do_not_vary() -> None:
    bulk = np.zeros((60, 10))
    bulk[:, 0] = np.linspace(0, 1, 60)
    found = whitened_knn_distance(bulk, bulk, 1, 32)
    np.testing.assert_allclose(found, 1 / 59 / bulk[:, 0].std(ddof=1), rtol=5e-6)  # single precision
    bulk[:, 1:] = 1e-6 * np.random.default_rng(0).normal(size=(60, 9))
    np.testing.assert_allclose(whitened_knn_distance(bulk, bulk, 1, 32), found, rtol=1e-4, err_msg="rounding")


def test_knn_takes_as_many_neighbors_as_there_are() -> None:
    z = np.array([[0.0], [1.0], [5.0]])
    np.testing.assert_allclose(knn_distance(z, z, 10), [3, 2.5, 4.5])


def test_knn_moves_with_its_rows() -> None:
    z, order = points(60), np.random.default_rng(1).permutation(60)
    np.testing.assert_allclose(knn_distance(z[order], z[order], 5), knn_distance(z, z, 5)[order], rtol=1e-5)


def test_mahalanobis_is_the_distance_to_the_nearest_class() -> None:
    rng = np.random.default_rng(3)
    mixing = rng.normal(size=(4, 4))
    names = np.repeat(["a", "b", "c"], [50, 40, 10])
    means = {"a": 0.0, "b": 6.0, "c": -6.0}
    members = rng.normal(size=(100, 4)) @ mixing + np.array([means[n] for n in names])[:, None]
    core = rng.normal(size=(30, 4)) * 4
    labels = pd.concat([unlabeled(30), pd.Series(names, dtype="string")], ignore_index=True)
    centers = np.stack([members[names == name].mean(0) for name in means])
    residuals = members - centers[np.searchsorted(["a", "b", "c"], names)]
    precision = np.linalg.inv(LedoitWolf(assume_centered=True).fit(residuals).covariance_)
    expected = cdist(core, centers, "mahalanobis", VI=precision).min(1)
    np.testing.assert_allclose(mahalanobis(core, np.concatenate([core, members]), labels), expected, rtol=1e-8)


def test_mahalanobis_without_labels_takes_the_bulk_as_one_class() -> None:
    z = points(80).astype(np.float64)
    precision = np.linalg.inv(LedoitWolf(assume_centered=True).fit(z - z.mean(0)).covariance_)
    expected = cdist(z, z.mean(0, keepdims=True), "mahalanobis", VI=precision)[:, 0]
    np.testing.assert_allclose(mahalanobis(z, z, unlabeled(80)), expected, rtol=1e-8)


def test_mahalanobis_sees_what_the_bulk_never_does() -> None:
    """A step along the narrow direction is stranger than a longer one along the wide direction."""
    z = points(300, 2) * np.array([10.0, 1.0], dtype=np.float32)
    z[0], z[1] = (12.0, 0.0), (0.0, 8.0)
    assert ranks(mahalanobis(z, z, unlabeled(300)))[1] == 1
    assert ranks(mahalanobis(z, z, unlabeled(300)))[0] > 5


def test_mahalanobis_takes_unused_and_collapsed_dimensions() -> None:
    z = np.concatenate([points(60, 3), np.zeros((60, 5), dtype=np.float32)], axis=1)
    z[7, :3] = 9.0
    assert ranks(mahalanobis(z, z, unlabeled(60)))[7] == 1
    collapsed = np.ones((60, 4), dtype=np.float32)
    np.testing.assert_allclose(mahalanobis(collapsed, collapsed, unlabeled(60)), 0.0, atol=1e-6)


def test_isolation_ranks_a_planted_point_first_and_is_repeatable() -> None:
    z = points(200)
    z[17] = 8.0
    score = isolation(z, z, trees=50, seed=0)
    assert ranks(score)[17] == 1
    assert score.tobytes() == isolation(z, z, trees=50, seed=0).tobytes()
    assert (score != isolation(z, z, trees=50, seed=1)).any()


def test_latent_scores_rank_a_planted_outlier_first_in_each() -> None:
    z, known = points(150), points(100, seed=1)
    z[42] = 9.0
    losses = {"neg_elbo": np.arange(150.0), "kl": np.arange(150.0)[::-1].copy()}
    scores = latent_scores(latents(z, **losses), latents(known, "a"), OutlierSettings(), seed=0)
    assert list(scores) == ["knn", "cosine", "whitened", "mahalanobis", "isolation_forest", "kl", "neg_elbo"]
    for name in ("knn", "whitened", "mahalanobis", "isolation_forest"):
        assert scores[name].idxmax() == 42, name
    np.testing.assert_allclose(
        scores["cosine"], cosine_knn_distance(z, np.concatenate([z, known]), 20, np.arange(150)), rtol=1e-6
    )
    np.testing.assert_array_equal(scores["neg_elbo"], np.arange(150.0))


def test_latent_scores_compare_with_the_reference_too() -> None:
    """A far group of the core is strange, unless particles of a known class lie there."""
    z = np.concatenate([points(100), points(4) + 30])
    nowhere, there = latents(points(50, seed=2), "a"), latents(points(50, seed=2) + 30, "a")
    alone = latent_scores(latents(z), nowhere, OutlierSettings(k=8), seed=0)
    among = latent_scores(latents(z), there, OutlierSettings(k=8), seed=0)
    assert alone["knn"][100:].min() > alone["knn"][:100].max()
    assert among["knn"][100:].max() < alone["knn"][100:].min() / 5
    empty = Latents(z[:0], nowhere.index[:0])
    np.testing.assert_allclose(
        latent_scores(latents(z), empty, OutlierSettings(), seed=0)["knn"], knn_distance(z, z, 20)
    )


def test_a_novelty_that_comes_in_hundreds_is_no_neighbor_of_its_own() -> None:
    """A test split that plays the core is compared with what was learned from, not with itself."""
    z = np.concatenate([points(200), points(200, seed=5) + 6])
    known = points(300, seed=2)
    scores = latent_scores(latents(z, split="test"), latents(known, "a"), OutlierSettings(), seed=0)
    assert scores["knn"][200:].min() > scores["knn"][:200].max()
    np.testing.assert_allclose(scores["knn"], np.sort(cdist(z, known), axis=1)[:, :20].mean(1), rtol=1e-4)
    crowd = latent_scores(latents(z), latents(known, "a"), OutlierSettings(), seed=0)
    assert crowd["knn"][200:].min() < crowd["knn"][:200].max()


def test_where_nothing_was_learned_from_the_core_is_compared_with_itself() -> None:
    z = points(50)
    found = latent_scores(latents(z, split="test"), latents(z[:0]), OutlierSettings(k=5, trees=5), 0)
    np.testing.assert_allclose(found["knn"], knn_distance(z, z, 5))


def test_rarity_is_the_share_below() -> None:
    np.testing.assert_allclose(rarity(np.array([3.0, 1.0, 2.0, 4.0])), [0.625, 0.125, 0.375, 0.875])
    np.testing.assert_allclose(rarity(np.array([1.0, 1.0, 1.0])), [0.5, 0.5, 0.5])
    score = points(50, 1)[:, 0].astype(np.float64)
    np.testing.assert_array_equal(rarity(score), rarity(np.exp(3 * score) + 7))
    np.testing.assert_allclose(rarity(-score), 1 - rarity(score))
    np.testing.assert_allclose(rarity(np.array([-9.0, 99.0]), np.arange(10.0)), [0.05, 0.95])  # never 0 or 1


def test_ranks_are_a_permutation_with_the_strangest_first() -> None:
    score = np.array([0.1, 5.0, 5.0, -2.0, 7.0])
    assert ranks(score).tolist() == [4, 2, 3, 5, 1]
    many = np.round(points(300, 1)[:, 0], 1)
    assert sorted(ranks(many)) == list(range(1, 301))
    assert (np.diff(many[np.argsort(ranks(many))]) <= 0).all()


def frames(n: int = 40) -> dict[str, pd.DataFrame]:
    """Two latents with two and one scores; particle p7 is by far the strangest in all of them."""
    rng = np.random.default_rng(5)
    ids = [f"p{i}" for i in range(n)]
    vae = pd.DataFrame({"particle_id": ids, "knn": rng.random(n), "neg_elbo": rng.random(n)})
    flow = pd.DataFrame({"particle_id": ids, "knn": rng.random(n)})
    for frame in (vae, flow):
        frame.loc[7, frame.columns[1:]] = 99.0
    return {"vae": vae, "planar-vae": flow}


def surprise(score: pd.Series) -> np.ndarray:
    """What the consensus sees of a score without ties, counted anew: the normal deviate of its rank."""
    values = score.to_numpy()
    below = (values[:, None] > values[None, :]).sum(axis=1)
    return np.array([NormalDist().inv_cdf((b + 0.5) / len(values)) for b in below])


def test_consensus_is_the_weighted_mean_surprise() -> None:
    scores = frames()
    result = consensus(scores)
    columns = {(latent, name): frame[name] for latent, frame in scores.items() for name in frame.columns[1:]}
    weights = [LATENT_WEIGHT[latent] * SCORE_WEIGHT[name] for latent, name in columns]
    expected = np.average([surprise(score) for score in columns.values()], axis=0, weights=weights)
    np.testing.assert_allclose(result["score"], expected)
    assert len(set(weights)) > 1
    assert result["score"].max() == pytest.approx(NormalDist().inv_cdf(39.5 / 40)), (
        "weights sum to 1: most is all scores at the top"
    )
    assert list(result.columns) == [
        "particle_id", "vae.knn", "vae.neg_elbo", "planar-vae.knn", "score", "rank", "reasons",
    ]  # fmt: skip
    assert result.loc[result["rank"] == 1, "particle_id"].tolist() == ["p7"]
    assert sorted(result["rank"]) == list(range(1, 41))


def test_the_largest_logit_counts_twice_as_much_as_a_distance() -> None:
    """As docs/architecture.md tells how it came by its weight."""
    rng = np.random.default_rng(9)
    frame = pd.DataFrame({"particle_id": [f"p{i}" for i in range(50)], "knn": rng.random(50)})
    frame["neg_max_logit"] = rng.random(50)
    expected = (surprise(frame["knn"]) + 2 * surprise(frame["neg_max_logit"])) / 3
    np.testing.assert_allclose(consensus({"classifier": frame})["score"], expected)


def test_an_unknown_latent_counts_fully() -> None:
    scores = {"mine": frames()["planar-vae"], "vae": frames()["vae"].drop(columns="neg_elbo")}
    mine, vae = (surprise(frame["knn"]) for frame in scores.values())
    np.testing.assert_allclose(consensus(scores)["score"], (1.0 * mine + 0.02 * vae) / 1.02)


def test_a_particle_extreme_in_one_heavy_score_comes_before_one_extreme_in_all_light_ones() -> None:
    rng = np.random.default_rng(11)
    ids = [f"p{i}" for i in range(200)]
    light = {
        latent: pd.DataFrame({"particle_id": ids} | {name: rng.random(200) for name in ("knn", "hdbscan", "kl")})
        for latent in ("ae", "vae", "planar-vae")
    }
    for frame in light.values():
        frame.loc[3, frame.columns[1:]] = 99.0  # p3
    heavy = pd.DataFrame({"particle_id": ids, "knn": rng.random(200)})
    heavy.loc[7, "knn"], heavy.loc[3, "knn"] = 99.0, 0.5  # p7
    result = consensus(light | {"classifier": heavy}).set_index("particle_id")
    assert result.loc["p7", "rank"] == 1
    assert result.loc["p3", "rank"] > 1
    assert result.loc["p7", "reasons"].startswith("far from its nearest neighbors (classifier, top 0.25 %)")
    ae = result.filter(like="ae.")
    assert (ae.loc["p3"] > ae.loc["p7"]).all()


def test_consensus_joins_by_id_not_by_position() -> None:
    scores = frames()
    expected = consensus(scores)
    shuffled = scores | {"planar-vae": scores["planar-vae"].sample(frac=1, random_state=0)}
    pd.testing.assert_frame_equal(consensus(shuffled), expected)
    both = {name: frame.sample(frac=1, random_state=i) for i, (name, frame) in enumerate(scores.items())}
    again = consensus(both).set_index("particle_id").loc[expected["particle_id"]].reset_index()
    pd.testing.assert_frame_equal(again.drop(columns="rank"), expected.drop(columns="rank"))


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_score_that_is_missing_is_not_called_strange(wrong: float) -> None:
    scores = frames()
    scores["vae"].loc[7, "knn"] = wrong
    with pytest.raises(UserError, match="vae: the score knn of p7 is not a number"):
        consensus(scores)


def test_one_particle_has_nothing_to_be_compared_with() -> None:
    one = latents(points(1))
    with pytest.raises(UserError, match=r"1 particle\(s\) to compare with"):
        latent_scores(one, one.where(np.array([False])), OutlierSettings(), seed=0)


def test_consensus_sees_ranks_alone() -> None:
    scores = frames()
    stretched = {name: frame.copy() for name, frame in scores.items()}
    stretched["vae"]["knn"] = np.exp(5 * scores["vae"]["knn"])
    stretched["planar-vae"]["knn"] = -1 / (1 + scores["planar-vae"]["knn"])
    pd.testing.assert_frame_equal(consensus(stretched), consensus(scores))


def test_what_is_rare_by_all_scores_comes_before_what_is_rarer_by_one_alone() -> None:
    ids = [f"p{i}" for i in range(1000)]
    rng = np.random.default_rng(0)
    views = {name: rng.permutation(1000).astype(float) for name in ("classifier", "scalars")}
    for view in views.values():
        view[[0, 1]] = 970.5, 500.5  # p0 is in the top 3 % of both, p1 in the middle of both
    views["classifier"][1] = 2000.0  # and the strangest by one
    result = consensus({n: pd.DataFrame({"particle_id": ids, "knn": v}) for n, v in views.items()}).set_index(
        "particle_id"
    )
    assert result.loc["p0", "rank"] < result.loc["p1", "rank"] < 100


def test_reasons_name_the_largest_contributions_in_words() -> None:
    columns = ["vae.knn", "planar-vae.neg_elbo", "ae.reconstruction", "scalars.mahalanobis"]
    rarities, shares = np.array([0.91, 0.999, 0.97, 0.95]), np.array([0.1, 0.02, 0.05, 0.3])
    text = reasons(columns, rarities, shares, most=2)
    assert text == "far from every known class (scalars, top 5 %); far from its nearest neighbors (vae, top 9 %)"
    assert reasons(columns, rarities, shares) == text + "; badly reconstructed (ae, top 3 %)"
    assert reasons(columns, rarities, shares, most=9).endswith("; improbable (planar-vae, top 0.1 %)")


def test_what_no_score_finds_unusual_has_no_reason() -> None:
    columns, shares = ["vae.kl", "vae.knn"], np.array([0.3, 0.1])
    assert reasons(columns, np.array([0.89, 0.5]), shares) == "nothing unusual"
    assert reasons(columns, np.array([0.89, 0.9]), shares) == "far from its nearest neighbors (vae, top 10 %)"
    alike = pd.DataFrame({"particle_id": ["a", "b", "c"], "knn": 1.0})
    assert consensus({"vae": alike})["reasons"].tolist() == ["nothing unusual"] * 3


def test_reasons_of_the_consensus_go_by_weighted_surprise() -> None:
    scores = frames()
    result = consensus(scores | {"classifier": scores["vae"].assign(neg_elbo=scores["vae"]["knn"])})
    for _, row in result.iterrows():
        columns = [name for name in result.columns if "." in name]
        weights = [LATENT_WEIGHT[c.split(".")[0]] * SCORE_WEIGHT[c.split(".")[1]] for c in columns]
        parts = {c: w * NormalDist().inv_cdf(row[c]) for c, w in zip(columns, weights, strict=True)}
        expected = [c for c in sorted(parts, key=lambda c: -parts[c]) if row[c] >= 0.9][:3]
        said = [f"{WORDS[score]} ({latent}, top " for latent, score in (c.split(".") for c in expected)]
        found = row["reasons"].split("; ")
        assert all(reason.startswith(start) for reason, start in zip(found, said or ["nothing"], strict=True))


def test_reasons_of_a_planted_particle_name_its_score() -> None:
    scores = frames()
    scores["vae"].loc[3, "neg_elbo"] = 1e6  # strange to the VAE's bound alone
    scores["vae"].loc[3, "knn"] = scores["planar-vae"].loc[3, "knn"] = -1.0
    row = consensus(scores).set_index("particle_id").loc["p3"]
    assert row["reasons"].startswith("improbable (vae, top 1.2 %)")


def test_every_score_has_words() -> None:
    z = points(40)
    losses = {name: np.zeros(40) for name in ("neg_max_logit", "reconstruction", "kl", "neg_elbo")}
    scores = latent_scores(latents(z, **losses), latents(z[:0]), OutlierSettings(trees=5), seed=0)
    assert {*scores, "excess"} == set(WORDS) == set(SCORE_WEIGHT)


def test_glosh_is_shown_but_does_not_count() -> None:
    ids = [f"p{i}" for i in range(30)]
    score = np.random.default_rng(0).random(30)
    plain = consensus({"ae": pd.DataFrame({"particle_id": ids, "knn": score})})
    with_glosh = consensus({"ae": pd.DataFrame({"particle_id": ids, "hdbscan": score[::-1], "knn": score})})
    pd.testing.assert_frame_equal(with_glosh, plain)


def test_known_particles_are_scored_as_the_core_is_and_change_nothing_for_it() -> None:
    bulk, known = points(200), points(50, seed=1)
    alone = latent_scores(latents(bulk, "core"), latents(bulk[:0]), OutlierSettings(trees=20), seed=0)
    both = latent_scores(
        latents(bulk, "core"), latents(bulk[:0]), OutlierSettings(trees=20), 0, latents(known, "known", split="test")
    )
    pd.testing.assert_frame_equal(both[:200], alone, check_exact=False, rtol=1e-5)
    np.testing.assert_allclose(both["knn"][200:], np.sort(cdist(known, bulk), axis=1)[:, :20].mean(1), rtol=1e-4)


def test_what_the_consensus_of_others_would_be_is_what_it_is_for_a_particle_of_the_core() -> None:
    rng = np.random.default_rng(0)
    ids = [f"p{i}" for i in range(300)]
    core = {
        latent: pd.DataFrame({"particle_id": ids, "knn": rng.random(300), "mahalanobis": rng.random(300)})
        for latent in ("classifier", "scalars")
    }
    twins = {latent: frame.iloc[::-1].reset_index(drop=True) for latent, frame in core.items()}
    weights = score_weights(consensus(core))
    found = consensus_of(twins, core, weights).set_index("particle_id")["score"]
    pd.testing.assert_series_equal(found.loc[ids], consensus(core).set_index("particle_id")["score"])
    strangest = {latent: pd.DataFrame({"particle_id": ["x"], "knn": [9.0], "mahalanobis": [9.0]}) for latent in core}
    most = consensus_of(strangest, core, weights)["score"][0]
    assert most == pytest.approx(NormalDist().inv_cdf(1 - 0.5 / 300))


def test_the_number_of_threads_changes_no_bit() -> None:
    rng = np.random.default_rng(4)
    index = pd.DataFrame({"particle_id": [str(i) for i in range(600)], "label": "a", "split": "train"})
    latents = Latents(rng.normal(size=(600, 512)).astype(np.float32), index)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.append(latent_scores(latents, latents.where(np.zeros(600, bool)), OutlierSettings(trees=10), 0))
    assert found[0].to_numpy().tobytes() == found[1].to_numpy().tobytes()


@pytest.mark.parametrize("name", ["k", "components", "trees"])
def test_settings_that_cannot_work_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"--{name} 0: give at least 1"):
        OutlierSettings(**{name: 0})


def judged_by_excess(agrees: tuple[float, float], light: float = 0.0, n: int = 2000) -> dict[str, pd.DataFrame]:
    """A core of which the strangest tenth of two scores (and of one of an autoencoder) share so much with the votes."""
    rng = np.random.default_rng(8)
    votes = rng.random(n)
    ids = [f"p{i}" for i in range(n)]

    def score(share: float) -> np.ndarray:
        """Its strangest tenth: so many of the most voted for, the others anywhere."""
        values, first = rng.random(n), np.argsort(-votes)[: int(share * n / 10)]
        values[first] += 1
        return values

    return {
        "classifier": pd.DataFrame({"particle_id": ids, "knn": score(agrees[0])}),
        "scalars": pd.DataFrame({"particle_id": ids, "mahalanobis": score(agrees[1]), "excess": votes}),
        "vae": pd.DataFrame({"particle_id": ids, "knn": score(light)}),
    }


def test_an_excess_that_no_score_agrees_with_does_not_count() -> None:
    scores = judged_by_excess((0.0, 0.0), light=1.0)  # an autoencoder's word alone brings nothing in
    for frame in (scores["classifier"], scores["scalars"]):
        column = frame.columns[1]
        frame[column] = -scores["scalars"]["excess"] + 0.01 * frame[column]  # strangest where the votes are fewest
    ranked = consensus(scores)
    weights = score_weights(ranked)
    assert weights[EXCESS] == 0
    assert {name: weights[name] for name in weights if name != EXCESS} == {
        "classifier.knn": 1.0, "scalars.mahalanobis": 0.5, "vae.knn": 0.02,
    }  # fmt: skip
    without = consensus(scores | {"scalars": scores["scalars"].drop(columns="excess")})
    pd.testing.assert_frame_equal(ranked.drop(columns=EXCESS), without)
    voted = ranked[EXCESS] >= 0.9
    assert not ranked.loc[voted, "reasons"].str.contains(WORDS["excess"]).any(), "what does not count is no reason"


def test_a_full_agreement_makes_the_excess_count_and_silences_who_disagrees() -> None:
    weights = score_weights(consensus(judged_by_excess((1.0, 0.0))))
    assert weights["classifier.knn"] == 1.0
    assert weights[EXCESS] == SCORE_WEIGHT["excess"]
    assert weights["scalars.mahalanobis"] < 0.1, "drawn at random: it agrees by chance only"


def test_a_partial_agreement_counts_in_part() -> None:
    scores = judged_by_excess((0.25, 0.1))
    ranked = consensus(scores)
    votes = scores["scalars"]["excess"].to_numpy()
    agreement = {}
    for view, name in (("classifier", "knn"), ("scalars", "mahalanobis")):
        top = scores[view][name].rank(method="first") > 0.9 * len(votes)
        smaller = (votes[top][:, None] > votes[~top][None, :]).mean()  # area under the curve, counted
        by_chance = (2001 / (12 * 200 * 1800)) ** 0.5  # one sigma of Mann and Whitney's
        agreement[f"{view}.{name}"] = min(1.0, max(0.0, 6 * (smaller - 0.5 - by_chance)))
    most = max(agreement.values())
    assert 0.4 < most < 0.95
    assert agreement["classifier.knn"] > 2 * agreement["scalars.mahalanobis"] > 0
    weights = score_weights(ranked)
    assert weights["classifier.knn"] == pytest.approx(1 - most + most * agreement["classifier.knn"])
    assert weights["scalars.mahalanobis"] == pytest.approx(0.5 * (1 - most + most * agreement["scalars.mahalanobis"]))
    assert weights[EXCESS] == pytest.approx(SCORE_WEIGHT["excess"] * most)
    columns = [name for name in ranked if "." in name]
    surprises = [[NormalDist().inv_cdf(r) for r in ranked[name]] for name in columns]
    np.testing.assert_allclose(ranked["score"], np.average(surprises, axis=0, weights=[weights[c] for c in columns]))
    assert ranked["reasons"].str.contains(f"{WORDS['excess']} (scalars, top ", regex=False).any()


def test_without_an_excess_the_weights_are_those_of_the_tables() -> None:
    weights = score_weights(consensus(frames()))
    assert weights == {"vae.knn": 0.02, "vae.neg_elbo": 0.002, "planar-vae.knn": 0.02}


def test_a_score_that_is_the_same_for_all_agrees_with_nothing() -> None:
    scores = judged_by_excess((0.0, 0.0))
    scores["classifier"]["knn"] = 1.0
    scores["scalars"]["mahalanobis"] = 2.0
    assert score_weights(consensus(scores))[EXCESS] == 0


def test_plain_pixels_count_where_the_excess_agrees_with_them_and_nowhere_else() -> None:
    scores = judged_by_excess((0.0, 0.0))
    for frame in (scores["classifier"], scores["scalars"]):
        frame[frame.columns[1]] = -scores["scalars"]["excess"]
    seeing = pd.DataFrame({"particle_id": scores["vae"]["particle_id"], "knn": scores["scalars"]["excess"] ** 3})
    blind = seeing.assign(knn=-seeing["knn"])
    assert score_weights(consensus(scores | {"pixels": blind}))["pixels.knn"] == 0
    weights = score_weights(consensus(scores | {"pixels": seeing}))
    assert weights["pixels.knn"] == SCORE_WEIGHT["knn"]
    assert weights[EXCESS] == SCORE_WEIGHT["excess"]
    assert weights["classifier.knn"] == 0
    frame = consensus({"pixels": blind, "classifier": scores["classifier"]})
    assert score_weights(frame) == {"pixels.knn": 0.0, "classifier.knn": 1.0}, "no excess, no pixels"


def test_a_view_that_has_not_seen_a_particle_leaves_it_to_the_others() -> None:
    """Its scores are missing: the mean is over those that are there, and nobody else's rank moves."""
    rng = np.random.default_rng(3)
    ids = [f"p{i}" for i in range(50)]
    latent = pd.DataFrame({"particle_id": ids, "knn": rng.random(50)})
    scalars = pd.DataFrame({"particle_id": ids, "knn": rng.random(50), "mahalanobis": rng.random(50)})
    scalars.loc[[4, 9], ["knn", "mahalanobis"]] = np.nan
    scores = {"classifier": latent, "scalars": scalars}
    result = consensus(scores)
    assert result.loc[[4, 9], ["scalars.knn", "scalars.mahalanobis"]].isna().all(axis=None)
    np.testing.assert_allclose(result["score"][[4, 9]], surprise(latent["knn"])[[4, 9]])
    seen = scalars.drop([4, 9])
    expected = np.average([surprise(seen["knn"]), surprise(seen["mahalanobis"])], axis=0, weights=[1.0, 0.5])
    own = surprise(latent["knn"])[seen.index]
    np.testing.assert_allclose(result["score"][seen.index], (own + 1.5 * expected) / 2.5)
    assert not result["reasons"].str.contains("nan").any()
    others = consensus_of(scores, scores, score_weights(result))
    np.testing.assert_allclose(others["score"], result["score"])
    scalars.loc[4, "knn"] = np.inf
    with pytest.raises(UserError, match="scalars: the score knn of p4 is not a number"):
        consensus(scores)


def test_a_missing_score_takes_no_part_in_what_agrees() -> None:
    scores = judged_by_excess((1.0, 0.0))
    whole = score_weights(consensus(scores))
    gaps = {name: frame.copy() for name, frame in scores.items()}
    names = [name for name in gaps["scalars"] if name != "particle_id"]
    gaps["scalars"].loc[::40, names] = np.nan
    found = score_weights(consensus(gaps))
    assert found[EXCESS] > 0
    assert found == pytest.approx(whole, abs=0.4)


def test_with_gaps_a_score_agrees_as_if_those_without_votes_were_not_there() -> None:
    rng = np.random.default_rng(1)
    votes = rng.random(1000)
    score = rarity(rng.random(1000) + 0.25 * votes)
    gap = rng.random(1000) < 0.4
    found = module._agreement(score, rarity(np.where(gap, np.nan, votes)))
    assert found == module._agreement(score[~gap], rarity(votes[~gap]))
    assert 0 < found < 1


def test_of_a_particle_that_lacks_all_that_counts_the_tables_decide() -> None:
    """Only the scalars see what is new, and it has none: without them its latents count as in any other core."""
    scores = judged_by_excess((0.0, 1.0))
    for name in ("classifier", "vae"):
        scores[name]["knn"] = -scores["scalars"]["excess"]
    scores["scalars"].loc[[4, 900], ["mahalanobis", "excess"]] = np.nan
    ranked = consensus(scores)
    weights = score_weights(ranked)
    assert weights["classifier.knn"] == weights["vae.knn"] == 0
    knn = surprise(scores["classifier"]["knn"])  # that of the autoencoder is the same
    np.testing.assert_allclose(ranked["score"][[4, 900]], knn[[4, 900]])
    assert np.isfinite(ranked["score"]).all()
    np.testing.assert_allclose(consensus_of(scores, scores, weights)["score"], ranked["score"])
