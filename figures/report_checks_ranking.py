"""Checks of labels, p-values, truth and repetition: lines of evidence, none where all is well, None where unknown."""

import numpy as np
import pandas as pd

from figures.confusion import confusion, shares
from figures.report_results import Results
from figures.report_text import listed, p_text, percent
from provenance.errors import UserError
from provenance.run import Run

FEW_LABELS = 50
"""Training particles of a class; below this what the classifier knows of it is a matter of luck."""
CONFUSED = 0.10
UNUSUAL, MUCH_UNUSUAL = 0.05, 0.20
FALSE_DISCOVERIES = 0.10
FEW_OUTLIERS = 20
TOP, SHARED = 20, 0.7
"""Of the first 20, seeds that share less than this do not tell the same story."""

Evidence = list[str] | None


def labels(results: Results) -> Evidence:
    """Classes without enough to learn from."""
    rows = results.particles.table
    if not results.particles.classes:
        return ["Nothing is labeled: no classifier was trained, and no particle is known to be ordinary."]
    trained = rows.loc[(rows["role"] == "labeled") & (rows["split"] == "train"), "label"].value_counts()
    few = [
        f"{name} ({trained.get(name, 0)})" for name in results.particles.classes if trained.get(name, 0) < FEW_LABELS
    ]
    return [f"Classes with fewer than {FEW_LABELS} particles to learn from: {listed(few)}."] if few else []


def confused(results: Results) -> Evidence:
    """Classes that the classifier takes for each other on its test split."""
    judged, classes = results.tested, results.particles.classes
    if judged.empty:
        return None
    counts = confusion(judged["truth"].tolist(), judged["predicted"].tolist(), classes)
    rows = np.nan_to_num(shares(counts)[0])
    pairs = [(rows[i, j], i, j) for i, j in np.argwhere(rows > CONFUSED) if i != j]
    return [
        f"{percent(share)} of {classes[i]} ({counts[i, j]} of {counts[i].sum()}) are taken for {classes[j]}."
        for share, i, j in sorted(pairs, reverse=True)
    ]


def held_back(results: Results) -> Evidence:
    """Whether labels were kept from the models, so that p-values mean something."""
    if not results.ranked["p_value"].notna().any():
        return ["No labeled particle was kept from the models: there are no p-values, and the list has no natural end."]
    return []


def unusual(results: Results) -> Evidence:
    """Whether far more of the core than chance allows looks unlike the labeled set."""
    p_values = results.ranked["p_value"].dropna()
    if p_values.empty:
        return None
    share = float((p_values <= UNUSUAL).mean())
    if share <= MUCH_UNUSUAL:
        return []
    return [f"{percent(share)} of the core have p <= {UNUSUAL}, where 5 % were expected of known particles."]


def coarse(results: Results) -> Evidence:
    """Whether p-values are fine enough for a single discovery."""
    p_values = results.ranked["p_value"].dropna()
    if p_values.empty:
        return None
    if results.ranked["discovery"].any():
        return []
    smallest, needed = float(p_values.min()), 0.1 / len(p_values)
    return [f"No discovery: the smallest p-value is {p_text(smallest)}; a single one among {len(p_values):,} particles "
            f"would need {p_text(needed)}."]  # fmt: skip


def false(results: Results) -> Evidence:
    """Whether discoveries are what was promised, where the truth is known."""
    found = results.ranked["discovery"].to_numpy(dtype=bool)
    judged = results.truth[found].dropna()
    if judged.empty:
        return None
    wrong = float((~judged.astype(bool)).mean())
    if wrong <= FALSE_DISCOVERIES:
        return []
    return [f"{percent(wrong)} of {len(judged)} discoveries are of known classes; at most 10 % were promised."]


def truth(results: Results) -> Evidence:
    """Whether anything is known to judge the ranking by."""
    known = results.truth.dropna()
    if known.empty:
        return [
            "No truth: it is not known which particles of this core are outliers, so nothing here is an error rate."
        ]
    n = int(known.sum())
    return (
        [f"Only {n} true outlier{'s' * (n != 1)}: qualities of the ranking are uncertain."] if n < FEW_OUTLIERS else []
    )


def seeds(results: Results) -> Evidence:
    """Whether other seeds put the same particles first."""
    own = int(results.consensus.info["seed"])
    top = set(results.ranked["particle_id"].head(TOP))
    others = other_seeds(results)
    if not others:
        return [f"One seed ({own}): how much of the list is chance is not known."]
    lines = []
    for seed, run in sorted(others.items()):
        ranked = pd.read_parquet(run.path / "outliers.parquet", columns=["particle_id", "rank"])
        shared = len(top & set(ranked.loc[ranked["rank"] <= TOP, "particle_id"]))
        if shared < SHARED * len(top):
            lines.append(f"Seeds {own} and {seed} share only {shared} of their first {len(top)} particles.")
    return lines


def other_seeds(results: Results) -> dict[int, Run]:
    """The newest finished consensus on the same data for each other seed."""
    found = {}
    for path in sorted((results.work / "runs" / "consensus").glob("*/run.json")):
        run = Run(path.parent)
        try:
            info = run.info
        except UserError:  # half a run of somebody else's says nothing about this one
            continue
        same = info["data"].get("fingerprint") == results.particles.fingerprint and info["status"] == "finished"
        if same and info["seed"] != results.consensus.info["seed"] and (run.path / "outliers.parquet").exists():
            found[int(info["seed"])] = run
    return found
