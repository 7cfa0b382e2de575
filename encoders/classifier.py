"""The supervised network and its training; its penultimate layer is the `classifier` latent."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import nn

from encoders import ranks
from encoders.fit import one_cycle, read_checkpoint
from encoders.resnet import FEATURES, ResNet18Trunk
from particles.loader import Batch
from provenance.errors import UserError
from provenance.run import TRAINED_BY

MEASURE_WEIGHT = 3.0
"""Of the squared error of the measures beside the cross entropy; chosen on seeds that no result is reported on."""


class Classifier(nn.Module):
    """Trunk and one linear layer; beside it a second one that reads measures off the same features.

    Seven classes need little of what a particle looks like, and a network that learns only them is blind to the
    shapes of what it never saw. Having to tell area, perimeter, elongation, ... keeps shape in the features.
    """

    def __init__(self, n_classes: int, n_measures: int = 0) -> None:
        super().__init__()
        self.trunk = ResNet18Trunk()
        self.head = nn.Linear(FEATURES, n_classes)
        self.measure = nn.Linear(FEATURES, n_measures) if n_measures else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, S, S) -> logits (B, C)."""
        return self.head(self.trunk(x))


class ClassifierTraining(L.LightningModule):
    """Class-weighted cross entropy, and squared error of the measures, with AdamW and one learning-rate cycle."""

    def __init__(
        self, classes: Sequence[str], class_weights: Sequence[float], lr: float, size: int, n_measures: int = 0
    ) -> None:
        """Set up the network.

        Args:
            classes: names in the order of the logits.
            class_weights: one a class; inverse to its frequency makes rare classes count as much as common ones.
            lr: peak learning rate.
            size: side S in px of the images; kept in the checkpoint so that other sizes are refused.
            n_measures: M, how many measures to learn; 0 for none.
        """
        super().__init__()
        # Plain values only: a dataclass in here would not load under weights_only=True.
        self.save_hyperparameters(
            {
                "kind": "classifier", "classes": list(classes), "class_weights": list(class_weights), "lr": lr,
                "size": size, "n_measures": n_measures,
            }
        )  # fmt: skip
        self.classes, self.lr = list(classes), lr
        self.net = Classifier(len(classes), n_measures)
        self.weights = nn.Buffer(torch.tensor(class_weights, dtype=torch.float32))

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        """Cross entropy of the labeled images of a batch (nats) and squared error of the measures of all."""
        features = self.net.trunk(batch["x"])
        loss = self._classify(features, batch["y"], "train")
        if self.net.measure is not None:
            error = ranks.mean((self.net.measure(features).float() - batch["measures"]).square().flatten())
            n = ranks.rows(len(features))
            self.log("train_measure_error", error, on_step=False, on_epoch=True, batch_size=n)
            loss = loss + MEASURE_WEIGHT * error
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        """Loss and accuracy on the validation split."""
        self._classify(self.net.trunk(batch["x"]), batch["y"], "val")

    def _classify(self, features: torch.Tensor, y: torch.Tensor, split: str) -> torch.Tensor:
        labeled = y >= 0
        n = ranks.rows(int(labeled.sum()))
        if n == 0:  # a batch of core particles alone
            return features.sum() * 0.0
        logits = self.net.head(features[labeled]).float()
        loss = ranks.mean_cross_entropy(logits, y[labeled], self.weights)
        correct = ranks.mean((logits.argmax(dim=1) == y[labeled]).float())
        values = {f"{split}_loss": loss, f"{split}_accuracy": correct}
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=n)
        return loss

    def configure_optimizers(self) -> Any:
        """AdamW and one learning-rate cycle."""
        return one_cycle(self)


def load_classifier(path: Path) -> ClassifierTraining:
    """Load a trained classifier, strictly.

    Raises:
        UserError: not a classifier of this project, or of another architecture.
    """
    checkpoint = read_checkpoint(path, "classifier")
    hyper = {name: value for name, value in checkpoint["hyper_parameters"].items() if name != "kind"}
    try:
        model = ClassifierTraining(**hyper)
        model.load_state_dict(checkpoint["state_dict"], strict=True)
    except (RuntimeError, TypeError, KeyError) as error:
        raise UserError(f"{path}: of another architecture ({error}); run `{TRAINED_BY['classifier']}`") from error
    return model.eval()
