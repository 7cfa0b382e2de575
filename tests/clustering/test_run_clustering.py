from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from clustering.consensus import EXCESS, rarity
from clustering.groups import GroupSettings
from clustering.kept import Kept
from clustering.likeness import write_likeness
from clustering.maps import MapSettings
from clustering.outliers import knn_distance
from clustering.run import ClusteringSettings, _show, find_latents, run_clustering
from clustering.verdict import calibrated, excess_weight
from particles.latents import Latents, read_latents
from particles.measures import normalized_scalars
from particles.pixels import PixelStore
from particles.scalars import SCALARS
from particles.sets import ParticleSet
from particles.table import read_parquet
from provenance.errors import UserError
from provenance.files import read_json, write_json
from provenance.run import Run, RunSettings, started

N_KNOWN, N_CORE = 60, 120
STRANGE = (5, 50, 100)
HOW = ClusteringSettings(groups=GroupSettings(min_samples=5), maps=MapSettings(neighbors=12, tsne=False))


def table(labels: bool = True) -> pd.DataFrame:
    """Known particles of two classes, then a core of the same two classes with three planted strangers."""
    core_truth = np.array(["dust", "pollen"] * (N_CORE // 2), dtype=object)
    core_truth[list(STRANGE)] = "stranger"
    rows = pd.DataFrame(
        {
            "particle_id": [f"k{i}" for i in range(N_KNOWN)] + [f"c{i}" for i in range(N_CORE)],
            "truth": ["dust", "pollen"] * (N_KNOWN // 2) + core_truth.tolist(),
            "role": ["labeled"] * N_KNOWN + ["core"] * N_CORE,
            "split": (["train"] * 3 + ["test"]) * ((N_KNOWN + N_CORE) // 4),
        }
    ).astype("string")
    known = rows["role"] == "labeled"
    rows["label"] = rows["truth"].where(known & labels)
    rows["is_outlier"] = (rows["truth"] == "stranger").astype("boolean").mask(known)
    nothing = pd.array([pd.NA] * len(rows), dtype="Float64")
    return rows.assign(position=np.arange(len(rows)), **dict.fromkeys(SCALARS, nothing))


def measured(particles: ParticleSet) -> ParticleSet:
    """The same set, packed with scalars; the strangers stand out by them."""
    rng = np.random.default_rng(2)  # of some draws the core has nothing more than the labeled, and no excess
    values = rng.normal(size=(len(particles.table), len(SCALARS)))
    values[(particles.table["truth"] == "stranger").to_numpy()] += 6
    columns = pd.DataFrame(values, columns=list(SCALARS), dtype="Float64")
    return replace(particles, table=particles.table.assign(**columns))


def particle_set(tmp_path: Path, labels: bool = True) -> ParticleSet:
    np.save(tmp_path / "pixels.npy", np.zeros((N_KNOWN + N_CORE, 8, 8), dtype=np.uint8))
    return ParticleSet("planted", table(labels), PixelStore([tmp_path / "pixels.npy"]), "print", tmp_path, False)


def latent_run(kind: str, particles: ParticleSet, common: RunSettings, seed: int) -> Run:
    """A finished training run whose latents are two blobs, with the strangers far from both."""
    rng = np.random.default_rng(seed)
    rows = particles.table
    centers = {"dust": 0.0, "pollen": 12.0, "stranger": 6.0}
    z = rng.normal(size=(len(rows), 4))
    z[:, 0] += rows["truth"].map(centers).to_numpy(dtype=float)
    z[(rows["truth"] == "stranger").to_numpy(), 1:] += [[25, 0, 0], [0, 25, 0], [0, 0, 25]]
    index = rows[["particle_id", "label", "truth", "role", "split", "is_outlier"]].copy()
    if kind == "classifier":
        index["predicted"] = rows["truth"].where(rows["truth"] != "stranger", "dust")
    with started(kind, HOW, common, particles.identity) as run:
        # another order of rows in each latent: only ids may join them
        order = rng.permutation(len(rows))
        Latents(z[order].astype(np.float32), index.iloc[order].reset_index(drop=True)).write(run.path)
    return run


def test_planted_strangers_come_first_and_blobs_are_found(tmp_path: Path) -> None:
    particles, common = particle_set(tmp_path), RunSettings(work_dir=tmp_path)
    runs = [latent_run(kind, particles, common, seed) for seed, kind in enumerate(("vae", "ae"))]
    clustered, consensus = run_clustering(particles, runs, HOW, HOW, common)
    assert [run.kind for run in clustered] == ["clusters-vae", "clusters-ae"]
    core = [f"c{i}" for i in range(N_CORE)]
    for run, latent in zip(clustered, runs, strict=True):
        assert run.info["parents"] == [latent.name]
        ids = read_parquet(latent.path / "index.parquet").query("role == 'core'")["particle_id"].tolist()
        assert sorted(ids) == sorted(core)
        for name in ("clusters", "maps", "outliers"):
            assert read_parquet(run.path / f"{name}.parquet")["particle_id"].tolist() == ids
        assert run.results["kmeans"]["n"] == 2  # as many as there are known classes
        assert run.results["kmeans"]["acc"] > 0.95
        assert run.results["outliers"]["knn"] == {"auroc": 1.0, "average_precision": 1.0, "recall_at_n": 1.0}
        assert set(run.results["clusters"]) == {"stranger"}
        labels = read_parquet(run.path / "clusters.parquet").set_index("particle_id")["hdbscan"]
        assert (labels == -1).sum() == run.results["hdbscan"]["noise"]
        ranked = read_parquet(run.path / "outliers.parquet")
        assert sorted(ranked["rank"]) == list(range(1, N_CORE + 1))
    everything = read_parquet(consensus.path / "outliers.parquet").set_index("particle_id")
    assert set(everything[everything["rank"] <= 3].index) == {f"c{i}" for i in STRANGE}
    truth = particles.table.set_index("particle_id").loc[everything.index, "is_outlier"].to_numpy(dtype=bool)
    assert consensus.results["auroc"] == pytest.approx(roc_auc_score(truth, everything["score"]))
    assert consensus.info["parents"] == [run.name for run in clustered]
    compared = read_json(consensus.path / "agreement.json")
    assert (compared["latents"], compared["n"], compared["found"]) == (["vae", "ae"], N_CORE, 2)
    own = [read_parquet(run.path / "outliers.parquet").set_index("particle_id")["rank"] <= 2 for run in clustered]
    assert everything["found_in"].to_dict() == (own[0].astype(int) + own[1].astype(int)).to_dict()
    assert not [name for name in everything if name.startswith("scalars.")], "packed without scalars"


def test_an_excess_that_is_none_counts_nothing_and_one_of_the_whole_core_is_not_to_be_told() -> None:
    assert excess_weight({EXCESS: 1.5}, 0.6) == 1.5
    assert excess_weight({}, 0.49) == 0.0
    assert excess_weight({}, 0.8) is None
    assert excess_weight({}, None) is None


def test_scalars_are_one_more_view_of_the_consensus(tmp_path: Path) -> None:
    particles, common = measured(particle_set(tmp_path)), RunSettings(work_dir=tmp_path)
    runs = [latent_run(kind, particles, common, seed) for seed, kind in enumerate(("vae", "ae"))]
    (clusters,), of_one = run_clustering(particles, runs[:1], HOW, HOW, common)
    alone = read_parquet(of_one.path / "outliers.parquet")
    own = read_parquet(clusters.path / "outliers.parquet")
    assert "cosine" in own
    pd.testing.assert_series_equal(
        alone.set_index("particle_id")["rank"], own.set_index("particle_id")["rank"].reindex(alone["particle_id"])
    )
    assert not [n for n in alone if n.startswith("scalars.")], "asked for one"
    assert "found_in" not in alone, "one latent has none to agree with"
    assert not (of_one.path / "agreement.json").exists()
    _, consensus = run_clustering(particles, runs, HOW, HOW, common)
    ranked = read_parquet(consensus.path / "outliers.parquet").set_index("particle_id")
    own = [name for name in ranked if name.startswith("scalars.")]
    assert own == [
        "scalars.knn", "scalars.whitened", "scalars.mahalanobis", "scalars.isolation_forest", "scalars.excess",
    ]  # fmt: skip
    assert 0.5 < consensus.results["told_apart"] < 0.65
    assert consensus.results["scalars_left_out"] == []
    assert 0 <= consensus.results["excess_weight"] <= 2
    assert of_one.results["told_apart"] is of_one.results["excess_weight"] is None
    assert {"vae.cosine", "ae.cosine"} <= set(ranked), "it counts in the autoencoders alone"
    assert {"pixels.knn", "pixels.whitened"} <= set(ranked)
    rows = particles.table
    core, reference = rows["role"] == "core", (rows["role"] == "labeled") & (rows["split"] == "train")
    vectors = normalized_scalars(rows, core | reference)
    learned = (rows.loc[core, "split"] == "train").to_numpy()
    bulk = np.concatenate([vectors[core][learned], vectors[reference]])
    own = np.where(learned, np.cumsum(learned) - 1, -1)
    neighbors = knn_distance(vectors[core], bulk, HOW.outliers.k, own)
    np.testing.assert_allclose(ranked.loc[rows.loc[core, "particle_id"], "scalars.knn"], rarity(neighbors))
    strangers = [f"c{i}" for i in STRANGE]
    assert set(ranked["scalars.knn"].nlargest(3).index) == set(strangers)
    assert ranked.loc[strangers, "reasons"].str.contains("(scalars, ", regex=False).all()
    classifier = latent_run("classifier", particles, common, 1)
    _, some = run_clustering(particles, runs, HOW, replace(HOW, drop_class=("pollen",)), common)
    index = read_parquet(classifier.path / "index.parquet")
    kept = index[(index["role"] == "core") & (index["predicted"] == "dust")]["particle_id"]
    assert set(read_parquet(some.path / "outliers.parquet")["particle_id"]) == set(kept)


def test_a_p_value_is_how_many_known_particles_are_as_strange(tmp_path: Path) -> None:
    particles, common = particle_set(tmp_path), RunSettings(work_dir=tmp_path)
    clustered, consensus = run_clustering(particles, [latent_run("vae", particles, common, 0)], HOW, HOW, common)
    held_back = particles.table.query("role == 'labeled' and split == 'test'")["particle_id"]
    known = read_parquet(clustered[0].path / "known.parquet")
    assert sorted(known["particle_id"]) == sorted(held_back)
    core = read_parquet(clustered[0].path / "outliers.parquet")
    ranked = read_parquet(consensus.path / "outliers.parquet").set_index("particle_id")
    assert (ranked.loc[core["particle_id"], "p_value"] > 0).all()
    assert set(ranked["p_value"].nsmallest(3).index) == {f"c{i}" for i in STRANGE}
    assert ranked["p_value"].min() == pytest.approx(1 / (len(known) + 1)), "nothing known is as strange"
    np.testing.assert_allclose(ranked["p_value"], (ranked["known_as_strange"].astype(int) + 1) / (len(known) + 1))
    order = ranked.sort_values("rank")["p_value"]
    assert order.is_monotonic_increasing, "a better rank never has a larger p-value"
    assert consensus.results["discoveries"] == int(ranked["discovery"].sum())


def test_known_particles_count_as_the_classes_stand_in_the_core() -> None:
    """Known: dust at 1 and 3, ash at 2 and 4; the core has five times as much dust as ash, and one of neither."""
    names = {"known": ["k0", "k1", "k2", "k3"], "core": [f"c{i}" for i in range(7)]}
    classes = [*["dust", "ash"] * 2, "dust", "ash", *["dust"] * 4, "mine"]
    ids = pd.Series([*names["known"], *names["core"]])
    known = pd.DataFrame({"particle_id": names["known"], "score": [1.0, 2.0, 3.0, 4.0]})
    ranked = pd.DataFrame({"particle_id": names["core"], "score": [3.5, 3.5, 0.0, 0.0, 0.0, 9.0, 9.0]})
    none = pd.Series([], dtype="string")
    kept = Kept(ranked["particle_id"], known["particle_id"], none, pd.Series(classes, index=ids))
    found = calibrated(ranked, known, kept)
    dust, ash = (5 / 7) / 0.5, (1 / 7) / 0.5
    total = 2 * dust + 2 * ash
    expected = [(ash + dust) / (total + dust), 2 * ash / (total + ash), 1, 1, 1, dust / (total + dust), np.nan]
    np.testing.assert_allclose(found["p_value"], expected)
    assert found["known_as_strange"].tolist() == [1, 1, 4, 4, 4, 0, pd.NA]
    assert not found["discovery"].any()


def test_what_is_taken_for_a_class_that_was_not_held_back_is_no_discovery(tmp_path: Path) -> None:
    """All that was held back is pollen; however strange, nothing says how strange dust can be."""
    particles, common = particle_set(tmp_path), RunSettings(work_dir=tmp_path)
    _, consensus = run_clustering(particles, [latent_run("classifier", particles, common, 1)], HOW, HOW, common)
    ranked = read_parquet(consensus.path / "outliers.parquet").set_index("particle_id")
    strangers = ranked.loc[[f"c{i}" for i in STRANGE]]
    assert sorted(strangers["rank"]) == [1, 2, 3]
    assert strangers[["p_value", "known_as_strange"]].isna().all(axis=None)
    assert not strangers["discovery"].any()
    assert ranked["p_value"].notna().sum() > 40, "pollen"
    assert consensus.results["share_unusual"] == (ranked["p_value"].dropna() <= 0.05).mean()


@pytest.mark.parametrize(("share", "said"), [(0.2, False), (0.21, True), (None, False)])
def test_where_much_of_what_has_a_p_value_is_unusual_the_command_says_so(
    share: float | None, said: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A class that was dropped or not held back has none: the share is not of the whole core."""
    told: dict[str, Any] = dict.fromkeys(("auroc", "recall_at_n", "scalars_left_out", "told_apart"))
    common = RunSettings(work_dir=tmp_path)
    with started("consensus", HOW, common, {"name": "noise", "fingerprint": "print", "path": ""}) as run:
        write_json(run.path / "metrics.json", told | {"share_unusual": share})
    _show([run], classified=True)
    assert ("21% of the core's particles with a p-value have p <= 0.05" in capsys.readouterr().out) == said


def test_a_set_without_labels_has_no_classifier_and_no_truth_to_be_judged_by(tmp_path: Path) -> None:
    labeled, common = particle_set(tmp_path), RunSettings(work_dir=tmp_path)
    rows = labeled.table.assign(label=pd.NA, truth=pd.NA, is_outlier=pd.NA)
    types = {"label": "string", "truth": "string", "is_outlier": "boolean"}
    particles = replace(labeled, table=rows.astype(types))
    source = latent_run("vae", labeled, common, 0)
    index = read_parquet(source.path / "index.parquet")
    index = index.assign(label=pd.NA, truth=pd.NA, is_outlier=pd.NA).astype(types)
    for kind in ("ae", "vae", "planar-vae"):
        with started(kind, HOW, common, particles.identity) as run:
            Latents(np.load(source.path / "z.npy"), index).write(run.path)
    assert particles.classes == []
    runs = find_latents("all", particles, common)
    assert [run.kind for run in runs] == ["ae", "vae", "planar-vae"]
    clustered, consensus = run_clustering(particles, runs[:1], HOW, HOW, common)
    results = clustered[0].results
    assert {results["kmeans"][name] for name in ("ari", "nmi", "acc")} == {None}
    assert {name for name, value in consensus.results.items() if value is not None} == {"discoveries"}
    assert consensus.results["discoveries"] == 0
    assert results["clusters"] == {}
    ranked = read_parquet(consensus.path / "outliers.parquet").set_index("particle_id")
    assert {f"c{i}" for i in STRANGE} == set(ranked[ranked["rank"] <= 3].index)


def test_a_dropped_class_is_left_out_by_the_classifiers_word(tmp_path: Path) -> None:
    particles, common = particle_set(tmp_path), RunSettings(work_dir=tmp_path)
    classifier = latent_run("classifier", particles, common, 1)
    runs = [latent_run("vae", particles, common, 0)]
    _, consensus = run_clustering(particles, runs, HOW, replace(HOW, drop_class=("pollen",)), common)
    index = read_parquet(classifier.path / "index.parquet")
    kept = index[(index["role"] == "core") & (index["predicted"] == "dust")]["particle_id"]
    ranked = read_parquet(consensus.path / "outliers.parquet")
    assert set(ranked["particle_id"]) == set(kept)
    assert 3 < len(ranked) < N_CORE
    with pytest.raises(UserError, match=r"--drop-class snow.*dust, pollen"):
        run_clustering(particles, runs, HOW, replace(HOW, drop_class=("snow",)), common)
    with pytest.raises(UserError, match="drop fewer classes"):
        run_clustering(particles, runs, HOW, replace(HOW, drop_class=("pollen", "dust")), common)


def test_latents_are_found_by_kind_by_id_and_on_this_data_alone(tmp_path: Path) -> None:
    particles, common = particle_set(tmp_path), RunSettings(work_dir=tmp_path)
    old = latent_run("vae", particles, common, 0)
    new = latent_run("vae", particles, common, 1)
    latent_run("vae", replace(particles, fingerprint="other"), common, 2)
    assert find_latents("vae", particles, common) == [new]
    assert find_latents(f"vae/{old.path.name}", particles, common) == [old]
    with pytest.raises(UserError, match=r"no finished run 'classifier' on this data.*pretrain_classifier\.py"):
        find_latents("all", particles, common)
    with pytest.raises(UserError, match=r"--latent gan: no such latent; there are classifier, ae, vae"):
        find_latents("gan", particles, common)


def test_where_the_test_split_is_searched_the_validation_split_is_what_is_known(tmp_path: Path) -> None:
    """What was learned from would be its own neighbor; what is searched cannot judge itself."""
    particles, common = particle_set(tmp_path), RunSettings(work_dir=tmp_path)
    rows = particles.table
    labels_only = rows["truth"].where(rows["truth"] != "stranger", "dust")
    split = pd.array(np.tile(["train", "train", "val"], len(rows) // 3), dtype="string")
    searched = rows["role"] == "core"
    rows = rows.assign(
        label=labels_only.where(~searched), split=pd.Series(split, rows.index).mask(searched, "test"), is_outlier=pd.NA
    )
    rows["is_outlier"] = rows["is_outlier"].astype("boolean")
    particles = replace(particles, table=rows)
    latent = latent_run("vae", particles, common, 0)
    (run,), _ = run_clustering(particles, [latent], HOW, HOW, common)
    known = read_parquet(run.path / "known.parquet")
    assert sorted(known["particle_id"]) == sorted(rows.loc[rows["split"] == "val", "particle_id"])
    latents = read_latents(latent.path)
    z = pd.DataFrame(latents.z, index=latents.index["particle_id"])
    learned = z.loc[rows.loc[rows["split"] == "train", "particle_id"]].to_numpy()
    expected = knn_distance(z.loc[known["particle_id"]].to_numpy(), learned, HOW.outliers.k, np.full(len(known), -1))
    np.testing.assert_allclose(known["knn"], expected, rtol=1e-4)


def test_a_large_core_is_fitted_in_part_and_the_rest_is_placed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    particles, common = measured(particle_set(tmp_path)), RunSettings(work_dir=tmp_path)
    bags = pd.array([1, 2] * (len(particles.table) // 2), dtype="Int64")
    particles = replace(particles, table=particles.table.assign(bag=bags))
    runs = [latent_run(kind, particles, common, seed) for seed, kind in enumerate(("vae", "classifier"))]
    whole, _ = run_clustering(particles, runs, HOW, HOW, common)
    assert "fitted" not in capsys.readouterr().out
    assert read_parquet(whole[0].path / "clusters.parquet")["fitted"].all()
    assert (whole[0].results["fitted"], whole[0].results["placed"]) == (N_CORE, 0)
    monkeypatch.setattr("clustering.latent.LEAST_FITTED", 10)
    part, consensus = run_clustering(particles, runs, HOW, replace(HOW, fit_sample=80), common)
    assert f"80 of {N_CORE} core particles are fitted" in capsys.readouterr().out
    sampled = []
    for run in part:
        assert (run.results["fitted"], run.results["placed"]) == (80, 40)
        clusters = read_parquet(run.path / "clusters.parquet").set_index("particle_id")
        assert clusters["fitted"].sum() == 80
        sampled.append(set(clusters.index[clusters["fitted"]]))
        maps = read_parquet(run.path / "maps.parquet")
        assert maps["umap_x"].notna().all()
        assert run.results["kmeans"]["acc"] > 0.95, "who was placed counts as well"
        assert run.results["outliers"]["knn"]["auroc"] == 1.0
    assert sampled[0] == sampled[1], "the same ones in every latent"
    ranked = read_parquet(consensus.path / "outliers.parquet")
    assert any(name.startswith("scalars.") for name in ranked)
    assert not any(name.startswith("pixels.") for name in ranked), "of a core that is fitted whole alone"
    assert len(ranked) == N_CORE
    assert set(ranked.nsmallest(3, "rank")["particle_id"]) == {f"c{i}" for i in STRANGE}


def test_a_killed_search_goes_on_with_what_was_placed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    particles, common = particle_set(tmp_path), RunSettings(work_dir=tmp_path)
    particles = replace(particles, table=particles.table.assign(bag=pd.NA))
    latent, how = latent_run("vae", particles, common, 0), replace(HOW, fit_sample=100)
    (whole,), _ = run_clustering(particles, [latent], HOW, how, common)
    assert not (tmp_path / "parts").exists(), "nothing is left of what was kept"
    with monkeypatch.context() as killed:
        killed.setattr("clustering.outliers.Scoring.__call__", raising(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_clustering(particles, [latent], HOW, how, common)
    assert {path.name.split("-")[0] for path in (tmp_path / "parts").iterdir()} == {"placing", "scoring"}
    monkeypatch.setattr("clustering.placing.Placing.__call__", raising(AssertionError))
    (again,), _ = run_clustering(particles, [latent], HOW, how, common)
    for name in ("clusters.parquet", "maps.parquet", "outliers.parquet", "known.parquet"):
        pd.testing.assert_frame_equal(read_parquet(again.path / name), read_parquet(whole.path / name))
    assert not (tmp_path / "parts").exists()


def raising(error: type[BaseException]) -> Callable[..., None]:
    def call(*_: object) -> None:
        raise error

    return call


def test_a_classifier_of_other_data_counts_where_it_has_encoded_this(tmp_path: Path) -> None:
    particles, common = particle_set(tmp_path, labels=False), RunSettings(work_dir=tmp_path)
    others = [latent_run(kind, particles, common, seed) for seed, kind in enumerate(("ae", "vae", "planar-vae"))]
    assert find_latents("all", particles, common) == others, "no labels, no classifier"
    latent_run("classifier", replace(particles, fingerprint="elsewhere"), common, 4)
    assert find_latents("all", particles, common) == others
    encoded = latent_run("classifier", particles, common, 3)
    assert find_latents("all", particles, common) == [encoded, *others]
    clustered, _ = run_clustering(particles, [encoded, others[0]], HOW, replace(HOW, drop_class=("pollen",)), common)
    left = read_parquet(clustered[0].path / "clusters.parquet")["particle_id"]
    truth = particles.table.set_index("particle_id").loc[left, "truth"]
    assert set(truth) == {"dust", "stranger"}
    with pytest.raises(UserError, match=r"--drop-class ash: the classifier knows no such class; .* has dust, pollen"):
        run_clustering(particles, [encoded], HOW, replace(HOW, drop_class=("ash",)), common)


def test_too_small_a_sample_is_refused() -> None:
    with pytest.raises(UserError, match=r"--fit-sample 3: give at least 100"):
        ClusteringSettings(fit_sample=3)


def test_what_looks_like_the_marked_is_ranked_and_other_marks_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    particles, common = particle_set(tmp_path), RunSettings(work_dir=tmp_path)
    runs = [latent_run(kind, particles, common, seed) for seed, kind in enumerate(("vae", "ae"))]
    core = particles.table.loc[particles.table["role"] == "core", "particle_id"]
    marks = pd.DataFrame(
        {
            "particle_id": ["c0", "c2", "k3", "elsewhere", "c4"],
            "star": [True, False, True, True, False],
            "label": pd.array([None, "odd", None, None, None], dtype="string"),
        }
    )
    found = write_likeness(marks, particles, core, runs, HOW, common)
    assert "--marks: 2 of 4 marked particles are not in the core that is ranked: left out" in capsys.readouterr().out
    ranked = read_parquet(found.path / "likeness.parquet").set_index("particle_id")
    assert set(ranked.index[ranked["marked"]]) == {"c0", "c2"}
    truth = particles.table.set_index("particle_id")["truth"]
    first = ranked[~ranked["marked"]].nsmallest(40, "rank").index
    assert set(truth.loc[first]) == {"dust"}, "as the marked are"
    with pytest.raises(UserError, match="none of the marked particles is in this core"):
        write_likeness(marks.iloc[2:4], particles, core, runs, HOW, common)
