"""What the benchmark of the demo takes from a search's summary."""

import numpy as np
import pytest

from benchmarks.baselines import baseline_scores
from benchmarks.demo import numbers_of
from particles.scalars import SCALARS
from particles.sets import DataSettings, open_set
from provenance.run import RunSettings


def test_numbers_are_taken_and_lists_are_not() -> None:
    consensus = {"auroc": 0.9, "false_discoveries": None, "discoveries": 3, "scalars_left_out": ["Width"]}
    latents = {"vae": {"outliers": {"auroc": 0.6}, "kmeans": {"n": 7}}}
    found = numbers_of({"consensus": consensus, "latents": latents, "seconds": 5})
    assert found == {
        "consensus auroc": 0.9, "consensus false_discoveries": 0.0, "consensus discoveries": 3.0, "vae AUROC": 0.6,
    }  # fmt: skip
    assert np.array([list(found.values())]).dtype == float


def test_every_baseline_ranks_what_is_far_from_all_first(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Higher = stranger, in all of them: a sign that is turned would publish wrong numbers."""
    common = RunSettings(0, tmp_path_factory.mktemp("work"))
    particles = open_set(DataSettings(n_per_class=12, n_core=80, n_per_kind=0), common, say=lambda _: None)
    core = particles.table.index[particles.table["role"] == "core"]
    particles.table.loc[core[5], list(SCALARS)] = particles.table[list(SCALARS)].max() * 3 + 10
    scores = baseline_scores(particles, 0)
    assert {"pixels, PCA-64 + kNN", "scalars, isolation forest"} <= set(scores)
    for name, score in scores.items():
        assert len(score) == len(core)
        if name.startswith("scalars"):
            assert score.argmax() == 5, name
