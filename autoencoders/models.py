"""The three autoencoders: plain, variational, and variational with a planar flow. Mathematics only."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import nn

from autoencoders.decoder import Decoder
from autoencoders.flows import PlanarFlow
from autoencoders.losses import (
    Likelihood,
    bernoulli_nll,
    gaussian_kl_per_dim,
    gaussian_nll,
    normal_log_prob,
    standard_normal_log_prob,
)
from encoders.resnet import FEATURES, ResNet18Trunk
from particles.loader import drawn

Kind = Literal["ae", "vae", "planar-vae"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_LOG_SIGMA_FLOOR = -4.6  # sigma of 0.01, about 2.5 grey levels: below the camera's own noise
_LOGVAR_RANGE = (-12.0, 8.0)  # exp stays finite in float32 whatever an untrained head says


@dataclass(frozen=True)
class Posterior:
    """q(z|x) of a batch: `mu` and `logvar` (B, D), and the features (B, 512) that steer the flow."""

    mu: torch.Tensor
    logvar: torch.Tensor
    features: torch.Tensor


@dataclass(frozen=True)
class Losses:
    """Per image, in nats: `reconstruction` (B,), `kl` (B,), `kl_per_dim` (B, D); `latent` of `encode` (B, D)."""

    reconstruction: torch.Tensor
    kl: torch.Tensor
    kl_per_dim: torch.Tensor | None
    """None where the KL is no sum over dimensions: a flow mixes them, an `ae` has none."""
    latent: torch.Tensor


class Autoencoder(nn.Module):
    """Trunk, latent heads and decoder shared by the three kinds; `kind` says which heads there are."""

    def __init__(self, kind: Kind, latent_dim: int, size: int, likelihood: Likelihood, flow_steps: int = 0) -> None:
        """Set up the parts.

        Args:
            kind: `ae` has no noise and no KL; `vae` a Gaussian posterior; `planar-vae` a planar flow on it.
            latent_dim: D.
            size: S in px.
            likelihood: of a pixel given z.
            flow_steps: K, for `planar-vae`.
        """
        super().__init__()
        self.kind, self.likelihood = kind, likelihood
        self.trunk = ResNet18Trunk()
        self.mu_head = nn.Linear(FEATURES, latent_dim)
        self.logvar_head = nn.Linear(FEATURES, latent_dim) if kind != "ae" else None
        self.flow = PlanarFlow(FEATURES, latent_dim, flow_steps) if kind == "planar-vae" else None
        self.decoder = Decoder(latent_dim, size)
        self.log_sigma = nn.Parameter(torch.tensor(-1.5)) if likelihood == "gaussian" else None

    @property
    def variance(self) -> float | None:
        """sigma^2 of a pixel given z; None where the likelihood has none."""
        return None if self.log_sigma is None else math.exp(2 * max(self.log_sigma.item(), _LOG_SIGMA_FLOOR))

    def posterior(self, x: torch.Tensor) -> Posterior:
        """q(z_0|x): (B, 1, S, S) -> heads of (B, D), in float32 whatever the autocast."""
        features = self.trunk(x)
        mu = self.mu_head(features).float()
        if self.logvar_head is None:
            return Posterior(mu, torch.zeros_like(mu), features)
        return Posterior(mu, self.logvar_head(features).float().clamp(*_LOGVAR_RANGE), features)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """The deterministic latent: the posterior mean, for `planar-vae` the flow of the mean; (B, D)."""
        return self.encode_posterior(self.posterior(x))

    def encode_posterior(self, q: Posterior) -> torch.Tensor:
        """`encode` for a posterior already at hand: (B, D)."""
        return q.mu if self.flow is None else self._flowed(q.mu, q)[0]

    def sample(self, q: Posterior, eps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw z by reparameterization and give its KL.

        Args:
            q: the posterior.
            eps: (B, D) or (D,) standard normal noise.

        Returns:
            z (B, D), and KL(q(z|x) || p(z)) (B,): closed form for `vae`, for `planar-vae` the one-sample estimate
            log q(z_0) - log_det - log p(z_K) (Rezende & Mohamed 2015, equation 15), zero for `ae`.
        """
        if self.kind == "ae":
            return q.mu, torch.zeros_like(q.mu[:, 0])
        z = q.mu + torch.exp(0.5 * q.logvar) * eps
        if self.flow is None:
            return z, gaussian_kl_per_dim(q.mu, q.logvar).sum(1)
        z_k, log_det = self._flowed(z, q)
        return z_k, normal_log_prob(z, q.mu, q.logvar) - log_det - standard_normal_log_prob(z_k)

    def losses(self, x: torch.Tensor, target: torch.Tensor | None = None, mine: torch.Tensor | None = None) -> Losses:
        """One draw of the negative ELBO's two parts for a batch.

        Args:
            x: (B, 1, S, S), what is encoded.
            target: (B, 1, S, S), what is to be reconstructed; None for `x` itself.
            mine: (N,) bool, where these are a part of a batch of N.
        """
        q = self.posterior(x)
        noise = drawn(lambda n: torch.randn(n, q.mu.shape[1], device=q.mu.device), len(x), mine)
        z, kl = self.sample(q, noise)
        per_dim = gaussian_kl_per_dim(q.mu, q.logvar) if self.kind == "vae" else None
        reconstruction = self.reconstruction(x if target is None else target, self.decoder(z))
        return Losses(reconstruction, kl, per_dim, self.encode_posterior(q).detach())

    def reconstruction(self, x: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """-log p(x|z): (B, 1, S, S) twice -> (B,) nats."""
        return _NLL[self.likelihood](self, x, logits.float())

    def mean_image(self, z: torch.Tensor) -> torch.Tensor:
        """The expected image: (B, D) -> (B, 1, S, S) in [0, 1]."""
        return torch.sigmoid(self.decoder(z).float())

    def _flowed(self, z: torch.Tensor, q: Posterior) -> tuple[torch.Tensor, torch.Tensor]:
        assert self.flow is not None
        return self.flow(z, q.features.float())


def _gaussian(model: Autoencoder, x: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    assert model.log_sigma is not None
    return gaussian_nll(x, logits, model.log_sigma.clamp_min(_LOG_SIGMA_FLOOR))


def _bernoulli(model: Autoencoder, x: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    return bernoulli_nll(x, logits)


_NLL: dict[Likelihood, Callable[[Autoencoder, torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "gaussian": _gaussian,
    "bernoulli": _bernoulli,
}
