"""What a trained autoencoder shows of itself, as arrays that the figures draw: pairs, samples, traversals."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from autoencoders.encode import reconstruct
from autoencoders.losses import gaussian_kl_per_dim
from autoencoders.models import Autoencoder
from encoders.encode import device_of, inference
from particles.loader import as_input, in_batches
from particles.sets import ParticleSet
from provenance.files import replacing, write_json

SHOWN = 24
"""Validation images drawn at random."""
EXTREMES = 12
"""Of the best and of the worst redrawn."""
SAMPLES = 64
"""Images decoded from z drawn from the prior."""
DIMENSIONS = 8
"""Latent dimensions that are walked along."""
STEPS = np.linspace(-3, 3, 9)
"""Where: standard deviations of the prior."""
_SEED = 0  # the same z for every model of a latent size, so that two runs can be compared; never the global state
_BATCH = 256
_MOST_FOR_KL = 256  # images: to find the active dimensions, not to measure them finely


def write_pictures(
    folder: Path, model: Autoencoder, particles: ParticleSet, val: np.ndarray, index: pd.DataFrame
) -> None:
    """Write what there is to see of a model into its run's folder.

        reconstructions.npy          (2, 24, S, S) uint8: of the validation split, and the model's pictures of them
        reconstructions-best.npy     (2, 12, S, S): those with the smallest reconstruction error, smallest first
        reconstructions-worst.npy    (2, 12, S, S): those with the largest, largest first
        <each of them>.json          their ids
        samples.npy                  (64, S, S): decoded z ~ N(0, 1)
        traversals.npy               (8, 9, S, S): along the 8 most active dimensions from -3 to 3, the others 0
        traversals.json              `dimensions`, their `kl` in nats, most active first, and `steps`

    A plain autoencoder has no prior, and so neither samples nor traversals.

    Args:
        folder: of the run.
        model: trained.
        particles: the set.
        val: (M,) store positions of the validation split, or of what stands in for it.
        index: the latents' index, `particle_id` and `reconstruction` in nats.
    """
    shown = np.sort(np.random.default_rng(0).permutation(val)[:SHOWN])
    pairs = {"reconstructions": shown, **best_and_worst(particles.table, val, index)}
    for name, positions in pairs.items():
        _write_pairs(folder / f"{name}.npy", model, particles, positions)
    if model.kind == "ae":
        return
    _write(folder / "samples.npy", samples(model))
    some = np.sort(np.random.default_rng(_SEED).permutation(val)[:_MOST_FOR_KL])
    kl = mean_kl(model, particles, some)
    dimensions = np.argsort(-kl, kind="stable")[:DIMENSIONS]
    said = {"dimensions": dimensions.tolist(), "kl": kl[dimensions].tolist(), "steps": STEPS.tolist()}
    write_json(folder / "traversals.json", said)
    _write(folder / "traversals.npy", traversals(model, dimensions.tolist()))


def best_and_worst(table: pd.DataFrame, val: np.ndarray, index: pd.DataFrame) -> dict[str, np.ndarray]:
    """Store positions of the best and of the worst redrawn; of equal ones in the order of the table.

    Args:
        table: `particle_id`, `position`.
        val: (M,) store positions to choose from.
        index: `particle_id`, `reconstruction`.
    """
    rows = table.loc[table["position"].isin(val), ["particle_id", "position"]]
    ordered = rows.merge(index[["particle_id", "reconstruction"]], on="particle_id", validate="one_to_one")
    ordered = ordered.sort_values("reconstruction", kind="stable")
    best, worst = ordered["position"].head(EXTREMES), ordered["position"].tail(EXTREMES)[::-1]
    return {"reconstructions-best": best.to_numpy(), "reconstructions-worst": worst.to_numpy()}


def samples(model: Autoencoder) -> np.ndarray:
    """What the model makes of z drawn from the prior with a seed of its own: (64, S, S) uint8."""
    z = np.random.default_rng(_SEED).standard_normal((SAMPLES, model.mu_head.out_features))
    return _decoded(model, z)


def traversals(model: Autoencoder, dimensions: Sequence[int]) -> np.ndarray:
    """Along one dimension after the other, the others at 0: (dimensions, 9, S, S) uint8."""
    z = np.zeros((len(dimensions), len(STEPS), model.mu_head.out_features))
    for row, dimension in enumerate(dimensions):
        z[row, :, dimension] = STEPS
    images = _decoded(model, z.reshape(-1, z.shape[-1]))
    return images.reshape(*z.shape[:2], *images.shape[1:])


def mean_kl(model: Autoencoder, particles: ParticleSet, positions: np.ndarray) -> np.ndarray:
    """What each latent dimension carries: the mean of KL(q(z|x) || N(0, 1)) over some images, (D,) nats.

    For `planar-vae` of the Gaussian that the flow starts from.
    """
    total = torch.zeros(model.mu_head.out_features, dtype=torch.float64)
    with inference(model), torch.inference_mode():
        for _, x in in_batches(particles.pixels, positions, _BATCH):
            q = model.posterior(x.to(device_of(model)))
            total += gaussian_kl_per_dim(q.mu, q.logvar).double().sum(0).cpu()
    return (total / max(len(positions), 1)).numpy()


def _decoded(model: Autoencoder, z: np.ndarray) -> np.ndarray:
    """(n, D) -> (n, S, S) uint8."""
    with inference(model), torch.inference_mode():
        shown = model.mean_image(torch.from_numpy(z.astype(np.float32)).to(device_of(model)))
    return (shown[:, 0] * 255).round().to(torch.uint8).cpu().numpy()


def _write_pairs(path: Path, model: Autoencoder, particles: ParticleSet, positions: np.ndarray) -> None:
    """Images and the model's pictures of them (2, n, S, S) uint8; their ids beside them, written first."""
    images = particles.pixels[positions]
    ids = particles.table.set_index("position").loc[positions, "particle_id"].tolist()
    write_json(path.with_suffix(".json"), ids)
    _write(path, np.stack([images, reconstruct(model, as_input(images))]))


def _write(path: Path, array: np.ndarray) -> None:
    with replacing(path) as beside:
        np.save(beside, array, allow_pickle=False)
