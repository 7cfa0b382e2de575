from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score
from tiny_trunk import TinyTrunk

from autoencoders.losses import gaussian_kl_per_dim
from autoencoders.models import Autoencoder, Kind
from autoencoders.train import AutoencoderSettings, train_autoencoder
from autoencoders.troubles import (
    collapsed,
    diverged,
    drowned,
    exploding_kl,
    fell_back,
    largest_eigenvalue,
    overfitted,
    redrawn_worse,
)
from autoencoders.watch import MOST, Watch, chosen
from encoders.fit import FitSettings
from particles.loader import as_input
from particles.pixels import PixelStore, write_shard
from particles.sets import DataSettings, ParticleSet, open_set
from particles.squares import PackSettings
from provenance.run import Run, RunSettings, started

DATA = DataSettings(n_per_class=30, n_core=120, n_per_kind=1, pack=PackSettings(size=16, scalars=False))
FIT = FitSettings(epochs=2, batch_size=32, lr=3e-3, precision="32")
HOW = AutoencoderSettings(latent_dim=4, kl_warmup=1.0, from_scratch=True, fit=FIT)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoencoders.models.ResNet18Trunk", TinyTrunk)


@pytest.fixture(scope="module")
def common(tmp_path_factory: pytest.TempPathFactory) -> RunSettings:
    return RunSettings(work_dir=tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def particles(common: RunSettings) -> ParticleSet:
    return open_set(DATA, common, say=lambda _: None)


def of(particles: ParticleSet, **changed: Any) -> ParticleSet:
    return ParticleSet(**(vars(particles) | changed))


def trained(
    kind: Kind, particles: ParticleSet, common: RunSettings, how: AutoencoderSettings = HOW
) -> tuple[Run, list[str]]:
    said: list[str] = []
    return train_autoencoder(kind, 2, particles, DATA, how, common, say=said.append), said


# --- each trouble by its numbers


def test_the_eigenvalue_is_that_of_numpys_covariance() -> None:
    rng = np.random.default_rng(0)
    for n, side in ((7, 6), (200, 5)):  # fewer crops than pixels, and more
        images = rng.random((n, side, side)) * rng.random((side, side))
        expected = np.linalg.eigvalsh(np.cov(images.reshape(n, -1), rowvar=False))[-1]
        assert largest_eigenvalue(torch.from_numpy(images)) == pytest.approx(expected, rel=1e-9)
    assert largest_eigenvalue(torch.full((5, 4, 4), 0.7)) == pytest.approx(0.0, abs=1e-12)


def test_the_share_of_pairs_is_the_auroc_with_ties_by_half() -> None:
    rng = np.random.default_rng(1)
    for n, m in ((40, 70), (1, 5)):
        seen, unseen = rng.integers(0, 9, n), rng.integers(2, 12, m)
        expected = roc_auc_score([0] * n + [1] * m, [*seen, *unseen])
        assert redrawn_worse(torch.from_numpy(seen), torch.from_numpy(unseen)) == pytest.approx(expected, abs=1e-12)


def test_exploding_kl_counts_the_crops_and_names_the_worst() -> None:
    kl = torch.tensor([3.0] * 95 + [90_000.0, 700.0, float("inf"), float("nan"), 639.0])
    line = exploding_kl(kl, latent_dim=32, warm=True)
    assert line is not None
    assert "4 of 100 crops above 640 nats, 2 of them not finite, the worst 90,000" in line
    assert "--pretrain-epochs" in line
    assert "--from-scratch" in line
    assert "--pretrain-epochs" not in (exploding_kl(kl, 32, warm=False) or "--pretrain-epochs")
    assert "none finite" in (exploding_kl(torch.tensor([float("nan")]), 32, warm=True) or "")


@pytest.mark.parametrize(("kl", "latent_dim"), [(93.0, 32), (265.0, 32), (0.5, 2)])
def test_starts_that_were_sound_are_not_called_exploding(kl: float, latent_dim: int) -> None:
    assert exploding_kl(torch.full((10,), kl), latent_dim, warm=True) is None


@pytest.mark.parametrize(
    ("kl", "active", "latent_dim", "remedy"),
    [
        (2.0, 32, 32, "--kl-warmup"),
        (0.0, 0, 4, "--epochs"),
        (4.2, 0, 32, "--epochs"),
        (40.0, 8, 32, "--latent-dim"),
        (3.9, 90, 128, "--epochs"),
    ],
)
def test_a_collapsed_posterior_is_named(kl: float, active: int, latent_dim: int, remedy: str) -> None:
    line = collapsed(kl, active, latent_dim, gaussian=True)
    assert line is not None
    assert line.startswith(f"posterior collapse: a KL of {kl:.2g} nats, {active} of {latent_dim} ")
    assert remedy in line
    assert "--likelihood" not in line


def test_a_bernoulli_that_collapses_should_be_a_gaussian() -> None:
    assert "--likelihood gaussian" in (collapsed(0.1, 0, 8, gaussian=False) or "")


@pytest.mark.parametrize(
    ("kl", "active", "latent_dim"),
    [(31.5, 32, 32), (22.2, 16, 16), (3.0, 2, 2), (40, 33, 128), (2.0, 16, 16), (5.0, 64, 128)],
)
def test_sound_latents_are_not_called_collapsed(kl: float, active: int, latent_dim: int) -> None:
    assert collapsed(kl, active, latent_dim, gaussian=True) is None


def test_probabilistic_pca_uses_no_dimension_exactly_where_the_decoder_is_called_noisy() -> None:
    """The marginal likelihood of pPCA with one factor along the first direction, best length found by search."""
    eigenvalue = 3.0
    squares = torch.linspace(0, 20, 20_001, dtype=torch.float64)  # |w|^2
    for variance in (0.5, 2.9, 3.1, 10.0):
        nll = torch.log(squares + variance) + eigenvalue / (squares + variance)
        best = float(squares[nll.argmin()])
        assert best == pytest.approx(max(0.0, eigenvalue - variance), abs=2e-3)
        assert (drowned(variance, eigenvalue) is not None) == (best == 0.0)
    assert "--kl-warmup" in (drowned(0.05, 0.001) or "")


def test_overfitting_needs_a_large_shift_and_enough_crops() -> None:
    torch.manual_seed(0)
    seen = torch.randn(200)
    assert overfitted(seen, torch.randn(200), "core", core_too=True) is None
    assert overfitted(seen, torch.randn(200) + 0.5, "core", core_too=True) is None
    assert overfitted(seen[:3], torch.randn(2) + 9, "core", core_too=True) is None, "too few to be sure"
    assert overfitted(seen, torch.empty(0), "labeled", core_too=True) is None
    line = overfitted(seen, torch.randn(200) + 4, "labeled", core_too=True)
    assert line is not None
    assert line.startswith("overfitting to the labeled set")
    assert "--no-data-labeled" in line
    assert "--no-data-labeled" not in (overfitted(seen, seen + 9, "labeled", core_too=False) or "--no-data-labeled")
    assert "data-labeled" not in (overfitted(seen, seen + 9, "core", core_too=True) or "data-labeled")


def test_overfitting_is_a_shift_of_about_one_standard_deviation() -> None:
    torch.manual_seed(0)
    seen = torch.randn(400)
    assert [overfitted(seen, seen + shift, "core", True) is not None for shift in (0.8, 1.2)] == [False, True]


def test_a_loss_that_is_no_number_is_divergence() -> None:
    assert diverged(-2400.0) is None
    for loss in (float("nan"), float("inf")):
        assert "--lr" in (diverged(loss) or "")


# --- the watch


@pytest.fixture
def watch(particles: ParticleSet, common: RunSettings) -> Watch:
    with started("vae", DATA, common, particles.identity) as run:
        train, val = (particles.training_positions(split, with_labeled=True) for split in ("train", "val"))
        pd.DataFrame({"train_reconstruction": [90.0], "kl_weight": 1.0, "gradient_norm": 5.0}).to_csv(
            run.path / "metrics.csv"
        )
        return Watch(run, particles, train, val, warm=True, seed=0, say=lambda _: None)


def start(watch: Watch, net: Autoencoder) -> list[str]:
    said: list[str] = []
    watch.say = said.append
    watch.on_fit_start(SimpleNamespace(ckpt_path=None), SimpleNamespace(net=net))  # type: ignore[arg-type]
    return said


def test_heads_that_explode_are_seen_before_training(watch: Watch, particles: ParticleSet) -> None:
    torch.manual_seed(0)
    net = Autoencoder("vae", 4, 16, "gaussian")
    assert start(watch, net) == []
    assert watch.run.info["troubles"] == []
    with torch.no_grad():
        net.mu_head.weight *= 5000
        rows = np.concatenate([watch.chosen["train", role] for role in ("labeled", "core")])
        q = net.eval().posterior(as_input(particles.pixels[rows]))
        kl = gaussian_kl_per_dim(q.mu, q.logvar).sum(1)
    (line,) = start(watch, net)
    n_far = int((kl > 80).sum())
    assert n_far > 0
    assert f"{n_far} of {len(rows)} crops above 80 nats, the worst {kl.max():,.0f};" in line
    assert watch.run.info["troubles"] == [{"when": "start", "line": line.removeprefix("vae: ")}]


def test_looking_changes_nothing(watch: Watch) -> None:
    torch.manual_seed(0)
    net = Autoencoder("planar-vae", 4, 16, "gaussian", 2).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    start(watch, net)
    watch.judge(net)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in net.modules())
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_both_roles_are_looked_at_and_never_too_many(particles: ParticleSet) -> None:
    table = pd.DataFrame({"position": np.arange(5000), "role": ["labeled"] * 1500 + ["core"] * 3500})
    groups = chosen(of(particles, table=table), np.arange(0, 5000, 2), np.arange(1, 400), seed=3)
    assert {group: len(rows) for group, rows in groups.items()} == {
        ("train", "labeled"): MOST, ("train", "core"): MOST, ("val", "labeled"): 399, ("val", "core"): 0,
    }  # fmt: skip
    assert set(groups["train", "core"]) <= set(range(1500, 5000, 2))
    assert len(set(groups["train", "core"])) == MOST


