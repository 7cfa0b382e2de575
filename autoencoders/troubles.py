"""The known troubles of training, each told in one line with the flag that mends it, or None where all is well."""

from collections.abc import Sequence

import torch

EXPLODING_KL = 20.0
"""Nats a latent dimension, of one particle before training: a mu of 6 standard deviations of the prior in each. With 32
dimensions that is 640 nats, most of what a whole training gains in reconstruction (about 1,000 at 64 px). The worst
crops of sound starts: 2.9 after a classifier of 12 epochs, 0.02 from scratch; of trained models: 2.3."""
IDLE_KL_PER_DIM, IDLE_KL = 0.1, 4.0
"""Mean KL, nats a dimension and at most in all, below which a latent is idle. The mean KL bounds the information in z:
K nats tell at most e^K kinds of crops apart, 4 nats 55, 2 nats no more than the seven classes. Sound trainings at 64 px
have 0.9 to 1.5 nats a dimension; the cap lets a large latent leave dimensions unused."""
FEW_UNITS = 0.25
"""Share of the dimensions; fewer in use mean that the latent has collapsed, or is far too large. Sound: all of them."""
REDRAWN_WORSE = 0.75
"""Share of the pairs (one crop trained on, one of validation) in which the latter is redrawn worse; 0.5 is fair, 0.75
is a shift of about one standard deviation of what crops differ by. Sound trainings have 0.48 to 0.53."""
FELL_BACK = 0.05
"""Rise of an epoch's mean reconstruction error above the best before, as a share of what training had gained by then.
Sound trainings have 0; a planar VAE that had not caught up six epochs later 0.09."""
FULL_KL = 0.999
"""Mean KL weight of an epoch from which the KL is what it will be; an epoch in which its rise ends has less."""
_SURE = 3.0  # standard deviations that such a share must be from 0.5, so that few crops raise no alarm


def exploding_kl(kl: torch.Tensor, latent_dim: int, warm: bool) -> str | None:
    """Crops that the heads place absurdly far from the prior before a step is taken.

    A trunk that was trained on the labels for long gives enormous features to what it has not seen.

    Args:
        kl: (N,) nats of each particle.
        latent_dim: D.
        warm: whether the trunk starts from a classifier.
    """
    limit = EXPLODING_KL * latent_dim
    finite = kl[kl.isfinite()]
    n_far, n_broken = int((finite > limit).sum()), len(kl) - len(finite)
    if n_far + n_broken == 0:
        return None
    worst = f"the worst {float(finite.max()):,.0f}" if len(finite) else "none finite"
    broken = f", {n_broken} of them not finite" if n_broken else ""
    way_out = (
        "give the classifier fewer epochs (--pretrain-epochs; --epochs of pretrain_classifier.py), or --from-scratch"
        if warm
        else "look for crops that are no particles, or give a longer --kl-warmup and a lower --lr"
    )
    found = f"{n_far + n_broken} of {len(kl)} crops above {limit:,.0f} nats{broken}, {worst}"
    return f"exploding KL before training: {found}; {way_out}"


def collapsed(kl: float, active: int, latent_dim: int, gaussian: bool) -> str | None:
    """A posterior that says nothing about the crop.

    Args:
        kl: mean over particles, nats.
        active: dimensions in use (`active_units`).
        latent_dim: D.
        gaussian: whether the pixels' likelihood is; a Bernoulli's variance cannot shrink to that of faint crops.
    """
    idle = active == 0 or kl < min(IDLE_KL_PER_DIM * latent_dim, IDLE_KL)
    if not idle and active > FEW_UNITS * latent_dim:
        return None
    found = f"posterior collapse: a KL of {kl:.2g} nats, {active} of {latent_dim} dimensions active"
    if not idle:
        return f"{found}; give a smaller --latent-dim, or a longer --kl-warmup"
    return f"{found}; give {'' if gaussian else '--likelihood gaussian, '}a longer --kl-warmup, or more --epochs"


