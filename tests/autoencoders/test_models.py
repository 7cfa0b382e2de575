import copy
import math
from typing import get_args

import pytest
import torch
from torch.func import jacrev, vmap

from autoencoders.losses import (
    Likelihood,
    active_units,
    bernoulli_nll,
    gaussian_kl_per_dim,
    gaussian_nll,
    normal_log_prob,
    standard_normal_log_prob,
)
from autoencoders.models import Autoencoder, Kind, Posterior

KINDS: tuple[Kind, ...] = get_args(Kind)
SIZE = 16


def images(n: int = 6, size: int = SIZE) -> torch.Tensor:
    return torch.rand(n, 1, size, size, generator=torch.Generator().manual_seed(n))


def model(kind: Kind, likelihood: Likelihood = "gaussian", latent_dim: int = 5) -> Autoencoder:
    torch.manual_seed(0)
    built = Autoencoder(kind, latent_dim, SIZE, likelihood, flow_steps=3)
    if built.flow is not None:  # far enough from its start that every image has its own flow
        torch.nn.init.normal_(built.flow.parameters_of.weight, std=0.3)
    return built


@pytest.mark.parametrize("likelihood", get_args(Likelihood))
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_parameter(kind: Kind, likelihood: Likelihood) -> None:
    net = model(kind, likelihood)
    losses = net.losses(images())
    (losses.reconstruction + losses.kl).mean().backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert without == []


