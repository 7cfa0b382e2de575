import math

import mpmath
import pytest
import torch
from torch.func import jacrev, vmap

from autoencoders.flows import PlanarFlow, planar
from autoencoders.losses import standard_normal_log_prob

EXTREME_WU = (-200.0, -30.0, -15.0, 0.0, 15.0, 30.0, 200.0)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def log_det_by_autograd(
    z: torch.Tensor, u: torch.Tensor, w: torch.Tensor, b: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sign and logarithm of the determinant of the full Jacobian of each row."""
    step = jacrev(lambda z, u, w, b: planar(z.unsqueeze(0), u, w, b)[0].squeeze(0))
    sign, value = torch.linalg.slogdet(vmap(step)(z, u, w, b))
    return sign, value


def with_inner_product(wu: float, w: torch.Tensor) -> torch.Tensor:
    """A u along a random direction, shifted along w so that w.u is as asked: (B, D)."""
    u = torch.randn(w.shape, generator=generator(7), dtype=w.dtype)
    return u + (wu - (w * u).sum(-1, keepdim=True)) * w / (w * w).sum(-1, keepdim=True)


def exact_log_det(z: list[float], u: list[float], w: list[float], b: float) -> float:
    """The paper's step with 120 digits, its Jacobian's determinant by elimination."""
    with mpmath.workdps(120):
        u_, w_ = mpmath.matrix(u), mpmath.matrix(w)
        wu, ww = mpmath.fdot(w_, u_), mpmath.fdot(w_, w_)
        u_hat = u_ + w_ * ((mpmath.log1p(mpmath.exp(wu)) - 1 - wu) / ww)
        slope = mpmath.sech(mpmath.fdot(w_, mpmath.matrix(z)) + mpmath.mpf(b)) ** 2
        return float(mpmath.log(abs(mpmath.det(mpmath.eye(len(z)) + slope * u_hat * w_.T))))


@pytest.mark.parametrize("dims", [1, 2, 7, 32])
@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_log_det_is_that_of_the_full_jacobian(dims: int, scale: float) -> None:
    z, u, w = torch.randn(3, 64, dims, generator=generator(dims), dtype=torch.float64).mul(scale).unbind(0)
    b = torch.randn(64, generator=generator(1), dtype=torch.float64)
    sign, expected = log_det_by_autograd(z, u, w, b)
    assert (sign == 1).all()
    torch.testing.assert_close(planar(z, u, w, b)[1], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("wu", [*EXTREME_WU, -1000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_det_is_exact_where_the_step_stretches_most(wu: float, dtype: torch.dtype) -> None:
    """At w.z + b = 0 the determinant is softplus(w.u), and its slope there is finite."""
    z = torch.zeros(1, 1, dtype=dtype, requires_grad=True)
    u, w = torch.tensor([wu], dtype=dtype), torch.ones(1, dtype=dtype)
    log_det = planar(z, u, w, torch.zeros((), dtype=dtype))[1]
    with mpmath.workdps(500):
        expected = float(mpmath.log(mpmath.log1p(mpmath.exp(wu))))
    assert log_det.item() == pytest.approx(expected, rel=1e-6)
    assert torch.autograd.grad(log_det.sum(), z)[0].isfinite().all()


@pytest.mark.parametrize("wu", EXTREME_WU)
@pytest.mark.parametrize("w_norm", [1e-8, 1e-3, 1.0, 50.0])
@pytest.mark.parametrize("bias", [0.0, 0.3, -4.0, 20.0, 400.0])
def test_log_det_is_exact_at_extreme_parameters(wu: float, w_norm: float, bias: float) -> None:
    z = torch.randn(3, 3, generator=generator(2), dtype=torch.float64)
    w = torch.randn(3, 3, generator=generator(3), dtype=torch.float64)
    w = w * (w_norm / w.norm(dim=-1, keepdim=True))
    u = with_inner_product(wu, w)
    b = torch.full((3,), bias, dtype=torch.float64)
    expected = [exact_log_det(z[i].tolist(), u[i].tolist(), w[i].tolist(), bias) for i in range(3)]
    # Where w.u is far from zero the inner product itself carries the rounding of float64 times |w| |u|.
    assert planar(z, u, w, b)[1].tolist() == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("far", [1e2, 1e4, 1e8])
def test_far_away_the_step_moves_by_a_constant_and_keeps_volume(far: float) -> None:
    u, w, b = torch.tensor([0.4, -1.1]), torch.tensor([0.9, 0.2]), torch.tensor(0.1)
    z = torch.tensor([[far, far], [-far, -far]])
    moved, log_det = planar(z.double(), u.double(), w.double(), b.double())
    assert log_det.tolist() == pytest.approx([0.0, 0.0], abs=1e-12)
    wu = float(w.double() @ u.double())
    u_hat = u.double() + (math.log1p(math.exp(wu)) - 1 - wu) * w.double() / float(w.double() @ w.double())
    torch.testing.assert_close(moved - z.double(), torch.stack([u_hat, -u_hat]), rtol=0, atol=max(1e-9, far * 1e-15))


@pytest.mark.parametrize("wu", [*EXTREME_WU, -1e4, 1e4])
@pytest.mark.parametrize("bias", [0.0, 1.0, -300.0])
def test_values_and_gradients_are_finite_in_float32(wu: float, bias: float) -> None:
    w = torch.tensor([[0.6, -0.8, 0.0], [3.0, 4.0, 0.0], [1e-3, 0.0, 0.0]])
    leaves = [
        torch.tensor([[0.0, 0.0, 0.0], [1e3, -1e3, 5.0], [-0.1, 0.2, 0.3]]),
        with_inner_product(wu, w),
        w,
        torch.full((3,), bias),
    ]
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    moved, log_det = planar(*leaves)
    (moved.sum() + log_det.sum()).backward()
    assert torch.isfinite(moved).all()
    assert torch.isfinite(log_det).all()
    for leaf in leaves:
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()


def test_float32_agrees_with_float64() -> None:
    z, u, w = (3 * torch.randn(3, 200, 5, generator=generator(4), dtype=torch.float64)).unbind(0)
    b = torch.randn(200, generator=generator(5), dtype=torch.float64)
    for single, double in zip(planar(z.float(), u.float(), w.float(), b.float()), planar(z, u, w, b), strict=True):
        torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-3)


def test_a_batch_of_one_keeps_its_shape_and_equals_its_row_in_a_batch() -> None:
    z, u, w = torch.randn(3, 4, 6, generator=generator(6), dtype=torch.float64).unbind(0)
    b = torch.randn(4, generator=generator(8), dtype=torch.float64)
    moved, log_det = planar(z, u, w, b)
    one, one_log_det = planar(z[2:3], u[2:3], w[2:3], b[2:3])
    assert one_log_det.shape == (1,)
    torch.testing.assert_close(one, moved[2:3])
    torch.testing.assert_close(one_log_det, log_det[2:3])


def test_shared_parameters_are_the_same_for_every_row() -> None:
    z = torch.randn(5, 3, generator=generator(9), dtype=torch.float64)
    u, w = torch.randn(2, 3, generator=generator(10), dtype=torch.float64).unbind(0)
    b = torch.tensor(0.7, dtype=torch.float64)
    shared, repeated = planar(z, u, w, b), planar(z, u.expand(5, 3), w.expand(5, 3), b.expand(5))
    torch.testing.assert_close(shared[0], repeated[0])
    torch.testing.assert_close(shared[1], repeated[1])


@pytest.mark.parametrize("wu", [-20.0, -3.0, -1.0, 0.0, 5.0, 100.0])
def test_the_step_is_monotone_along_w_so_that_bisection_inverts_it(wu: float) -> None:
    w = torch.tensor([[1.5, -0.5]], dtype=torch.float64)
    u, b = with_inner_product(wu, w), torch.tensor([0.2], dtype=torch.float64)
    z = torch.linspace(-6, 6, 2001, dtype=torch.float64).unsqueeze(1) * w / w.norm()
    moved = planar(z, u, w, b)[0]
    along = (moved * w).sum(-1)
    assert (along.diff() > 0).all()
    # w.z' = a + m(w.u) tanh(a + b) depends on a = w.z alone; solve it for a, then take the step back
    target = along[::100]
    low, high = torch.full_like(target, -500.0), torch.full_like(target, 500.0)
    for _ in range(200):
        middle = (low + high) / 2
        image = (planar(middle.unsqueeze(1) * w / (w * w).sum(), u, w, b)[0] * w).sum(-1)
        low, high = torch.where(image < target, middle, low), torch.where(image < target, high, middle)
    start = low.unsqueeze(1) * w / (w * w).sum()
    shift = planar(start, u, w, b)[0] - start
    # at w.u = -20 the map is flat to e^-20 where a + b = 0: there float64 cannot tell the preimages apart
    torch.testing.assert_close(moved[::100] - shift, z[::100], rtol=0, atol=1e-6)


def test_the_steps_sum_is_the_log_det_of_the_composition() -> None:
    torch.manual_seed(0)
    flow = PlanarFlow(features=5, latent_dim=4, steps=3).double()
    torch.nn.init.normal_(flow.parameters_of.weight, std=0.5)
    z, features = torch.randn(2, 16, 5, dtype=torch.float64).unbind(0)
    z = z[:, :4]
    composed = jacrev(lambda z, f: flow(z.unsqueeze(0), f.unsqueeze(0))[0].squeeze(0))
    sign, expected = torch.linalg.slogdet(vmap(composed)(z, features))
    log_det = flow(z, features)[1]
    assert (sign == 1).all()
    assert log_det.abs().max() > 0.1
    torch.testing.assert_close(log_det, expected, rtol=1e-5, atol=1e-5)


def test_each_image_has_its_own_flow() -> None:
    torch.manual_seed(1)
    flow = PlanarFlow(features=5, latent_dim=4, steps=2).double()
    torch.nn.init.normal_(flow.parameters_of.weight, std=0.5)
    z = torch.randn(1, 4, dtype=torch.float64).expand(3, 4)
    features = torch.randn(3, 5, dtype=torch.float64)
    together = flow(z, features)
    for row in range(3):
        alone = flow(z[row : row + 1], features[row : row + 1])
        torch.testing.assert_close(alone[0], together[0][row : row + 1])
        torch.testing.assert_close(alone[1], together[1][row : row + 1])
    assert (together[0][0] - together[0][1]).abs().max() > 1e-3


def test_a_fresh_flow_is_close_to_the_same_step_for_every_image() -> None:
    torch.manual_seed(2)
    flow = PlanarFlow(features=512, latent_dim=8, steps=4)
    z = torch.randn(1, 8).expand(6, 8)
    moved = flow(z, torch.rand(6, 512))[0]
    assert (moved - moved.mean(0)).abs().max() < 0.2


def test_the_pushed_density_integrates_to_one() -> None:
    """The integral of p(z_K) |det| over z_0 is that of p over the flow's image, which is the whole plane."""
    torch.manual_seed(3)
    flow = PlanarFlow(features=1, latent_dim=2, steps=4).double()
    torch.nn.init.normal_(flow.parameters_of.bias, std=1.0)
    # z_0 on a grid wide enough for all of p's mass, instead of draws: the sum is exact to many digits
    axis = torch.linspace(-16, 16, 801, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        z_k, log_det = flow(grid, torch.zeros(len(grid), 1, dtype=torch.float64))
    cell = float(axis[1] - axis[0]) ** 2
    assert log_det.abs().max() > 0.5
    assert float((standard_normal_log_prob(z_k) + log_det).exp().sum() * cell) == pytest.approx(1.0, abs=1e-3)


def test_the_flowed_normal_is_a_density() -> None:
    """A histogram of z_K matches exp(log q_0 - log_det) carried along with the draws."""
    torch.manual_seed(4)
    flow = PlanarFlow(features=1, latent_dim=2, steps=3).double()
    torch.nn.init.normal_(flow.parameters_of.bias, std=1.0)
    z = torch.randn(400_000, 2, dtype=torch.float64)
    with torch.no_grad():
        z_k, log_det = flow(z, torch.zeros(len(z), 1, dtype=torch.float64))
    density = (standard_normal_log_prob(z) - log_det).exp()
    center, side = z_k.mean(0), 0.5
    inside = ((z_k - center).abs() < side / 2).all(-1)
    share = float(inside.double().mean())
    # E[1 / q(z_K)] over the draws within a box is the box's area over its share of the draws
    area = share * float((1 / density[inside]).mean())
    assert share > 0.005
    assert area == pytest.approx(side**2, rel=0.05)
