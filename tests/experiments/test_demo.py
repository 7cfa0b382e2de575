import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from autoencoders.chain import train_models
from clustering.run import run_clustering
from experiments.find_outliers import Settings
from particles.sets import open_set
from particles.table import read_parquet
from provenance.run import LATENTS, PROJECT, Run, RunSettings
from provenance.settings import parse

N_CORE, N_STRANGE = 120, 10
FLAGS = shlex.split(
    "--n-per-class 12 --n-core 120 --n-per-kind 1 --size 16 --epochs 1 --pretrain-epochs 1 --latent-dim 4 "
    "--batch-size 64 --precision 32 --no-tsne --no-scalars --trees 30"
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work").resolve()


@pytest.fixture(scope="module")
def done(work: Path, tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """The whole method as a user runs it, from a folder that is not the project's."""
    command = [sys.executable, str(PROJECT / "experiments" / "find_outliers.py"), *FLAGS]
    environment = os.environ | {"NUNATAK_WORK": str(work), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    ended = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert list(elsewhere.iterdir()) == []  # nothing is written where one happens to stand
    return ended


@pytest.fixture(scope="module")
def summary(done: subprocess.CompletedProcess[str], work: Path) -> dict[str, Any]:
    path = Path(done.stdout.strip().splitlines()[-1])
    assert path.name == "summary.json"
    assert path.is_relative_to(work)
    return dict(json.loads(path.read_text()))


def only_run(work: Path, kind: str) -> Run:
    (path,) = (work / "runs" / kind).iterdir()
    return Run(path)


def test_the_summary_has_the_promised_structure(summary: dict[str, Any]) -> None:
    assert set(summary) == {"data", "n_particles", "seconds", "latents", "consensus", "ranking", "figures"}
    assert (summary["data"], summary["n_particles"]) == ("synthetic", 7 * 12 + N_CORE)
    assert 0 < summary["seconds"] < 300
    judged = {"auroc", "average_precision", "recall_at_n"}
    told = {"discoveries", "false_discoveries", "share_unusual", "told_apart", "excess_weight", "scalars_left_out"}
    assert set(summary["consensus"]) == judged | told
    assert list(summary["latents"]) == list(LATENTS)
    for latent in summary["latents"].values():
        assert set(latent) == {"kmeans", "dbscan", "hdbscan", "outliers"}
        assert set(latent["outliers"]) == judged
        assert {"n", "ari", "nmi", "acc"} <= set(latent["kmeans"])
        for method in ("dbscan", "hdbscan"):
            assert {"n", "ari", "nmi", "acc", "noise"} <= set(latent[method])
        assert latent["kmeans"]["n"] == 7
        values = [v for part in latent.values() for v in part.values()]
        assert all(isinstance(value, (int, float)) for value in values)  # all truth is known here


def test_the_ranking_is_named_and_its_list_tells_which_crop_a_particle_is(
    done: subprocess.CompletedProcess[str], summary: dict[str, Any], work: Path
) -> None:
    ranked = read_parquet(work / summary["ranking"]).sort_values("rank", ignore_index=True)
    listed = pd.read_csv(work / "figures/synthetic/outliers.csv")
    assert str(work / summary["ranking"]) in done.stdout
    assert str(work / "figures/synthetic/outliers.csv") in done.stdout
    assert listed["particle_id"].tolist() == ranked["particle_id"].tolist()
    packed = Path(only_run(work, "consensus").info["data"]["path"]) / "table.parquet"
    images = read_parquet(packed).set_index("particle_id")["image"]
    np.testing.assert_allclose(listed["score"], ranked["score"], rtol=1e-5)
    assert listed["score"].astype(str).str.len().max() < 13, "for people to read"
    assert listed["image"].astype(int).tolist() == images.loc[ranked["particle_id"]].astype(int).tolist()


def test_every_picture_is_there_and_opens(summary: dict[str, Any], work: Path) -> None:
    figures = summary["figures"]
    assert len(figures) == len(set(figures))
    names = {Path(figure).relative_to("figures/synthetic").as_posix() for figure in figures}
    expected = {"outliers.png", "confusion.png", "explorer.html"}
    expected |= {f"{what}-{latent}.png" for what in ("curves", "maps") for latent in LATENTS}
    expected |= {f"reconstructions-{latent}.png" for latent in LATENTS[1:]}
    assert expected <= names
    for figure in figures:
        if figure.endswith(".png"):
            with Image.open(work / figure) as image:
                pixels = np.asarray(image.convert("L"))
            assert min(pixels.shape) > 100
            assert pixels.std() > 1  # not one blank color
    explorer = (work / "figures/synthetic/explorer.html").read_text(encoding="utf-8")
    assert explorer.lower().lstrip().startswith("<!doctype html")
    flags = "--n-per-class 12 --n-core 120 --n-per-kind 1 --size 16 --no-scalars"
    assert f"python clustering/run.py --latent vae {flags}" in explorer, "what makes the t-SNE map left out here"


def test_results_join_by_id_and_ranks_count_the_core(summary: dict[str, Any], work: Path) -> None:
    core: set[str] = set()
    for latent in LATENTS:
        index = read_parquet(only_run(work, latent).path / "index.parquet")
        assert len(np.load(only_run(work, latent).path / "z.npy")) == len(index) == summary["n_particles"]
        core = set(index.loc[index["role"] == "core", "particle_id"])
        assert len(core) == N_CORE
        clustered = only_run(work, f"clusters-{latent}")
        for name in ("clusters", "maps", "outliers"):
            frame = read_parquet(clustered.path / f"{name}.parquet")
            assert frame["particle_id"].is_unique
            assert set(frame["particle_id"]) == core
    ranked = read_parquet(only_run(work, "consensus").path / "outliers.parquet")
    assert set(ranked["particle_id"]) == core
    assert sorted(ranked["rank"]) == list(range(1, N_CORE + 1))
    assert ranked.sort_values("rank")["score"].is_monotonic_decreasing
    assert ranked["reasons"].str.len().min() > 10


def test_the_summary_judges_what_was_written(summary: dict[str, Any], work: Path) -> None:
    index = read_parquet(only_run(work, "vae").path / "index.parquet").set_index("particle_id")
    for values, kind in [
        (summary["consensus"], "consensus"),
        *((summary["latents"][latent]["outliers"], f"clusters-{latent}") for latent in LATENTS),
    ]:
        ranked = read_parquet(only_run(work, kind).path / "outliers.parquet").sort_values("rank")
        truth = index.loc[ranked["particle_id"], "is_outlier"].to_numpy(dtype=bool)
        assert truth.sum() == N_STRANGE
        assert values["auroc"] == pytest.approx(roc_auc_score(truth, ranked["score"]))
        assert values["average_precision"] == pytest.approx(average_precision_score(truth, ranked["score"]))
        assert values["recall_at_n"] <= truth[:N_STRANGE].mean() + 1e-9
    for latent in LATENTS:
        labels = read_parquet(only_run(work, f"clusters-{latent}").path / "clusters.parquet")
        for method in ("kmeans", "dbscan", "hdbscan"):
            found = summary["latents"][latent][method]
            assert found["n"] == len(set(labels[method]) - {-1})
            assert found["noise"] == int((labels[method] == -1).sum())


def test_every_run_is_finished_and_says_what_it_stands_on(summary: dict[str, Any], work: Path) -> None:
    runs = [Run(path.parent) for path in (work / "runs").glob("*/*/run.json")]
    assert len(runs) == 4 + 4 + 2
    assert {run.info["status"] for run in runs} == {"finished"}
    assert len({run.info["data"]["fingerprint"] for run in runs}) == 1
    parents = {run.kind: run.info["parents"] for run in runs}
    names = {run.kind: run.name for run in runs}
    assert parents["classifier"] == []
    assert all(parents[latent] == [names["classifier"]] for latent in LATENTS[1:])
    assert all(parents[f"clusters-{latent}"] == [names[latent]] for latent in LATENTS)
    assert parents["consensus"] == [names[f"clusters-{latent}"] for latent in LATENTS]
    assert parents["summary"] == [*parents["consensus"], names["consensus"]]


def test_the_pictures_are_announced_before_the_summary(done: subprocess.CompletedProcess[str], work: Path) -> None:
    assert done.stdout.strip().splitlines()[-2] == f"pictures: {work / 'figures' / 'synthetic'}"
    assert "Traceback" not in done.stderr


def test_the_same_seed_gives_the_same_bytes_in_another_process(
    summary: dict[str, Any], work: Path, tmp_path: Path
) -> None:
    common = RunSettings(work_dir=tmp_path)
    settings = replace(parse(Settings, FLAGS), common=common)
    particles = open_set(settings.data, common, say=lambda _: None)
    runs = train_models(LATENTS, particles, settings, settings.chain, common)
    clustered, consensus = run_clustering(particles, runs, settings, settings.clustering, common)
    for run in runs:
        assert run.path.joinpath("z.npy").read_bytes() == (only_run(work, run.kind).path / "z.npy").read_bytes(), (
            run.kind
        )
    for run in [*clustered, consensus]:
        for name in ("maps", "clusters", "outliers"):
            if (run.path / f"{name}.parquet").exists():
                expected = read_parquet(only_run(work, run.kind).path / f"{name}.parquet")
                pd.testing.assert_frame_equal(read_parquet(run.path / f"{name}.parquet"), expected, check_exact=True)
    assert consensus.results == summary["consensus"]
