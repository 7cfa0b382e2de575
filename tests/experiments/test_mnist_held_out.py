import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

import experiments.mnist_held_out as held_out
from particles.table import read_parquet
from provenance.errors import UserError
from provenance.run import Run, RunSettings
from provenance.settings import parse

FLAGS = shlex.split(
    "--data digits --held-out 2 6 --latent classifier --size 16 --pretrain-epochs 4 --batch-size 64 "
    "--precision 32 --augment none --no-tsne --trees 50"
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work").resolve()


@pytest.fixture(scope="module")
def summary(work: Path) -> dict[str, Any]:
    """The script on scikit-learn's digits; drawing has its own tests and takes as long as the rest."""
    settings = replace(parse(held_out.Settings, FLAGS), common=RunSettings(work_dir=work))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(held_out, "draw_all", lambda *_, **__: [])
        path = held_out.main(settings)
    return dict(json.loads(path.read_text()))


def only_run(work: Path, kind: str) -> Run:
    (path,) = (work / "runs" / kind).iterdir()
    return Run(path)


def classifier_index(work: Path) -> pd.DataFrame:
    return read_parquet(only_run(work, "classifier").path / "index.parquet").set_index("particle_id")


def test_the_summary_has_the_promised_structure(summary: dict[str, Any]) -> None:
    assert summary["held_out"] == ["2", "6"]
    assert summary["data"] == "digits-without-2-6"
    assert summary["seconds"] > 0
    assert list(summary["latents"]) == ["classifier"]
    judged = summary["latents"]["classifier"]
    scores = {"hdbscan", "knn", "cosine", "whitened", "mahalanobis", "isolation_forest", "neg_max_logit"}
    assert set(judged["auroc"]) == scores | {"combined"}
    assert set(judged["clusters"]) == {"2", "6"}
    assert set(judged["clusters"]["2"]) == {"cluster", "precision", "recall"}


def test_held_out_digits_are_never_learned_from(summary: dict[str, Any], work: Path) -> None:
    index = classifier_index(work)
    labeled, core = index[index["role"] == "labeled"], index[index["role"] == "core"]
    assert set(labeled["label"]) == set("01345789")
    assert (labeled["label"] == labeled["truth"]).all()
    assert not index["predicted"].isin(["2", "6"]).any()
    assert "prob_2" not in index
    assert set(core["split"]) == {"test"}
    assert core["label"].isna().all()
    assert set(core["truth"]) == set("0123456789")
    np.testing.assert_array_equal(core["is_outlier"].astype(bool), core["truth"].isin(["2", "6"]))
    outside = index[index["truth"].isin(["2", "6"])]
    assert set(outside["role"]) == {"core"}  # what would be their train split is gone


def test_what_was_never_seen_looks_strange(summary: dict[str, Any], work: Path) -> None:
    """By the distance to the known classes; so short a training leaves the other scores near chance."""
    assert only_run(work, "classifier").results["test_accuracy"] > 0.9
    assert summary["latents"]["classifier"]["auroc"]["mahalanobis"] > 0.85


def test_the_summary_judges_what_was_written(summary: dict[str, Any], work: Path) -> None:
    clustered, index = only_run(work, "clusters-classifier"), classifier_index(work)
    ranked = read_parquet(clustered.path / "outliers.parquet")
    labels = read_parquet(clustered.path / "clusters.parquet").set_index("particle_id")["hdbscan"]
    core = index.loc[ranked["particle_id"]]
    strange = core["is_outlier"].to_numpy(dtype=bool)
    judged = summary["latents"]["classifier"]
    for name in ("knn", "cosine", "whitened", "mahalanobis", "isolation_forest", "hdbscan"):
        assert judged["auroc"][name] == pytest.approx(roc_auc_score(strange, ranked[name])), name
    assert judged["auroc"]["combined"] == pytest.approx(roc_auc_score(strange, ranked["score"]))
    for digit, found in judged["clusters"].items():
        members = core.index[core["truth"] == digit]
        if found["cluster"] is None:
            assert (labels.loc[members] == -1).all()
            continue
        inside = labels.index[labels == found["cluster"]]
        hits = len(set(members) & set(inside))
        assert found["precision"] == pytest.approx(hits / len(inside))
        assert found["recall"] == pytest.approx(hits / len(members))


def test_nothing_held_out_is_refused(tmp_path: Path) -> None:
    common = RunSettings(work_dir=tmp_path)
    settings = parse(held_out.Settings, FLAGS)
    nothing = replace(settings, common=common, data=replace(settings.data, held_out=()))
    with pytest.raises(UserError, match="--held-out names no digit"):
        held_out.main(nothing)
    absent = replace(settings, common=common, data=replace(settings.data, held_out=("11",)))
    with pytest.raises(UserError, match=r"--held-out 11: this data has no such class"):
        held_out.main(absent)
