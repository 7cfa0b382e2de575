"""Train the classifier on the labeled set and write its run."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from encoders.classifier import ClassifierTraining
from encoders.encode import encode_classifier
from encoders.fit import FitSettings, fit, loaders, open_run
from particles.loader import class_numbers, resolve_augment
from particles.measures import SCALE_FREE, has_scalars, normalized_scalars
from particles.sets import ParticleSet
from provenance.errors import UserError
from provenance.files import write_json
from provenance.run import Run, RunSettings


@dataclass(frozen=True)
class ClassifierSettings:
    """What the classifier learns besides its classes."""

    learn_measures: bool = True
    """Learn to read the scale-free FlowCam scalars off the image too, of labeled and core particles."""
    learn_turns: bool = True
    """Where up and down mean something (digits): learn by how many quarters an image was turned too."""


def pretrain(
    particles: ParticleSet, settings: Any, what: ClassifierSettings, how: FitSettings, common: RunSettings
) -> Run:
    """Train on the labeled set's train split, keep the epoch with the lowest validation loss, encode everything.

    Args:
        particles: the set.
        settings: the script's settings, kept as config.json.
        what: what to learn.
        how: training.
        common: seed and work folder.

    Returns:
        The finished `classifier` run, with latents of every row.

    Raises:
        UserError: fewer than two known classes.
    """
    classes = particles.classes
    if len(classes) < 2:
        raise UserError(f"{particles.name}: a classifier needs two labeled classes, there are {len(classes)}; "
                        "train an autoencoder instead (train_vae.py), or search with find_outliers.py")  # fmt: skip
    rows = particles.table
    labeled = rows["role"] == "labeled"
    targets = np.full(len(particles.pixels), -1)
    targets[particles.positions(labeled)] = class_numbers(rows.loc[labeled, "label"].tolist(), classes)
    train, val = (particles.positions(labeled & (rows["split"] == split)) for split in ("train", "val"))
    measures = _measures(particles) if what.learn_measures and has_scalars(rows) else None
    seen = train if measures is None else particles.training_positions("train", with_labeled=True)
    with open_run("classifier", settings, how, common, particles) as run:
        torch.manual_seed(common.seed)
        data = loaders(particles, seen, val, how, common.seed, targets, measures)
        weights = balanced_weights(targets[train], len(classes))
        n_measures = 0 if measures is None else measures.shape[1]
        mirrored = resolve_augment(how.augment, particles.oriented) == "dihedral"  # nobody could say what is turned
        turns = what.learn_turns and particles.oriented and not mirrored
        model = ClassifierTraining(classes, weights.tolist(), how.lr, particles.pixels.size, n_measures, turns)
        fit(model, data, run, how, common.seed, monitor="val_loss")
        latents = encode_classifier(model, particles)
        latents.write(run.path)
        write_json(run.path / "metrics.json", _accuracy(latents.index))
    return run


def _measures(particles: ParticleSet) -> np.ndarray:
    """(positions in the store, M): normalized by the quantiles of what may be learned from; NaN teaches nothing."""
    rows = particles.table
    by_row = normalized_scalars(rows, rows["split"] == "train", SCALE_FREE, missing=np.nan)
    by_position = np.zeros((len(particles.pixels), by_row.shape[1]), np.float32)
    by_position[rows["position"].to_numpy()] = by_row
    return by_position


def balanced_weights(targets: np.ndarray, n_classes: int) -> np.ndarray:
    """Weights inverse to class frequency with mean 1 over the particles: (N,) class numbers -> (C,)."""
    counts = np.bincount(targets, minlength=n_classes)
    return len(targets) / (n_classes * np.maximum(counts, 1))


def _accuracy(index: Any) -> dict[str, float | int | None]:
    """Accuracy on what the classifier never saw: test particles of classes it knows."""
    known = index["truth"].isin(index.loc[index["role"] == "labeled", "label"].unique())
    judged = index[(index["split"] == "test") & known.fillna(False)]
    hits = (judged["predicted"] == judged["truth"]).mean() if len(judged) else None
    return {"test_accuracy": None if hits is None else float(hits), "n_test": len(judged)}
