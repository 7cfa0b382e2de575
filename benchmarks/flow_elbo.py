"""Does the planar flow earn its place? -ELBO in nats on statically binarized MNIST, same trunk, same budget.

    python -m benchmarks.flow_elbo --steps 0 1 4 16 --seeds 0

Every pixel is drawn once, black or white, with its grey as probability (Larochelle & Murray 2011, as in the published
tables; their own draw is not at hand, so that the images are another draw of the same distribution). Trained on the
train split, the epoch chosen by the validation split, judged on the 10,000 test images. 0 steps are the plain VAE.
"""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import tyro

from autoencoders.models import Autoencoder, Kind
from autoencoders.train import AutoencoderSettings, train_autoencoder
from autoencoders.training import load_autoencoder
from benchmarks.demo import machine
from encoders.encode import BATCH, device_of, inference
from encoders.fit import FitSettings
from particles.loader import in_batches
from particles.pixels import PixelStore, write_shard
from particles.sets import DataSettings, ParticleSet, open_set
from particles.squares import PackSettings
from provenance.run import PROJECT, RunSettings


@dataclass(frozen=True)
class Settings:
    """VAE against planar VAE."""

    steps: tuple[int, ...] = (0, 1, 4, 16)
    """K of each model."""
    seeds: tuple[int, ...] = (0,)
    """One training of each."""
    draws: int = 10
    """Of z for each test image."""
    model: AutoencoderSettings = field(
        default_factory=lambda: AutoencoderSettings(
            likelihood="bernoulli",
            from_scratch=True,
            kl_warmup=2.0,
            fit=FitSettings(epochs=10, batch_size=128, augment="none", clip_norm=150.0),
        )
    )
    """Trunk, decoder and budget, the same for all."""
    work_dir: Path = PROJECT / "benchmarks" / "work" / "flow"
    """Where the runs go."""


def main(settings: Settings) -> None:
    """Train, judge, tabulate."""
    print(f"{machine()}\n\n| K | seed | -ELBO | reconstruction | KL | minutes |\n|{'---|' * 6}", flush=True)
    found = []
    for seed in settings.seeds:
        common = RunSettings(seed, settings.work_dir)
        particles = binarized(common)
        for steps in settings.steps:
            begun = time.perf_counter()
            kind: Kind = "planar-vae" if steps else "vae"
            run = train_autoencoder(kind, steps, particles, settings, settings.model, common)
            net = load_autoencoder(run.path / "best.ckpt", kind).net
            reconstruction, kl = judged(net, particles, settings.draws)
            minutes = (time.perf_counter() - begun) / 60
            found.append({"K": steps, "seed": seed, "-ELBO": reconstruction + kl})
            print(f"| {steps} | {seed} | {reconstruction + kl:.2f} | {reconstruction:.2f} | {kl:.2f} | {minutes:.1f} |",
                  flush=True)  # fmt: skip
    print("\n" + pd.DataFrame(found).groupby("K")["-ELBO"].agg(["mean", "std"]).round(2).to_string())


def binarized(common: RunSettings) -> ParticleSet:
    """MNIST, each pixel drawn once; the draw is the same for every seed."""
    data = DataSettings("mnist", pack=PackSettings(scalars=False))
    particles = open_set(data, replace(common, seed=0), say=lambda _: None)
    path = common.work / "binarized" / "00000.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        images = particles.pixels[np.arange(len(particles.pixels))]
        drawn = np.random.default_rng(0).random(images.shape, dtype=np.float32) < images / np.float32(255)
        write_shard(path, 255 * drawn.astype(np.uint8))
    return replace(particles, pixels=PixelStore([path]), fingerprint=f"{particles.fingerprint}/binarized")


def judged(net: Autoencoder, particles: ParticleSet, draws: int) -> tuple[float, float]:
    """Mean reconstruction and KL of the test images, in nats, each draw with noise of its own."""
    rows = particles.table
    positions = particles.positions((rows["role"] == "core") & (rows["split"] == "test"))
    torch.manual_seed(0)
    total = np.zeros(2)
    with inference(net), torch.inference_mode():
        for _, x in in_batches(particles.pixels, positions, BATCH):
            x = x.to(device_of(net))
            q = net.posterior(x)
            for _ in range(draws):
                z, kl = net.sample(q, torch.randn_like(q.mu))
                total += [float(net.reconstruction(x, net.decoder(z)).double().sum()), float(kl.double().sum())]
    reconstruction, kl_mean = total / (draws * len(positions))
    return float(reconstruction), float(kl_mean)


if __name__ == "__main__":
    main(tyro.cli(Settings, config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)))