def drowned(variance: float, eigenvalue: float) -> str | None:
    """A decoder that takes all that crops differ by for noise.

    In a linear VAE the optimum uses a principal direction only if its eigenvalue exceeds sigma^2, as in probabilistic
    PCA (Tipping & Bishop 1999, doi:10.1111/1467-9868.00196; Lucas et al. 2019, arXiv:1911.02469): above the largest,
    the collapsed posterior is the optimum. The same bound was found to hold for deep ones (arXiv:2510.01621).

    Args:
        variance: sigma^2 of the decoder.
        eigenvalue: the largest of the pixels' covariance.
    """
    if variance <= eigenvalue:
        return None
    return (
        f"noisy decoder: its variance {variance:.2g} exceeds {eigenvalue:.2g}, the largest eigenvalue of the pixels' "
        "covariance, so that a collapsed posterior is the optimum; give a longer --kl-warmup, and see whether the "
        "crops of --data differ at all"
    )


def overfitted(seen: torch.Tensor, unseen: torch.Tensor, role: str, core_too: bool) -> str | None:
    """Crops that the model has learned by heart.

    Args:
        seen: (N,) reconstruction errors of crops that were trained on.
        unseen: (M,) those of validation crops of the same role.
        role: `labeled` or `core`.
        core_too: whether there is a core to train on.
    """
    if not len(seen) or not len(unseen):
        return None
    share = redrawn_worse(seen, unseen)
    # standard deviation of Mann and Whitney's statistic where both come from one distribution
    chance = ((len(seen) + len(unseen) + 1) / (12 * len(seen) * len(unseen))) ** 0.5
    if share <= max(REDRAWN_WORSE, 0.5 + _SURE * chance):
        return None
    alone = "--no-data-labeled, " if role == "labeled" and core_too else ""
    return (
        f"overfitting to the {role} set: crops of validation are redrawn worse than those trained on in {share:.0%} of "
        f"the pairs (fair: 50%); give fewer --epochs, {alone}or a smaller --latent-dim"
    )


def diverged(loss: float) -> str | None:
    """A loss that is no number any more."""
    if torch.tensor(loss).isfinite():
        return None
    return f"training diverged: the loss is {loss}; give a lower --lr"


def fell_back(reconstruction: Sequence[float], kl_weight: Sequence[float], gradient: Sequence[float]) -> str | None:
    """A training that lost on the way what it had gained: too long a step, mostly where the learning rate is highest.

    Args:
        reconstruction: nats an image of the training crops, of each epoch.
        kl_weight: of each epoch; while the KL still comes in, a reconstruction may become worse.
        gradient: mean norm of each epoch. Half as much again as before the fall is a good --clip-norm: in a sound
            training nearly all are shorter.
    """
    worst, found = FELL_BACK, None
    for epoch in range(1, len(reconstruction)):
        before = [row for row in range(epoch) if kl_weight[row] > FULL_KL]
        best = min(before, key=lambda row: reconstruction[row], default=0)
        gained, lost = (reconstruction[row] - reconstruction[best] for row in (0, epoch))
        if gained > 0 and lost > worst * gained:
            worst, found = lost / gained, (best, epoch)
    if found is None:
        return None
    was, became = (f"{reconstruction[row]:,.1f}" for row in found)
    norm = 1.5 * gradient[found[0]]
    clip = f"--clip-norm {norm:.{0 if norm > 10 else 2}f}"
    return (f"training fell back in epoch {found[1] + 1}: its reconstruction error rose from {was} to {became} nats; "
            f"see whether it has caught up, or give {clip}, or a lower --lr")  # fmt: skip


def redrawn_worse(seen: torch.Tensor, unseen: torch.Tensor) -> float:
    """P(unseen > seen), ties by half: (N,) and (M,) -> Mann and Whitney's share, the AUROC of 'unseen'."""
    difference = unseen.unsqueeze(1) - seen.unsqueeze(0)
    return float(((difference > 0).double() + 0.5 * (difference == 0).double()).mean())


def largest_eigenvalue(images: torch.Tensor) -> float:
    """Of the pixels' covariance: (N, ...) -> variance along the first principal direction.

    By way of the (N, N) Gram matrix, which has the same nonzero eigenvalues and is the smaller one.
    """
    centered = images.flatten(1).double()
    centered = centered - centered.mean(0)
    gram = centered @ centered.T / max(1, len(centered) - 1)
    return float(torch.linalg.eigvalsh(gram)[-1].clamp_min(0))
