import io
import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from planted_search import EVIL, Planted, plant
from sklearn.metrics import pairwise_distances

from figures import export
from figures.export import EXPORTS, write_csv
from figures.export_atlas import nearest, write_atlas
from figures.export_fiftyone import field_name, file_name, sample, write_fiftyone
from figures.export_rows import chosen_latent, export_rows, strangest_and_others
from figures.finished import pictures_folder
from figures.report_results import Results, results_of
from particles.latents import read_latents
from provenance.errors import UserError
from provenance.run import PROJECT, RunSettings

ALL = 10**6


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return plant(tmp_path_factory.mktemp("search"), n=40)


@pytest.fixture(scope="module")
def results(planted: Planted) -> Results:
    return results_of(planted.particles, planted.consensus)


@pytest.fixture(scope="module")
def atlas(results: Results, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return pd.read_parquet(write_atlas(results, "vae", tmp_path_factory.mktemp("atlas") / "atlas.parquet", ALL))


def crop_of(planted: Planted, identity: str) -> np.ndarray:
    position = planted.particles.table.set_index("particle_id").loc[identity, "position"]
    return planted.particles.pixels[[int(position)]][0]


# --- Embedding Atlas


def test_coordinates_and_clusters_are_those_of_the_run(planted: Planted, atlas: pd.DataFrame) -> None:
    for latent, prefix in (("vae", ""), ("classifier", "classifier_")):
        run = next(run for run in planted.clustered if run.kind == f"clusters-{latent}")
        maps = pd.read_parquet(run.path / "maps.parquet").set_index("particle_id").loc[atlas["particle_id"]]
        for column in ("umap_x", "umap_y"):
            np.testing.assert_array_equal(atlas[prefix + column], maps[column])
        clusters = pd.read_parquet(run.path / "clusters.parquet").set_index("particle_id").loc[atlas["particle_id"]]
        named = clusters["hdbscan"].map({-1: "noise (-1)", 0: "cluster 0", 1: "cluster 1"})
        assert atlas[f"{latent}_hdbscan_cluster"].tolist() == named.tolist()
    assert not [name for name in atlas if "fitted" in name], "who was fitted is no group"
    assert atlas["rank"].tolist() == list(range(1, 41))
    assert atlas["particle_id"][0] == EVIL
    assert atlas["predicted"].tolist() == ["dust"] * 40


def test_neighbors_are_rows_of_the_file_by_distance_in_the_latent(planted: Planted, atlas: pd.DataFrame) -> None:
    latents = read_latents(planted.runs[1].path)
    order = pd.Index(latents.index["particle_id"]).get_indexer(atlas["particle_id"])
    between = pairwise_distances(latents.z[order].astype(np.float64))
    np.fill_diagonal(between, np.inf)
    expected = np.argsort(between, axis=1)[:, :15]
    for row, found in enumerate(atlas["neighbors"]):
        assert found["ids"].tolist() == expected[row].tolist()
        np.testing.assert_allclose(found["distances"], between[row, expected[row]], rtol=1e-5)


def test_images_decode_to_the_pixels_of_the_store(planted: Planted, atlas: pd.DataFrame) -> None:
    for identity, image in zip(atlas["particle_id"], atlas["image"], strict=True):
        assert (np.asarray(Image.open(io.BytesIO(image["bytes"]))) == crop_of(planted, identity)).all()
        assert "/" not in image["path"]
    assert atlas["image_source"].tolist() == [f"run/{name}.png" for name in atlas["particle_id"]]


def test_names_of_columns_need_no_quotes_for_dots_and_colons(
    atlas: pd.DataFrame, results: Results, tmp_path: Path
) -> None:
    assert not [name for name in atlas if "." in name or ":" in name]
    assert {"vae_knn", "vae_hdbscan_cluster", "umap_x", "classifier_umap_y", "Area (ABD)", "sample"} <= set(atlas)
    kinds = pq.read_schema(write_atlas(results, "vae", tmp_path / "a.parquet", 3))
    assert str(kinds.field("image").type) == "struct<bytes: binary, path: string>"
    assert str(kinds.field("neighbors").type).startswith("struct<ids: list<")


def test_a_large_core_is_written_in_batches_alike(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, atlas: pd.DataFrame
) -> None:
    monkeypatch.setattr("figures.export_atlas.BATCH", 7)
    again = pd.read_parquet(write_atlas(results, "vae", tmp_path / "a.parquet", ALL))
    assert again["image"].map(lambda image: image["bytes"]).tolist() == [i["bytes"] for i in atlas["image"]]
    assert again.drop(columns=["image", "neighbors"]).equals(atlas.drop(columns=["image", "neighbors"]))


def test_few_vectors_have_few_neighbors() -> None:
    rows, far = nearest(np.zeros((1, 3)))
    assert rows.shape == far.shape == (1, 0)
    rows, far = nearest(np.array([[0.0], [3.0], [4.0]]))
    assert rows.tolist() == [[1, 2], [2, 0], [1, 0]]
    assert far.tolist() == [[3, 4], [1, 3], [1, 4]]


# --- FiftyOne


def test_samples_say_what_the_table_says(planted: Planted, results: Results, tmp_path: Path) -> None:
    folder = write_fiftyone(results, "vae", tmp_path / "fiftyone", ALL)
    samples = json.loads((folder / "samples.json").read_text())["samples"]
    rows = export_rows(results, "vae", ALL)
    assert [s["particle_id"] for s in samples] == rows["particle_id"].tolist()
    for number, one in enumerate(samples):
        row = rows.iloc[number]
        assert (folder / one["filepath"]).resolve().is_relative_to(folder.resolve())
        assert (np.asarray(Image.open(folder / one["filepath"])) == crop_of(planted, row["particle_id"])).all()
        assert one["predicted"] == {"_cls": "Classification", "label": "dust", "confidence": 0.75}
        assert one["truth"]["label"] == row["truth"]
        assert one["image"] == f"run/{row['particle_id']}.png"
        assert (one["rank"], one["p_value"], one["score"]) == (row["rank"], row["p_value"], row["score"])
        assert one["tags"] == (["discovery"] if number < 3 else [])
        assert (one["umap_x"], one["area_abd"], one["vae_knn"]) == (row["umap_x"], row["Area (ABD)"], row["vae.knn"])
        assert "label" not in one, "a core has no labels"
    # without a version FiftyOne reads the layout by its plain fields
    assert "version" not in json.loads((folder / "metadata.json").read_text())
    assert len(list((folder / "data").iterdir())) == 40


def test_an_earlier_export_is_replaced_and_nothing_else(results: Results, tmp_path: Path) -> None:
    folder = write_fiftyone(results, "vae", tmp_path / "f", ALL)
    assert write_fiftyone(results, "vae", folder, 5) == folder
    assert len(list((folder / "data").iterdir())) == 5
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds 'thesis\.txt', which is not of an export"):
        write_fiftyone(results, "vae", folder, 5)
    assert (folder / "thesis.txt").read_text() == "mine"
    assert len(list((folder / "data").iterdir())) == 5


@given(st.text(min_size=1, max_size=300), st.integers(1, 10**6))
def test_a_file_name_leads_nowhere_and_keeps_the_rank(identity: str, rank: int) -> None:
    name = file_name(rank, identity)
    assert Path(name).name == name
    assert name.isascii()
    assert len(name) <= 100
    assert int(name.partition("-")[0]) == rank


@given(st.text(max_size=40))
def test_a_field_name_is_one_that_is_taken(column: str) -> None:
    name = field_name(column)
    assert name.isidentifier()
    assert not name.startswith("_")
    assert name not in {"id", "tags", "metadata", "filepath"}


def test_what_is_missing_has_no_field() -> None:
    found = sample(
        {"particle_id": "a", "score": np.nan, "bag": pd.NA, "reasons": "", "tags": 3, "predicted": pd.NA}, "f"
    )
    assert found == {"filepath": "data/f", "tags": [], "particle_id": "a", "particle_tags": 3}


# --- CSV and rows


def test_csv_comes_back_and_computes_nothing(results: Results, tmp_path: Path) -> None:
    rows = export_rows(results, "vae", ALL)
    back = pd.read_csv(write_csv(results, "vae", tmp_path / "p.csv", 3))
    assert back["particle_id"].tolist() == rows["particle_id"].tolist(), "all of them, whatever --most says"
    np.testing.assert_allclose(back["score"], rows["score"])
    assert back["image"].tolist() == [f"run/{name}.png" for name in rows["particle_id"]]
    np.testing.assert_array_equal(back["vae:hdbscan_cluster"], rows["vae:hdbscan_cluster"].astype(int))
    evil = plant(tmp_path / "evil", n=3, evil="=cmd|' /C calc'!A1")
    back = pd.read_csv(write_csv(results_of(evil.particles, evil.consensus), "vae", tmp_path / "q.csv", 3))
    assert back["particle_id"][0] == "'=cmd|' /C calc'!A1"
    assert back["score"].tolist() == [-1, -2, -3]


def test_of_a_large_core_the_strangest_come_whole() -> None:
    ranked = pd.DataFrame({"rank": np.random.default_rng(0).permutation(1000) + 1})
    kept = strangest_and_others(ranked, 100)["rank"].tolist()
    assert kept[:50] == list(range(1, 51))
    assert len(set(kept)) == 100
    assert kept == sorted(kept)
    assert np.mean(kept[50:]) == pytest.approx(525, abs=120)
    assert strangest_and_others(ranked, 1)["rank"].size == 1


@pytest.mark.parametrize(("labels", "truth"), [(True, False), (False, True), (False, False)])
def test_one_particle_without_labels_or_truth_is_exported_everywhere(tmp_path: Path, labels: bool, truth: bool) -> None:
    planted = plant(tmp_path, n=1, labels=labels, truth=truth, latents=("vae",), discoveries=0)
    results = results_of(planted.particles, planted.consensus)
    latent = chosen_latent(results, None)
    assert latent == "vae"
    for name, (write, file, _) in EXPORTS.items():
        path = write(results, latent, tmp_path / name / file, ALL)
        assert path.exists()
    frame = pd.read_parquet(tmp_path / "atlas" / "atlas.parquet")
    assert frame["particle_id"].tolist() == [EVIL]
    assert frame["neighbors"][0]["ids"].tolist() == []
    assert ("truth" in frame) == truth
    assert "label" not in frame


def test_an_export_lies_beside_the_pictures_of_its_set(
    planted: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export, "open_set", lambda *_: planted.particles)
    pictures_folder(planted.work, "planted", "another set")
    common = RunSettings(work_dir=planted.work)
    export.main(export.Settings(to="csv", common=common))
    written = planted.work / "figures" / "planted-print" / "particles.csv"
    assert f"written: {written}" in capsys.readouterr().out
    assert len(pd.read_csv(written)) == 40
    export.main(export.Settings(to="csv", common=common, out=tmp_path / "mine.csv"))
    assert (tmp_path / "mine.csv").read_bytes() == written.read_bytes()


def test_a_latent_that_is_missing_is_named(planted: Planted, results: Results, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--latent ae: this ranking has classifier, vae; cluster it"):
        chosen_latent(results, "ae")
    assert chosen_latent(results, None) == "classifier"
    lost = plant(tmp_path, n=4)
    index = lost.runs[1].path / "index.parquet"
    frame = pd.read_parquet(index)
    frame.assign(particle_id=frame["particle_id"].replace("c2", "x")).to_parquet(index)
    with pytest.raises(UserError, match="has no vector of particle 'c2'"):
        write_atlas(results_of(lost.particles, lost.consensus), "vae", tmp_path / "a.parquet", ALL)
    assert not (tmp_path / "a.parquet").exists()


def test_a_command_says_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    crops = tmp_path / "crops"
    crops.mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (12, 12)).astype(np.uint8)).save(crops / f"{i}.png")
    for script, flags in (("export", "--to csv"), ("report", ""), ("export", "--most 0")):
        command = [sys.executable, str(PROJECT / "figures" / f"{script}.py"), "--data", str(crops), *shlex.split(flags)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 2
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
        assert "--most 0: must be at least 1" in line or "no finished run 'consensus' on this data" in line
