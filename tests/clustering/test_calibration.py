import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control, kstest

from clustering.calibration import class_weights, conformal_p_values, discoveries, known_as_strange


def test_a_p_value_is_the_share_of_known_ones_that_are_as_strange() -> None:
    known = np.array([3.0, 1.0, 2.0, 2.0])
    np.testing.assert_allclose(conformal_p_values(np.array([0.0, 2.0, 2.5, 9.0]), known), [1, 4 / 5, 2 / 5, 1 / 5])


def test_known_particles_that_are_as_strange_are_counted() -> None:
    rng = np.random.default_rng(3)
    score, known = rng.integers(0, 9, size=50).astype(float), rng.integers(0, 9, size=70).astype(float)  # many ties
    counted = known_as_strange(score, known)
    np.testing.assert_array_equal(counted, [(known >= one).sum() for one in score])
    np.testing.assert_allclose(conformal_p_values(score, known), (counted + 1) / 71)


def test_a_known_particle_of_weight_two_is_two_particles() -> None:
    rng = np.random.default_rng(0)
    score, known, times = rng.normal(size=40), rng.normal(size=60), rng.integers(1, 4, size=60)
    expected = conformal_p_values(score, np.repeat(known, times))
    np.testing.assert_allclose(conformal_p_values(score, known, times.astype(float)), expected)


def test_p_values_of_known_particles_are_uniform_and_of_strange_ones_small() -> None:
    rng = np.random.default_rng(1)
    p = conformal_p_values(rng.gamma(2.0, size=5000), rng.gamma(2.0, size=200_000))
    assert kstest(p, "uniform").pvalue > 0.01
    assert conformal_p_values(rng.gamma(2.0, size=50) + 12, rng.gamma(2.0, size=20_000)).max() < 0.001


def test_weights_undo_another_mixture_of_the_same_classes() -> None:
    rng = np.random.default_rng(2)
    shift = {"dust": 0.0, "camp": 3.0}
    known = pd.Series(["dust"] * 4000 + ["camp"] * 4000)
    core = pd.Series(["dust"] * 19_000 + ["camp"] * 1000)
    scores = {name: rng.normal(of.map(shift)) for name, of in (("known", known), ("core", core))}
    weights = class_weights(core, known)
    np.testing.assert_allclose([weights["dust"], weights["camp"]], [0.95 / 0.5, 0.05 / 0.5])
    weighed = conformal_p_values(
        scores["core"], scores["known"], known.map(weights).to_numpy(), core.map(weights).to_numpy()
    )
    assert abs(np.mean(weighed < 0.05) - 0.05) < 0.006
    assert np.mean(conformal_p_values(scores["core"], scores["known"]) < 0.05) < 0.01, "unweighted: far too cautious"


def test_classes_weigh_as_often_as_the_core_has_them() -> None:
    core, known = pd.Series(["dust", "dust", "dust", "oak", "camp"]), pd.Series(["dust", "camp", "camp", "cont"])
    assert class_weights(core, known).to_dict() == pytest.approx({"dust": 2.4, "camp": 0.4, "cont": 0, "oak": np.inf})
    apart = class_weights(pd.Series(["oak", "grim"]), pd.Series(["dust"]))
    assert apart.to_dict() == {"dust": 0, "oak": np.inf, "grim": np.inf}


def test_each_particle_counts_itself_with_the_weight_of_its_own_class() -> None:
    """Known: two of weight 5 (at 1 and 3), two of weight 0.2 (at 2 and 4); by hand."""
    known, weight = np.array([1.0, 2.0, 3.0, 4.0]), np.array([5, 0.2, 5, 0.2])
    score, own = np.array([3.5, 3.5, 9, 9, 9, 0]), np.array([5, 0.2, 5, 0.2, np.inf, 5])
    expected = [5.2 / 15.4, 0.4 / 10.6, 5 / 15.4, 0.2 / 10.6, 1, 1]
    np.testing.assert_allclose(conformal_p_values(score, known, weight, own), expected)


def test_of_two_mixtures_the_share_of_false_discoveries_keeps_its_promise() -> None:
    """Dust is nine tenths of the core and half of the known; what is strange is taken for dust or for ash."""
    rng = np.random.default_rng(4)
    of_known = pd.Series(["dust"] * 2000 + ["ash"] * 2000)
    of_core = pd.Series(["dust"] * 900 + ["ash"] * 100 + ["dust"] * 50 + ["ash"] * 50)
    by_class, false = class_weights(of_core, of_known), []
    assert by_class["dust"] / by_class["ash"] == pytest.approx(950 / 150)
    for _ in range(200):
        shift = np.where(of_core == "ash", 1.5, 0) + np.repeat([0, 5], [1000, 100])
        scores = rng.normal(shift), rng.normal(np.where(of_known == "ash", 1.5, 0))
        weights = (of.map(by_class).to_numpy() for of in (of_known, of_core))
        found = discoveries(conformal_p_values(*scores, *weights), 0.1)
        false.append(found[:1000].sum() / max(1, found.sum()))
    assert np.mean(false) < 0.1 + 3 * np.std(false) / np.sqrt(200)
    assert np.mean(false) > 0.04


@pytest.mark.parametrize("seed", range(5))
def test_discoveries_are_those_of_benjamini_and_hochberg(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = np.concatenate([rng.random(300), rng.random(40) * 0.002])
    np.testing.assert_array_equal(discoveries(p, 0.1), false_discovery_control(p, method="bh") <= 0.1)


def test_no_discovery_where_nothing_is_strange() -> None:
    p = (np.arange(100) + 1) / 100
    assert not discoveries(p, 0.1).any()
    assert not discoveries(0.1 * p + 1e-9, 0.1).any(), "just above the line, all of them"
    assert discoveries(0.1 * p - 1e-9, 0.1).all(), "just below it"
    assert not discoveries(np.ones(3)).any()
    assert discoveries(np.full(4, 0.05)).all()


def test_unasked_one_discovery_in_ten_may_be_false() -> None:
    """Of two particles the strangest is a discovery up to half of the rate."""
    assert discoveries(np.array([0.04, 0.9])).tolist() == [True, False]
    assert not discoveries(np.array([0.06, 0.9])).any()


def test_the_share_of_false_discoveries_keeps_its_promise() -> None:
    rng = np.random.default_rng(3)
    false = []
    for _ in range(200):
        score = np.concatenate([rng.normal(size=900), rng.normal(4.0, size=100)])
        found = discoveries(conformal_p_values(score, rng.normal(size=2000)), 0.1)
        false.append(found[:900].sum() / max(1, found.sum()))
    assert np.mean(false) < 0.1 + 3 * np.std(false) / np.sqrt(200)
    assert np.mean(false) > 0.04, "and is not won by calling nothing a discovery"
