"""How well groups and rankings agree with a known truth. None where there is no truth."""

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import (
    adjusted_rand_score,
    average_precision_score,
    normalized_mutual_info_score,
    roc_auc_score,
)

from clustering.groups import NOISE

Values = dict[str, float | int | None]


def matched_accuracy(truth: np.ndarray, labels: np.ndarray) -> float:
    """Share of points in the cluster matched to their class, over ALL points; noise counts as wrong.

    Clusters and classes are matched one to one by the Hungarian method.

    Args:
        truth: (N,) class names.
        labels: (N,) cluster numbers, -1 for noise.
    """
    table = pd.crosstab(pd.Series(labels), pd.Series(truth)).drop(index=NOISE, errors="ignore").to_numpy()
    if table.size == 0:
        return 0.0
    rows, columns = linear_sum_assignment(table, maximize=True)
    return float(table[rows, columns].sum() / len(labels))


def group_metrics(truth: pd.Series, labels: np.ndarray) -> Values:
    """Number of clusters and noise points; against the truth ARI, NMI and matched accuracy where it is known.

    Args:
        truth: (N,) class names, missing where unknown. Noise is one group of its own for ARI and NMI.
        labels: (N,) cluster numbers.
    """
    found = np.unique(labels)
    values: Values = {"n": int((found != NOISE).sum()), "noise": int((labels == NOISE).sum())}
    known = truth.notna().to_numpy()
    if known.sum() < 2 or truth[known].nunique() < 2:
        return values | {"ari": None, "nmi": None, "acc": None}
    names, numbers = truth[known].to_numpy(dtype=str), labels[known]
    return values | {
        "ari": float(adjusted_rand_score(names, numbers)),
        "nmi": float(normalized_mutual_info_score(names, numbers)),
        "acc": matched_accuracy(names, numbers),
    }


def recall_at_n(is_outlier: np.ndarray, score: np.ndarray) -> float:
    """Recall among the top n, n the number of true outliers; of a tie the others come first, not in our favor.

    Args:
        is_outlier: (N,) bool.
        score: (N,), higher is stranger.
    """
    n = int(is_outlier.sum())
    # among equal scores the inliers come first, so that a constant score earns nothing
    order = np.lexsort((is_outlier, -score))
    return float(is_outlier[order[:n]].sum() / n)


def outlier_metrics(is_outlier: pd.Series, score: np.ndarray) -> Values:
    """AUROC, average precision and recall_at_n where it is known who is an outlier.

    Args:
        is_outlier: (N,) nullable bool.
        score: (N,), higher is stranger.
    """
    known = is_outlier.notna().to_numpy()
    truth = is_outlier[known].to_numpy(dtype=bool)
    if not truth.any() or truth.all():
        return {"auroc": None, "average_precision": None, "recall_at_n": None}
    return {
        "auroc": float(roc_auc_score(truth, score[known])),
        "average_precision": float(average_precision_score(truth, score[known])),
        "recall_at_n": recall_at_n(truth, score[known]),
    }


def best_cluster(truth: pd.Series, labels: np.ndarray, name: str) -> Values:
    """The cluster that holds a class best, by F1: its number, precision and recall.

    Args:
        truth: (N,) class names.
        labels: (N,) cluster numbers; noise is no cluster.
        name: the class.
    """
    member = (truth == name).fillna(False).to_numpy(dtype=bool)
    best: Values = {"cluster": None, "precision": 0.0, "recall": 0.0}
    best_f1 = 0.0
    for cluster in np.unique(labels[labels != NOISE]):
        inside = labels == cluster
        hits = int((inside & member).sum())
        precision, recall = hits / inside.sum(), hits / max(1, member.sum())
        f1 = 2 * hits / (inside.sum() + member.sum())
        if f1 > best_f1:
            best_f1 = f1
            best = {"cluster": int(cluster), "precision": float(precision), "recall": float(recall)}
    return best
