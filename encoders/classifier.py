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
from particles.loader import TURNS, Batch, drawn, turned
from provenance.errors import UserError
from provenance.run import TRAINED_BY

MEASURE_WEIGHT = 3.0
"""Of the squared error of the measures beside the cross entropy; chosen on seeds that no result is reported on."""


class Classifier(nn.Module):
    """Trunk and one linear layer; beside it others that only the training reads, so that the features hold more.

    Seven classes need little of what a particle looks like, and a network that learns only them is blind to the
    shapes of what it never saw. Having to tell area, perimeter, elongation, ... keeps shape in the features. Where up
    and down mean something, so does having to tell a turned 3 from an upright one, and from a turned 5.
    """

    def __init__(self, n_classes: int, n_measures: int = 0, turns: bool = False) -> None:
        super().__init__()
        self.trunk = ResNet18Trunk()
        self.head = nn.Linear(FEATURES, n_classes)
        self.measure = nn.Linear(FEATURES, n_measures) if n_measures else None
        self.turned = nn.Linear(FEATURES, (TURNS - 1) * n_classes) if turns else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, S, S) -> logits (B, C)."""
        return self.head(self.trunk(x))


class ClassifierTraining(L.LightningModule):
    """Class-weighted cross entropy, and squared error of the measures, with AdamW and one learning-rate cycle.

    Curves are of upright images and classes alone, with turns or without.
    """

    def __init__(
        self, classes: Sequence[str], class_weights: Sequence[float], lr: float, size: int, n_measures: int = 0,
        turns: bool = False,
    ) -> None:  # fmt: skip
        """Set up the network.

        Args:
            classes: names in the order of the logits.
            class_weights: one a class; inverse to its frequency makes rare classes count as much as common ones.
            lr: peak learning rate.
            size: side S in px of the images; kept in the checkpoint so that other sizes are refused.
            n_measures: M, how many measures to learn; 0 for none.
            turns: turn each training image by a random number of quarters, and learn class and turn as one: a class
                turned is another class (Lee et al. 2020, arXiv:1910.05872, equation 4).
        """
        super().__init__()
        # Plain values only: a dataclass in here would not load under weights_only=True.
        self.save_hyperparameters(
            {
                "kind": "classifier", "classes": list(classes), "class_weights": list(class_weights), "lr": lr,
                "size": size, "n_measures": n_measures, "turns": turns,
            }
        )  # fmt: skip
        self.classes, self.lr = list(classes), lr
        self.net = Classifier(len(classes), n_measures, turns)
        self.weights = nn.Buffer(torch.tensor(class_weights, dtype=torch.float32))

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        """Cross entropy of the labeled images of a batch (nats) and squared error of the measures of all."""
        x, y = batch["x"], batch["y"]
        quarter = None
        if self.net.turned is not None:
            quarter = drawn(lambda n: torch.randint(TURNS, (n,), device=x.device), len(x), batch.get("mine"))
            x = turned(x, quarter)
        features = self.net.trunk(x)
        loss = self._classify(features, y, "train", quarter)
        if self.net.measure is not None:
            apart = self.net.measure(features).float() - batch["measures"]
            error = ranks.mean(torch.where(apart.isnan(), 0.0, apart).square().flatten())
            n = ranks.rows(len(features))
            self.log("train_measure_error", error, on_step=False, on_epoch=True, batch_size=n)
            loss = loss + MEASURE_WEIGHT * error
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        """Loss and accuracy on the validation split, upright."""
        self._classify(self.net.trunk(batch["x"]), batch["y"], "val")

    def _classify(
        self, features: torch.Tensor, y: torch.Tensor, split: str, quarter: torch.Tensor | None = None
    ) -> torch.Tensor:
        labeled = y >= 0
        if ranks.rows(int(labeled.sum())) == 0:  # a batch of core particles alone
            return features.sum() * 0.0
        logits, wanted = self.net.head(features[labeled]).float(), y[labeled]
        upright = torch.ones_like(wanted, dtype=torch.bool) if quarter is None else quarter[labeled] == 0
        self._log(split, logits.detach()[upright], wanted[upright])
        if quarter is not None:
            assert self.net.turned is not None
            logits = torch.cat([logits, self.net.turned(features[labeled]).float()], dim=1)  # (B, C) -> (B, 4 C)
            wanted = wanted + len(self.classes) * quarter[labeled]
        return ranks.mean_cross_entropy(logits, wanted, self.weights.repeat(logits.shape[1] // len(self.classes)))

    def _log(self, split: str, logits: torch.Tensor, y: torch.Tensor) -> None:
        """Of upright images alone, so that training and validation are alike."""
        n = ranks.rows(len(y))
        if n == 0:
            return
        correct = ranks.mean((logits.argmax(dim=1) == y).float())
        values = {f"{split}_loss": ranks.mean_cross_entropy(logits, y, self.weights), f"{split}_accuracy": correct}
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=n)

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
