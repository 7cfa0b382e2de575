"""What a classifier is asked: which labels make which class, and who is kept to validate and to test it."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from particles.splits import hash_share
from provenance.errors import UserError

Task = Literal["all", "7-class", "6-class", "3-class", "pollen"]

OAKS = ("qrob", "qsub")
"""Quercus robur and Q. suber, which the published network takes for each other; together they are judged again."""

# label -> class; a label that a task does not name is left out
TASKS: dict[str, dict[str, str]] = {
    "7-class": {c: c for c in ("dust", "camp", "grim", "corylus", "qrob", "qsub", "cont")},
    "6-class": {c: c for c in ("dust", "camp", "grim", "corylus", "qrob", "qsub")},
    "3-class": {
        "dust": "dust", "camp": "tephra", "grim": "tephra", "corylus": "pollen", "qrob": "pollen", "qsub": "pollen",
    },
    "pollen": {c: c for c in ("corylus", "qrob", "qsub")},
}  # fmt: skip

LARGEST_SHARE = 0.15
"""Of a class at most this much is kept to validate, and as much to test, so that enough is left to learn from."""
LEAST = 3
"""Particles of a class: one to validate, one to test, one to learn from."""


def classes_of(labels: pd.Series, task: Task, name: str) -> pd.Series:
    """The class that a task gives each label.

    Args:
        labels: (N,) text, missing where nothing is known.
        task: `all` takes the labels as they are.
        name: of the set, for errors.

    Returns:
        (N,) text with the index of `labels`; missing where the task leaves a particle out.

    Raises:
        UserError: the set lacks a label that the task needs, or has fewer than two classes.
    """
    there = sorted(str(label) for label in labels.dropna().unique())
    if task == "all":
        if len(there) < 2:
            has = ", ".join(there) or "no labels"
            raise UserError(f"{name}: a classifier needs two labeled classes, it has {has}; give --data another set")
        return labels.astype("string")
    missing = sorted(set(TASKS[task]) - set(there))
    if missing:
        raise UserError(_no_such_labels(name, task, missing, there))
    return labels.astype("string").map(TASKS[task]).astype("string")


def _no_such_labels(name: str, task: str, missing: Sequence[str], there: Sequence[str]) -> str:
    fitting = [t for t, wanted in TASKS.items() if set(wanted) <= set(there)] + ["all"] * (len(there) > 1)
    shown = ", ".join(there[:20]) or "no labels"
    way_out = " or ".join(f"--task {t}" for t in fitting)
    return f"{name}: --task {task} needs {', '.join(missing)}, the set has {shown}; " + (
        f"give {way_out}" if fitting else "give --data a set with two labeled classes"
    )


def balanced_split(
    ids: Sequence[str], classes: Sequence[str], seed: int, n_val: int, n_test: int, kept: np.ndarray | None = None
) -> np.ndarray:
    """Draw as many particles of each class to validate and to test; the rest is learned from.

    The draw goes by a seeded hash of the id: the order of the rows does not matter, and a particle more or less moves
    at most one other.

    Args:
        ids: N particle ids.
        classes: N classes.
        seed: another seed draws others.
        n_val: particles of each class to validate with; of a small class `LARGEST_SHARE`, but one at least.
        n_test: the same to test with.
        kept: (N,) bool, particles that the source itself keeps for testing: of a class that has such, the test is
            drawn of them and nothing is learned from those left over.

    Returns:
        (N,) text: `train`, `val`, `test`, or empty for what is left over.

    Raises:
        UserError: a class has too few particles.
    """
    order = np.argsort(hash_share(ids, f"task:{seed}"), kind="stable")
    names = np.asarray(classes, dtype=object)
    held = np.zeros(len(names), dtype=bool) if kept is None else np.asarray(kept, dtype=bool)
    split = np.full(len(names), "train", dtype=object)
    for name in np.unique(names.astype(str)):
        drawn = order[names[order] == name]
        theirs = drawn[held[drawn]]
        split[theirs] = ""
        pool = theirs if len(theirs) else drawn
        test = pool[: _share(n_test, len(drawn))]
        split[test] = "test"
        free = drawn[split[drawn] == "train"]
        if len(drawn) < LEAST or len(free) < LEAST - 1:
            raise UserError(_too_few(name, len(drawn), len(free)))
        split[free[: _share(n_val, len(drawn))]] = "val"
    return split.astype(str)


def small_classes(classes: Sequence[str], n_val: int, n_test: int) -> str | None:
    """One line that says of which classes fewer are kept than was asked; None where there are enough of all."""
    counts = pd.Series(list(classes)).value_counts().sort_index()
    most = max(n_val, n_test)
    few = [f"{name} {_share(most, int(n))}" for name, n in counts.items() if _share(most, int(n)) < most]
    if not few:
        return None
    return f"small classes keep {LARGEST_SHARE:.0%} each to validate and to test instead of {most}: {', '.join(few)}"


def _share(wanted: int, n: int) -> int:
    return min(wanted, max(1, int(LARGEST_SHARE * n)))


def _too_few(name: str, n: int, free: int) -> str:
    kept = f", {n - free} of them kept for testing" if n >= LEAST else ""
    return (
        f"class '{name}' has {n} particle(s){kept}, at least {LEAST} are needed to learn, validate and test: "
        f"add some, or leave it out with --held-out {name}"
    )
