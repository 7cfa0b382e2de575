"""Train the two-branch classifier on a particle set's labels and write its run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from encoders.fit import FitSettings, fit, loaders, open_run
from encoders.predict import BATCH, Judge, scalars_of
from encoders.pretrain import balanced_weights
from encoders.tasks import OAKS, Task, balanced_split, classes_of, small_classes
from encoders.two_branch import KIND, TwoBranchTraining
from particles.loader import class_numbers
from particles.measures import has_scalars
from particles.scalars import SCALARS
from particles.sets import ParticleSet, measured_by, squares_of
from particles.table import read_parquet, write_parquet
from provenance.errors import UserError
from provenance.files import replacing, write_json
from provenance.run import Run, RunSettings


@dataclass(frozen=True)
class TwoBranchSettings:
    """What the network is asked, what it sees, and who judges it."""

    task: Task = "all"
    """Classes of ICELEARNING to tell apart (3-class: dust, tephra, pollen); all: whatever classes the set has."""
    use_scalars: bool = True
    """Read the 34 FlowCam scalars too, where the set has them; --no-use-scalars classifies by the image alone."""
    n_val: int = 500
    """Particles of each class to validate with; of a small class 15 %."""
    n_test: int = 500
    """Particles of each class to test with; of a small class 15 %."""

    def __post_init__(self) -> None:
        for name in ("n_val", "n_test"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} {getattr(self, name)}: give at least 1")


def train_two_branch(
    particles: ParticleSet, settings: Any, what: TwoBranchSettings, how: FitSettings, common: RunSettings
) -> Run:
    """Train, keep the epoch with the lowest validation loss, and judge it on the test particles.

    Args:
        particles: the set.
        settings: the script's settings, kept as config.json.
        what: task, inputs, and how many particles validate and test.
        how: training.
        common: seed and work folder.

    Returns:
        The finished `icelearning` run: `best.ckpt`, `metrics.csv`, `metrics.json`, `confusion.csv`, and
        `tested.parquet` with the class and the probabilities of each test particle.

    Raises:
        UserError: labels that the task needs are missing, or a class is too small.
    """
    drawn = _drawn(particles, what, common.seed)
    classes = sorted(drawn["class"].unique())
    targets = np.full(len(particles.pixels), -1)
    targets[drawn["position"]] = class_numbers(drawn["class"].tolist(), classes)
    scalars = np.zeros((len(particles.pixels), len(SCALARS)), np.float32)  # pages of rows that are not drawn stay free
    scalars[drawn["position"]] = scalars_of(drawn)
    train, val = (drawn.loc[drawn["split"] == split, "position"].to_numpy() for split in ("train", "val"))
    with open_run(KIND, settings, how, common, particles) as run:
        torch.manual_seed(common.seed)
        data = loaders(particles, train, val, how, common.seed, targets, scalars)
        weights = balanced_weights(targets[train], len(classes)).tolist()
        packing = packing_of(particles.folder)
        with_scalars = what.use_scalars and has_scalars(drawn)  # a set packed with --no-scalars has none
        model = TwoBranchTraining(what.task, classes, weights, how.lr, particles.pixels.size, with_scalars, packing)
        model.fit_scaler(scalars[train])
        fit(model, data, run, how, common.seed, monitor="val_loss")
        tested = _tested(model, particles, drawn[drawn["split"] == "test"])
        _write_results(run.path, tested, classes)
    return run


def packing_of(folder: Path) -> dict[str, Any]:
    """How the particles of a packed set became squares and scalars, as far as a network must not see it changed.

    Returns:
        `fit`, `mean_correction`; `in_um`: whether every scalar is in µm, or some in px for want of a scale;
        `scalars_by`: who measured them.
    """
    return squares_of(folder) | measured_by(folder)


def _drawn(particles: ParticleSet, what: TwoBranchSettings, seed: int) -> pd.DataFrame:
    """Labeled rows of the task, with `class` and `split`."""
    rows = _labeled(particles)
    rows = rows.assign(**{"class": classes_of(rows["known"], what.task, particles.name)}, split="train")
    rows = rows[rows["class"].notna()].reset_index(drop=True)
    judges = _may_judge(rows)
    ids, names = rows.loc[judges, "particle_id"].tolist(), rows.loc[judges, "class"].tolist()
    few = small_classes(names, what.n_val, what.n_test)
    if few:
        print(few)
    kept = (rows.loc[judges, "prescribed"] == "test").fillna(False).to_numpy(dtype=bool)
    rows.loc[judges, "split"] = balanced_split(ids, names, seed, what.n_val, what.n_test, kept)
    return rows


def _may_judge(rows: pd.DataFrame) -> np.ndarray:
    """Who may validate and test: (N,) bool. What a person marked was picked because it is strange: it is learned from.

    Where the marks leave no two classes to judge by, there is nothing better than them.
    """
    unpicked = ~rows["marked"].to_numpy(dtype=bool)
    return unpicked if len(rows.loc[unpicked, "class"].unique()) > 1 else np.ones(len(rows), dtype=bool)


def _labeled(particles: ParticleSet) -> pd.DataFrame:
    """Rows that the source or a person labels, with the source's own word (`known`) and split (`prescribed`).

    Elsewhere the test split of a set that has only labels plays the core, its labels hidden. Here it is drawn anew, so
    the labels are read where they were packed. Held-out classes stay out.
    """
    rows = particles.table
    own = read_parquet(particles.folder / "table.parquet")[["label", "role", "split"]]
    # rows of --core come after those of --data; of them only marks have a label
    own = own.reindex(rows["position"].to_numpy()).set_index(rows.index)
    labeled = rows["role"] == "labeled"
    # without a labeled row at all, labels are hidden (--no-use-labels)
    may_learn = labeled | (rows["is_outlier"].eq(False).fillna(False) & labeled.any())
    known = own["label"].where((own["role"] == "labeled").fillna(False) & may_learn)
    known = rows["label"].where(rows["label"].notna(), known)  # what was labeled in the explorer is in no packed set
    return rows.assign(known=known, prescribed=own["split"])[known.notna()]


def _tested(model: TwoBranchTraining, particles: ParticleSet, rows: pd.DataFrame) -> pd.DataFrame:
    """What the trained network makes of the test particles, a row each."""
    judge = Judge(model)
    positions, scalars = rows["position"].to_numpy(), scalars_of(rows)
    steps = [slice(i, i + BATCH) for i in range(0, len(rows), BATCH)]
    p = np.concatenate([judge(particles.pixels[positions[step]], scalars[step])[1] for step in steps])
    told = pd.DataFrame({"particle_id": rows["particle_id"].to_numpy(), "truth": rows["class"].to_numpy()})
    told["predicted"] = pd.array([model.classes[i] for i in p.argmax(axis=1)], dtype="string")
    told["confidence"] = p.max(axis=1)
    return pd.concat([told, pd.DataFrame(p, columns=[f"prob_{name}" for name in model.classes])], axis=1)


def _write_results(folder: Path, tested: pd.DataFrame, classes: list[str]) -> None:
    write_parquet(tested, folder / "tested.parquet")
    truth, predicted = tested["truth"].to_numpy(dtype=object), tested["predicted"].to_numpy(dtype=object)
    counts = pd.DataFrame(confusion_matrix(truth, predicted, labels=classes), classes, classes)
    with replacing(folder / "confusion.csv") as beside:
        counts.to_csv(beside, index_label="truth")
    write_json(folder / "metrics.json", measured(truth, predicted, classes))


def measured(truth: np.ndarray, predicted: np.ndarray, classes: list[str]) -> dict[str, Any]:
    """How good a classification is.

    Args:
        truth: (N,) class names.
        predicted: (N,) class names.
        classes: all of them.

    Returns:
        `accuracy`, `n_test`, `merged_oak_accuracy` where both oaks are among the classes (to take one for the other
        counts as right), and `classes`: precision, recall, F1 and support of each; None where nothing is to divide by.
    """
    table = precision_recall_fscore_support(truth, predicted, labels=classes, zero_division=np.nan)
    names = ("precision", "recall", "f1", "support")
    by_class = {
        name: {what: _or_none(column[place]) for what, column in zip(names, table, strict=True)}
        for place, name in enumerate(classes)
    }
    found = {"accuracy": float((truth == predicted).mean()), "n_test": len(truth)}
    if set(OAKS) <= set(classes):
        oaks = np.isin(truth, OAKS) & np.isin(predicted, OAKS)
        found["merged_oak_accuracy"] = float(((truth == predicted) | oaks).mean())
    return {**found, "classes": by_class}


def _or_none(value: Any) -> float | int | None:
    if isinstance(value, np.integer):
        return int(value)
    return None if np.isnan(value) else float(value)
