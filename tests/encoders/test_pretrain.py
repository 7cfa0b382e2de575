from pathlib import Path

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch

from encoders.classifier import load_classifier
from encoders.encode import encode_classifier
from encoders.fit import FitSettings, SeedEachStep, loaders
from encoders.pretrain import pretrain
from particles.latents import read_latents
from particles.packing import PackSettings
from particles.sets import DataSettings, ParticleSet, open_set
from provenance.errors import UserError
from provenance.run import Run, RunSettings

DATA = DataSettings(n_per_class=10, n_core=20, n_per_kind=1, pack=PackSettings(size=16, scalars=False))
HOW = FitSettings(epochs=2, batch_size=16, precision="32")


class KilledError(Exception):
    """Stands for a kill in the middle of an epoch."""


@pytest.fixture(scope="module")
def common(tmp_path_factory: pytest.TempPathFactory) -> RunSettings:
    return RunSettings(work_dir=tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def particles(common: RunSettings) -> ParticleSet:
    return open_set(DATA, common, say=lambda _: None)


@pytest.fixture(scope="module")
def straight(particles: ParticleSet, common: RunSettings) -> Run:
    torch.manual_seed(1)  # whatever was drawn before in this process must not matter
    return pretrain(particles, DATA, HOW, common)


def curves(run: Run) -> pd.DataFrame:
    """What was measured in each epoch, but for the clock."""
    return pd.read_csv(run.path / "metrics.csv").drop(columns="seconds")


def assert_same_results(one: Run, other: Run) -> None:
    for name in ("z.npy", "metrics.json", "index.parquet"):
        assert (one.path / name).read_bytes() == (other.path / name).read_bytes(), name
    pd.testing.assert_frame_equal(curves(one), curves(other), check_exact=True)


def test_the_same_seed_gives_the_same_bytes(straight: Run, particles: ParticleSet, common: RunSettings) -> None:
    torch.manual_seed(2)
    assert_same_results(straight, pretrain(particles, DATA, HOW, common))


def test_a_killed_run_resumes_and_ends_where_an_unbroken_one_does(
    straight: Run, particles: ParticleSet, common: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = SeedEachStep.on_train_batch_end

    def killed(self: SeedEachStep, trainer: L.Trainer, *rest: object) -> None:
        if trainer.current_epoch == 1:
            raise KilledError
        original(self, trainer, *rest)

    torch.manual_seed(3)
    monkeypatch.setattr(SeedEachStep, "on_train_batch_end", killed)
    with pytest.raises(KilledError):
        pretrain(particles, DATA, HOW, common)
    monkeypatch.undo()
    broken = Run(max((common.work / "runs" / "classifier").iterdir()))
    assert broken.info["status"] == "failed"
    assert len(curves(broken)) == 1
    assert not (broken.path / "z.npy").exists()
    how = FitSettings(epochs=2, batch_size=16, precision="32", resume=broken.path)
    resumed = pretrain(particles, DATA, how, common)
    assert resumed.path == broken.path
    assert resumed.info["status"] == "finished"
    assert_same_results(straight, resumed)


def test_the_best_epoch_is_kept_and_its_latents_written(straight: Run, particles: ParticleSet) -> None:
    best = torch.load(straight.path / "best.ckpt", weights_only=True)
    assert best["epoch"] == int(curves(straight)["val_loss"].argmin())
    assert torch.load(straight.path / "last.ckpt", weights_only=True)["epoch"] == 1
    again = encode_classifier(load_classifier(straight.path / "best.ckpt"), particles)
    assert again.z.tobytes() == np.load(straight.path / "z.npy").tobytes()


def test_test_accuracy_is_that_of_the_labeled_test_split(straight: Run, particles: ParticleSet) -> None:
    index = read_latents(straight.path).index.set_index("particle_id")
    rows = particles.table.set_index("particle_id")
    test = rows[(rows["role"] == "labeled") & (rows["split"] == "test")]
    hits = index.loc[test.index, "predicted"] == test["truth"]
    assert straight.results == {"test_accuracy": pytest.approx(hits.mean()), "n_test": len(test)}
    assert len(test) > 5


def test_resume_refuses_another_kind_or_other_data(
    straight: Run, particles: ParticleSet, common: RunSettings, tmp_path: Path
) -> None:
    other = ParticleSet(
        particles.name, particles.table, particles.pixels, "other", particles.folder, particles.oriented
    )
    with pytest.raises(UserError, match="not a run of kind 'classifier' on this data"):
        pretrain(other, DATA, FitSettings(resume=straight.path), common)
    elsewhere = tmp_path / "runs" / "vae" / straight.path.name
    elsewhere.mkdir(parents=True)
    (elsewhere / "run.json").write_bytes((straight.path / "run.json").read_bytes())
    with pytest.raises(UserError, match="not a run of kind 'classifier'"):
        pretrain(particles, DATA, FitSettings(resume=elsewhere), common)


def test_one_class_is_too_few(particles: ParticleSet, common: RunSettings) -> None:
    rows = particles.table
    single = rows[(rows["role"] == "core") | (rows["label"] == "dust").fillna(False)]
    few = ParticleSet("few", single, particles.pixels, "few", particles.folder, particles.oriented)
    with pytest.raises(UserError, match=r"two labeled classes, there are 1.*--from-scratch"):
        pretrain(few, DATA, HOW, common)


def test_too_few_particles_to_train_on(particles: ParticleSet) -> None:
    with pytest.raises(UserError, match=r"1 particle\(s\) to train on"):
        loaders(particles, np.array([3]), np.array([4, 5]), HOW, seed=0)


def test_without_a_validation_split_the_training_split_judges_itself_and_says_so(
    particles: ParticleSet, capsys: pytest.CaptureFixture[str]
) -> None:
    data = loaders(particles, np.array([3, 1, 2]), np.array([], dtype=int), HOW, seed=0)
    assert data.val.positions.tolist() == [3, 1, 2]
    assert "judges itself" in capsys.readouterr().out


def test_targets_follow_their_rows(particles: ParticleSet) -> None:
    targets = np.arange(100, 100 + len(particles.pixels))
    data = loaders(particles, np.array([7, 2]), np.array([5]), HOW, seed=0, targets=targets)
    batch = data.train.__getitems__([1, 0])
    assert batch["y"].tolist() == [102, 107]
    shown = (batch["x"][:, 0] * 255).round().to(torch.uint8).numpy()
    np.testing.assert_array_equal(shown, particles.pixels[[2, 7]])
