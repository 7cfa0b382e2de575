"""What a core is made of: how many of each class, though its classifier errs."""

import numpy as np
import pandas as pd

_STEPS = 1000
_FAINT = 1e-3  # of a particle, called by its own name: a class of which none was held back is believed as it is called


def class_shares(core: pd.Series, known: pd.Series, labels: pd.Series) -> pd.Series:
    """Shares of the true classes in a core, by expectation maximization.

    What a classifier calls rare in a core that is nearly all dust is mostly dust. If the core differs from the labeled
    particles in how many there are of each class and in nothing else (label shift), the errors on held-back particles
    tell what is called what: these shares make the called classes of the core most likely (Saerens et al. 2002,
    doi:10.1162/089976602753284446, with called classes in place of probabilities; Lipton et al. 2018,
    arXiv:1802.03916, invert the same errors).

    Args:
        core: (N,) called classes of the core.
        known: (M,) called classes of the held-back particles.
        labels: (M,) their true classes.

    Returns:
        By class; the sum is 1.
    """
    called, known, labels = (of.astype("string").reset_index(drop=True) for of in (core, known, labels))
    classes = sorted({*called.unique(), *known.unique(), *labels.unique()})
    counts = pd.crosstab(known, labels).reindex(index=classes, columns=classes, fill_value=0).to_numpy(dtype=float)
    counts = counts + _FAINT * np.eye(len(classes))
    errors = counts / counts.sum(axis=0)  # (called, true)
    seen = called.value_counts(normalize=True).reindex(classes, fill_value=0.0).to_numpy(dtype=float)
    shares = np.full(len(classes), 1 / len(classes))
    for _ in range(_STEPS):
        expected = errors @ shares
        shares = shares * (errors.T @ np.divide(seen, expected, out=np.zeros(len(seen)), where=seen > 0))
    return pd.Series(shares, classes)
