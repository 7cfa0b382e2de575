"""Trained model + particle set -> latents. Deterministic, batch by batch, in the set's order."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from encoders.arithmetic import Precision, best_device, keep_memory, resolve_precision
from encoders.classifier import ClassifierTraining, load_classifier
from particles.latents import INDEX_COLUMNS, Latents
from particles.loader import in_batches
from particles.pixels import PixelStore
from particles.sets import ParticleSet
from provenance.progress import progress

BATCH = 256


@dataclass(frozen=True)
class Encoder:
    """A trained model and what it makes of a batch."""

    model: torch.nn.Module
    encode: Callable[[torch.Tensor], tuple[torch.Tensor, pd.DataFrame]]
    """(B, 1, S, S) on the model's device -> z (B, D), and B rows of what goes into the index beside it."""


def encode_classifier(model: ClassifierTraining, particles: ParticleSet, precision: Precision = "32") -> Latents:
    """The penultimate layer and the class probabilities of every row.

    Args:
        model: trained.
        particles: whom to encode.
        precision: of the multiplications; bf16 is faster and agrees to two or three digits.

    Returns:
        Latents with z (N, 512), and index columns `predicted`, `confidence`, `neg_max_logit` (no class claims it),
        `prob_<class>`.
    """
    return in_one_go(Encoder(model, partial(_classified, model)), particles, "encoding, classifier", precision)


def classifier_encoder(checkpoint: Path) -> Encoder:
    """A trained classifier, ready to encode.

    Raises:
        UserError: not a classifier of this project, or of another architecture.
    """
    model = load_classifier(checkpoint)
    return Encoder(model, partial(_classified, model))


def _classified(model: ClassifierTraining, x: torch.Tensor) -> tuple[torch.Tensor, pd.DataFrame]:
    features = model.net.trunk(x)
    logits = model.net.head(features).float().cpu()
    p = logits.softmax(dim=1).numpy()
    said = pd.DataFrame({"predicted": pd.array([model.classes[i] for i in p.argmax(axis=1)], dtype="string")})
    said["confidence"] = p.max(axis=1)
    said["neg_max_logit"] = -logits.amax(dim=1).numpy()
    return features, pd.concat([said, pd.DataFrame(p, columns=[f"prob_{name}" for name in model.classes])], axis=1)


def in_one_go(encoder: Encoder, particles: ParticleSet, what: str, precision: Precision) -> Latents:
    """The latents of all rows, in memory, with a progress bar named `what`."""
    positions = particles.table["position"].to_numpy(dtype=np.int64)
    with progress() as bars:
        bar = bars.add_task(what, total=len(positions))
        z, said = encoded(encoder, particles.pixels, positions, precision, lambda n: bars.advance(bar, n))
    return Latents(z, pd.concat([index_of(particles), said], axis=1))


def encoded(
    encoder: Encoder,
    pixels: PixelStore,
    positions: np.ndarray,
    precision: Precision,
    tick: Callable[[int], None] = lambda _: None,
) -> tuple[np.ndarray, pd.DataFrame]:
    """What a model makes of rows of a store, batch by batch from the first of them.

    Args:
        encoder: the model.
        pixels: the store.
        positions: (n,) rows of the store.
        precision: of the multiplications.
        tick: told how many rows each batch had.

    Returns:
        z (n, D) float32, and n rows of what goes into the index beside it.
    """
    z, said = [], []
    with inference(encoder.model, precision), torch.inference_mode():
        device = device_of(encoder.model)
        for rows, x in in_batches(pixels, positions, BATCH):
            vectors, more = encoder.encode(x.to(device))
            z.append(vectors.float().cpu().numpy())
            said.append(more)
            tick(rows.stop - rows.start)
    return np.concatenate(z), pd.concat(said, ignore_index=True)


def index_of(particles: ParticleSet) -> pd.DataFrame:
    """The columns that travel with every latent."""
    return particles.table[list(INDEX_COLUMNS)].copy()


def device_of(model: torch.nn.Module) -> torch.device:
    """Where the model's weights are."""
    return next(model.parameters()).device


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: how many share a sum decides its last bits, and it must not matter who computes."""
    were = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(were)


@contextmanager
def inference(model: torch.nn.Module, precision: Precision = "32") -> Iterator[None]:
    """Put a model to use on the best device there is, and bring it back as it was.

    Batch norm must use its running statistics, or a row's latent would depend on its neighbors.

    Args:
        model: trained.
        precision: of the multiplications within.
    """
    keep_memory()
    was, home, device = model.training, device_of(model), best_device()
    model.eval().to(device)
    bf16 = resolve_precision(precision) == "bf16-mixed"
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            yield
    finally:
        model.train(was).to(home)
