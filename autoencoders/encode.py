"""Trained model + particle set -> latents with per-row losses. Deterministic, batch by batch, in the set's order."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from autoencoders.models import Autoencoder, Kind, Posterior
from autoencoders.training import load_autoencoder
from encoders.arithmetic import Precision
from encoders.encode import Encoder, device_of, in_one_go, inference
from particles.latents import Latents
from particles.sets import ParticleSet

ELBO_DRAWS = 1
"""Draws of z for each image's ELBO: the same noise for every image, so that rows do not depend on their company."""


def encode_autoencoder(model: Autoencoder, particles: ParticleSet, seed: int, precision: Precision = "32") -> Latents:
    """The deterministic latent of every row, and its losses in nats.

    Args:
        model: trained.
        particles: whom to encode.
        seed: of the noise.
        precision: of the multiplications; bf16 is faster and agrees to two or three digits.

    Returns:
        Latents with z (N, D), and index columns `reconstruction` (at z itself), and for variational kinds `kl` and
        `neg_elbo` (means over `ELBO_DRAWS` draws).
    """
    return in_one_go(_encoder(model, seed), particles, f"encoding, {model.kind}", precision)


def autoencoder_encoder(checkpoint: Path, kind: Kind, seed: int) -> Encoder:
    """A trained autoencoder, ready to encode; `seed` is of the noise.

    Raises:
        UserError: not a checkpoint of this kind, or of another architecture.
    """
    return _encoder(load_autoencoder(checkpoint, kind).net, seed)


def _encoder(model: Autoencoder, seed: int) -> Encoder:
    latent_dim = model.mu_head.out_features
    noise = torch.randn(ELBO_DRAWS, latent_dim, generator=torch.Generator().manual_seed(seed))
    return Encoder(model, partial(_judged, model, noise))


def _judged(model: Autoencoder, noise: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, pd.DataFrame]:
    q = model.posterior(x)
    mean = model.encode_posterior(q)
    return mean, _row_losses(model, x, q, mean, noise.to(x.device))


def reconstruct(model: Autoencoder, images: torch.Tensor) -> np.ndarray:
    """The model's deterministic picture of each image: (B, 1, S, S) in [0, 1] -> (B, S, S) uint8."""
    with inference(model), torch.inference_mode():
        shown = model.mean_image(model.encode(images.to(device_of(model))))
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
