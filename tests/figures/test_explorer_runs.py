"""Runs on a disk -> what the explorer is given."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from figures.explorer import write_explorer
from figures.explorer_crops import StoredCrops
from figures.explorer_missing import Opened
from figures.explorer_runs import exploration, nearest, strangest_and_others
from particles.latents import Latents
from particles.pixels import PixelStore, write_shard
from particles.sets import ParticleSet
from particles.table import write_parquet
from provenance.files import write_json
from provenance.run import Run

N, GONE = 12, "p11"


@given(st.integers(1, 25), st.integers(1, 4), st.integers(0, 2**16))
@settings(max_examples=20, deadline=None)
def test_neighbors_are_the_nearest_others(n: int, width: int, seed: int) -> None:
    z = np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)
    z[np.random.default_rng(seed + 1).random(n) < 0.2] = np.nan
    known = np.isfinite(z).all(axis=1)
    distances = np.linalg.norm(z[:, None].astype(float) - z[None], axis=2)
    np.fill_diagonal(distances, np.nan)
    for row, found in enumerate(nearest(z, k=3)):
        wanted = np.sort(distances[row][np.isfinite(distances[row])])[:3] if known[row] else np.array([])
        assert (found >= 0).sum() == len(wanted)
        np.testing.assert_allclose(distances[row][found[found >= 0]], wanted, rtol=1e-3)
        assert row not in found


def test_of_many_particles_neighbors_are_those_in_the_leading_components() -> None:
    """What varies little is left out: 40 dimensions of noise beside three that tell the particles apart."""
    rng = np.random.default_rng(0)
    z = rng.normal(0, 1e-3, (300, 43)).astype(np.float32)
    z[:, :3] += rng.normal(0, 10, (300, 3))
    assert (nearest(z, few=100)[:, 0] == nearest(z)[:, 0]).mean() > 0.98


def test_the_strangest_are_never_left_out() -> None:
    ranked = pd.DataFrame({"particle_id": range(1000), "rank": np.random.default_rng(0).permutation(1000) + 1})
    shown = strangest_and_others(ranked, most=100)
    assert len(shown) == 100
    assert set(range(1, 51)) <= set(shown["rank"])
    assert shown["rank"].median() > 50
    assert strangest_and_others(ranked, most=1000) is ranked
    pd.testing.assert_frame_equal(shown, strangest_and_others(ranked, most=100))


@pytest.fixture
def store(tmp_path: Path) -> PixelStore:
    shards = [tmp_path / "0.npy", tmp_path / "1.npy"]
    images = np.arange(N, dtype=np.uint8)[:, None, None] * np.ones((N, 8, 8), dtype=np.uint8)
    write_shard(shards[0], images[:7])
    write_shard(shards[1], images[7:])
    return PixelStore(shards)


def test_crops_come_from_the_store_and_none_is_black(store: PixelStore) -> None:
    crops = StoredCrops(store, np.array([3, -1, 9, N]))
    assert crops.absent.tolist() == [False, True, False, True]
    assert crops[np.array([2, 1, 0, 3])][:, 0, 0].tolist() == [9, 0, 3, 0]


@pytest.fixture
def particles(tmp_path: Path, store: PixelStore) -> ParticleSet:
    """The last particle of the ranking is not in the table any more."""
    ids = [f"p{i}" for i in range(N - 1)]
    table = pd.DataFrame(
        {
            "particle_id": pd.array(ids, dtype="string"), "position": np.arange(N - 1)[::-1], "scale": 0.5,
            "role": "core", "image": [f"{i}.png" for i in range(N - 1)],
            "label": pd.array([pd.NA] * (N - 1), dtype="string"),
            "um_per_px": pd.array([0.25] * (N - 1), "Float64"),
            "width_px": pd.array([16] * (N - 1), "Int64"), "height_px": pd.array([12] * (N - 1), "Int64"),
            "Area (ABD)": pd.array(np.arange(N - 1) * 1.5, "Float64"), "top_cm": pd.array([20.0] * (N - 1), "Float64"),
        }
    )  # fmt: skip
    return ParticleSet("tiny", table, store, "print", tmp_path, True)


@pytest.fixture
def ranked() -> pd.DataFrame:
    ids = [f"p{i}" for i in range(N)]
    return pd.DataFrame(
        {"particle_id": ids, "vae.knn": np.linspace(0, 1, N), "score": range(N), "rank": N - np.arange(N),
         "reasons": "a; b", "p_value": 0.5, "discovery": [True] + [False] * (N - 1)}
    )  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Vectors on a line, in another order than the ranking; a reconstruction of one particle that is shown."""
    path = tmp_path / "runs" / "vae" / "1"
    order = np.random.default_rng(0).permutation(N - 1)
    index = pd.DataFrame({"particle_id": [f"p{i}" for i in order]})
    Latents((order[:, None] ** 2).astype(np.float32), index).write(path)
    np.save(path / "reconstructions.npy", np.stack([np.zeros((2, 8, 8)), np.full((2, 8, 8), 0.2)]))
    write_json(path / "reconstructions.json", ["elsewhere", "p4"])
    return Run(path)


