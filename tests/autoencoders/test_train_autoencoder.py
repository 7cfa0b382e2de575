from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch

from autoencoders.chain import ChainSettings, train_models
from autoencoders.encode import encode_autoencoder, reconstruct
from autoencoders.losses import bernoulli_nll, gaussian_kl_per_dim, gaussian_nll
from autoencoders.models import Kind
from autoencoders.train import AutoencoderSettings, train_autoencoder
from autoencoders.training import AutoencoderTraining, load_autoencoder
from encoders.arithmetic import Precision
from encoders.encode import inference
from encoders.fit import FitSettings, SeedEachStep, begun
from encoders.pretrain import ClassifierSettings, pretrain
from particles.loader import ParticleData, PixelData, as_input
from particles.sets import DataSettings, ParticleSet, open_set
from particles.squares import PackSettings
from provenance.errors import UserError
from provenance.files import read_json
from provenance.run import Run, RunSettings

DATA = DataSettings(n_per_class=8, n_core=40, n_per_kind=1, pack=PackSettings(size=16, scalars=False))
FIT = FitSettings(epochs=2, batch_size=16, precision="32")
HOW = AutoencoderSettings(latent_dim=4, kl_warmup=1.5, fit=FIT)
STEPS = 2


class KilledError(Exception):
    """Stands for a kill in the middle of an epoch."""


