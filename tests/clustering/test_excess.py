"""What comes in numbers is found by the forest that tells the core from the labeled, and by no distance."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import ks_2samp
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

from clustering.excess import FOLDS, Excess, enough, excess
from clustering.outliers import knn_distance

TREES = 60


def drawn(rng: np.random.Generator, n: int, dims: int = 6) -> np.ndarray:
    """A broad bulk."""
    return rng.normal(size=(n, dims)).astype(np.float32)


def found(
    core: np.ndarray, known: np.ndarray, reference: np.ndarray,
    weights: tuple[np.ndarray, np.ndarray] | None = None, fitted: np.ndarray | None = None,
) -> Excess:  # fmt: skip
    if weights is None:
        weights = np.ones(len(known)), np.ones(len(reference))
    return excess(core, known, reference, weights, np.ones(len(core), bool) if fitted is None else fitted, TREES, 0)


def with_a_crowd(n: int = 300, crowd: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Core, known, reference, and which of the core are of the crowd: a dense clump in the middle of the bulk."""
    rng = np.random.default_rng(0)
    clump = (0.25 * drawn(rng, crowd) + 0.6).astype(np.float32)
    is_new = np.repeat([False, True], [n, crowd])
    return np.concatenate([drawn(rng, n), clump]), drawn(rng, 100), drawn(rng, 600), is_new


def test_a_crowd_in_the_middle_of_the_bulk_is_found_where_distances_find_it_ordinary() -> None:
    core, known, reference, is_new = with_a_crowd()
    more = found(core, known, reference)
    assert roc_auc_score(is_new, more.core) > 0.9
    nearest = knn_distance(core, reference, 20, np.full(len(core), -1))
    assert roc_auc_score(is_new, nearest) < 0.1
    assert 0.52 < more.told_apart < 0.65
    assert more.credible
    assert np.quantile(more.core[is_new], 0.25) > np.quantile(more.known, 0.9)


def test_without_anything_new_the_known_are_judged_as_the_core_is() -> None:
    rng = np.random.default_rng(1)
    more = found(drawn(rng, 900), drawn(rng, 900), drawn(rng, 1800))
    assert ks_2samp(more.core, more.known).pvalue > 0.05
    assert more.told_apart == pytest.approx(0.5, abs=0.04)


def test_an_excess_is_believed_between_nothing_and_everything() -> None:
    votes = np.zeros(1)
    believed = [Excess(votes, votes, area).credible for area in (0.48, 0.5, 0.51, 0.74, 0.75)]
    assert believed == [False, False, True, True, False]


def test_another_mixture_of_known_classes_is_nothing_new() -> None:
    """Core nine tenths of one class, labeled half and half: weighted alike, nothing tells them apart."""
    rng = np.random.default_rng(2)

    def mixed(first: int, second: int) -> np.ndarray:
        return np.concatenate([drawn(rng, first), drawn(rng, second) + np.float32(3)])

    core, known, reference = mixed(900, 100), mixed(200, 200), mixed(500, 500)
    shares = [np.repeat([1.8, 0.2], [n, n]) for n in (200, 500)]
    assert found(core, known, reference, (shares[0], shares[1])).told_apart == pytest.approx(0.5, abs=0.05)
    blind = found(core, known, reference)
    assert blind.told_apart > 0.65, "the test could fail"


def test_a_core_that_is_other_as_a_whole_is_not_credible() -> None:
    rng = np.random.default_rng(3)
    assert not found(drawn(rng, 300) + np.float32(2), drawn(rng, 60), drawn(rng, 300)).credible


def test_what_is_told_apart_is_credible_up_to_where_half_of_a_core_would_be_new() -> None:
    nobody = np.zeros(1)
    assert [Excess(nobody, nobody, apart).credible for apart in (0.74, 0.75)] == [True, False]


def test_the_labeled_are_told_apart_by_their_weights_too(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, np.ndarray] = {}

    def watched(in_core: np.ndarray, votes: np.ndarray, sample_weight: np.ndarray) -> float:
        seen.update(core=sample_weight[in_core == 1], reference=sample_weight[in_core == 0])
        return float(roc_auc_score(in_core, votes, sample_weight=sample_weight))

    monkeypatch.setattr("clustering.excess.roc_auc_score", watched)
    rng = np.random.default_rng(7)
    core, known, reference = drawn(rng, 60), drawn(rng, 20), drawn(rng, 80)
    weights = np.ones(20), np.repeat([1.8, 0.2], 40)
    excess(core, known, reference, weights, np.ones(60, bool), 5, 0)
    np.testing.assert_array_equal(seen["core"], np.ones(60))
    np.testing.assert_allclose(seen["reference"], weights[1])  # 80 in all, as core and known are


