"""Trained classifier + particle set -> latents. Deterministic, batch by batch, in the set's order."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch

from encoders.arithmetic import Precision, best_device, keep_memory, resolve_precision
from encoders.classifier import ClassifierTraining
from particles.latents import INDEX_COLUMNS, Latents
from particles.loader import in_batches
from particles.sets import ParticleSet
from provenance.progress import progress

BATCH = 256


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
    z, every = [], []
    with inference(model, precision), torch.inference_mode():
        for x in batches(particles, "encoding, classifier", device_of(model)):
            features = model.net.trunk(x)
            z.append(features.float().cpu().numpy())
            every.append(model.net.head(features).float().cpu())
    logits = torch.cat(every)
    p = logits.softmax(dim=1).numpy()
    index = index_of(particles)
    index["predicted"] = pd.array([model.classes[i] for i in p.argmax(axis=1)], dtype="string")
    index["confidence"] = p.max(axis=1)
    index["neg_max_logit"] = -logits.amax(dim=1).numpy()
    columns = pd.DataFrame(p, columns=[f"prob_{name}" for name in model.classes])
    return Latents(np.concatenate(z), pd.concat([index, columns], axis=1))


def index_of(particles: ParticleSet) -> pd.DataFrame:
    """The columns that travel with every latent."""
    return particles.table[list(INDEX_COLUMNS)].copy()


def batches(particles: ParticleSet, what: str, device: torch.device) -> Iterator[torch.Tensor]:
    """All images of a set in its order, with a progress bar: (B, 1, S, S) on `device`."""
    positions = particles.table["position"].to_numpy(dtype=np.int64)
    with progress() as bars:
        bar = bars.add_task(what, total=len(positions))
        for part, x in in_batches(particles.pixels, positions, BATCH):
            yield x.to(device)
            bars.advance(bar, part.stop - part.start)


def device_of(model: torch.nn.Module) -> torch.device:
    """Where the model's weights are."""
    return next(model.parameters()).device


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
