"""What the benchmark of the p-values counts."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ks_2samp

from benchmarks.calibration import _discoveries, by_chance


@pytest.mark.parametrize("known", [100, 280])
def test_one_core_in_twenty_is_farther_than_by_chance(known: int) -> None:
    rng = np.random.default_rng(known)
    limit = by_chance(500, known)
    found = [ks_2samp(rng.random(500), rng.random(known)).statistic for _ in range(1500)]
    assert np.mean(np.array(found) > limit) == pytest.approx(0.05, abs=0.018)


def test_discoveries_that_were_not_planted_are_false() -> None:
    ranked = pd.DataFrame({"particle_id": [*"abcde"], "discovery": [True, False, True, True, False]})
    truth = pd.Series([True, True, False, True, False], index=[*"edcba"])
    assert _discoveries(ranked, truth) == (3, 2)
    assert _discoveries(ranked.assign(discovery=False), truth) == (0, 0)
