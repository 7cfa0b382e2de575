"""One LightningModule for all three autoencoders."""

from pathlib import Path
from typing import Any

import lightning as L
import torch

from autoencoders.losses import Likelihood, active_units, kl_weight
from autoencoders.models import Autoencoder, Kind, Losses
from encoders import ranks
from encoders.fit import one_cycle, read_checkpoint
from particles.loader import Batch
from provenance.errors import UserError
from provenance.run import TRAINED_BY


class AutoencoderTraining(L.LightningModule):
    """Minimizes the negative ELBO per image, with KL warm-up; an `ae` has reconstruction alone."""

    def __init__(
        self,
        kind: Kind,
        latent_dim: int,
        size: int,
        likelihood: Likelihood,
        flow_steps: int,
        lr: float,
        kl_warmup: float,
        denoise: bool = False,
    ) -> None:
        """Set up the model.

        Args:
            kind: which autoencoder.
            latent_dim: D.
            size: S in px.
            likelihood: of a pixel given z.
            flow_steps: K, for `planar-vae`.
            lr: peak learning rate.
            kl_warmup: epochs over which the KL's weight grows from 0 to 1.
            denoise: reconstruct what the crop was before its augmentation.
        """
        super().__init__()
        self.save_hyperparameters()
        self.lr, self.kl_warmup, self.denoise = lr, kl_warmup, denoise
        self.net = Autoencoder(kind, latent_dim, size, likelihood, flow_steps)
        self._latents: list[torch.Tensor] = []

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        """Mean of reconstruction + weighted KL over a batch, nats per image."""
        steps_per_epoch = max(1, int(self.trainer.num_training_batches))
        weight = kl_weight(self.trainer.global_step / steps_per_epoch, self.kl_warmup)
        losses = self.net.losses(batch["x"], batch["clean"] if self.denoise else None, batch.get("mine"))
        self._log("train", losses)
        n = ranks.rows(len(losses.latent))
        self.log("kl_weight", weight, on_step=False, on_epoch=True, batch_size=n)
        return ranks.mean(losses.reconstruction + weight * losses.kl)

    def validation_step(self, batch: Batch, _: int) -> None:
        """The negative ELBO with full KL, and what each latent dimension carries."""
        losses = self.net.losses(batch["x"], mine=batch.get("mine"))
        self._log("val", losses)
        if losses.kl_per_dim is not None:
            per_dim = {f"kl_dim_{d:02d}": kl for d, kl in enumerate(ranks.mean(losses.kl_per_dim))}
            self.log_dict(per_dim, batch_size=ranks.rows(len(losses.latent)))
        self._latents.append(losses.latent)

    def on_validation_epoch_end(self) -> None:
        """Active units over the validation split."""
        self.log("active_units", float(active_units(ranks.gathered(torch.cat(self._latents)))))
        self._latents.clear()

    def _log(self, split: str, losses: Losses) -> None:
        parts = {"reconstruction": losses.reconstruction, "kl": losses.kl, "loss": losses.reconstruction + losses.kl}
        values = {f"{split}_{name}": ranks.mean(value.detach()) for name, value in parts.items()}
        n = ranks.rows(len(losses.latent))
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=n)

    def configure_optimizers(self) -> Any:
        """AdamW and one learning-rate cycle; sigma has to fall from 0.2 to what is left over within few epochs."""
        sigma = self.net.log_sigma
        return one_cycle(self, quick=[] if sigma is None else [sigma])


def load_autoencoder(path: Path, kind: Kind) -> AutoencoderTraining:
    """Load a trained autoencoder, strictly.

    Raises:
        UserError: not a checkpoint of this kind, or of another architecture.
    """
    checkpoint = read_checkpoint(path, kind)
    try:
        model = AutoencoderTraining(**checkpoint["hyper_parameters"])
        model.load_state_dict(checkpoint["state_dict"], strict=True)
    except (RuntimeError, TypeError, KeyError) as error:
        raise UserError(f"{path}: of another architecture ({error}); run `{TRAINED_BY[kind]}`") from error
    return model.eval()
