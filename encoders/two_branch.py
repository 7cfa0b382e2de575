"""The published ICELEARNING network: image and scalars, each through a branch of its own, then classified together."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from torch import nn

from encoders import ranks
from encoders.fit import one_cycle, read_checkpoint
from encoders.resnet import FEATURES, ResNet18Trunk
from particles.loader import Batch
from particles.scalars import SCALARS
from provenance.errors import UserError
from provenance.run import TRAINED_BY

KIND = "icelearning"
EMBEDDING, HIDDEN, SCALAR_FEATURES = 64, 40, 32

SPREAD_OUT = (
    "Area (ABD)", "Area (Filled)", "Biovolume (Cylinder)", "Biovolume (P. Spheroid)", "Compactness",
    "Convex Perimeter", "Diameter (ABD)", "Diameter (ESD)", "Elongation", "Fiber Curl", "Geodesic Length",
    "Geodesic Thickness", "Length", "Particles Per Chain", "Perimeter", "Roughness", "Sum Intensity", "Volume (ABD)",
    "Volume (ESD)", "Width",
)  # fmt: skip
"""Scalars without an upper bound. Volumes run from 0.1 to 1e6: their mean and deviation are those of the few largest,
and scaled as they are all others come out as the same number. Their asinh is scaled instead: nearly the logarithm,
but defined at zero and below."""

LIMIT = 10.0
"""Standard deviations at which a scaled scalar stops: what no training particle had must not decide everything."""


class Scaler(nn.Module):
    """Scalars as they are measured -> comparable numbers, by mean and deviation of the particles learned from.

    Mean and deviation are part of the checkpoint. They are never taken from the particles to be classified: a core of
    nothing but dust would be stretched until it looked like all classes.
    """

    mean: torch.Tensor
    deviation: torch.Tensor
    spread_out: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(len(SCALARS)))
        self.register_buffer("deviation", torch.ones(len(SCALARS)))
        self.register_buffer("spread_out", torch.tensor([name in SPREAD_OUT for name in SCALARS]), persistent=False)

    def fit(self, values: np.ndarray) -> None:
        """Take mean and deviation of the finite values: (N, 34); a scalar that is never there keeps 0 and 1."""
        flat = np.where(self.spread_out.cpu().numpy(), np.arcsinh(values.astype(np.float64)), values)
        flat[~np.isfinite(flat)] = np.nan
        flat[0, np.isnan(flat).all(axis=0)] = 0.0
        found = StandardScaler().fit(flat)
        self.mean.copy_(torch.from_numpy(found.mean_))
        self.deviation.copy_(torch.from_numpy(found.scale_))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """(B, 34) float32 -> (B, 34) in [-10, 10]; 0, the mean, where a scalar is missing or infinite."""
        scaled = (torch.where(self.spread_out, values.asinh(), values) - self.mean) / self.deviation
        return torch.where(values.isfinite(), scaled, 0.0).clamp(-LIMIT, LIMIT)


class TwoBranch(nn.Module):
    """ResNet18 -> 64 and scalars -> 128 -> 64 -> 32, both concatenated -> 40 -> classes.

    The embedding is the image's alone, and linear: a ReLU would fold half of it away. No batch norm among the scalars:
    they come standardized, and a core's own batches must not change what a particle is taken for.
    """

    def __init__(self, n_classes: int, with_scalars: bool = True) -> None:
        super().__init__()
        self.trunk = ResNet18Trunk()
        self.embed = nn.Linear(FEATURES, EMBEDDING)
        self.scalars = _scalar_branch() if with_scalars else None
        joined = EMBEDDING + (SCALAR_FEATURES if with_scalars else 0)
        self.head = nn.Sequential(nn.Linear(joined, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, n_classes))

    def forward(self, x: torch.Tensor, scalars: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Embed and classify.

        Args:
            x: (B, 1, S, S) in [0, 1].
            scalars: (B, 34) as measured; NaN where missing. Not looked at by a network without scalars.

        Returns:
            Embedding (B, 64) and logits (B, C).
        """
        embedding = self.embed(self.trunk(x))
        joined = embedding if self.scalars is None else torch.cat([embedding, self.scalars(scalars)], dim=1)
        return embedding, self.head(joined)


def _scalar_branch() -> nn.Sequential:
    first, second, third = nn.Linear(len(SCALARS), 128), nn.Linear(128, 64), nn.Linear(64, SCALAR_FEATURES)
    return nn.Sequential(Scaler(), first, nn.ReLU(), second, nn.ReLU(), third, nn.ReLU())


class TwoBranchTraining(L.LightningModule):
    """Class-weighted cross entropy with AdamW and one learning-rate cycle."""

    def __init__(
        self, task: str, classes: Sequence[str], class_weights: Sequence[float], lr: float, size: int,
        with_scalars: bool, packing: dict[str, Any],
    ) -> None:  # fmt: skip
        """Set up the network.

        Args:
            task: what it is asked (`encoders.tasks`).
            classes: names in the order of the logits.
            class_weights: one a class.
            lr: peak learning rate.
            size: side S in px of the images.
            with_scalars: whether it reads the 34 scalars too.
            packing: how its crops became squares; plain values. Others are refused when it is used.
        """
        super().__init__()
        # Plain values only: a dataclass in here would not load under weights_only=True.
        self.save_hyperparameters(
            {
                "kind": KIND, "task": task, "classes": list(classes), "class_weights": list(class_weights), "lr": lr,
                "size": size, "with_scalars": with_scalars, "packing": dict(packing),
            }
        )  # fmt: skip
        self.classes, self.lr = list(classes), lr
        self.net = TwoBranch(len(classes), with_scalars)
        self.weights = nn.Buffer(torch.tensor(class_weights, dtype=torch.float32))

    def fit_scaler(self, values: np.ndarray) -> None:
        """Take the scale of the particles to learn from: (N, 34); nothing without scalars."""
        if self.net.scalars is not None:
            scaler = self.net.scalars[0]
            assert isinstance(scaler, Scaler)
            scaler.fit(values)

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        """Cross entropy of a batch, in nats."""
        return self._classify(batch, "train")

    def validation_step(self, batch: Batch, _: int) -> None:
        """Loss and accuracy on the validation split."""
        self._classify(batch, "val")

    def _classify(self, batch: Batch, split: str) -> torch.Tensor:
        logits = self.net(batch["x"], batch["measures"])[1].float()
        loss = ranks.mean_cross_entropy(logits, batch["y"], self.weights)
        correct = ranks.mean((logits.argmax(dim=1) == batch["y"]).float())
        values = {f"{split}_loss": loss, f"{split}_accuracy": correct}
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=ranks.rows(len(logits)))
        return loss

    def configure_optimizers(self) -> Any:
        """AdamW and one learning-rate cycle."""
        return one_cycle(self)


def load_two_branch(path: Path) -> TwoBranchTraining:
    """Load a trained network, its scaler included, strictly.

    Raises:
        UserError: not such a network of this project, or of another architecture.
    """
    checkpoint = read_checkpoint(path, KIND)
    hyper = {name: value for name, value in checkpoint["hyper_parameters"].items() if name != "kind"}
    try:
        model = TwoBranchTraining(**hyper)
        model.load_state_dict(checkpoint["state_dict"], strict=True)
    except (RuntimeError, TypeError, KeyError) as error:
        raise UserError(f"{path}: of another architecture ({error}); run `{TRAINED_BY[KIND]}`") from error
    return model.eval()
