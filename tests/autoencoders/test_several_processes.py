"""Two CPU processes train as one does: the same latents, curves and run, and a killed one can be gone on with."""

import errno
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import lightning as L
import numpy as np
import pandas as pd
import pytest
from tiny_trunk import TinyTrunk
from torch import nn
from torch.multiprocessing import start_processes

from autoencoders.train import AutoencoderSettings, train_autoencoder
from autoencoders.watch import Watch
from encoders import ranks
from encoders.fit import FitSettings
from encoders.launch import led
from particles.sets import DataSettings, ParticleSet, open_set
from particles.squares import PackSettings
from provenance.errors import UserError
from provenance.run import Run, RunSettings

DATA = DataSettings(n_per_class=8, n_core=41, n_per_kind=1, pack=PackSettings(size=16, scalars=False))
# 75 rows to learn from and 12 to judge by: odd batches, and a last one in which one of two processes has no row
FIT = FitSettings(epochs=2, batch_size=11, precision="32", augment="affine")
HOW = AutoencoderSettings(latent_dim=4, kl_warmup=1.0, from_scratch=True, fit=FIT)
TWO = replace(HOW, fit=replace(FIT, devices=2))


class UnbiasedTrunk(TinyTrunk):
    """Without biases that a batch norm takes away again: their gradient is rounding, and AdamW goes by its sign."""

    def __init__(self) -> None:
        super().__init__()
        for layer in self.net:
            if isinstance(layer, nn.Conv2d):
                layer.bias = None


class Killing(Watch):
    """Kills the second process in the second epoch."""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch == 1 and not ranks.first():
            os.kill(os.getpid(), signal.SIGKILL)


class Full(Watch):
    """The second process finds no room on the disk."""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not ranks.first():
            raise OSError(errno.ENOSPC, "No space left on device", "last.ckpt")


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("autoencoders.models.ResNet18Trunk", UnbiasedTrunk)
        patch.setattr("encoders.launch.cores", lambda: 2)
        yield


@pytest.fixture(scope="module")
def common(tmp_path_factory: pytest.TempPathFactory) -> RunSettings:
    return RunSettings(work_dir=tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def particles(common: RunSettings) -> ParticleSet:
    return open_set(DATA, common, say=lambda _: None)


def train(particles: ParticleSet, common: RunSettings, how: AutoencoderSettings) -> Run:
    return train_autoencoder("vae", 0, particles, DATA, how, common)


@pytest.fixture(scope="module")
def two(particles: ParticleSet, common: RunSettings) -> Run:
    return train(particles, common, TWO)


def curves(run: Run) -> pd.DataFrame:
    """What was measured in each epoch, but for the clock."""
    return pd.read_csv(run.path / "metrics.csv").drop(columns="seconds")


def assert_same_results(one: Run, other: Run) -> None:
    for name in ("z.npy", "index.parquet", "metrics.json", "reconstructions.npy"):
        assert (one.path / name).read_bytes() == (other.path / name).read_bytes(), name
    pd.testing.assert_frame_equal(curves(one), curves(other), check_exact=True)
    for name in ("troubles", "watched"):
        assert one.info[name] == other.info[name]


def assert_close(one: Run, other: Run) -> None:
    """To what float32 keeps: batches are summed in another order."""
    a, b = (np.load(run.path / "z.npy").astype(np.float64) for run in (one, other))
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosines.min() > 1 - 1e-7  # measured: 1 - 1e-10
    pd.testing.assert_frame_equal(curves(one), curves(other), rtol=1e-4, atol=1e-6)  # measured: 2e-6


def test_two_processes_learn_what_one_learns(two: Run, particles: ParticleSet, common: RunSettings) -> None:
    one = train(particles, common, HOW)
    assert_close(one, two)
    assert curves(two)["epoch"].tolist() == [0, 1]
    assert two.info["status"] == "finished"
    assert two.info["device"] == "cpu"
    assert two.info["watched"].keys() == one.info["watched"].keys()
    assert sorted(p.name for p in two.path.iterdir()) == sorted(p.name for p in one.path.iterdir())


def test_the_same_seed_gives_the_same_bytes(two: Run, particles: ParticleSet, common: RunSettings) -> None:
    assert_same_results(two, train(particles, common, TWO))


def test_a_killed_process_ends_in_one_line_and_the_run_can_be_resumed(
    two: Run, particles: ParticleSet, common: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoencoders.train.Watch", Killing)
    with pytest.raises(UserError, match=r"process 1 of the training was killed \(SIGKILL;.*--resume RUN"):
        train(particles, common, TWO)
    monkeypatch.undo()
    broken = Run(max((common.work / "runs" / "vae").iterdir()))
    assert broken.info["status"] == "failed"
    assert curves(broken)["epoch"].tolist() == [0]
    resumed = train(particles, common, replace(TWO, fit=replace(TWO.fit, resume=broken.path)))
    assert resumed.path == broken.path
    assert_same_results(two, resumed)


def test_what_a_process_cannot_do_is_said_in_one_line(
    particles: ParticleSet, common: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoencoders.train.Watch", Full)
    with pytest.raises(UserError, match=r"No space left on device: 'last.ckpt'"):
        train(particles, common, TWO)


@dataclass(frozen=True)
class Settings:
    """Of a script with a training."""

    common: RunSettings


def script(settings: Settings) -> None:
    train(open_set(DATA, settings.common), settings.common, TWO)


def launched(rank: int, port: int, work: Path) -> None:
    """What torchrun does: the same script twice, told apart by the environment."""
    os.environ |= {"TORCHELASTIC_RUN_ID": "test", "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("autoencoders.models.ResNet18Trunk", UnbiasedTrunk)
        led(script)(Settings(RunSettings(work_dir=work)))


def test_processes_of_a_launcher_share_one_run(two: Run, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start_processes(launched, (port, tmp_path), 2, start_method="forkserver")
    (path,) = (tmp_path / "runs" / "vae").iterdir()
    assert_same_results(two, Run(path))