@pytest.mark.parametrize("fixed", ["RandomForestClassifier", "StratifiedKFold"])
def test_another_seed_draws_other_folds_and_grows_other_forests(fixed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either alone is enough for other votes."""
    made = {"RandomForestClassifier": RandomForestClassifier, "StratifiedKFold": StratifiedKFold}[fixed]
    monkeypatch.setattr(f"clustering.excess.{fixed}", lambda *how, **more: made(*how, **more | {"random_state": 9}))
    rng = np.random.default_rng(8)
    given = drawn(rng, 60), drawn(rng, 20), drawn(rng, 80), (np.ones(20), np.ones(80)), np.ones(60, bool)
    one, other = (excess(*given, 5, seed).core for seed in (0, 1))
    assert (one != other).any()


def test_those_that_the_forest_was_not_grown_on_are_judged_too() -> None:
    core, known, reference, is_new = with_a_crowd(600, 120)
    fitted = np.arange(len(core)) % 2 == 0
    more = found(core, known, reference, fitted=fitted)
    assert roc_auc_score(is_new[~fitted], more.core[~fitted]) > 0.9
    alone = found(core[fitted], known, reference)
    np.testing.assert_array_equal(more.core[fitted], alone.core)
    np.testing.assert_array_equal(more.known, alone.known)


def test_a_class_with_a_handful_of_labeled_particles_is_no_reference() -> None:
    assert enough(np.ones(25))
    assert not enough(np.ones(24))
    assert not enough(np.concatenate([np.full(5, 100.0), np.full(200, 0.1)])), "five weigh nearly all"
    assert enough(np.concatenate([np.full(30, 100.0), np.zeros(200)]))
    assert not enough(np.zeros(50)), "nothing of the core is taken for what the labeled are"


def test_the_number_of_threads_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    core, known, reference, _ = with_a_crowd(200, 40)
    fitted = np.arange(len(core)) % 3 > 0
    grown, threads = [], [0]

    class Forest(RandomForestClassifier):
        def fit(self, *rest: Any) -> "Forest":
            self.n_jobs = threads[-1]
            grown.append(self)
            return super().fit(*rest)

        def predict_proba(self, z: np.ndarray) -> np.ndarray:
            assert self.n_jobs == 1
            return super().predict_proba(z)

    monkeypatch.setattr("clustering.excess.RandomForestClassifier", Forest)
    both = []
    for n in (1, 4):
        threads.append(n)
        both.append(found(core, known, reference, fitted=fitted))
    assert both[0].core.tobytes() == both[1].core.tobytes()
    assert both[0].known.tobytes() == both[1].known.tobytes()
    assert len(grown) == 2 * FOLDS


def test_without_known_particles_the_core_is_judged_all_the_same() -> None:
    core, known, reference, is_new = with_a_crowd()
    more = found(core, known[:0], reference)
    assert len(more.known) == 0
    assert roc_auc_score(is_new, more.core) > 0.9


def test_a_placed_particle_is_judged_as_a_fitted_one_is() -> None:
    """By one forest: the mean of five would vary less, and seldom reach the strangest tenth."""
    rng = np.random.default_rng(4)
    core, known, reference = drawn(rng, 1500), drawn(rng, 200), drawn(rng, 750)
    fitted = np.arange(len(core)) < 750
    votes = found(core, known, reference, fitted=fitted).core
    assert votes[~fitted].std() == pytest.approx(votes[fitted].std(), rel=0.12)
    strangest = votes >= np.quantile(votes, 0.9)
    assert 0.4 < fitted[strangest].mean() < 0.6


def test_core_and_reference_weigh_alike_however_many_they_are() -> None:
    rng = np.random.default_rng(5)
    few, many = drawn(rng, 200), drawn(rng, 1600)
    for core, reference in ((few, many), (many, few)):
        more = found(core, drawn(rng, 50), reference)
        assert more.core.mean() == pytest.approx(0.5, abs=0.15)


def test_the_known_count_in_the_forest_by_their_weights() -> None:
    """As many as they are, the class that is rare in the core would be the core's."""
    rng = np.random.default_rng(6)

    def mixed(first: int, second: int) -> np.ndarray:
        return np.concatenate([drawn(rng, first), drawn(rng, second) + np.float32(3)])

    core, known, reference = mixed(900, 100), mixed(500, 500), mixed(500, 500)
    shares = np.repeat([1.8, 0.2], [500, 500])
    assert found(core, known, reference, (shares, shares)).core[900:].mean() < 0.6
    blind = found(core, known, reference, (np.ones(1000), shares))
    assert blind.core[900:].mean() > 0.7, "the test could fail"
