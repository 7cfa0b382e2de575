"""Losses of one image each, summed over pixels and latent dimensions, in nats."""

import math
from typing import Literal

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

Likelihood = Literal["gaussian", "bernoulli"]


def gaussian_nll(x: torch.Tensor, logits: torch.Tensor, log_sigma: torch.Tensor) -> torch.Tensor:
    """-log p(x|z) for a Gaussian with mean sigmoid(logits) and one sigma for all pixels.

    A learned sigma balances reconstruction against KL by itself: Rybkin et al. 2021 (arXiv:2006.13202), section 3.

    Args:
        x: (B, 1, S, S) in [0, 1].
        logits: (B, 1, S, S).
        log_sigma: ().

    Returns:
        (B,) nats; a density, so it may be negative.
    """
    squared = (x - torch.sigmoid(logits)).square().flatten(1).sum(1)
    pixels = x.shape[1:].numel()
    return 0.5 * squared * torch.exp(-2 * log_sigma) + pixels * (log_sigma + 0.5 * math.log(2 * math.pi))


def bernoulli_nll(x: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """-log p(x|z) for independent Bernoulli pixels: (B, 1, S, S) twice -> (B,) nats."""
    return binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)


def gaussian_kl_per_dim(mu: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    """KL(N(mu, exp(logvar)) || N(0, 1)) of each latent dimension.

    Kingma & Welling 2014 (arXiv:1312.6114), appendix B: (B, D) twice -> (B, D) nats.
    """
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar)


def standard_normal_log_prob(z: torch.Tensor) -> torch.Tensor:
    """Log N(z; 0, 1), summed over dimensions: (B, D) -> (B,) nats."""
    return -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)


def normal_log_prob(z: torch.Tensor, mu: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    """Log N(z; mu, exp(logvar)), summed over dimensions: (B, D) thrice -> (B,) nats."""
    return -0.5 * ((z - mu).square() * (-logvar).exp() + logvar + math.log(2 * math.pi)).sum(-1)


def kl_weight(epoch: float, warmup_epochs: float) -> float:
    """Linear KL warm-up from 0 to 1 (Sonderby et al. 2016, arXiv:1602.02282, section 2.3)."""
    return 1.0 if warmup_epochs <= 0 else min(1.0, epoch / warmup_epochs)


def active_units(latent: torch.Tensor, threshold: float = 0.01) -> int:
    """Latent dimensions whose mean varies over the data.

    Burda et al. 2016 (arXiv:1509.00519), section 5.2: Var_x(E[z_d|x]) > 0.01.

    Args:
        latent: (N, D) posterior means, for a flow the flow of the base's mean, which stands for E[z_K|x].
        threshold: variance above which a unit counts as active.
    """
    return int((latent.var(dim=0, correction=0) > threshold).sum())
