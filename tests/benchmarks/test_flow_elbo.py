"""What the comparison of VAE and planar VAE counts."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from autoencoders.models import Autoencoder, Kind
from benchmarks.flow_elbo import binarized, judged
from encoders.encode import inference
from particles.loader import as_input
from particles.sets import DataSettings, ParticleSet, open_set
from particles.squares import PackSettings
from provenance.run import RunSettings

SIZE, D = 16, 4


@pytest.fixture(scope="module")
def particles(tmp_path_factory: pytest.TempPathFactory) -> ParticleSet:
    data = DataSettings(n_per_class=5, n_core=60, n_per_kind=0, pack=PackSettings(size=SIZE, scalars=False))
    found = open_set(data, RunSettings(0, tmp_path_factory.mktemp("work")), say=lambda _: None)
    table = found.table.assign(split=np.where(found.table.index % 3 == 0, "test", "train"))
    return replace(found, table=table)


def made(kind: Kind, steps: int) -> Autoencoder:
    """A net whose heads do not look at the image: mu = 1, unit variance."""
    torch.manual_seed(0)
    net = Autoencoder(kind, D, SIZE, "bernoulli", steps).eval()
    for head, bias in ((net.mu_head, 1.0), (net.logvar_head, 0.0)):
        assert head is not None
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.constant_(head.bias, bias)
    return net


def test_of_a_posterior_that_is_the_same_for_all_the_kl_is_known(particles: ParticleSet) -> None:
    """KL(N(1, 1) || N(0, 1)) is half a nat a dimension, and a decoder of zeros pays log 2 a pixel."""
    net = made("vae", 0)
    for parameter in net.decoder.parameters():
        torch.nn.init.zeros_(parameter)
    reconstruction, kl = judged(net, particles, draws=3)
    assert kl == pytest.approx(D / 2, rel=1e-5)
    assert reconstruction == pytest.approx(SIZE**2 * math.log(2), rel=1e-5)


def test_the_flows_kl_is_the_mean_over_draws_of_the_test_images_alone(particles: ParticleSet) -> None:
    net, rows = made("planar-vae", 2), particles.table
    mine = (rows["role"] == "core") & (rows["split"] == "test")
    x = as_input(particles.pixels[particles.positions(mine)])
    torch.manual_seed(7)
    with inference(net), torch.inference_mode():
        draws = [net.losses(x) for _ in range(300)]
    reconstruction, kl = judged(net, particles, draws=300)
    for found, expected in (
        (reconstruction, torch.stack([one.reconstruction for one in draws])),
        (kl, torch.stack([one.kl for one in draws])),
    ):
        by_chance = float(expected.mean(1).std()) / math.sqrt(len(draws))
        assert found == pytest.approx(float(expected.mean()), abs=6 * by_chance)
    assert abs(kl - D / 2) > 0.05, "the flow moves it"


@pytest.mark.mnist
def test_pixels_are_drawn_once_with_their_grey_as_probability(
    tmp_path_factory: pytest.TempPathFactory, data_root: object
) -> None:
    common = RunSettings(0, tmp_path_factory.mktemp("work"))
    digits = open_set(DataSettings("mnist", pack=PackSettings(scalars=False)), common, say=lambda _: None)
    black = binarized(common)
    again = binarized(replace(common, seed=5))
    rows = np.arange(0, len(digits.pixels), 20)
    drawn, grey = black.pixels[rows], digits.pixels[rows] / 255
    assert set(np.unique(drawn)) == {0, 255}
    np.testing.assert_array_equal(drawn, again.pixels[rows])
    assert black.fingerprint == again.fingerprint != digits.fingerprint
    for low in np.arange(0.05, 0.95, 0.1):
        among = (grey > low) & (grey <= low + 0.1)
        assert (drawn[among] / 255).mean() == pytest.approx(grey[among].mean(), abs=0.01)
    assert not drawn[grey == 0].any()
    assert drawn[grey == 1].all()
