"""Trained model + particle set -> latents with per-row losses. Deterministic, batch by batch, in the set's order."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch

from autoencoders.models import Autoencoder, Posterior
from encoders.classifier import ClassifierTraining
from particles.latents import INDEX_COLUMNS, Latents
from particles.loader import in_batches
from particles.sets import ParticleSet
from provenance.progress import progress

BATCH = 256
ELBO_DRAWS = 4
"""Draws of z for each image's ELBO: the same noise for every image, so that rows do not depend on their company."""


def encode_classifier(model: ClassifierTraining, particles: ParticleSet) -> Latents:
    """The penultimate layer and the class probabilities of every row.

    Returns:
        Latents with z (N, 512), and index columns `predicted`, `confidence`, `prob_<class>`.
    """
    z, probabilities = [], []
    with _inference(model), torch.inference_mode():
        for x in _batches(particles, "encoding, classifier", _device(model)):
            features = model.net.trunk(x)
            z.append(features.cpu().numpy())
            probabilities.append(model.net.head(features).softmax(dim=1).cpu().numpy())
    p = np.concatenate(probabilities)
    index = _index(particles)
    index["predicted"] = pd.array([model.classes[i] for i in p.argmax(axis=1)], dtype="string")
    index["confidence"] = p.max(axis=1)
    columns = pd.DataFrame(p, columns=[f"prob_{name}" for name in model.classes])
    return Latents(np.concatenate(z), pd.concat([index, columns], axis=1))


def encode_autoencoder(model: Autoencoder, particles: ParticleSet, seed: int) -> Latents:
    """The deterministic latent of every row, and its losses in nats.

    Returns:
        Latents with z (N, D), and index columns `reconstruction` (at z itself), and for variational kinds `kl` and
        `neg_elbo` (means over `ELBO_DRAWS` draws).
    """
    latent_dim = model.mu_head.out_features
    noise = torch.randn(ELBO_DRAWS, latent_dim, generator=torch.Generator().manual_seed(seed))
    z, losses = [], []
    with _inference(model), torch.inference_mode():
        noise = noise.to(_device(model))
        for x in _batches(particles, f"encoding, {model.kind}", _device(model)):
            q = model.posterior(x)
            mean = model.encode_posterior(q)
            z.append(mean.cpu().numpy())
            losses.append(_row_losses(model, x, q, mean, noise))
    return Latents(np.concatenate(z), pd.concat([_index(particles), pd.concat(losses, ignore_index=True)], axis=1))


def reconstruct(model: Autoencoder, images: torch.Tensor) -> np.ndarray:
    """The model's deterministic picture of each image: (B, 1, S, S) in [0, 1] -> (B, S, S) uint8."""
    with _inference(model), torch.inference_mode():
        shown = model.mean_image(model.encode(images.to(_device(model))))
    return (shown[:, 0] * 255).round().to(torch.uint8).cpu().numpy()


def _row_losses(
    model: Autoencoder, x: torch.Tensor, q: Posterior, mean: torch.Tensor, noise: torch.Tensor
) -> pd.DataFrame:
    values = {"reconstruction": model.reconstruction(x, model.decoder(mean))}
    if model.kind != "ae":
        draws = [model.sample(q, eps) for eps in noise]
        values["kl"] = torch.stack([kl for _, kl in draws]).mean(0)
        drawn = torch.stack([model.reconstruction(x, model.decoder(z)) for z, _ in draws]).mean(0)
        values["neg_elbo"] = drawn + values["kl"]
    return pd.DataFrame({name: value.double().cpu().numpy() for name, value in values.items()})


def _index(particles: ParticleSet) -> pd.DataFrame:
    return particles.table[list(INDEX_COLUMNS)].copy()


def _batches(particles: ParticleSet, what: str, device: torch.device) -> Iterator[torch.Tensor]:
    positions = particles.table["position"].to_numpy(dtype=np.int64)
    with progress() as bars:
        bar = bars.add_task(what, total=len(positions))
        for part, x in in_batches(particles.pixels, positions, BATCH):
            yield x.to(device)
            bars.advance(bar, part.stop - part.start)


def _device(model: torch.nn.Module) -> torch.device:
    return next(model.parameters()).device


@contextmanager
def _inference(model: torch.nn.Module) -> Iterator[None]:
    """Batch norm must use its running statistics, or a row's latent would depend on its neighbors."""
    was = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was)
