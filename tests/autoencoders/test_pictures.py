from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from autoencoders.losses import gaussian_kl_per_dim
from autoencoders.models import Autoencoder, Kind
from autoencoders.pictures import STEPS, best_and_worst, mean_kl, samples, traversals, write_pictures
from encoders.encode import inference
from particles.loader import as_input
from particles.sets import DataSettings, ParticleSet, open_set
from particles.squares import PackSettings
from provenance.files import read_json
from provenance.run import RunSettings

DATA = DataSettings(n_per_class=6, n_core=30, n_per_kind=1, pack=PackSettings(size=16, scalars=False))


@pytest.fixture(scope="module")
def particles(tmp_path_factory: pytest.TempPathFactory) -> ParticleSet:
    return open_set(DATA, RunSettings(work_dir=tmp_path_factory.mktemp("work")), say=lambda _: None)


def model(kind: Kind) -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(kind, latent_dim=10, size=16, likelihood="gaussian", flow_steps=2)


def test_samples_are_the_decoder_of_seeded_noise_whatever_was_drawn_before() -> None:
    net = model("vae")
    torch.manual_seed(1)
    first, state = samples(net), torch.get_rng_state()
    torch.manual_seed(2)
    np.random.default_rng().random()
    assert (samples(net) == first).all()
    torch.manual_seed(1)
    assert (torch.get_rng_state() == state).all(), "the global state is left alone"
    z = torch.from_numpy(np.random.default_rng(0).standard_normal((64, 10)).astype(np.float32))
    with inference(net), torch.inference_mode():
        wanted = (net.mean_image(z)[:, 0] * 255).round().numpy()
    assert (first == wanted).all()


def test_a_traversal_moves_one_dimension_and_meets_the_others_at_zero() -> None:
    net = model("vae")
    shown = traversals(net, [7, 2])
    assert shown.shape == (2, 9, 16, 16)
    middle = int(np.flatnonzero(STEPS == 0)[0])
    assert (shown[0, middle] == shown[1, middle]).all()
    z = torch.zeros(1, 10)
    z[0, 2] = 3.0
    with inference(net), torch.inference_mode():
        wanted = (net.mean_image(z)[0, 0] * 255).round().numpy().astype(int)
    assert np.abs(shown[1, -1].astype(int) - wanted).max() <= 1  # a batch of one rounds its last bit differently


def test_the_best_are_the_smallest_errors_of_the_split_alone() -> None:
    table = pd.DataFrame({"particle_id": [f"p{i}" for i in range(40)], "position": np.arange(40)[::-1]})
    errors = np.random.default_rng(0).permutation(40).astype(float)
    index = pd.DataFrame({"particle_id": table["particle_id"][::-1].to_numpy(), "reconstruction": errors[::-1]})
    val = np.arange(5, 35)
    found = best_and_worst(table, val, index)
    error_at = dict(zip(table["position"], errors, strict=True))
    in_val = sorted(error_at[position] for position in val)
    assert [error_at[p] for p in found["reconstructions-best"]] == in_val[:12]
    assert [error_at[p] for p in found["reconstructions-worst"]] == in_val[::-1][:12]


def test_the_mean_kl_is_that_of_the_posteriors(particles: ParticleSet) -> None:
    net, rows = model("planar-vae"), np.arange(7)
    with inference(net), torch.inference_mode():
        q = net.posterior(as_input(particles.pixels[rows]))
    wanted = gaussian_kl_per_dim(q.mu, q.logvar).mean(0).numpy()
    np.testing.assert_allclose(mean_kl(net, particles, rows), wanted, rtol=1e-4)


@pytest.mark.parametrize("kind", ["ae", "vae", "planar-vae"])
def test_the_files_fit_together_and_repeat(kind: Kind, particles: ParticleSet, tmp_path: Path) -> None:
    net, val = model(kind), np.arange(20)
    index = particles.table[["particle_id"]].assign(reconstruction=np.arange(len(particles.table)) / 2)
    for folder in (tmp_path / "a", tmp_path / "b"):
        write_pictures(folder, net, particles, val, index)
    names = {path.name for path in (tmp_path / "a").iterdir()}
    generated = {"samples.npy", "traversals.npy", "traversals.json"}
    assert names & generated == (set() if kind == "ae" else generated)
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    ids = read_json(tmp_path / "a" / "reconstructions-worst.json")
    positions = particles.table.set_index("particle_id").loc[ids, "position"].to_numpy()
    pairs = np.load(tmp_path / "a" / "reconstructions-worst.npy", allow_pickle=False)
    assert (pairs[0] == particles.pixels[positions]).all()
    if kind != "ae":
        said = read_json(tmp_path / "a" / "traversals.json")
        assert said["kl"] == sorted(said["kl"], reverse=True)
        assert len(set(said["dimensions"])) == 8
