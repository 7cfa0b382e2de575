"""What a user gets wrong ends in one line that says how to mend it, never in a traceback."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from autoencoders.chain import ChainSettings, train_models
from autoencoders.train import AutoencoderSettings
from clustering import run as clustering
from clustering.maps import MapSettings
from encoders.fit import FitSettings
from experiments import encode, find_outliers, mnist_held_out, pretrain_classifier, train_ae, train_vae
from particles.sets import DataSettings, open_set
from particles.squares import PackSettings
from particles.table import read_parquet
from provenance.errors import UserError
from provenance.files import write_json
from provenance.run import LATENTS, RunSettings
from provenance.settings import entry, plain

PROJECT = Path(__file__).resolve().parent.parent.parent
QUICK = PackSettings(size=16, scalars=False)
TinySet = Callable[[str, Mapping[str, int]], Path]


def script(path: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROJECT / path), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120, check=False)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The line that the user is left with."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    return last


def test_training_on_a_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "notes.txt").write_text("nothing to see")
    last = refused(script("experiments/pretrain_classifier.py", "--data", "lake", cwd=tmp_path))
    assert "lake: no particles found; give a folder with PNG, JPEG, TIFF or BMP crops" in last
    assert not (tmp_path / "work" / "runs").exists(), "no run was begun"


def test_clustering_what_was_not_trained(tiny_set: TinySet, tmp_path: Path) -> None:
    tiny_set("lake", {"ash": 8, "dust": 8})
    last = refused(script("clustering/run.py", "--data", "lake", "--latent", "planar-vae", cwd=tmp_path))
    assert "no finished run 'planar-vae' on this data" in last
    assert "`python experiments/train_vae.py --flow planar`" in last


def test_a_core_too_small_to_search_is_said_before_any_training(tiny_set: TinySet, tmp_path: Path) -> None:
    few = DataSettings(str(tiny_set("few", {"ash": 12, "dust": 12})), pack=QUICK)
    common = RunSettings(work_dir=tmp_path / "work")
    n = int((open_set(few, common).table["role"] == "core").sum())
    assert 0 < n < 10, "the test split of twenty-four"
    with pytest.raises(UserError, match=rf"few: {n} particle\(s\) to search, 10 are needed.*--no-use-labels"):
        find_outliers.main(find_outliers.Settings(data=few, common=common))
    alone = replace(few, data=str(tiny_set("alone", {"": 5})))
    with pytest.raises(UserError, match=r"alone: 5 particle\(s\) to search, 10 are needed; give a larger core$"):
        find_outliers.main(find_outliers.Settings(data=alone, common=common))
    assert not (tmp_path / "work" / "runs").exists()


def test_an_unknown_latent_is_said_before_the_set_is_packed(tiny_set: TinySet, tmp_path: Path) -> None:
    data = DataSettings(str(tiny_set("lake", {"ash": 8})), pack=QUICK)
    with pytest.raises(UserError, match="--latent vea: no such latent; there are classifier, ae"):
        clustering.main(clustering.Settings("vea", data=data, common=RunSettings(work_dir=tmp_path / "work")))
    assert not (tmp_path / "work").exists()


MAINS = [pretrain_classifier, train_ae, train_vae, find_outliers, mnist_held_out, clustering]


@pytest.mark.parametrize("module", MAINS, ids=lambda module: module.__name__)
def test_no_such_data(module: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = module.Settings()  # type: ignore[attr-defined]
    settings = replace(settings, data=replace(settings.data, data="nowhere"))
    with pytest.raises(UserError, match="--data nowhere: no such folder; built in are synthetic, mnist, digits"):
        module.main(settings)  # type: ignore[attr-defined]
    assert not (tmp_path / "work" / "runs").exists()


def test_no_such_core(tiny_set: TinySet) -> None:
    data = DataSettings(data=str(tiny_set("lake", {"ash": 8})), core="/nowhere", pack=QUICK)
    with pytest.raises(UserError, match=r"^--core /nowhere: no such folder"):
        pretrain_classifier.main(pretrain_classifier.Settings(data=data))


def test_an_unknown_held_out_digit() -> None:
    data = DataSettings(data="digits", held_out=("banana",), pack=QUICK)
    with pytest.raises(UserError, match=r"--held-out banana: .* it has 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"):
        mnist_held_out.main(mnist_held_out.Settings(data=data))


def test_no_held_out_digit() -> None:
    with pytest.raises(UserError, match=r"--held-out names no digit: .* --held-out 2 6"):
        mnist_held_out.main(mnist_held_out.Settings(data=DataSettings(data="digits")))


def test_a_class_with_one_member(tiny_set: TinySet) -> None:
    data = DataSettings(data=str(tiny_set("lake", {"ash": 8, "lonely": 1})), pack=QUICK)
    with pytest.raises(UserError, match=r"class 'lonely' has 1 particle\(s\), at least 5 are needed"):
        pretrain_classifier.main(pretrain_classifier.Settings(data=data))


def test_a_classifier_of_one_class(tiny_set: TinySet) -> None:
    data = DataSettings(data=str(tiny_set("lake", {"ash": 8})), pack=QUICK)
    with pytest.raises(UserError, match="a classifier needs two labeled classes, there are 1"):
        pretrain_classifier.main(pretrain_classifier.Settings(data=data))


def test_one_class_alone_is_searched_without_a_classifier(
    tiny_set: TinySet, capsys: pytest.CaptureFixture[str]
) -> None:
    data, common = DataSettings(data=str(tiny_set("lake", {"ash": 30, "": 30})), pack=QUICK), RunSettings()
    particles = open_set(data, common)
    model = AutoencoderSettings(latent_dim=2, fit=FitSettings(epochs=1, precision="32"))
    runs = train_models(LATENTS[:2], particles, data, ChainSettings(model=model), common)
    assert "one class alone (ash): no classifier" in capsys.readouterr().out
    assert [run.kind for run in runs] == ["ae"]
    how = clustering.ClusteringSettings(maps=MapSettings(tsne=False))
    _, consensus = clustering.run_clustering(particles, runs, data, how, common)
    ranked = read_parquet(consensus.path / "outliers.parquet")
    assert sorted(ranked["rank"]) == list(range(1, 31))
    assert ranked["p_value"].notna().all(), "the ash that was held back says what a known particle scores"


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_no_microscope_has(scale: float) -> None:
    with pytest.raises(UserError, match=r"--um-per-px .*: give a number above 0"):
        DataSettings(um_per_px=scale)


@pytest.mark.parametrize(("flag", "value"), [("size", 0), ("size", -3), ("min_size", 0)])
def test_sizes_that_no_crop_has(flag: str, value: int) -> None:
    with pytest.raises(UserError, match=f"--{flag.replace('_', '-')} {value}: give at least"):
        PackSettings(**{flag: value})


def test_replay_is_in_the_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["script.py", "--help"])
    with pytest.raises(SystemExit):
        entry(find_outliers.Settings, find_outliers.main)
    assert "--replay RUN takes the settings of the earlier run" in " ".join(capsys.readouterr().out.split())


def test_one_training_to_resume_in_a_search_of_many(tiny_set: TinySet) -> None:
    data, common = DataSettings(data=str(tiny_set("lake", {"ash": 8})), pack=QUICK), RunSettings()
    chain = ChainSettings(model=AutoencoderSettings(fit=FitSettings(resume=Path("runs/vae/1"))))
    with pytest.raises(UserError, match=r"--resume names one training of .*: .* give it with --go-on instead"):
        train_models(LATENTS, open_set(data, common), data, chain, common)
    assert not (common.work / "runs").exists()


def test_an_autoencoder_of_a_whole_search_is_resumed_by_that_search(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "vae" / "1"
    write_json(run / "config.json", plain(find_outliers.Settings()))
    write_json(run / "run.json", {"argv": ["experiments/find_outliers.py"]})
    last = refused(script("experiments/train_vae.py", "--resume", str(run), cwd=tmp_path))
    assert "experiments/find_outliers.py has made this run, and train_vae.py does not take its settings" in last
    assert f"`python experiments/find_outliers.py --replay {run} --go-on` goes on with it" in last


def test_an_autoencoder_without_its_classifier(tiny_set: TinySet) -> None:
    data = DataSettings(data=str(tiny_set("lake", {"ash": 8, "dust": 8})), pack=QUICK)
    with pytest.raises(UserError, match=r"no finished run 'classifier'.*`python experiments/pretrain_classifier.py`"):
        train_ae.main(train_ae.Settings(data=data))


@pytest.mark.parametrize("module", [clustering, encode], ids=["clustering", "encode"])
def test_no_such_latent(module: object, tiny_set: TinySet) -> None:
    data = DataSettings(data=str(tiny_set("lake", {"ash": 8, "dust": 8})), pack=QUICK)
    with pytest.raises(UserError, match="--latent gan: no such latent; there are classifier, ae, vae, planar-vae"):
        module.main(module.Settings(latent="gan", data=data))  # type: ignore[attr-defined]


def test_a_class_to_drop_that_does_not_exist(tiny_set: TinySet) -> None:
    data = DataSettings(data=str(tiny_set("lake", {"ash": 8, "dust": 8})), pack=QUICK)
    how = clustering.ClusteringSettings(drop_class=("snow",))
    settings = clustering.Settings(latent="all", data=data, clustering=how)
    with pytest.raises(UserError, match=r"--drop-class snow: .* this data has ash, dust"):
        clustering.run_clustering(clustering.open_set(data, settings.common), [], settings, how, settings.common)


@pytest.mark.parametrize(
    ("module", "flag"), [(clustering, "--latnet"), (pretrain_classifier, "--epocks"), (train_vae, "--flwo")]
)
def test_a_misspelled_flag(
    module: object, flag: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["script.py", flag, "1"])
    with pytest.raises(SystemExit) as stopped:
        entry(module.Settings, lambda settings: pytest.fail("it ran"))  # type: ignore[attr-defined]
    assert stopped.value.code == 2
    assert flag in "".join(capsys.readouterr())
