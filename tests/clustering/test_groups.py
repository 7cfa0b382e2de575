import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from clustering.groups import NOISE, GroupSettings, dbscan, hdbscan_groups, kmeans, knee_eps
from provenance.errors import UserError

FAR = np.array([[100.0, 0.0], [0.0, 100.0], [-100.0, -100.0]])
FEW = GroupSettings(min_samples=5, min_cluster_size=20)


@pytest.fixture(scope="module")
def blobs() -> tuple[np.ndarray, np.ndarray]:
    """Four well separated blobs of 60 points, and which blob each point is of."""
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(4), 60)
    centers = np.array([[0, 0], [10, 0], [0, 10], [10, 10]])
    return centers[truth] + rng.uniform(-1, 1, size=(240, 2)), truth


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_clusters": 0}, "--n-clusters 0: give at least 1"),
        ({"min_samples": 0}, "--min-samples 0: give at least 1"),
        ({"min_cluster_size": 1}, "--min-cluster-size 1: give at least 2"),
        ({"eps": 0.0}, r"--eps 0\.0: give a radius above 0, or none for the knee of the curve"),
        ({"eps": -1.0}, r"--eps -1\.0: give a radius above 0, or none for the knee of the curve"),
    ],
)
def test_nonsense_is_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}$"):
        GroupSettings(**wrong)  # type: ignore[arg-type]
    assert GroupSettings(n_clusters=1, min_samples=1, min_cluster_size=2, eps=1e-9).min_cluster_size == 2