@pytest.fixture
def clustered(tmp_path: Path) -> Run:
    path = tmp_path / "runs" / "clusters-vae" / "1"
    ids = pd.DataFrame({"particle_id": [f"p{i}" for i in range(N - 1)][::-1]})
    write_parquet(ids.assign(umap_x=np.arange(N - 1.0), umap_y=0.0), path / "maps.parquet")
    write_parquet(ids.assign(hdbscan=np.arange(N - 1) - 1, fitted=True), path / "clusters.parquet")
    return Run(path)


def test_everything_is_joined_by_id(particles: ParticleSet, ranked: pd.DataFrame, run: Run, clustered: Run) -> None:
    predicted = pd.Series({f"p{i}": f"class {i % 2}" for i in range(N)})
    points, crops, extras = exploration(particles, [run], [clustered], ranked, predicted, "--data lake")
    assert points["particle_id"].tolist() == [f"p{i}" for i in range(N)][::-1]
    row = points["particle_id"].tolist().index("p4")
    assert "vae:fitted" not in points, "who was fitted is no group"
    shown = points.loc[row, ["Area (ABD)", "vae:umap_x", "vae:hdbscan", "predicted", "rank", "top_cm"]].tolist()
    assert shown == [6.0, 6.0, 5, "class 0", 8, 20.0]
    assert points.loc[row, "image"] == "4.png"
    assert (points.loc[row, "size_um"], points.loc[row, "um_per_shown_px"]) == (4.0, 0.5)
    assert crops[np.array([row])][0, 0, 0] == 6
    # p4 lies at 16 on the line: next to 9, 25 (as far as 7 and 9 away), 4, 1, 36
    assert points["particle_id"].iloc[extras.neighbors["vae"][row, :5]].tolist() == ["p3", "p5", "p2", "p1", "p0"]
    redrawn = extras.redrawn["vae"]
    assert (redrawn.rows.tolist(), redrawn.images[0, 0, 0]) == ([row], 51)
    assert (extras.fingerprint, extras.total, extras.opened.flags) == ("print", N, "--data lake")


def test_a_particle_that_is_gone_is_said_to_be(
    particles: ParticleSet, ranked: pd.DataFrame, run: Run, clustered: Run, tmp_path: Path
) -> None:
    points, crops, extras = exploration(particles, [run], [clustered], ranked, pd.Series(dtype="string"))
    assert points["particle_id"].iloc[0] == GONE
    assert crops.absent.tolist() == [True] + [False] * (N - 1)
    assert pd.isna(points.loc[0, "vae:hdbscan"])
    assert extras.neighbors["vae"][0].tolist() == [-1] * 10
    assert extras.opened == Opened("", 0)
    assert [entry.why for entry in extras.missing] == ["1 particles of the ranking are not in the store"]
    assert GONE in write_explorer(tmp_path / "e.html", points, crops, "t", extras).read_text(encoding="utf-8")


def test_a_latent_without_vectors_is_named(
    particles: ParticleSet, ranked: pd.DataFrame, run: Run, clustered: Run
) -> None:
    (run.path / "z.npy").unlink()
    _, _, extras = exploration(particles, [run], [clustered], ranked, pd.Series(dtype="string"))
    assert extras.neighbors == {}
    assert extras.missing[0].name == "neighbors (vae)"
    assert "train or encode again" in extras.missing[0].why
