"""The supervised network and its training; its penultimate layer is the `classifier` latent."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from encoders.fit import one_cycle, read_checkpoint
from encoders.resnet import FEATURES, ResNet18Trunk
from particles.loader import Batch
from provenance.run import TRAINED_BY
from provenance.settings import UserError


class Classifier(nn.Module):
    """Trunk and one linear layer."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.trunk = ResNet18Trunk()
        self.head = nn.Linear(FEATURES, n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, S, S) -> logits (B, C)."""
        return self.head(self.trunk(x))


class ClassifierTraining(L.LightningModule):
    """Class-weighted cross entropy with AdamW and one learning-rate cycle."""

    def __init__(self, classes: Sequence[str], class_weights: Sequence[float], lr: float, size: int) -> None:
        """Set up the network.

        Args:
            classes: names in the order of the logits.
            class_weights: one a class; inverse to its frequency makes rare classes count as much as common ones.
            lr: peak learning rate.
            size: side S in px of the images; kept in the checkpoint so that other sizes are refused.
        """
        super().__init__()
        # Plain values only: a dataclass in here would not load under weights_only=True.
        self.save_hyperparameters(
            {
                "classes": list(classes),
                "class_weights": list(class_weights),
                "lr": lr,
                "size": size,
                "kind": "classifier",
            }
        )
        self.classes, self.lr = list(classes), lr
        self.net = Classifier(len(classes))
        self.weights = nn.Buffer(torch.tensor(class_weights, dtype=torch.float32))

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        """Mean weighted cross entropy of a batch, in nats."""
        return self._step(batch, "train")

    def validation_step(self, batch: Batch, _: int) -> None:
        """Loss and accuracy on the validation split."""
        self._step(batch, "val")

    def _step(self, batch: Batch, split: str) -> torch.Tensor:
        logits = self.net(batch["x"]).float()
        loss = cross_entropy(logits, batch["y"], weight=self.weights)
        correct = (logits.argmax(dim=1) == batch["y"]).float().mean()
        values = {f"{split}_loss": loss, f"{split}_accuracy": correct}
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=len(logits))
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
    hyper = checkpoint["hyper_parameters"]
    model = ClassifierTraining(hyper["classes"], hyper["class_weights"], hyper["lr"], hyper["size"])
    try:
        model.load_state_dict(checkpoint["state_dict"], strict=True)
    except RuntimeError as error:
        raise UserError(
            f"{path}: weights of another architecture ({error}); run `{TRAINED_BY['classifier']}`"
        ) from error
    return model.eval()
