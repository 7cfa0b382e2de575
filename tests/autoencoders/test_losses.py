import math

import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from autoencoders.losses import (
    active_units,
    bernoulli_nll,
    gaussian_kl_per_dim,
    gaussian_nll,
    kl_weight,
    normal_log_prob,
    standard_normal_log_prob,
)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(batch: int, height: int = 6, width: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels in [0, 1] and logits, both (B, 1, H, W) float64."""
    x = torch.rand(batch, 1, height, width, generator=generator(0), dtype=torch.float64)
    logits = 3 * torch.randn(batch, 1, height, width, generator=generator(1), dtype=torch.float64)
    return x, logits


def test_kl_is_that_of_torch_distributions() -> None:
    mu = 3 * torch.randn(50, 7, generator=generator(2), dtype=torch.float64)
    logvar = 4 * torch.randn(50, 7, generator=generator(3), dtype=torch.float64)
    expected = kl_divergence(Normal(mu, (0.5 * logvar).exp()), Normal(torch.zeros_like(mu), torch.ones_like(mu)))
    torch.testing.assert_close(gaussian_kl_per_dim(mu, logvar), expected)


def test_kl_is_zero_at_the_prior_alone() -> None:
    assert gaussian_kl_per_dim(torch.zeros(1, 3), torch.zeros(1, 3)).tolist() == [[0.0, 0.0, 0.0]]
    assert gaussian_kl_per_dim(torch.tensor([[2.0]]), torch.zeros(1, 1)).item() == pytest.approx(2.0)


@pytest.mark.parametrize("log_sigma", [-3.0, -1.5, 0.0, 1.0])
def test_gaussian_nll_is_that_of_torch_distributions(log_sigma: float) -> None:
    x, logits = images(5)
    sigma = torch.tensor(log_sigma, dtype=torch.float64)
    expected = -Normal(torch.sigmoid(logits), sigma.exp()).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(gaussian_nll(x, logits, sigma), expected)


def test_gaussian_sigma_is_best_at_the_root_mean_squared_error() -> None:
    x, logits = images(4)
    log_sigma = (x - torch.sigmoid(logits)).square().mean().sqrt().log().requires_grad_()
    gaussian_nll(x, logits, log_sigma).sum().backward()
    assert log_sigma.grad is not None
    assert log_sigma.grad.item() == pytest.approx(0.0, abs=1e-9)


def test_bernoulli_nll_is_that_of_torch_distributions() -> None:
    x, logits = images(5)
    binary = (x > 0.5).double()
    expected = -Bernoulli(logits=logits).log_prob(binary).sum((1, 2, 3))
    torch.testing.assert_close(bernoulli_nll(binary, logits), expected)
    # grey pixels: the expected surprise of a coin with that share of ones
    on, off = (-Bernoulli(logits=logits).log_prob(torch.full_like(x, bit)) for bit in (1.0, 0.0))
    torch.testing.assert_close(bernoulli_nll(x, logits), (x * on + (1 - x) * off).sum((1, 2, 3)))


def test_bernoulli_nll_is_finite_at_certain_and_wrong_pixels() -> None:
    x, logits = torch.ones(1, 1, 2, 2), torch.full((1, 1, 2, 2), -500.0)
    assert bernoulli_nll(x, logits).item() == pytest.approx(2000.0)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_twice_the_area_costs_twice_as_much(likelihood: str) -> None:
    x, logits = images(3)
    wide = [torch.cat([t, t], dim=-1) for t in (x, logits)]
    sigma = torch.tensor(-1.0, dtype=torch.float64)
    if likelihood == "gaussian":
        single, double = gaussian_nll(x, logits, sigma), gaussian_nll(*wide, sigma)
    else:
        single, double = bernoulli_nll(x, logits), bernoulli_nll(*wide)
    torch.testing.assert_close(double, 2 * single)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_an_images_loss_does_not_depend_on_its_batch(likelihood: str) -> None:
    x, logits = images(6)
    sigma = torch.tensor(-1.0, dtype=torch.float64)

    def loss(rows: list[int]) -> torch.Tensor:
        return (
            bernoulli_nll(x[rows], logits[rows])
            if likelihood == "bernoulli"
            else gaussian_nll(x[rows], logits[rows], sigma)
        )

    whole = loss([0, 1, 2, 3, 4, 5])
    torch.testing.assert_close(loss([5, 3, 0]), whole[[5, 3, 0]])
    torch.testing.assert_close(loss([2]), whole[[2]])
    assert whole.unique().numel() == 6


def test_normal_log_prob_is_that_of_torch_distributions() -> None:
    z, mu, logvar = (2 * torch.randn(3, 40, 5, generator=generator(4), dtype=torch.float64)).unbind(0)
    expected = Normal(mu, (0.5 * logvar).exp()).log_prob(z).sum(-1)
    torch.testing.assert_close(normal_log_prob(z, mu, logvar), expected)


def test_standard_normal_log_prob_is_that_of_torch_distributions() -> None:
    z = 2 * torch.randn(40, 5, generator=generator(5), dtype=torch.float64)
    expected = Normal(0.0, 1.0).log_prob(z).sum(-1)
    torch.testing.assert_close(standard_normal_log_prob(z), expected)
    assert standard_normal_log_prob(torch.zeros(1, 2)).item() == pytest.approx(-math.log(2 * math.pi))


@pytest.mark.parametrize(
    ("epoch", "warmup", "weight"),
    [
        (0.0, 4.0, 0.0),
        (1.0, 4.0, 0.25),
        (3.0, 4.0, 0.75),
        (4.0, 4.0, 1.0),
        (9.0, 4.0, 1.0),
        (0.0, 0.0, 1.0),
        (2.0, -1.0, 1.0),
    ],
)
def test_kl_weight_grows_linearly_to_one(epoch: float, warmup: float, weight: float) -> None:
    assert kl_weight(epoch, warmup) == pytest.approx(weight)


def test_active_units_counts_dimensions_that_vary_over_the_data() -> None:
    n = 4000
    signs = torch.tensor([1.0, -1.0]).repeat(n // 2)  # variance exactly 1 without Bessel's correction
    planted = torch.tensor([4.0, 0.0101, 0.0099, 0.0])
    mu = 5.0 + signs.unsqueeze(1) * planted.sqrt()
    assert active_units(mu) == 2
    assert active_units(mu, threshold=1.0) == 1
    assert active_units(mu[:1]) == 0
