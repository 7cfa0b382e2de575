from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch

from autoencoders.chain import ChainSettings
from autoencoders.train import AutoencoderSettings
from encoders import pretrain as module
from encoders.classifier import load_classifier
from encoders.encode import encode_classifier
from encoders.fit import (
    Checkpoint,
    FitSettings,
    SeedEachStep,
    begun,
    changed_settings,
    loaders,
    one_cycle,
    with_defaults,
)
from encoders.pretrain import ClassifierSettings, pretrain
from particles.latents import read_latents
from particles.loader import Augment, ParticleData
from particles.measures import SCALE_FREE, normalized_scalars
from particles.scalars import SCALARS
from particles.sets import DataSettings, ParticleSet, open_set
from particles.squares import PackSettings
from provenance.errors import UserError
from provenance.run import Run, RunSettings
from provenance.settings import plain

DATA = DataSettings(n_per_class=10, n_core=20, n_per_kind=1, pack=PackSettings(size=16))
CLASSES_ALONE = ClassifierSettings(learn_measures=False)
HOW = FitSettings(epochs=2, batch_size=16, precision="32")


class KilledError(Exception):
    """Stands for a kill in the middle of an epoch."""


@pytest.fixture(scope="module")
def common(tmp_path_factory: pytest.TempPathFactory) -> RunSettings:
    return RunSettings(work_dir=tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def particles(common: RunSettings) -> ParticleSet:
    return open_set(DATA, common, say=lambda _: None)


@pytest.fixture(scope="module", params=[False, True], ids=["classes alone", "measures too"])
def what(request: pytest.FixtureRequest) -> ClassifierSettings:
    return ClassifierSettings(learn_measures=request.param)


@pytest.fixture(scope="module")
def straight(particles: ParticleSet, what: ClassifierSettings, common: RunSettings) -> Run:
    torch.manual_seed(1)  # whatever was drawn before in this process must not matter
    return pretrain(particles, DATA, what, HOW, common)


def curves(run: Run) -> pd.DataFrame:
    """What was measured in each epoch, but for the clock."""
    return pd.read_csv(run.path / "metrics.csv").drop(columns="seconds")


def assert_same_results(one: Run, other: Run) -> None:
    for name in ("z.npy", "metrics.json", "index.parquet"):
        assert (one.path / name).read_bytes() == (other.path / name).read_bytes(), name
    pd.testing.assert_frame_equal(curves(one), curves(other), check_exact=True)


def test_the_same_seed_gives_the_same_bytes(
    straight: Run, particles: ParticleSet, what: ClassifierSettings, common: RunSettings
) -> None:
    torch.manual_seed(2)
    assert_same_results(straight, pretrain(particles, DATA, what, HOW, common))
    assert ("train_measure_error" in curves(straight)) == what.learn_measures


def test_a_killed_run_resumes_and_ends_where_an_unbroken_one_does(
    straight: Run,
    particles: ParticleSet,
    what: ClassifierSettings,
    common: RunSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = SeedEachStep.on_train_batch_end

    def killed(self: SeedEachStep, trainer: L.Trainer, *rest: object) -> None:
        if trainer.current_epoch == 1:
            raise KilledError
        original(self, trainer, *rest)

    torch.manual_seed(3)
    monkeypatch.setattr(SeedEachStep, "on_train_batch_end", killed)
    with pytest.raises(KilledError):
        pretrain(particles, DATA, what, HOW, common)
    monkeypatch.undo()
    broken = Run(max((common.work / "runs" / "classifier").iterdir()))
    assert broken.info["status"] == "failed"
    assert len(curves(broken)) == 1
    assert not (broken.path / "z.npy").exists()
    torch.manual_seed(4)
    resumed = pretrain(particles, DATA, what, replace(HOW, resume=broken.path), common)
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
        pretrain(other, DATA, CLASSES_ALONE, FitSettings(resume=straight.path), common)
    elsewhere = tmp_path / "runs" / "vae" / straight.path.name
    elsewhere.mkdir(parents=True)
    (elsewhere / "run.json").write_bytes((straight.path / "run.json").read_bytes())
    with pytest.raises(UserError, match="not a run of kind 'classifier'"):
        pretrain(particles, DATA, CLASSES_ALONE, FitSettings(resume=elsewhere), common)


def test_resume_refuses_other_settings(
    straight: Run, particles: ParticleSet, common: RunSettings, what: ClassifierSettings
) -> None:
    before = straight.info
    with pytest.raises(UserError, match=r"--n-core 21 is not what the run was started with"):
        pretrain(particles, replace(DATA, n_core=21), what, replace(HOW, resume=straight.path), common)
    assert straight.info == before, "a finished run is not touched"


def test_what_may_change_and_what_may_not() -> None:
    was = {"data": {"data": "a"}, "model": {"fit": {"epochs": 2, "devices": 1, "resume": None}, "latent_dim": 32}}
    now = {"data": {"data": "b"}, "model": {"fit": {"epochs": 2, "devices": 2, "resume": "x"}, "latent_dim": 32}}
    assert changed_settings(was, now) == []
    now["model"] |= {"fit": {"epochs": 3}, "latent_dim": 16}
    assert changed_settings(was, now) == ["--epochs 3", "--latent-dim 16"]


def test_a_run_of_before_a_setting_had_it_at_its_default() -> None:
    now = ChainSettings(model=AutoencoderSettings(fit=FitSettings(epochs=3)))
    config = plain(now)
    del config["model"]["fit"]["clip_norm"]
    assert changed_settings(with_defaults(config, now), plain(now)) == []
    clipped = replace(now, model=AutoencoderSettings(fit=FitSettings(epochs=3, clip_norm=5.0)))
    assert changed_settings(with_defaults(config, clipped), plain(clipped)) == ["--clip-norm 5.0"]
    with pytest.raises(UserError, match="does not know: frobnicate"):
        with_defaults(config | {"frobnicate": 1}, now)


def test_scalars_that_another_has_measured_are_other_data(
    straight: Run, particles: ParticleSet, what: ClassifierSettings, common: RunSettings
) -> None:
    assert straight.info["data"]["scalars"] == {"scalars_by": "pixels", "in_um": True}
    assert begun("classifier", DATA, common, particles) is not None
    other = replace(particles, scalars={"scalars_by": "instrument", "in_um": True})
    assert begun("classifier", DATA, common, other) is None
    with pytest.raises(UserError, match="not a run of kind 'classifier' on this data"):
        pretrain(other, DATA, what, replace(HOW, resume=straight.path), common)


def test_a_moved_run_knows_its_best_epoch(tmp_path: Path) -> None:
    path, score = f"{tmp_path}/old/best.ckpt", torch.tensor(0.25)
    state = Checkpoint(dirpath=tmp_path / "old", filename="best", monitor="val_loss").state_dict()
    state |= {"best_model_score": score, "best_model_path": path, "kth_best_model_path": path,
              "best_k_models": {path: score}}  # fmt: skip
    moved = Checkpoint(dirpath=tmp_path / "new", filename="best", monitor="val_loss")
    moved.load_state_dict(state)
    here = str(tmp_path / "new" / "best.ckpt")
    assert moved.best_model_score == score
    assert (moved.best_model_path, moved.best_k_models) == (here, {here: score})
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(reduce_boolean_decision=bool))
    assert not moved.check_monitor_top_k(trainer, torch.tensor(0.5)), "a worse epoch is not best"
    assert moved.check_monitor_top_k(trainer, torch.tensor(0.2))


def test_one_class_is_too_few(particles: ParticleSet, common: RunSettings) -> None:
    rows = particles.table
    single = rows[(rows["role"] == "core") | (rows["label"] == "dust").fillna(False)]
    few = ParticleSet("few", single, particles.pixels, "few", particles.folder, particles.oriented)
    with pytest.raises(UserError, match=r"two labeled classes, there are 1.*find_outliers.py"):
        pretrain(few, DATA, ClassifierSettings(), HOW, common)


class StoppedError(Exception):
    """Stands for what would come next."""


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[torch.nn.Module, ParticleData]]]:
    """The model and the batches that a training would have begun with."""
    begun: list[tuple[torch.nn.Module, ParticleData]] = []

    def fit(model: torch.nn.Module, data: ParticleData, *rest: object, **named: object) -> None:
        begun.append((model, data))
        raise StoppedError

    monkeypatch.setattr(module, "fit", fit)
    yield begun
    assert len(begun) == 1


