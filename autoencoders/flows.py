"""Planar normalizing flows, constrained to be invertible."""

import math

import torch
from torch import nn
from torch.nn.functional import logsigmoid, softplus

_TINY = 1e-30


def planar(z: torch.Tensor, u: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One planar step, z' = z + u_hat tanh(w.z + b).

    Rezende & Mohamed 2015 (arXiv:1505.05770), equations 10-12; u_hat is their appendix A.1, which keeps
    w.u_hat > -1 and with it the step invertible.

    Args:
        z: (B, D).
        u: (B, D) or (D,), unconstrained.
        w: (B, D) or (D,).
        b: (B,) or ().

    Returns:
        z' (B, D), and log |det dz'/dz| (B,).
    """
    wu = (w * u).sum(-1, keepdim=True)
    # m(x) = -1 + softplus(x); u_hat = u + (m(w.u) - w.u) w / |w|^2, so that w.u_hat = m(w.u) > -1.
    # Undefined at w = 0, where the step is a mere shift; no gradient step lands below |w| = 1e-15.
    u_hat = u + (softplus(wu) - 1 - wu) * w / (w * w).sum(-1, keepdim=True).clamp_min(_TINY)
    a = (w * z).sum(-1) + b  # (B,)
    return z + u_hat * torch.tanh(a).unsqueeze(-1), _log_det(a, wu.squeeze(-1))


def _log_det(a: torch.Tensor, wu: torch.Tensor) -> torch.Tensor:
    """log(1 + (1 - tanh(a)^2) w.u_hat) without overflow or log(0).

    With w.u_hat = softplus(wu) - 1 the bracket is t + (1 - t) softplus(wu), t = tanh(a)^2: a sum of two
    non-negative terms, taken in logarithms so that float32 stays finite at |w.u| = 200 and beyond.
    """
    log_t = 2 * torch.tanh(a).abs().clamp_min(_TINY).log()
    log_1mt = 2 * (math.log(2) + logsigmoid(2 * a.abs()) - a.abs())  # 1 - tanh^2 = sech^2, exact for large |a|
    stretched = log_1mt + _log_softplus(wu)
    return torch.where(a == 0, stretched, torch.logaddexp(log_t, stretched))  # of t = 0, log_t is -inf, not log(_TINY)


def _log_softplus(x: torch.Tensor) -> torch.Tensor:
    """Log softplus(x); softplus(x) -> e^x underflows for very negative x, its logarithm is x there."""
    negative = x < -15
    safe = torch.where(negative, torch.zeros_like(x), x)
    return torch.where(negative, x, softplus(safe).log())


class PlanarFlow(nn.Module):
    """K planar steps whose parameters come from the image, as in the paper's inference network."""

    def __init__(self, features: int, latent_dim: int, steps: int) -> None:
        """Set up the amortization.

        Args:
            features: F, width of the trunk's output.
            latent_dim: D.
            steps: K.
        """
        super().__init__()
        self.latent_dim, self.steps = latent_dim, steps
        self.parameters_of = nn.Linear(features, steps * (2 * latent_dim + 1))
        # Small weights: the flow starts near a fixed, nearly linear step rather than a random one per image.
        nn.init.normal_(self.parameters_of.weight, std=1e-3)
        nn.init.normal_(self.parameters_of.bias, std=0.1)

    def forward(self, z: torch.Tensor, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Push z through the flow.

        Args:
            z: z_0, (B, D).
            features: (B, F).

        Returns:
            z_K (B, D), and the sum of the steps' log_det (B,).
        """
        D = self.latent_dim
        log_det = torch.zeros(len(z), dtype=z.dtype, device=z.device)
        for step in self.parameters_of(features).to(z.dtype).view(len(z), self.steps, 2 * D + 1).unbind(1):
            z, change = planar(z, step[:, :D], step[:, D : 2 * D], step[:, 2 * D])
            log_det = log_det + change
        return z, log_det