def test_kmeans_finds_planted_blobs(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    xy, truth = blobs
    labels = kmeans(xy, 4, seed=0)
    assert adjusted_rand_score(truth, labels) == 1.0
    assert set(labels) == {0, 1, 2, 3}
    np.testing.assert_array_equal(labels, kmeans(xy, 4, seed=0))


def test_another_seed_starts_kmeans_elsewhere() -> None:
    xy = np.random.default_rng(4).uniform(size=(300, 2))  # no groups: where it starts decides where it ends
    assert adjusted_rand_score(kmeans(xy, 12, seed=0), kmeans(xy, 12, seed=1)) < 0.95


def test_the_best_of_ten_starts_is_taken() -> None:
    xy = np.random.default_rng(5).uniform(size=(300, 2))

    def spread(labels: np.ndarray) -> float:
        return sum(((xy[labels == one] - xy[labels == one].mean(axis=0)) ** 2).sum() for one in np.unique(labels))

    first = [spread(KMeans(12, n_init=1, random_state=seed).fit_predict(xy)) for seed in range(6)]
    won = np.array(first) - [spread(kmeans(xy, 12, seed)) for seed in range(6)]
    assert won.min() > -1e-9
    assert (won > 1e-3).sum() >= 3, "seldom is the first the best"


def test_dbscan_finds_planted_blobs_and_calls_far_points_noise(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    xy, truth = blobs
    labels, eps = dbscan(np.concatenate([xy, FAR]), FEW)
    assert adjusted_rand_score(truth, labels[:240]) == 1.0
    assert labels[240:].tolist() == [NOISE] * 3
    assert NOISE not in labels[:240]
    assert 0.1 < eps < 8  # between the spacing within a blob and that between blobs


def test_dbscan_takes_the_radius_it_is_given(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    xy, _ = blobs
    labels, eps = dbscan(xy, GroupSettings(eps=20.0, min_samples=5))
    assert (eps, set(labels)) == (20.0, {0})
    labels, eps = dbscan(xy, GroupSettings(eps=1e-6, min_samples=5))
    assert (eps, set(labels)) == (1e-6, {NOISE})


def test_hdbscan_finds_planted_blobs_and_calls_far_points_noise(
    blobs: tuple[np.ndarray, np.ndarray],
) -> None:
    xy, truth = blobs
    groups = hdbscan_groups(np.concatenate([xy, FAR]), FEW)
    assert adjusted_rand_score(truth, groups.labels[:240]) == 1.0
    assert groups.labels[240:].tolist() == [NOISE] * 3
    assert NOISE not in groups.labels[:240]
    assert groups.outlier_scores[240:].min() > groups.outlier_scores[:240].max()
    assert groups.outlier_scores.min() >= 0
    assert groups.outlier_scores.max() <= 1


def test_groups_do_not_depend_on_the_order_of_the_rows(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    xy = np.concatenate([blobs[0], FAR])
    order = np.random.default_rng(1).permutation(len(xy))
    density, eps = dbscan(xy, FEW)
    tree = hdbscan_groups(xy, FEW)
    shuffled_density, shuffled_eps = dbscan(xy[order], FEW)
    shuffled_tree = hdbscan_groups(xy[order], FEW)
    assert shuffled_eps == pytest.approx(eps)
    for labels, shuffled in ((density, shuffled_density), (tree.labels, shuffled_tree.labels)):
        assert adjusted_rand_score(labels[order], shuffled) == 1.0
        np.testing.assert_array_equal(labels[order] == NOISE, shuffled == NOISE)
    # equal distances in the tree are cut in the order of the rows, which can move a point's score, not its group
    moved = ~np.isclose(shuffled_tree.outlier_scores, tree.outlier_scores[order])
    assert moved.mean() < 0.02
    assert adjusted_rand_score(kmeans(xy[:240], 4, 0)[order[order < 240]], kmeans(xy[order[order < 240]], 4, 0)) == 1


def test_the_same_points_give_the_same_labels(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    xy = np.concatenate([blobs[0], FAR])
    one, two = hdbscan_groups(xy, FEW), hdbscan_groups(xy.copy(), FEW)
    assert one.labels.tobytes() == two.labels.tobytes()
    assert one.outlier_scores.tobytes() == two.outlier_scores.tobytes()


def test_the_knee_lies_between_a_planted_density_and_sparse_points() -> None:
    """A lattice of spacing 1, whose fourth neighbor is at 1 within, and 5 % of points 50 apart."""
    lattice = np.stack(np.meshgrid(np.arange(20.0), np.arange(20.0)), -1).reshape(-1, 2)
    sparse = np.stack([np.full(20, 1000.0), 50.0 * np.arange(20)], 1)
    eps = knee_eps(np.concatenate([lattice, sparse]), k=4)
    assert 1.0 <= eps <= 2.0
    assert knee_eps(3 * np.concatenate([lattice, sparse]), k=4) == pytest.approx(3 * eps)


def test_one_far_point_does_not_move_the_knee() -> None:
    rng = np.random.default_rng(2)
    xy = rng.normal(size=(400, 2))
    moved = [knee_eps(np.concatenate([xy, [[far, 0.0]]]), k=10) for far in (50.0, 1e6)]
    assert moved[0] == pytest.approx(moved[1])


def test_a_radius_is_found_even_for_duplicates_alone() -> None:
    labels, eps = dbscan(np.zeros((30, 2)), FEW)
    assert eps > 0
    assert set(labels) == {0}


def test_too_few_points_name_the_way_out() -> None:
    xy = np.zeros((5, 2))
    with pytest.raises(UserError, match=r"at least 6 particles, there are 5.*--n-clusters"):
        kmeans(xy, 6, seed=0)
    with pytest.raises(UserError, match=r"5 particle\(s\) are too few for DBSCAN, 6 are needed.*--min-samples"):
        dbscan(xy, FEW)
    with pytest.raises(UserError, match=r"too few for HDBSCAN.*--min-samples"):
        hdbscan_groups(xy, FEW)


def test_the_smallest_group_is_one_percent_but_at_least_ten(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    xy = blobs[0]
    nine = np.random.default_rng(3).uniform(-1, 1, size=(9, 2)) + 50
    labels = hdbscan_groups(np.concatenate([xy, nine]), GroupSettings(min_samples=3)).labels
    assert len({*labels[240:]} - {NOISE, *labels[:240]}) == 0  # nine are no group
    labels = hdbscan_groups(np.concatenate([xy, nine]), GroupSettings(min_samples=3, min_cluster_size=9)).labels
    assert len(set(labels[240:])) == 1
    assert labels[240] not in {NOISE, *labels[:240]}


def test_of_two_thousand_a_group_has_at_least_twenty() -> None:
    rng = np.random.default_rng(6)
    bulk = rng.normal(size=(1955, 2))
    thirty, fifteen = (far + 0.1 * rng.normal(size=(n, 2)) for far, n in ((20, 30), (-20, 15)))
    labels = hdbscan_groups(np.concatenate([bulk, thirty, fifteen]), GroupSettings(min_samples=5)).labels
    assert len(set(labels[1955:1985])) == 1
    assert labels[1955] not in {NOISE, *labels[:1955], *labels[1985:]}
    assert not {*labels[1985:]} - {NOISE, *labels[:1985]}, "fifteen are no group"