def test_measures_are_learned_of_labeled_and_core_particles(
    particles: ParticleSet, common: RunSettings, handed: list[tuple[torch.nn.Module, ParticleData]]
) -> None:
    order = np.random.default_rng(0).permutation(len(particles.table))
    rows = particles.table.iloc[order].reset_index(drop=True)  # so that a row's number is not its place in the store
    with pytest.raises(StoppedError):
        pretrain(replace(particles, table=rows), DATA, ClassifierSettings(), HOW, common)
    model, data = handed[0]
    train = rows[rows["split"] == "train"]
    assert data.train.positions.tolist() == train["position"].tolist()
    assert set(train["role"]) == {"labeled", "core"}
    known = train["role"] == "labeled"
    wanted = np.where(known, np.searchsorted(particles.classes, train["label"].fillna("")), -1)
    assert data.train.targets.tolist() == wanted.tolist()
    expected = normalized_scalars(train, np.ones(len(train), bool), SCALE_FREE)
    np.testing.assert_allclose(data.train.measures, expected, atol=1e-6)
    assert expected.std(axis=0).max() > 0.9
    assert model.net.measure.out_features == len(SCALE_FREE)
    val = rows[(rows["split"] == "val") & (rows["role"] == "labeled")]
    assert data.val.positions.tolist() == val["position"].tolist(), "a core particle has no class to be judged by"


