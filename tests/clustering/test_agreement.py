"""Agreement between latents: against references, by hand, and whatever order the rows come in."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from sklearn.manifold import trustworthiness
from sklearn.metrics import adjusted_rand_score

from clustering.agreement import (
    agreement,
    found_in,
    group_agreement,
    n_found,
    neighbor_overlap,
    neighbors_for,
    rank_correlation,
    sampled,
    top_overlap,
    write_agreement,
)
from clustering.consensus import ranks
from particles.latents import Latents
from particles.table import write_parquet
from provenance.files import read_json
from provenance.run import Run, RunSettings, started

N = 120
IDS = [f"p{i:03d}" for i in range(N)]


def latent(seed: int, n: int = N, tsne: bool = True) -> dict[str, pd.DataFrame]:
    """Scores, groups, maps and vectors of one latent, pure noise."""
    rng = np.random.default_rng(seed)
    ids = pd.Index(IDS[:n], name="particle_id")
    score = rng.normal(size=n)
    z = rng.normal(size=(n, 5))
    columns = ["umap_x", "umap_y", "tsne_x", "tsne_y"] if tsne else ["umap_x", "umap_y"]
    return {
        "scored": pd.DataFrame({"score": score, "rank": ranks(score)}, index=ids),
        "grouped": pd.DataFrame({"kmeans": rng.integers(0, 3, n), "hdbscan": rng.integers(-1, 3, n)}, index=ids),
        "mapped": pd.DataFrame(rng.normal(size=(n, len(columns))), index=ids, columns=columns),
        "vectors": pd.DataFrame(z, index=ids),
    }


def compared(*latents: dict[str, pd.DataFrame]) -> dict:
    parts = ("scored", "grouped", "mapped", "vectors")
    return agreement(*({f"latent {i}": of[part] for i, of in enumerate(latents)} for part in parts))


def test_rank_correlation_is_spearmans_and_nothing_where_nothing_varies() -> None:
    scores = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 3))).round(1)  # with ties
    np.testing.assert_allclose(rank_correlation(scores), spearmanr(scores).statistic)
    assert np.isnan(rank_correlation(scores.assign(flat=1.0))[-1]).all()


def test_top_overlap_by_hand() -> None:
    found = top_overlap(pd.DataFrame({"a": [1, 2, 3, 4, 5, 6], "b": [3, 2, 6, 1, 4, 5], "c": [6, 5, 4, 3, 2, 1]}), 3)
    np.testing.assert_allclose(found, [[1, 2 / 3, 0], [2 / 3, 1, 1 / 3], [0, 1 / 3, 1]])


def test_found_in_counts_the_latents_that_rank_a_particle_in_their_first_percent() -> None:
    n = 250
    rank = pd.DataFrame({name: np.arange(n) + 1 for name in "abc"}, index=[f"p{i}" for i in range(n)])
    rank["b"] = rank["b"].to_numpy()[::-1]
    assert [n_found(k) for k in (1, 100, 101, 250, 2400)] == [1, 1, 2, 3, 24]
    assert found_in(rank).iloc[[0, 2, 3, 246, 247, 249]].tolist() == [2, 2, 0, 0, 1, 1]
    assert found_in(rank[["a"]]).sum() == 3


def test_clusterings_are_compared_where_neither_calls_noise() -> None:
    one = np.array([0, 0, 1, 1, 1, -1, -1, -1, 2, 2])
    other = np.array([1, 1, 0, 0, 1, -1, 0, -1, -1, 2])
    index, shares = group_agreement(pd.DataFrame({"one": one, "other": other}))
    both = [0, 1, 2, 3, 4, 9]
    assert index[0, 1] == index[1, 0] == pytest.approx(adjusted_rand_score(one[both], other[both]))
    np.testing.assert_allclose(shares, [[0.7, 0.6], [0.6, 0.7]])
    np.testing.assert_allclose(np.diag(index), 1)
    # two latents that call nearly all noise do not agree by that
    index, shares = group_agreement(pd.DataFrame({"a": [-1] * 98 + [0, 1], "b": [-1] * 98 + [0, 0]}))
    assert np.isnan(index[0, 1]), "one group has nothing to say"
    assert shares[0, 1] == pytest.approx(0.02)
    index, shares = group_agreement(pd.DataFrame({"a": [-1] * 4, "b": [0, 0, 1, 1]}))
    assert np.isnan(index[0]).all()
    assert shares[0].tolist() == [0, 0]


def test_neighborhoods_by_hand_and_without_the_particle_itself() -> None:
    line, folded = np.array([[0.0], [1], [2.1], [3.3]]), np.array([[0.0], [5], [0.1], [5.1]])
    # nearest on the line: 1, 0, 1, 2; folded: 2, 3, 0, 1
    np.testing.assert_allclose(neighbor_overlap([line, folded], 1), [[1, 0], [0, 1]])
    # the two nearest: {1 2} {0 2} {1 3} {2 1}; {2 1} {3 2} {0 1} {1 2}
    np.testing.assert_allclose(neighbor_overlap([line, folded], 2)[0, 1], (1 + 0.5 + 0.5 + 1) / 4)


def test_independent_latents_share_neighbors_by_chance_alone() -> None:
    rng = np.random.default_rng(0)
    shared = neighbor_overlap([rng.normal(size=(600, 3)), rng.normal(size=(600, 9))], 15)[0, 1]
    assert shared == pytest.approx(15 / 599, rel=0.2)


def test_identical_latents_agree_in_everything() -> None:
    same = compared(latent(3), latent(3))
    for name in ("rank_correlation", "top_overlap", "kmeans_ari", "hdbscan_ari", "neighbor_overlap"):
        np.testing.assert_allclose(np.array(same[name], dtype=float), np.ones((2, 2)), err_msg=name)
    assert same["found_in"] == [N - 2, 0, 2]
    assert same["top"] == 12, "a tenth of a small core"


def test_of_a_large_core_the_hundred_strangest_are_compared() -> None:
    one, other = latent(0), latent(1)
    ids, rng = pd.Index([*IDS, *(f"q{i}" for i in range(1500 - N))]), np.random.default_rng(2)
    for of in (one, other):
        score = rng.normal(size=1500)
        of["scored"] = pd.DataFrame({"score": score, "rank": ranks(score)}, index=ids)
        of["grouped"] = pd.DataFrame(0, index=ids, columns=["kmeans", "hdbscan"])
    shared = compared(one, other)
    assert shared["top"] == 100
    first = [set(of["scored"]["rank"].nsmallest(100).index) for of in (one, other)]
    assert shared["top_overlap"][0][1] == len(first[0] & first[1]) / 100


def test_trustworthiness_is_sklearns_and_a_map_that_was_not_made_is_left_out() -> None:
    one, other = latent(0), latent(1, tsne=False)
    other["mapped"][["umap_x", "umap_y"]] = other["vectors"][[0, 1]].to_numpy()
    trust = compared(one, other)["trustworthiness"]
    for method in ("umap", "tsne"):
        xy = one["mapped"][[f"{method}_x", f"{method}_y"]].to_numpy()
        assert trust["latent 0"][method] == trustworthiness(one["vectors"].to_numpy(), xy, n_neighbors=15)
    assert list(trust["latent 1"]) == ["umap"]
    assert trust["latent 1"]["umap"] > 0.6 > trust["latent 0"]["umap"]


def test_rows_are_joined_by_id_whatever_their_order() -> None:
    one, other = latent(0), latent(1)
    shuffled = {name: frame.sample(frac=1, random_state=2) for name, frame in other.items()}
    shuffled["vectors"] = other["vectors"]
    assert compared(one, shuffled) == compared(one, other)


@pytest.mark.parametrize("n", [10, 12, 31])
def test_a_core_smaller_than_the_neighborhood_is_compared_with_fewer(n: int) -> None:
    small = compared(latent(0, n), latent(1, n))
    assert small["neighbors"] == neighbors_for(n) == min(15, (n - 1) // 2)
    assert 0 <= small["neighbor_overlap"][0][1] < 1
    assert small["trustworthiness"]["latent 0"]["umap"] is not None


def test_the_sample_is_seeded_and_does_not_depend_on_the_order_of_rows() -> None:
    ids = pd.Index(IDS)
    assert list(sampled(ids, 0)) == IDS, "a core that is small enough is compared whole"
    first = sampled(ids, 0, most=20)
    assert len(set(first)) == 20
    assert list(first) == list(sampled(ids[::-1], 0, most=20))
    assert list(first) != list(sampled(ids, 1, most=20))


def runs_of(folder: Path, kinds: tuple[str, ...]) -> tuple[list[Run], list[Run], Run]:
    """Finished latents and clusterings, each with its rows in another order; the labeled stand among the vectors."""
    common, identity = RunSettings(work_dir=folder), {"name": "noise", "fingerprint": "print", "path": ""}
    latents, done = [], []
    for seed, kind in enumerate(kinds):
        made, rng = latent(seed), np.random.default_rng(seed)
        with started(kind, common, common, identity) as run:
            index = pd.DataFrame({"particle_id": [*IDS, "known"], "role": "core"}).sample(frac=1, random_state=seed)
            z = np.concatenate([made["vectors"].to_numpy(), rng.normal(size=(1, 5))])
            Latents(z[index.index].astype(np.float32), index.reset_index(drop=True)).write(run.path)
        latents.append(run)
        with started(f"clusters-{kind}", common, common, identity, [run]) as run:
            for name, part in (("outliers", "scored"), ("clusters", "grouped"), ("maps", "mapped")):
                rows = made[part].sample(frac=1, random_state=seed + 7).reset_index()
                write_parquet(rows, run.path / f"{name}.parquet")
        done.append(run)
    with started("consensus", common, common, identity, done) as run:
        pass
    return latents, done, run


def test_what_is_written_is_what_the_runs_hold(tmp_path: Path) -> None:
    latents, done, run = runs_of(tmp_path, ("vae", "ae", "classifier"))
    write_agreement(run, done, latents, seed=0)
    written = read_json(run.path / "agreement.json")
    assert written["latents"] == ["vae", "ae", "classifier"]
    wanted = compared(*(latent(seed) for seed in range(3)))
    for name in ("rank_correlation", "top_overlap", "kmeans_ari", "hdbscan_ari", "neighbor_overlap", "found_in"):
        np.testing.assert_allclose(np.array(written[name]), np.array(wanted[name]), err_msg=name)


def test_one_latent_has_none_to_agree_with(tmp_path: Path) -> None:
    latents, done, run = runs_of(tmp_path, ("vae",))
    write_agreement(run, done, latents, seed=0)
    assert not (run.path / "agreement.json").exists()
