from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import (
    adjusted_rand_score,
    average_precision_score,
    normalized_mutual_info_score,
    roc_auc_score,
)

from clustering.metrics import best_cluster, group_metrics, matched_accuracy, outlier_metrics, recall_at_n


def best_over_permutations(truth: np.ndarray, labels: np.ndarray) -> float:
    """Matched accuracy by trying every one-to-one assignment of clusters to classes."""
    clusters = [c for c in np.unique(labels) if c != -1]
    names: list[str | None] = [*np.unique(truth), *[None] * len(clusters)]
    tries = permutations(names, len(clusters))
    return max(
        sum(int(((labels == c) & (truth == name)).sum()) for c, name in zip(clusters, chosen, strict=True))
        for chosen in tries
    ) / len(labels)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("classes", "clusters"), [(3, 3), (4, 2), (2, 4), (3, 1)])
def test_matched_accuracy_is_the_best_over_all_assignments(seed: int, classes: int, clusters: int) -> None:
    rng = np.random.default_rng(seed)
    truth = np.array(list("abcd"))[rng.integers(classes, size=40)]
    labels = rng.integers(-1, clusters, size=40)
    assert matched_accuracy(truth, labels) == pytest.approx(best_over_permutations(truth, labels))


def test_noise_counts_as_wrong() -> None:
    truth = np.array(["a"] * 5 + ["b"] * 5)
    labels = np.array([0] * 5 + [1] * 3 + [-1] * 2)
    assert matched_accuracy(truth, labels) == pytest.approx(0.8)
    assert matched_accuracy(truth, np.full(10, -1)) == 0.0


def test_splitting_a_class_is_not_rewarded() -> None:
    assert matched_accuracy(np.array(["a"] * 6), np.array([0, 0, 0, 1, 1, 2])) == pytest.approx(0.5)


def test_group_metrics_are_those_of_scikit_learn_over_what_is_known() -> None:
    rng = np.random.default_rng(1)
    truth = pd.Series(np.array(["a", "b", "c"])[rng.integers(3, size=60)], dtype="string")
    labels = np.where(rng.random(60) < 0.6, truth.map({"a": 5, "b": 2, "c": 9}).to_numpy(), -1)
    truth[:20] = pd.NA
    labels[:3] = 77  # a cluster of unknown particles alone is counted, but not judged
    names, numbers = truth[20:].to_numpy(dtype=str), labels[20:]
    values = group_metrics(truth, labels)
    assert values == {
        "n": 4,
        "noise": int((labels == -1).sum()),
        "ari": pytest.approx(adjusted_rand_score(names, numbers)),
        "nmi": pytest.approx(normalized_mutual_info_score(names, numbers)),
        "acc": pytest.approx(best_over_permutations(names, numbers)),
    }
    assert all(type(value) in (int, float) for value in values.values())  # JSON takes no numpy numbers


@pytest.mark.parametrize("truth", [[None] * 6, ["a", None, None, None, None, None], ["a"] * 6])
def test_without_two_known_classes_nothing_is_judged(truth: list[str | None]) -> None:
    values = group_metrics(pd.Series(truth, dtype="string"), np.array([0, 0, 1, 1, -1, -1]))
    assert values == {"n": 2, "noise": 2, "ari": None, "nmi": None, "acc": None}


def test_recall_at_n() -> None:
    outlier = np.array([True, False, True, False, False])
    assert recall_at_n(outlier, np.array([5.0, 1, 4, 2, 3])) == 1.0
    assert recall_at_n(outlier, np.array([5.0, 4, 1, 2, 3])) == 0.5
    assert recall_at_n(outlier, np.array([1.0, 5, 2, 4, 3])) == 0.0


def test_ties_earn_nothing() -> None:
    outlier = np.array([True, True, False, False, False])
    assert recall_at_n(outlier, np.zeros(5)) == 0.0
    assert recall_at_n(outlier[::-1], np.zeros(5)) == 0.0
    assert recall_at_n(outlier, np.array([2.0, 1, 1, 0, 0])) == 0.5  # the second place is shared with an inlier


def test_outlier_metrics_are_those_of_scikit_learn_over_what_is_known() -> None:
    rng = np.random.default_rng(2)
    truth = pd.Series(rng.random(80) < 0.15, dtype="boolean")
    score = rng.normal(size=80) + 1.5 * truth.to_numpy(dtype=float)
    truth[:10] = pd.NA
    score[:10] = 1e9  # unknown particles are not judged
    known, judged = truth[10:].to_numpy(dtype=bool), score[10:]
    n = int(known.sum())
    assert outlier_metrics(truth, score) == {
        "auroc": pytest.approx(roc_auc_score(known, judged)),
        "average_precision": pytest.approx(average_precision_score(known, judged)),
        "recall_at_n": pytest.approx(known[np.argsort(-judged)[:n]].mean()),
    }


def test_a_perfect_and_a_reversed_ranking() -> None:
    truth = pd.Series([True, False, False, False], dtype="boolean")
    score = np.array([9.0, 1, 2, 3])
    assert outlier_metrics(truth, score) == {"auroc": 1.0, "average_precision": 1.0, "recall_at_n": 1.0}
    assert outlier_metrics(truth, -score) == {"auroc": 0.0, "average_precision": 0.25, "recall_at_n": 0.0}


@pytest.mark.parametrize("value", [True, False, pd.NA])
def test_outlier_metrics_are_missing_without_both_kinds(value: object) -> None:
    truth = pd.Series([value] * 4, dtype="boolean")
    assert outlier_metrics(truth, np.arange(4.0)) == dict.fromkeys(("auroc", "average_precision", "recall_at_n"))


def test_the_best_cluster_of_a_class() -> None:
    truth = pd.Series(["six"] * 10 + ["one"] * 10 + [None] * 5, dtype="string")
    labels = np.array([7] * 6 + [3] * 2 + [-1] * 2 + [7] * 2 + [3] * 8 + [-1] * 5)
    best = best_cluster(truth, labels, "six")
    assert best == {"cluster": 7, "precision": pytest.approx(6 / 8), "recall": pytest.approx(6 / 10)}
    assert best_cluster(truth, labels, "one")["cluster"] == 3


def test_the_best_cluster_is_neither_the_purest_nor_the_one_that_holds_most() -> None:
    """One of its ten particles alone in 0, four beside a stranger in 1, five among sixty in 2."""
    truth = pd.Series(["six"] * 10 + ["one"] * 61, dtype="string")
    labels = np.array([0] + [1] * 4 + [2] * 5 + [1] + [2] * 60)
    best = {"cluster": 1, "precision": pytest.approx(0.8), "recall": pytest.approx(0.4)}
    assert best_cluster(truth, labels, "six") == best


def test_noise_is_no_cluster_and_an_absent_class_has_none() -> None:
    nothing = {"cluster": None, "precision": 0.0, "recall": 0.0}
    truth = pd.Series(["six"] * 4, dtype="string")
    assert best_cluster(truth, np.full(4, -1), "six") == nothing
    assert best_cluster(truth, np.zeros(4, dtype=int), "two") == nothing
