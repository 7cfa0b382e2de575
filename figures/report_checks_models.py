"""Checks of code, models, groups and crops: lines of evidence, none where all is well, None where unknown."""

import numpy as np
from scipy.stats import binom

from figures.report_checks_ranking import Evidence
from figures.report_results import Results, latent_of
from figures.report_text import percent
from provenance.progress import listed

FEW_FILLED = 0.10
"""Share of an autoencoder's dimensions that the core fills; an AE has no KL to tell."""
REJECTED = 0.01
STILL_FALLING = 0.02
"""Of the loss, won in the last epoch."""
BY_CHANCE, HALF_WAY = 0.01, 0.5
"""What chance does in more than one case of a hundred is no knowledge; and how far from there to all right a classifier
must get (Cohen's kappa)."""


def code(results: Results) -> Evidence:
    """Whether it is known which code made the runs, and whether it was one."""
    commits = {run.name: str(run.info["commit"]) for run in results.all_runs}
    dirty, nowhere = (
        [name.partition("/")[0] for name, commit in commits.items() if commit.endswith(end)]
        for end in ("-dirty", "nogit")
    )
    lines = []
    if dirty:
        lines.append(f"{len(dirty)} of {len(commits)} runs ({listed(dirty)}): code that was changed and not committed.")
    if nowhere:
        lines.append(f"{len(nowhere)} of {len(commits)} runs ({listed(nowhere)}): not from a checkout, code unknown.")
    if len(set(commits.values())) > 1:
        lines.append(f"The runs were made by different versions of the code: {listed(sorted(set(commits.values())))}.")
    return lines


def versions(results: Results) -> Evidence:
    """Whether all runs used the same libraries."""
    seen: dict[str, set[str]] = {}
    for run in results.all_runs:
        for name, version in run.info["versions"].items():
            seen.setdefault(name, set()).add(str(version))
    return [f"{name}: {listed(sorted(found))}." for name, found in sorted(seen.items()) if len(found) > 1]


def trained(results: Results) -> Evidence:
    """Troubles that the autoencoders' trainings have recorded: exploding KL, collapse, overfitting, falling back."""
    watched = {run.kind: run.info["troubles"] for run in results.runs if "troubles" in run.info}
    if not watched:
        return None
    return [f"{kind}: {trouble['line']}." for kind, troubles in watched.items() for trouble in troubles]


def filled(results: Results) -> Evidence:
    """An autoencoder whose core lies in few dimensions."""
    if "ae" not in results.dimensions:
        return None
    dimensions, filled = results.dimensions["ae"]
    if filled > max(1.5, FEW_FILLED * dimensions):
        return []
    return [f"ae: the core fills about {filled:.1f} of {dimensions} dimensions."]


def noise(results: Results) -> Evidence:
    """Density clusterings that leave more than half of the core out."""
    n, lines = len(results.ranked), []
    for run in results.clustered:
        for method in ("dbscan", "hdbscan"):
            noise = run.results[method]["noise"]
            if noise > n / 2:
                lines.append(f"{latent_of(run)}, {method.upper()}: {percent(noise / n)} are in no cluster.")
    return lines


def classifier(results: Results) -> Evidence:
    """A classifier that names held-back labeled particles hardly better than by chance.

    Chance is what is right where names do not depend on the truth: the sum over the classes of their share of the truth
    times their share of the names (Cohen 1960, doi:10.1177/001316446002000104, his p_c). Where all are called one class
    it is that class's share. The largest class's share would be too much to ask: among nine tenths of dust, who finds
    most of the rest is seldom right more often than who calls everything dust.
    """
    judged = results.tested
    if judged.empty or judged["truth"].nunique() < 2:
        return None
    n, right = len(judged), int((judged["truth"] == judged["predicted"]).sum())
    named = judged["predicted"].value_counts(normalize=True)
    chance = float((judged["truth"].value_counts(normalize=True) * named).sum())
    if chance**n > BY_CHANCE:  # not even all right would say anything
        return None
    by_chance = binom.sf(right - 1, n, chance) > BY_CHANCE
    if not by_chance and (right / n - chance) / (1 - chance) >= HALF_WAY:
        return []
    said = "which chance can do too" if by_chance else "less than half the way from chance to all"
    return [f"It names {right:,} of {n:,} labeled particles kept from it rightly ({percent(right / n)}), {said}: "
            f"names without any knowledge would be right for {percent(chance)}."]  # fmt: skip


def falling(results: Results) -> Evidence:
    """Models that were still learning when training ended; after one epoch nobody can tell."""
    lines, short = [], not results.curves
    for kind, frame in results.curves.items():
        values = frame["val_loss"].dropna().to_numpy() if "val_loss" in frame else np.array([])
        short |= len(values) < 2
        if len(values) < 2 or values[-1] != values.min():
            continue
        gained, whole = values[:-1].min() - values[-1], values.max() - values.min()
        if gained > STILL_FALLING * max(abs(values[-1]), 1e-9) and gained > 0.1 * whole:
            lines.append(f"{kind}: the loss fell from {values[:-1].min():.4g} to {values[-1]:.4g} in the last epoch.")
    return lines or (None if short else [])


def rejected(results: Results) -> Evidence:
    """Sets of which more than 1 % could not be used."""
    lines = []
    for info in results.set_infos:
        share = info["rejected"] / max(1, info["n"] + info["rejected"])
        if share > REJECTED:
            lines.append(f"{info['name']}: {percent(share)} of the crops ({info['rejected']:,}) could not be used.")
    return lines


def scale(results: Results) -> Evidence:
    """Particles of unknown scale."""
    missing = results.particles.table["um_per_px"].isna().mean()
    return [f"{percent(float(missing))} of the particles have no scale: their sizes are in px."] if missing else []


def map_seed(results: Results) -> Evidence:
    """Maps that will differ when they are drawn again."""
    unseeded = [
        latent_of(run)
        for run in results.clustered
        if run.config.get("clustering", {}).get("maps", {}).get("map_seed") is False
    ]
    return [f"Drawn without a seed: {listed(unseeded)}; clusters are found on these maps."] if unseeded else []