def test_a_scalar_that_a_particle_lacks_is_not_taught(
    particles: ParticleSet, common: RunSettings, handed: list[tuple[torch.nn.Module, ParticleData]]
) -> None:
    rows = particles.table.copy()
    rows.loc[rows["role"] == "core", SCALE_FREE[2]] = pd.NA
    with pytest.raises(StoppedError):
        pretrain(replace(particles, table=rows), DATA, ClassifierSettings(), HOW, common)
    train = rows[rows["split"] == "train"]
    measures = handed[0][1].train.measures
    np.testing.assert_array_equal(np.isnan(measures[:, 2]), train["role"] == "core")
    assert np.isfinite(np.delete(measures, 2, axis=1)).all()


@pytest.mark.parametrize("asked", [False, True])
def test_without_scalars_or_unasked_classes_are_learned_alone(
    particles: ParticleSet, common: RunSettings, handed: list[tuple[torch.nn.Module, ParticleData]], asked: bool
) -> None:
    rows = particles.table
    if asked:
        rows = rows.assign(**dict.fromkeys(SCALARS, pd.array([pd.NA] * len(rows), dtype="Float64")))
    with pytest.raises(StoppedError):
        pretrain(replace(particles, table=rows), DATA, ClassifierSettings(learn_measures=asked), HOW, common)
    model, data = handed[0]
    assert model.net.measure is None
    labeled = rows[(rows["role"] == "labeled") & (rows["split"] == "train")]
    assert data.train.positions.tolist() == labeled["position"].tolist()
    assert data.train.targets.min() == 0


@pytest.mark.parametrize(
    ("oriented", "asked", "augment", "turns"),
    [
        (True, True, "auto", True),
        (True, False, "auto", False),
        (False, True, "auto", False),
        (True, True, "dihedral", False),  # turned and mirrored before: nothing says by how many quarters
    ],
)
def test_turns_are_learned_where_up_and_down_mean_something(
    particles: ParticleSet, common: RunSettings, handed: list[tuple[torch.nn.Module, ParticleData]],
    oriented: bool, asked: bool, augment: Augment, turns: bool,
) -> None:  # fmt: skip
    what = ClassifierSettings(learn_turns=asked)
    with pytest.raises(StoppedError):
        pretrain(replace(particles, oriented=oriented), DATA, what, replace(HOW, augment=augment), common)
    model, _ = handed[0]
    assert (model.net.turned is not None) == turns
    assert model.hparams["turns"] == turns


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "--epochs 0: give at least 1"),
        ({"batch_size": 1}, "--batch-size 1: give at least 2"),
        ({"lr": 0.0}, r"--lr 0\.0: give a number above 0"),
        ({"lr": -1e-3}, r"--lr -0\.001: give a number above 0"),
        ({"clip_norm": 0.0}, r"--clip-norm 0\.0: give a number above 0"),
        ({"clip_norm": float("inf")}, r"--clip-norm inf: give a number above 0"),
    ],
)
def test_nonsense_is_refused_before_anything_is_read(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}$"):
        FitSettings(**wrong)


def test_the_least_that_makes_sense_is_taken() -> None:
    assert FitSettings(epochs=1, batch_size=2, lr=1e-9, clip_norm=1e-9).epochs == 1
    assert FitSettings().batch_size == 64


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


def test_what_a_step_draws_is_of_the_seed_and_of_the_step() -> None:
    drawn = []
    for seed, step in ((0, 3), (0, 3), (1, 3), (0, 4)):
        SeedEachStep(seed)._seed(step)
        drawn.append(torch.rand(4).tolist())
    assert drawn[0] == drawn[1]
    assert drawn[2] not in (drawn[0], drawn[3])
    assert drawn[3] != drawn[0]


def test_what_learns_quickly_learns_ten_times_as_fast_and_undecayed() -> None:
    """As docs/architecture.md tells of sigma."""
    model: Any = torch.nn.Linear(2, 1)
    model.lr, model.trainer = 1e-3, SimpleNamespace(gradient_clip_val=None, estimated_stepping_batches=20)
    others, quick = one_cycle(model, quick=[model.bias])["optimizer"].param_groups
    assert quick["params"] == [model.bias]
    assert quick["max_lr"] == pytest.approx(10 * others["max_lr"])
    assert others["max_lr"] == pytest.approx(1e-3)
    assert quick["weight_decay"] == 0 < others["weight_decay"]