# --- whole trainings


def test_a_sound_training_is_silent(particles: ParticleSet, common: RunSettings) -> None:
    run, said = trained("vae", particles, common, replace(HOW, kl_warmup=2.0, fit=replace(FIT, epochs=12)))
    assert said == []
    assert run.info["troubles"] == []
    seen = run.info["watched"]
    last = pd.read_csv(run.path / "metrics.csv").iloc[-1]
    assert seen["active_units"] == last["active_units"] == 4
    assert seen["kl"] == pytest.approx(last["val_kl"], rel=0.25), "of other crops"
    assert last[[f"kl_dim_{d:02d}" for d in range(4)]].sum() == pytest.approx(last["val_kl"], rel=1e-5)
    assert "kl_dim_04" not in last
    assert 0 < seen["start_kl_mean"] <= seen["start_kl_max"]
    assert seen["variance"] < seen["eigenvalue"]
    assert 0.3 < seen["redrawn_worse_labeled"] < 0.7


@pytest.mark.parametrize("kind", ["ae", "planar-vae"])
def test_a_watched_training_is_the_same_to_the_last_bit(
    kind: Kind, particles: ParticleSet, common: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched, _ = trained(kind, particles, common)
    assert "troubles" in watched.info
    for hook in ("on_fit_start", "on_train_epoch_end", "judge"):
        monkeypatch.setattr(Watch, hook, lambda *_: None)
    alone, _ = trained(kind, particles, common)
    assert "troubles" not in alone.info
    assert (watched.path / "z.npy").read_bytes() == (alone.path / "z.npy").read_bytes()
    one, other = (torch.load(run.path / "last.ckpt", weights_only=True)["state_dict"] for run in (watched, alone))
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_crops_that_do_not_differ_collapse(particles: ParticleSet, common: RunSettings, tmp_path: Path) -> None:
    write_shard(tmp_path / "00000.npy", np.full((len(particles.pixels), 16, 16), 180, np.uint8))
    grey = of(particles, pixels=PixelStore([tmp_path / "00000.npy"]))
    run, said = trained("vae", grey, common)
    assert [line.partition(":")[0] for line in said] == ["vae"] * 3
    names = [(one["when"], one["line"].partition(":")[0]) for one in run.info["troubles"]]
    assert names == [("start", "noisy decoder"), ("end", "noisy decoder"), ("end", "posterior collapse")]


def test_many_epochs_on_sixteen_crops_are_learned_by_heart(particles: ParticleSet, common: RunSettings) -> None:
    labeled = particles.table[particles.table["role"] == "labeled"].iloc[:120]
    few = of(particles, table=labeled.assign(split=["train"] * 16 + ["val"] * 104).reset_index(drop=True))
    fit = replace(FIT, epochs=50, batch_size=8, augment="none")
    run, said = trained("ae", few, common, replace(HOW, latent_dim=16, fit=fit))
    (line,) = said
    assert "overfitting to the labeled set" in line
    assert "fewer --epochs" in line
    assert run.info["troubles"] == [{"when": "end", "line": line.removeprefix("ae: ")}]


def test_a_training_that_loses_what_it_had_gained_has_fallen_back() -> None:
    norms, full = [900.0, 200.0, 96.0, 300.0, 80.0], [0.3, 1.0, 1.0, 1.0, 1.0]
    line = fell_back([225.0, 102.3, 89.9, 101.5, 82.9], full, norms) or ""
    assert line.startswith("training fell back in epoch 4: its reconstruction error rose from 89.9 to 101.5 nats")
    assert "give --clip-norm 144," in line
    assert fell_back([225.0, 102.3, 89.9, 91.0, 82.9], full, norms) is None, "1.1 of 135"
    assert fell_back([225.0, 89.9, 101.5, 82.9], [0.3, 0.6, 1.0, 1.0], norms) is None, "the KL came in"
    # of the Gaussian likelihood errors are below zero, and only what was gained says what a loss is
    below = fell_back([500.0, -3000.0, -2500.0, -2700.0, -3100.0], [1.0] * 5, [0.5] * 5) or ""
    assert "in epoch 3: its reconstruction error rose from -3,000.0 to -2,500.0" in below
    assert "give --clip-norm 0.75," in below
    twentieth = [fell_back([225.0, 90.0, 90 + 135 * lost], [1.0] * 3, [1.0] * 3) for lost in (0.04, 0.06)]
    assert [line is not None for line in twentieth] == [False, True], "of what was gained"
    assert fell_back([500.0], [1.0], [1.0]) is fell_back([500.0, 510.0], [1.0, 1.0], [1.0, 1.0]) is None


class Measured(torch.nn.Linear):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(2, 1)
        self.logged: list[float] = []

    def log(self, name: str, value: torch.Tensor, **_: Any) -> None:
        assert name == "gradient_norm"
        self.logged.append(float(value))


def test_gradients_are_measured_every_tenth_step(watch: Watch) -> None:
    module, hook = Measured(), cast(Any, watch.on_before_optimizer_step)
    for step in range(40):  # of two epochs
        module.weight.grad, module.bias.grad = torch.tensor([[3.0, 0.0]]) * (step + 1), torch.tensor([4.0]) * (step + 1)
        hook(SimpleNamespace(global_step=step, num_training_batches=25), module, None)
    assert module.logged == [5.0, 55.0, 105.0, 130.0, 180.0]


def test_the_curves_are_read_at_the_end(watch: Watch) -> None:
    curves = pd.DataFrame({"train_reconstruction": [90.0, 50.0, 70.0, 49.0], "kl_weight": 1.0, "gradient_norm": 5.0})
    curves.to_csv(watch.run.path / "metrics.csv")
    watch.judge(Autoencoder("vae", 4, 16, "gaussian"))
    assert "fell back in epoch 3" in str(watch.run.info["troubles"])


def test_an_epochs_trouble_is_kept_while_it_trains_and_not_said(watch: Watch) -> None:
    said: list[str] = []
    watch.say = said.append
    module = SimpleNamespace(net=Autoencoder("vae", 4, 16, "gaussian"))
    logged = {"train_loss": 1.0, "kl_weight": 0.5, "val_kl": 0.01, "active_units": 0.0}
    trainer = SimpleNamespace(callback_metrics=logged, current_epoch=0)
    watch.on_train_epoch_end(trainer, module)  # type: ignore[arg-type]
    assert watch.run.info["troubles"] == [], "the KL does not yet weigh what it will"
    trainer = SimpleNamespace(callback_metrics=logged | {"kl_weight": 1.0, "train_loss": float("nan")}, current_epoch=1)
    watch.on_train_epoch_end(trainer, module)  # type: ignore[arg-type]
    names = [(one["when"], one["line"].partition(":")[0]) for one in watch.run.info["troubles"]]
    assert names == [("epoch 2", "training diverged"), ("epoch 2", "posterior collapse")]
    assert said == []
