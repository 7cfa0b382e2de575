import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

from clustering import parts
from clustering.outliers import OutlierSettings, latent_scores
from clustering.parts import HERE, in_memory
from clustering.placing import closeness, elected, placed, weighted_mean
from clustering.sampling import stratified
from particles.latents import Latents


def clusters(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Four round clusters in eight dimensions, and which of them each point is of."""
    rng = np.random.default_rng(seed)
    of = rng.integers(0, 4, n)
    return (20 * np.eye(8)[of] + rng.normal(size=(n, 8))).astype(np.float32), of


@pytest.mark.parametrize("most", [1, 7, 100, 999])
def test_a_sample_has_the_mixture_of_the_whole(most: int) -> None:
    strata = pd.Series(["dust"] * 900 + ["camp"] * 90 + [None] * 10, dtype="string").sample(frac=1, random_state=1)
    chosen = stratified(strata, most, seed=0)
    assert chosen.sum() == most
    counts = strata[chosen].value_counts(dropna=False)
    for name, share in strata.value_counts(normalize=True, dropna=False).items():
        assert abs(counts.get(name, 0) - share * most) <= 1


def test_a_sample_depends_on_its_seed_alone_and_takes_all_of_few() -> None:
    strata = pd.Series(["a", "b"] * 500)
    one, again, other = (stratified(strata, 100, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one & other).sum() < 40
    assert stratified(strata, 1000, 0).all()
    assert stratified(strata, 5000, 0).all()
    assert not stratified(strata[:0], 5, 0).any()


def test_every_row_of_a_stratum_has_the_same_chance() -> None:
    strata = pd.Series(["a"] * 30 + ["b"] * 10)
    drawn = sum(stratified(strata, 10, seed).astype(int) for seed in range(2000))
    assert abs(drawn / 2000 - 0.25).max() < 0.05


def test_the_majority_wins_and_a_tie_goes_to_a_cluster() -> None:
    labels = np.array([[1, 2, 2], [-1, 3, 3], [-1, 4, 4], [5, -1, 6]])
    weights = np.array([[1.0, 0.6, 0.6], [1.0, 0.2, 0.2], [1.0, 0.5, 0.5], [0.5, 0.5, 0.5]])
    label, won = elected(labels, weights)
    assert label.tolist() == [2, -1, 4, 5]
    assert won.tolist() == [[False, True, True], [True, False, False], [False, True, True], [True, False, False]]


def test_near_neighbors_weigh_more_whatever_the_unit() -> None:
    distances = np.array([[0.1, 1.0, 2.0], [0.0, 0.0, 0.0]])
    weights = closeness(distances)
    assert (np.diff(weights[0]) < 0).all()
    assert weights[1].tolist() == [1.0, 1.0, 1.0]
    np.testing.assert_allclose(closeness(1000 * distances), weights)
    np.testing.assert_allclose(closeness(np.array([[1.0, 3.0]])), np.exp([[-0.25, -2.25]]))


def test_a_mean_is_weighted_along_the_neighbors() -> None:
    values = np.array([[[0.0, 0.0], [4.0, 8.0]]], dtype=np.float32)
    mean = weighted_mean(values, np.array([[3.0, 1.0]]))
    np.testing.assert_allclose(mean, [[1.0, 2.0]])
    assert mean.dtype == np.float32
    np.testing.assert_allclose(weighted_mean(np.array([[1.0, 5.0]]), np.array([[1.0, 1.0]])), [3.0])


def test_who_is_placed_gets_the_group_and_the_place_of_its_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "SLICE", 70)  # several chunks, the last one cut
    z, of = clusters(1000)
    fitted = np.arange(1000) % 4 == 0
    corner = np.array([[0, 0], [9, 0], [0, 9], [9, 9]], dtype=np.float32)
    told: list[int] = []
    groups, points = placed(
        in_memory(z), fitted, {"coarse": of[fitted] // 2, "fine": of[fitted]}, {"umap": corner[of[fitted]]}, HERE,
        told.append,
    )  # fmt: skip
    np.testing.assert_array_equal(groups["fine"], of)
    np.testing.assert_array_equal(groups["coarse"], of // 2)
    np.testing.assert_allclose(points["umap"], corner[of], atol=1e-5)
    assert sum(told) == 750
    assert max(told) == 70


def test_what_was_fitted_keeps_what_was_found_for_it() -> None:
    z, of = clusters(300)
    rng = np.random.default_rng(5)
    fitted = rng.random(300) < 0.5
    labels, xy = rng.integers(-1, 9, fitted.sum()), rng.normal(size=(fitted.sum(), 2)).astype(np.float32)
    groups, points = placed(in_memory(z), fitted, {"any": labels}, {"umap": xy}, HERE)
    np.testing.assert_array_equal(groups["any"][fitted], labels)
    np.testing.assert_array_equal(points["umap"][fitted], xy)
    assert np.isin(groups["any"][~fitted], labels).all()
    lowest, highest = xy.min(0), xy.max(0)
    assert ((points["umap"] >= lowest) & (points["umap"] <= highest)).all(), "a mean lies among its neighbors"
    assert adjusted_rand_score(of, groups["any"]) < 0.1


def test_a_placed_particle_between_two_clusters_lands_in_one_not_between() -> None:
    z = np.array([[0.0], [0.1], [0.2], [10.0], [10.1], [10.2], [4.9]])
    fitted = np.array([True] * 6 + [False])
    far = np.array([[0, 0]] * 3 + [[100, 0]] * 3, dtype=np.float64)
    groups, points = placed(in_memory(z), fitted, {"one": np.array([0, 0, 0, 1, 1, 1])}, {"umap": far}, HERE)
    assert groups["one"][6] == 0
    np.testing.assert_allclose(points["umap"][6], [0, 0])


def test_of_several_groupings_the_last_one_decides_the_place() -> None:
    z, fitted = np.array([[0.0], [0.1], [0.2], [0.3], [0.15]]), np.array([True] * 4 + [False])
    groupings = {"first": np.array([0, 0, 0, 1]), "last": np.array([0, 1, 1, 1])}
    groups, points = placed(in_memory(z), fitted, groupings, {"umap": np.array([[0.0], [10.0], [10.0], [10.0]])}, HERE)
    assert (groups["first"][4], groups["last"][4]) == (0, 1)
    assert points["umap"][4] == pytest.approx(10)


def test_ten_neighbors_decide_where_the_nearest_are_as_near_as_the_others() -> None:
    z, fitted = np.array([[0.0]] * 3 + [[1.0]] * 7 + [[0.5]]), np.arange(11) < 10
    groups, _ = placed(in_memory(z), fitted, {"one": np.repeat([0, 1], [3, 7])}, {}, HERE)
    assert groups["one"][10] == 1


def latents(z: np.ndarray) -> Latents:
    n = len(z)
    labels = pd.Series([pd.NA] * n, dtype="string")
    return Latents(z, pd.DataFrame({"particle_id": [f"p{i:05d}" for i in range(n)], "label": labels, "split": "train"}))


def test_scores_in_chunks_equal_scores_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    core, known = latents(clusters(500)[0]), latents(clusters(60, seed=3)[0])
    nobody = core.where(np.zeros(500, bool))
    once = latent_scores(core, nobody, OutlierSettings(trees=20), 0, known)
    monkeypatch.setattr(parts, "SLICE", 33)
    told: list[int] = []
    sliced = latent_scores(core, nobody, OutlierSettings(trees=20), 0, known, tick=told.append)
    pd.testing.assert_frame_equal(sliced, once, rtol=1e-5)
    assert sum(told) == 560
    assert max(told) == 33


def test_who_is_not_fitted_is_compared_with_those_that_are() -> None:
    z = clusters(400)[0]
    fitted = np.arange(400) < 300
    nobody = latents(z[:0])
    scores = latent_scores(latents(z), nobody, OutlierSettings(k=5, trees=20), 0, fitted=fitted)
    alone = latent_scores(latents(z[:300]), nobody, OutlierSettings(k=5, trees=20), 0, known=latents(z[300:]))
    pd.testing.assert_frame_equal(scores, alone, rtol=1e-5)
