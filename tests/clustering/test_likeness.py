import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist

from clustering.likeness import likeness, rank_by_likeness


def test_likeness_orders_by_the_distance_to_the_nearest_marked() -> None:
    z = np.random.default_rng(0).normal(size=(60, 3))
    marked = np.arange(60) < 4
    distances = cdist(z, z[:4])
    distances[np.arange(4), np.arange(4)] = np.inf
    assert np.argsort(-likeness(z, marked)).tolist() == np.argsort(distances.min(axis=1)).tolist()


def test_one_marked_particle_is_like_itself() -> None:
    z = np.arange(10.0)[:, None]
    found = likeness(z, np.arange(10) == 3)
    assert np.argsort(-found, kind="stable").tolist()[:4] == [3, 2, 4, 1]


def test_planted_brothers_of_the_marked_come_first_whatever_the_order_of_a_view() -> None:
    rng = np.random.default_rng(1)
    ids = pd.Series([f"p{i}" for i in range(200)])
    views = {}
    for name in ("vae", "classifier"):
        z = rng.normal(size=(200, 5))
        z[:10] += 9
        order = rng.permutation(200)
        views[name] = (ids[order].reset_index(drop=True), z[order])
    ranked = rank_by_likeness(views, {"p0", "p1", "p2"})
    np.testing.assert_allclose(ranked["likeness"], ranked[["vae", "classifier"]].mean(axis=1))
    others = ranked[~ranked["marked"]].sort_values("rank")
    assert set(others["particle_id"].head(7)) == {f"p{i}" for i in range(3, 10)}
    assert set(ranked.loc[ranked["marked"], "particle_id"]) == {"p0", "p1", "p2"}
