from collections.abc import Callable

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from clustering.maps import MapSettings, reduced, tsne_map, umap_map
from provenance.errors import UserError

SETTINGS = MapSettings(neighbors=15, perplexity=15)


@pytest.fixture(scope="module")
def blobs() -> tuple[np.ndarray, np.ndarray]:
    """Three separated blobs of 50 points in 6 dimensions."""
    truth = np.repeat(np.arange(3), 50)
    z = np.random.default_rng(0).normal(size=(150, 6)) + 15 * np.eye(6)[truth]
    return z.astype(np.float32), truth


def neighbors_of_own_kind(xy: np.ndarray, truth: np.ndarray) -> float:
    """Share of the five nearest neighbors on the map that are of the point's own blob."""
    near = NearestNeighbors(n_neighbors=6).fit(xy).kneighbors(xy)[1][:, 1:]
    return float((truth[near] == truth[:, None]).mean())


@pytest.mark.parametrize("draw", [umap_map, tsne_map])
def test_maps_keep_neighbors_and_repeat_to_the_byte(draw: object, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    z, truth = blobs
    assert callable(draw)
    xy = draw(z, SETTINGS, 0)
    assert (xy.shape, xy.dtype) == ((150, 2), np.float32)
    assert neighbors_of_own_kind(xy, truth) > 0.98
    assert draw(z.copy(), SETTINGS, 0).tobytes() == xy.tobytes()


def test_another_seed_gives_another_umap(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    assert np.abs(umap_map(blobs[0], SETTINGS, 0) - umap_map(blobs[0], SETTINGS, 1)).max() > 0.01


@pytest.mark.parametrize("draw", [umap_map, tsne_map])
def test_ten_points_are_enough_and_nine_are_not(draw: object) -> None:
    z = np.random.default_rng(1).normal(size=(10, 3)).astype(np.float32)
    assert callable(draw)
    assert np.isfinite(draw(z, MapSettings(), 0)).all()
    with pytest.raises(UserError, match=r"9 particle\(s\) are too few for .*, 10 are needed.*larger core"):
        draw(z[:9], MapSettings(), 0)


def test_narrow_latents_are_mapped_as_they_are() -> None:
    z = np.random.default_rng(2).normal(size=(60, 40)).astype(np.float32)
    np.testing.assert_array_equal(reduced(z), z)


def test_wide_latents_are_reduced_to_forty_components() -> None:
    z = np.random.default_rng(3).normal(size=(200, 64)) * np.linspace(1, 5, 64)
    expected = PCA(40, svd_solver="full").fit(z)
    found = reduced(z)
    assert found.shape == (200, 40)
    np.testing.assert_allclose(found.var(0, ddof=1), expected.explained_variance_, rtol=1e-4)
    np.testing.assert_allclose(np.abs(found), np.abs(expected.transform(z)), atol=1e-2)


def test_few_wide_latents_are_reduced_to_what_they_span() -> None:
    z = np.random.default_rng(4).normal(size=(12, 512)).astype(np.float32)
    found = reduced(z)
    assert found.shape == (12, 11)
    distances = [np.linalg.norm(v[:, None] - v[None], axis=-1) for v in (z, found)]
    np.testing.assert_allclose(distances[0], distances[1], rtol=1e-3)  # eleven axes hold all of it


def test_a_map_in_pieces_repeats_whatever_was_drawn_before() -> None:
    """umap-learn places the pieces of a neighbor graph by numpy's global state; a seed must cover that too."""
    rng = np.random.default_rng(0)
    pieces = np.concatenate([rng.normal(size=(40, 4)) + 1000 * k for k in range(4)]).astype(np.float32)
    maps = []
    for noise in (1, 2):
        np.random.seed(noise)  # noqa: NPY002
        before = np.random.get_state()[1].copy()  # noqa: NPY002
        maps.append(umap_map(pieces, MapSettings(neighbors=8), seed=0))
        np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    np.testing.assert_array_equal(*maps)


def test_constant_latents_have_a_tsne_map_too() -> None:
    assert np.isfinite(tsne_map(np.ones((40, 5), np.float32), SETTINGS, 0)).all()


@pytest.mark.parametrize("of", [reduced, lambda z: tsne_map(z[:150], SETTINGS, 0)])
def test_the_number_of_linear_algebra_threads_changes_no_bit(of: Callable[[np.ndarray], np.ndarray]) -> None:
    """openTSNE's own threads are another matter: they are as many as the machine has cores."""
    z = np.random.default_rng(4).normal(size=(1200, 512)).astype(np.float32)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.append(of(z).tobytes())
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("changes", "way_out"),
    [({"neighbors": 1}, "at least 2"), ({"min_dist": -0.1}, "0 to 1"), ({"perplexity": 0.5}, "at least 1"),
     ({"perplexity": float("nan")}, "at least 1")],
)  # fmt: skip
def test_maps_that_cannot_be_made_are_refused(changes: dict[str, float], way_out: str) -> None:
    with pytest.raises(UserError, match=f"give .*{way_out}"):
        MapSettings(**changes)