def test_gradients_reach_u_w_and_b_of_every_step() -> None:
    net = model("planar-vae")
    losses = net.losses(images())
    (losses.reconstruction + losses.kl).mean().backward()
    assert net.flow is not None
    for grad in (net.flow.parameters_of.weight.grad, net.flow.parameters_of.bias.grad):
        assert grad is not None
        per_step = grad.view(3, 11, -1)  # 3 steps of u (5), w (5) and b (1)
        for part in (slice(0, 5), slice(5, 10), slice(10, 11)):
            assert (per_step[:, part].abs().amax(-1) > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_kl_alone_steers_the_posterior_and_nothing_in_the_decoder(kind: Kind) -> None:
    net = model(kind)
    kl = net.losses(images()).kl.sum()
    if kind == "ae":
        assert kl.item() == 0.0
        assert not kl.requires_grad
        return
    kl.backward()
    assert net.mu_head.weight.grad is not None
    assert net.mu_head.weight.grad.abs().max() > 0
    assert all(p.grad is None for p in net.decoder.parameters())


def test_encode_is_the_mean_for_ae_and_vae() -> None:
    for kind in ("ae", "vae"):
        net = model(kind).eval()
        q = net.posterior(images())
        assert torch.equal(net.encode(images()), q.mu)


def test_encode_is_the_flow_of_the_mean_for_planar_vae() -> None:
    net = model("planar-vae").eval()
    assert net.flow is not None
    q = net.posterior(images())
    z = net.encode(images())
    assert torch.equal(z, net.flow(q.mu, q.features)[0])
    assert (z - q.mu).abs().max() > 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_a_latent_depends_on_its_image_alone(kind: Kind) -> None:
    net, x = model(kind).eval(), images(7)
    with torch.no_grad():
        together = net.encode(x)
        torch.testing.assert_close(net.encode(x[3:4]), together[3:4], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(net.encode(x.flip(0)).flip(0), together, rtol=1e-4, atol=1e-5)
        company = torch.cat([x[3:4], torch.zeros(5, 1, SIZE, SIZE)])
        assert (net.encode(company)[0] - together[3]).abs().max() < 1e-4
        # the same in training mode must differ, or this test would see nothing
        assert (net.train().encode(company)[0] - together[3]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["vae", "planar-vae"])
def test_losses_are_those_of_one_reparameterized_draw(kind: Kind) -> None:
    net, x = model(kind).eval(), images()
    torch.manual_seed(11)
    losses = net.losses(x)
    torch.manual_seed(11)
    q = net.posterior(x)
    z = q.mu + (0.5 * q.logvar).exp() * torch.randn_like(q.mu)
    kl = gaussian_kl_per_dim(q.mu, q.logvar).sum(1)
    if net.flow is not None:
        z_k, log_det = net.flow(z, q.features)
        kl = normal_log_prob(z, q.mu, q.logvar) - log_det - standard_normal_log_prob(z_k)
        z = z_k
    assert net.log_sigma is not None
    torch.testing.assert_close(losses.kl, kl)
    torch.testing.assert_close(losses.reconstruction, gaussian_nll(x, net.decoder(z), net.log_sigma))
    if kind == "vae":
        torch.testing.assert_close(losses.kl_per_dim, gaussian_kl_per_dim(q.mu, q.logvar))
    else:
        assert losses.kl_per_dim is None, "a flow mixes the dimensions"
    torch.testing.assert_close(losses.latent, net.encode(x))
    assert not losses.latent.requires_grad


def test_a_flow_alone_can_carry_the_image() -> None:
    """The base is the same for every image, the flow is not: the latent is active though its base's mean is not."""
    net = model("planar-vae").eval()
    torch.nn.init.zeros_(net.mu_head.weight)
    assert net.flow is not None
    torch.nn.init.normal_(net.flow.parameters_of.weight, std=3.0)
    losses = net.losses(images())
    assert active_units(net.posterior(images()).mu) == 0
    assert active_units(losses.latent) > 0


def test_ae_decodes_its_latent_without_noise() -> None:
    net, x = model("ae", "bernoulli").eval(), images()
    expected = bernoulli_nll(x, net.decoder(net.encode(x)))
    for seed in (1, 2):
        torch.manual_seed(seed)
        torch.testing.assert_close(net.losses(x).reconstruction, expected)


def test_an_identity_flow_gives_the_closed_kl() -> None:
    """With u = log(e - 1) w / |w|^2 the constrained u_hat is exactly zero."""
    net = model("planar-vae", latent_dim=4).eval()
    assert net.flow is not None
    w = torch.tensor([1.0, -2.0, 0.5, 1.0])
    u = math.log(math.e - 1) * w / (w @ w)
    with torch.no_grad():
        net.flow.parameters_of.weight.zero_()
        net.flow.parameters_of.bias.copy_(torch.cat([u, w, torch.zeros(1)]).repeat(3))
    mu = torch.tensor([[0.5, -1.0, 0.0, 2.0]])
    logvar = torch.tensor([[0.0, -2.0, 0.7, -1.0]])
    n = 100_000
    q = Posterior(mu.expand(n, 4), logvar.expand(n, 4), torch.zeros(1, 512).expand(n, -1))
    eps = torch.randn(n, 4, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        z, kl = net.sample(q, eps)
    torch.testing.assert_close(z, mu + (0.5 * logvar).exp() * eps, rtol=1e-4, atol=1e-5)
    error = float(kl.double().std()) / math.sqrt(n)
    closed = float(gaussian_kl_per_dim(mu, logvar).sum())
    assert float(kl.double().mean()) == pytest.approx(closed, abs=4 * error)


def test_the_flows_kl_is_unbiased() -> None:
    """Draws against an integral over a grid, with the determinant taken by autograd."""
    net = model("planar-vae", latent_dim=2).eval()
    assert net.flow is not None
    torch.manual_seed(5)
    torch.nn.init.zeros_(net.flow.parameters_of.weight)
    torch.nn.init.normal_(net.flow.parameters_of.bias, std=1.0)
    flow = copy.deepcopy(net.flow).double()
    mu, logvar = torch.tensor([[0.8, -0.4]]), torch.tensor([[-0.5, 0.3]])
    axis = torch.linspace(-8, 8, 161, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis) + mu
    no_features = torch.zeros(1, 512)
    with torch.no_grad():
        z_k = flow(grid, no_features.double().expand(len(grid), -1))[0]
        step = jacrev(lambda z: flow(z.unsqueeze(0), no_features.double())[0].squeeze(0))
        log_q = normal_log_prob(grid, mu.double(), logvar.double())
        integrand = log_q - torch.linalg.slogdet(vmap(step)(grid))[1] - standard_normal_log_prob(z_k)
        reference = float((log_q.exp() * integrand).sum()) * float(axis[1] - axis[0]) ** 2
        n = 100_000
        q = Posterior(mu.expand(n, 2), logvar.expand(n, 2), no_features.expand(n, -1))
        kl = net.sample(q, torch.randn(n, 2, generator=torch.Generator().manual_seed(6)))[1].double()
    assert reference > 0
    assert abs(reference - float(gaussian_kl_per_dim(mu, logvar).sum())) > 0.05  # the flow does something
    assert float(kl.mean()) == pytest.approx(reference, abs=4 * float(kl.std()) / math.sqrt(n))


def test_one_noise_for_all_rows_is_the_same_as_that_noise_for_each() -> None:
    net, x = model("planar-vae").eval(), images()
    q, eps = net.posterior(x), torch.randn(5, generator=torch.Generator().manual_seed(1))
    shared, each = net.sample(q, eps), net.sample(q, eps.expand(len(x), 5))
    torch.testing.assert_close(shared[0], each[0])
    torch.testing.assert_close(shared[1], each[1])


@pytest.mark.parametrize("bias", [-1e6, 1e6])
@pytest.mark.parametrize("kind", ["vae", "planar-vae"])
def test_a_runaway_variance_head_stays_finite(kind: Kind, bias: float) -> None:
    net = model(kind).eval()
    assert net.logvar_head is not None
    torch.nn.init.constant_(net.logvar_head.bias, bias)
    losses = net.losses(images())
    assert torch.isfinite(losses.kl).all()
    assert torch.isfinite(losses.reconstruction).all()
    assert (net.posterior(images()).logvar == (8 if bias > 0 else -12)).all()


def test_sigma_of_a_pixel_does_not_fall_below_a_hundredth() -> None:
    net, x = model("ae").eval(), images()
    assert net.log_sigma is not None
    net.log_sigma.data.fill_(-50.0)
    assert net.variance == pytest.approx(math.exp(-9.2))
    expected = gaussian_nll(x, net.decoder(net.encode(x)), torch.tensor(-4.6))
    torch.testing.assert_close(net.losses(x).reconstruction, expected)


@pytest.mark.parametrize("size", [8, 17, 28, 32, 50, 64])
def test_every_pixel_of_any_size_is_drawn_from_the_latent(size: int) -> None:
    torch.manual_seed(0)
    net = Autoencoder("ae", 4, size, "gaussian").eval()
    z = 3 * torch.randn(16, 4)
    with torch.no_grad():
        shown = net.mean_image(z)
    assert shown.shape == (16, 1, size, size)
    assert (shown.std(0) > 0).all()  # no dead border where the map is cut to size
    assert ((shown > 0) & (shown < 1)).all()
    torch.testing.assert_close(shown, torch.sigmoid(net.decoder(z)))