@pytest.fixture(scope="module")
def common(tmp_path_factory: pytest.TempPathFactory) -> RunSettings:
    return RunSettings(work_dir=tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def particles(common: RunSettings) -> ParticleSet:
    return open_set(DATA, common, say=lambda _: None)


@pytest.fixture(scope="module")
def classifier(particles: ParticleSet, common: RunSettings) -> Run:
    return pretrain(particles, DATA, ClassifierSettings(), replace(FIT, epochs=1), common)


@pytest.fixture(scope="module")
def straight(classifier: Run, particles: ParticleSet, common: RunSettings) -> Run:
    torch.manual_seed(1)  # whatever was drawn before in this process must not matter
    return train("planar-vae", particles, common)


def train(kind: Kind, particles: ParticleSet, common: RunSettings, how: AutoencoderSettings = HOW) -> Run:
    return train_autoencoder(kind, STEPS, particles, DATA, how, common, say=lambda _: None)


def curves(run: Run) -> pd.DataFrame:
    """What was measured in each epoch, but for the clock."""
    return pd.read_csv(run.path / "metrics.csv").drop(columns="seconds")


def assert_same_results(one: Run, other: Run) -> None:
    for name in ("z.npy", "index.parquet", "metrics.json", "reconstructions.npy", "reconstructions.json"):
        assert (one.path / name).read_bytes() == (other.path / name).read_bytes(), name
    pd.testing.assert_frame_equal(curves(one), curves(other), check_exact=True)


def test_the_same_seed_gives_the_same_bytes(straight: Run, particles: ParticleSet, common: RunSettings) -> None:
    torch.manual_seed(2)
    assert_same_results(straight, train("planar-vae", particles, common))


def test_where_nothing_falls_into_the_validation_split_what_was_learned_is_drawn(
    particles: ParticleSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = particles.table.assign(split=particles.table["split"].replace("val", "train"))
    small = ParticleSet(**(vars(particles) | {"table": rows}))
    run = train("vae", small, RunSettings(work_dir=tmp_path), replace(HOW, from_scratch=True))
    assert "judges itself" in capsys.readouterr().out
    drawn = read_json(run.path / "reconstructions.json")
    assert set(drawn) <= set(rows.loc[rows["split"] == "train", "particle_id"])
    assert len(drawn) == len(set(drawn)) == 24


def test_a_killed_run_resumes_and_ends_where_an_unbroken_one_does(
    straight: Run, particles: ParticleSet, common: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = SeedEachStep.on_train_batch_end

    def killed(self: SeedEachStep, trainer: L.Trainer, *rest: object) -> None:
        if trainer.current_epoch == 1:
            raise KilledError
        original(self, trainer, *rest)

    monkeypatch.setattr(SeedEachStep, "on_train_batch_end", killed)
    with pytest.raises(KilledError):
        train("planar-vae", particles, common)
    monkeypatch.undo()
    broken = Run(max((common.work / "runs" / "planar-vae").iterdir()))
    assert broken.info["status"] == "failed"
    assert len(curves(broken)) == 1
    assert not (broken.path / "z.npy").exists()
    resumed = train("planar-vae", particles, common, replace(HOW, fit=replace(FIT, resume=broken.path)))
    assert resumed.path == broken.path
    assert resumed.info["status"] == "finished"
    assert_same_results(straight, resumed)
    for name in ("troubles", "watched"):
        assert resumed.info[name] == straight.info[name]


def test_a_killed_chain_goes_on_with_what_it_has(
    particles: ParticleSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The classifier is done, the autoencoder is killed in its second epoch."""
    chain = ChainSettings(pretrain_epochs=1, flow_steps=STEPS, model=HOW)
    killed, whole = (RunSettings(work_dir=tmp_path / name) for name in ("killed", "whole"))
    expected = train_models(["classifier", "ae"], particles, whole, chain, whole)
    original = SeedEachStep.on_train_batch_end

    def kill(self: SeedEachStep, trainer: L.Trainer, *rest: object) -> None:
        if trainer.current_epoch == 1:
            raise KilledError
        original(self, trainer, *rest)

    monkeypatch.setattr(SeedEachStep, "on_train_batch_end", kill)
    with pytest.raises(KilledError):
        train_models(["classifier", "ae"], particles, killed, chain, killed)
    monkeypatch.undo()
    onward = replace(chain, go_on=True)
    runs = train_models(["classifier", "ae"], particles, killed, onward, killed)
    assert sorted(run.path for run in runs) == sorted((killed.work / "runs").glob("*/*")), "nothing was done twice"
    for one, other in zip(runs, expected, strict=True):
        assert (one.path / "z.npy").read_bytes() == (other.path / "z.npy").read_bytes()
    assert runs[1].info["parents"] == [runs[0].name]
    assert len(runs[1].info["resumed"]) == 1
    assert train_models(["ae"], particles, killed, onward, killed) == runs[1:], "finished models are taken"
    assert train_models(["ae"], particles, killed, chain, killed) != runs[1:], "only where that is asked for"


def test_what_was_begun_with_other_settings_or_from_another_classifier_is_not_gone_on_with(
    classifier: Run, straight: Run, particles: ParticleSet, common: RunSettings
) -> None:
    assert classifier.info["status"] == straight.info["status"] == "finished"
    newest = Run(max((common.work / "runs" / "planar-vae").iterdir()))
    assert begun("planar-vae", DATA, common, particles, classifier) == newest
    assert begun("planar-vae", replace(DATA, n_core=41), common, particles, classifier) is None
    assert begun("planar-vae", HOW, common, particles, classifier) is None, "another script's settings"
    assert begun("planar-vae", DATA, common, particles, straight) is None
    assert begun("planar-vae", DATA, common, particles) is None
    assert begun("planar-vae", DATA, replace(common, seed=1), particles, classifier) is None, "another seed"
    other = open_set(replace(DATA, n_core=30), common, say=lambda _: None)
    assert begun("planar-vae", DATA, common, other, classifier) is None


def test_each_epoch_counts_its_own_active_units(monkeypatch: pytest.MonkeyPatch) -> None:
    training, logged = AutoencoderTraining("vae", 2, 16, "gaussian", 0, 1e-3, 1.0), list[float]()
    monkeypatch.setattr(training, "log", lambda name, value: logged.append(value))
    for latents in (torch.arange(8.0).view(4, 2), torch.zeros(4, 2)):
        training._latents.append(latents)
        training.on_validation_epoch_end()
    assert logged == [2.0, 0.0]


def test_another_seed_gives_another_model(straight: Run, particles: ParticleSet, common: RunSettings) -> None:
    other = train("planar-vae", particles, replace(common, seed=1), replace(HOW, fit=replace(FIT, epochs=1)))
    difference = np.load(straight.path / "z.npy") - np.load(other.path / "z.npy")
    assert np.abs(difference).max() > 1e-3


def test_kl_grows_in_over_the_warmup_and_then_counts_fully(straight: Run, particles: ParticleSet) -> None:
    n = len(particles.training_positions("train", with_labeled=True))
    sizes = [min(16, n - start) for start in range(0, n, 16)]
    steps = len(sizes)
    expected = [
        np.average([min(1.0, (epoch * steps + i) / (1.5 * steps)) for i in range(steps)], weights=sizes)
        for epoch in range(2)
    ]
    assert curves(straight)["kl_weight"].tolist() == pytest.approx(expected, rel=1e-5)
    assert expected[0] < 0.5 < expected[1]


@pytest.mark.parametrize(("step", "weight"), [(0, 0.0), (3, 0.5), (6, 1.0), (60, 1.0)])
def test_a_step_minimizes_reconstruction_plus_weighted_kl(
    step: int, weight: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = AutoencoderTraining("vae", 4, 16, "gaussian", 0, 1e-3, kl_warmup=2.0)
    trainer = SimpleNamespace(num_training_batches=3, global_step=step)
    monkeypatch.setattr(AutoencoderTraining, "trainer", property(lambda _: trainer))
    monkeypatch.setattr(training, "log", lambda *_, **__: None)
    logged: dict[str, torch.Tensor] = {}
    monkeypatch.setattr(training, "log_dict", lambda values, **_: logged.update(values))
    batch = {"x": torch.rand(6, 1, 16, 16)}
    torch.manual_seed(5)
    loss = training.training_step(batch, 0)
    torch.manual_seed(5)
    losses = training.net.losses(batch["x"])
    assert losses.kl.mean() > 0
    torch.testing.assert_close(loss, (losses.reconstruction + weight * losses.kl).mean())
    # what is shown is the full bound, whatever the weight
    torch.testing.assert_close(logged["train_loss"], (losses.reconstruction + losses.kl).mean())


def test_denoising_asks_for_the_crop_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    training = AutoencoderTraining("ae", 4, 16, "bernoulli", 0, 1e-3, 1.0, denoise=True)
    trainer = SimpleNamespace(num_training_batches=3, global_step=0, training=True)
    monkeypatch.setattr(AutoencoderTraining, "trainer", property(lambda _: trainer))
    monkeypatch.setattr(training, "log", lambda *_, **__: None)
    monkeypatch.setattr(training, "log_dict", lambda *_, **__: None)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 16, 16)).astype(np.uint8)
    data = ParticleData(PixelData(pixels, np.arange(6)), PixelData(pixels, np.arange(6)), 6, 0, "affine")  # type: ignore[arg-type]
    monkeypatch.setattr(data, "trainer", trainer)
    batch = data.on_after_batch_transfer({"x": as_input(pixels)}, 0)
    torch.testing.assert_close(batch["clean"], as_input(pixels))
    assert (batch["x"] - batch["clean"]).abs().mean() > 0.01
    with torch.no_grad():
        training.eval()
        loss = training.training_step(batch, 0)
        logits = training.net.decoder(training.net.encode(batch["x"]))
        expected = bernoulli_nll(as_input(pixels), logits).mean()
    torch.testing.assert_close(loss, expected)


def test_what_cannot_be_learned_is_refused(particles: ParticleSet, common: RunSettings) -> None:
    with pytest.raises(UserError, match="--latent-dim 1: give at least 2"):
        replace(HOW, latent_dim=1)
    turned, before = replace(HOW, denoise=True, from_scratch=True), sorted((common.work / "runs").glob("*/*"))
    with pytest.raises(UserError, match="cannot undo the augmentation 'dihedral': give --augment affine"):
        train("ae", particles, common, turned)
    with pytest.raises(UserError, match="give --augment affine"):
        train_models(["ae"], particles, common, ChainSettings(model=turned), common)
    assert sorted((common.work / "runs").glob("*/*")) == before, "refused before anything was begun"
    (alone,) = train_models(["classifier"], particles, common, ChainSettings(pretrain_epochs=1, model=turned), common)
    assert alone.kind == "classifier", "which reconstructs nothing"


@pytest.mark.parametrize("kind", ["ae", "vae"])
def test_a_diverged_training_ends_in_one_line(
    kind: Kind, particles: ParticleSet, common: RunSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    how = replace(HOW, from_scratch=True, fit=replace(FIT, lr=1e30))
    with pytest.raises(UserError, match=f"{kind}: training diverged, there are no latents; give a lower --lr"):
        train(kind, particles, common, how)


@pytest.mark.parametrize(("clip", "precision"), [(None, "32"), (0.5, "32"), (0.5, "bf16")])
def test_no_step_is_taken_with_a_longer_gradient_than_asked(
    clip: float | None,
    precision: Precision,
    particles: ParticleSet,
    common: RunSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    norms, step = [], torch.optim.AdamW.step

    def seen(self: torch.optim.AdamW, closure: Any = None) -> Any:
        def then() -> Any:
            loss = closure()
            taken = [p.grad.norm() for group in self.param_groups for p in group["params"] if p.grad is not None]
            norms.append(float(torch.stack(taken).norm()))
            return loss

        return step(self, then)

    monkeypatch.setattr(torch.optim.AdamW, "step", seen)
    fit = replace(FIT, clip_norm=clip, precision=precision)
    train("vae", particles, common, replace(HOW, from_scratch=True, fit=fit))
    assert len(norms) > 4
    if clip is None:
        assert min(norms) > 1
    else:
        assert norms == pytest.approx([clip] * len(norms), rel=1e-3)


def test_validation_curves_add_up(straight: Run) -> None:
    rows = curves(straight)
    total = rows["val_reconstruction"] + rows["val_kl"]
    np.testing.assert_allclose(rows["val_loss"], total, rtol=1e-5)
    assert not [name for name in rows if name.startswith("kl_dim_")], "a flow mixes the dimensions"
    assert rows["active_units"].between(0, 4).all()
    best = torch.load(straight.path / "best.ckpt", weights_only=True)
    assert best["epoch"] == int(rows["val_loss"].argmin())


def test_a_checkpoint_gives_the_written_latents_again(straight: Run, particles: ParticleSet) -> None:
    training = load_autoencoder(straight.path / "best.ckpt", "planar-vae")
    latents = encode_autoencoder(training.net, particles, seed=0)
    assert latents.z.tobytes() == np.load(straight.path / "z.npy").tobytes()
    written = pd.read_parquet(straight.path / "index.parquet")
    for name in ("reconstruction", "kl", "neg_elbo"):
        np.testing.assert_array_equal(written[name], latents.index[name])


def test_the_trunk_starts_from_the_newest_classifier(straight: Run, classifier: Run) -> None:
    assert straight.info["parents"] == [classifier.name]
    assert classifier.path.name in straight.info["warm_start"]


def test_shown_reconstructions_are_of_validation_particles(straight: Run, particles: ParticleSet) -> None:
    pairs = np.load(straight.path / "reconstructions.npy")
    rows = particles.table.set_index("particle_id").loc[read_json(straight.path / "reconstructions.json")]
    assert (rows["split"] == "val").all()
    images = particles.pixels[rows["position"].to_numpy()]
    np.testing.assert_array_equal(pairs[0], images)
    net = load_autoencoder(straight.path / "best.ckpt", "planar-vae").net
    np.testing.assert_array_equal(pairs[1], reconstruct(net, as_input(images)))


def test_row_losses_are_the_elbo_of_each_image(straight: Run, particles: ParticleSet) -> None:
    """The plain VAE's columns against the formulas, with many draws where the tool takes a few."""
    torch.manual_seed(0)
    net = AutoencoderTraining("vae", 3, 16, "gaussian", 0, 1e-3, 1.0).net
    with torch.no_grad():
        net.train().posterior(as_input(particles.pixels[range(64)]))  # running statistics of this set
    latents = encode_autoencoder(net, particles, seed=3)
    x = as_input(particles.pixels[particles.table["position"].to_numpy()])
    with inference(net), torch.inference_mode():
        q = net.posterior(x)
        assert net.log_sigma is not None
        at_mean = gaussian_nll(x, net.decoder(q.mu), net.log_sigma)
        noise = torch.randn(200, *q.mu.shape, generator=torch.Generator().manual_seed(9))
        std = (0.5 * q.logvar).exp()
        drawn = torch.stack([gaussian_nll(x, net.decoder(q.mu + std * e), net.log_sigma) for e in noise[:60]])
    np.testing.assert_allclose(latents.z, q.mu, atol=1e-5)
    np.testing.assert_allclose(latents.index["reconstruction"], at_mean, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(latents.index["kl"], gaussian_kl_per_dim(q.mu, q.logvar).sum(1), rtol=1e-4, atol=1e-4)
    excess = latents.index["neg_elbo"] - latents.index["kl"] - drawn.mean(0).numpy()
    assert (np.abs(excess) < 5 * drawn.std(0).numpy() + 1e-3).all()  # one draw


@pytest.mark.parametrize("kind", ["ae", "vae", "planar-vae"])
def test_a_rows_losses_do_not_depend_on_its_company(kind: Kind, particles: ParticleSet) -> None:
    torch.manual_seed(0)
    net = AutoencoderTraining(kind, 3, 16, "bernoulli", STEPS, 1e-3, 1.0).net
    order = np.random.default_rng(0).permutation(len(particles.table))[:11]
    some: dict[str, Any] = vars(particles) | {"table": particles.table.iloc[order].reset_index(drop=True)}
    whole = encode_autoencoder(net, particles, seed=3)
    few = encode_autoencoder(net, ParticleSet(**some), seed=3)
    np.testing.assert_allclose(few.z, whole.z[order], atol=1e-5)
    names = ["reconstruction"] if kind == "ae" else ["reconstruction", "kl", "neg_elbo"]
    assert set(whole.index) & {"reconstruction", "kl", "neg_elbo"} == set(names)
    for name in names:
        np.testing.assert_allclose(few.index[name], whole.index[name].iloc[order], rtol=1e-4)


def test_the_noise_of_the_elbo_is_of_the_seed(particles: ParticleSet) -> None:
    torch.manual_seed(0)
    net = AutoencoderTraining("vae", 3, 16, "gaussian", 0, 1e-3, 1.0).net
    few = ParticleSet(**(vars(particles) | {"table": particles.table.head(11)}))
    one, other = (encode_autoencoder(net, few, seed) for seed in (3, 4))
    assert (one.index["neg_elbo"] != other.index["neg_elbo"]).all()
    pd.testing.assert_frame_equal(one.index.drop(columns="neg_elbo"), other.index.drop(columns="neg_elbo"))


def test_no_data_labeled_learns_from_the_core_alone(
    classifier: Run, particles: ParticleSet, common: RunSettings
) -> None:
    how = replace(HOW, data_labeled=False, from_scratch=True, fit=replace(FIT, epochs=1))
    run = train("ae", particles, common, how)
    counts = particles.table[particles.table["role"] == "core"]["split"].value_counts()
    assert run.results == {"n_train": counts["train"], "n_val": counts["val"]}
    assert run.info["parents"] == []
    assert "warm_start" not in run.info


def test_without_a_classifier_the_way_out_is_named(
    particles: ParticleSet, tmp_path_factory: pytest.TempPathFactory
) -> None:
    empty = RunSettings(work_dir=tmp_path_factory.mktemp("empty"))
    with pytest.raises(UserError, match=r"no finished run 'classifier'.*pretrain_classifier\.py"):
        train("ae", particles, empty)
