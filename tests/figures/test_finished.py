"""Redrawing a finished run by command: what is drawn, and what is said where something is missing."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from figures import area, curves, gallery, generated, linked, maps, reconstructions, scalar_maps
from figures.finished import Redraw, opened, pictures_folder, ranking_of
from particles import sets
from particles.sets import DataSettings, ParticleSet, open_set
from particles.squares import PackSettings
from particles.table import write_parquet
from provenance.errors import UserError
from provenance.files import read_json, write_json
from provenance.run import Run, RunSettings, started

LONG = "x" * 200


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ParticleSet]:
    """A small packed set, and runs on it: a clustered latent and the consensus."""
    common = RunSettings(work_dir=tmp_path_factory.mktemp("work"))
    data = DataSettings(n_per_class=5, n_core=20, n_per_kind=1, pack=PackSettings(size=16))
    settings = area.Settings(run=Path())  # any dataclass; replaced by what the scripts keep
    particles = open_set(data, common, say=lambda _: None)
    core = particles.table.loc[particles.table["role"] == "core", ["particle_id"]].reset_index(drop=True)
    rng = np.random.default_rng(0)
    with started("clusters-vae", settings, common, particles.identity) as run:
        xy = rng.normal(size=(len(core), 2))
        write_parquet(core.assign(umap_x=xy[:, 0], umap_y=xy[:, 1]), run.path / "maps.parquet")
        write_parquet(core.assign(hdbscan=np.arange(len(core)) % 3 - 1), run.path / "clusters.parquet")
        write_parquet(core.assign(score=0.0, rank=np.arange(1, len(core) + 1)), run.path / "outliers.parquet")
    ranked = core.assign(score=rng.normal(size=len(core)), reasons="easily isolated (vae, top 1 %)")
    ranked["rank"] = ranked["score"].rank(ascending=False).astype(int)
    with started("consensus", settings, common, particles.identity, [run]) as consensus:
        write_parquet(ranked, consensus.path / "outliers.parquet")
    write_json(run.path / "config.json", {"data": {"data": "synthetic"}})
    write_json(consensus.path / "config.json", {"data": {"data": "synthetic"}})
    return common.work, particles


@pytest.fixture
def work_copy(made: tuple[Path, ParticleSet], tmp_path: Path) -> Path:
    """The same in another place, which a test may spoil."""
    return Path(shutil.copytree(made[0], tmp_path / "moved"))


def run_in(work: Path, kind: str) -> Path:
    return next((work / "runs" / kind).iterdir())


def test_every_picture_is_redrawn_even_where_the_work_folder_has_moved(work_copy: Path, tmp_path: Path) -> None:
    clusters = Redraw(run_in(work_copy, "clusters-vae"), tmp_path / "out")
    maps.main(replace(clusters, pdf=True))
    gallery.main(clusters)
    scalar_maps.main(clusters)
    area.main(area.Settings(clusters.run, clusters.out, cells=3))
    area.main(area.Settings(clusters.run, clusters.out, area=(-9.0, 9.0, -9.0, 9.5), cells=3))
    consensus = replace(clusters, run=run_in(work_copy, "consensus"))
    gallery.main(consensus)
    linked.main(consensus)
    found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")}
    sheets = {f"clusters-vae/hdbscan-0{i}-{name}.png" for i, name in ((1, "cluster-0"), (2, "cluster-1"), (3, "noise"))}
    assert found == {
        "maps-vae.png", "maps-vae.pdf", "scalars-vae.png", "area-vae.png", "area-vae--9_9_-9_9.5.png",
        "outliers.png", "linked.png", *sheets,
    }  # fmt: skip


def test_a_class_with_a_slash_in_its_name_can_be_held_out(tmp_path: Path) -> None:
    settings = DataSettings(held_out=("pollen/spore",))
    infos = [{"name": "lake", "fingerprint": "abc123456789"}]
    name, fingerprint = sets._run_name(settings, infos), sets._run_fingerprint(settings, infos, None)
    folder = pictures_folder(tmp_path, name, fingerprint)
    assert folder == tmp_path / "figures" / "lake-without-pollen_spore"
    assert pictures_folder(tmp_path, name, "other") == folder.with_name(f"{folder.name}-other")
    assert read_json(folder / "owner.json")["fingerprint"] == "abc123456789", "whoever is held out"


def test_two_sets_of_one_name_have_a_folder_each_and_keep_it(tmp_path: Path) -> None:
    lake, other = "0123456789abcdef", "fedcba9876543210"
    folders = [pictures_folder(tmp_path, "crops", one).name for one in (lake, other, lake, other)]
    assert folders == ["crops", "crops-fedcba98"] * 2
    shutil.rmtree(tmp_path / "figures" / "crops")
    assert pictures_folder(tmp_path, "crops", other).name == "crops-fedcba98", "where its earlier pictures are"
    assert pictures_folder(tmp_path, "crops", lake).name == "crops"


def test_a_core_beside_the_same_labels_is_another_set(tmp_path: Path) -> None:
    folders = [pictures_folder(tmp_path, "lake+crops", f"aaaaaaaaa/{core}").name for core in ("c1", "c2", "c3")]
    assert folders == ["lake+crops", "lake+crops-aaaaaaaa-c2", "lake+crops-aaaaaaaa-c3"]


@pytest.mark.parametrize("roles", ["held out:2,6", "labels:f00d", "unlabeled", "held out:2/labels:f00d"])
def test_other_roles_are_another_search_of_the_same_set(roles: str, tmp_path: Path) -> None:
    folders = {pictures_folder(tmp_path, "crops", one).name for one in ("aa/bb", f"aa/bb/{roles}")}
    assert folders == {"crops"}


def test_pictures_that_nobody_has_claimed_are_the_next_ones(tmp_path: Path) -> None:
    (tmp_path / "figures" / "crops").mkdir(parents=True)
    assert pictures_folder(tmp_path, "crops", "aa").name == "crops"


def test_a_redrawn_picture_goes_to_the_folder_of_its_set(work_copy: Path, made: tuple[Path, ParticleSet]) -> None:
    run = Run(run_in(work_copy, "clusters-vae"))
    pictures_folder(work_copy, "synthetic", "another")
    assert Redraw(run.path).folder(run) == work_copy / "figures" / f"synthetic-{made[1].fingerprint[:8]}"
    assert Redraw(run.path, out=work_copy).folder(run) == work_copy, "or where it is told to go"


def test_the_ranking_is_the_consensus_that_the_run_went_into(work_copy: Path) -> None:
    run = Run(run_in(work_copy, "clusters-vae"))
    assert ranking_of(run)[0]["score"].std() > 0
    shutil.rmtree(work_copy / "runs" / "consensus")
    own, name = ranking_of(run)
    assert (own["score"].std(), name) == (0, "Outlier score (this latent)")


def test_sheets_of_clusters_that_are_no_more_go(work_copy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out" / "clusters-vae"
    folder.mkdir(parents=True)
    stale = [folder / "hdbscan-cluster-000.png", folder / "hdbscan-09-cluster-8.png", folder / "hdbscan-09-noise.pdf"]
    mine = [folder / "hdbscan-notes.png", folder / "mine.png", folder / "kmeans-01-cluster-0.png"]
    for path in [*stale, *mine]:
        path.touch()
    gallery.main(Redraw(run_in(work_copy, "clusters-vae"), tmp_path / "out"))
    assert [path.exists() for path in stale] == [False] * 3
    assert [path.exists() for path in mine] == [True] * 3


@pytest.mark.parametrize("labels", [[-1], [0], [LONG]])
def test_all_noise_one_cluster_one_class_of_200_letters(labels: list[object], work_copy: Path, tmp_path: Path) -> None:
    run = Run(run_in(work_copy, "clusters-vae"))
    clusters = pd.read_parquet(run.path / "clusters.parquet")
    if labels == [LONG]:
        packed = next((work_copy / "packed").iterdir()) / "table.parquet"
        table = pd.read_parquet(packed)
        table["truth"] = table["truth"].where(table["role"] != "core", LONG)
        write_parquet(table, packed)
    else:
        write_parquet(clusters.assign(hdbscan=labels[0]), run.path / "clusters.parquet")
    settings = Redraw(run.path, tmp_path / "out")
    maps.main(settings)
    gallery.main(settings)
    drawn = sorted(path.name for path in (tmp_path / "out").rglob("hdbscan*"))
    wanted = {-1: ["hdbscan-01-noise.png"], 0: ["hdbscan-01-cluster-0.png"]}
    assert drawn == wanted[labels[0]] if labels[0] in wanted else len(drawn) == 3  # type: ignore[index]


def test_one_particle_is_drawn_and_nobody_is_said(work_copy: Path, tmp_path: Path) -> None:
    run = Run(run_in(work_copy, "clusters-vae"))
    places = pd.read_parquet(run.path / "maps.parquet")
    settings = Redraw(run.path, tmp_path / "out")
    write_parquet(places[:1], run.path / "maps.parquet")
    for script in (maps, scalar_maps, gallery):
        script.main(settings)
    area.main(area.Settings(run.path, tmp_path / "out"))
    assert (tmp_path / "out" / "area-vae.png").exists()
    write_parquet(places[:0], run.path / "maps.parquet")
    with pytest.raises(UserError, match="nobody is on the map"):
        maps.main(settings)


def test_what_is_missing_is_said_in_one_line(work_copy: Path) -> None:
    run = Run(run_in(work_copy, "clusters-vae"))
    with pytest.raises(UserError, match=r"no run\.json there"):
        opened(work_copy, ["vae"])
    with pytest.raises(UserError, match="kind 'clusters-vae' has no such picture; give one of vae or planar-vae"):
        generated.main(Redraw(run.path))
    (run.path / "maps.parquet").unlink()
    with pytest.raises(
        UserError, match=r"has no maps\.parquet; make one with `python clustering/run\.py --latent vae`"
    ):
        maps.main(Redraw(run.path))
    run.record(status="failed")
    with pytest.raises(UserError, match="the run is failed, not finished"):
        maps.main(Redraw(run.path))
    shutil.rmtree(run.path)
    with pytest.raises(UserError, match="which is gone"):
        linked.main(Redraw(run_in(work_copy, "consensus")))


def test_particles_that_have_changed_are_refused(work_copy: Path) -> None:
    run = Run(run_in(work_copy, "clusters-vae"))
    run.record(data=run.info["data"] | {"fingerprint": "another"})
    with pytest.raises(UserError, match="have changed since"):
        maps.main(Redraw(run.path))


def test_a_training_run_without_curves_or_arrays_is_said(work_copy: Path) -> None:
    common = RunSettings(work_dir=work_copy)
    with started("vae", common, common, {"name": "none", "fingerprint": "0", "path": ""}) as run:
        pass
    for script, words in (
        (curves, "no metrics.csv"),
        (reconstructions, "reconstructions.npy"),
        (generated, "samples.npy"),
    ):
        with pytest.raises(UserError, match=words):
            script.main(Redraw(run.path))
