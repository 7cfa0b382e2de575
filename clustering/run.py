"""Cluster, map and score the latents of a core: `python clustering/run.py --latent vae`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from clustering.agreement import write_agreement
from clustering.excess import TOO_DIFFERENT
from clustering.kept import Kept
from clustering.latent import ClusteringSettings, cluster_latent
from clustering.likeness import write_likeness
from clustering.maps import FEWEST_POINTS
from clustering.parts import HERE
from clustering.sampling import stratified
from clustering.verdict import UNUSUAL, write_consensus
from particles.latents import read_latents
from particles.marks import read_marks
from particles.sets import DataSettings, ParticleSet, open_set
from particles.table import read_parquet
from provenance.engine import EngineSettings, refuse_contradiction
from provenance.errors import UserError
from provenance.progress import progress, show_table
from provenance.run import LATENTS, TRAINED_BY, Run, RunSettings, classifier_beside, find, started
from provenance.settings import entry, flags_of

SUSPICIOUS = 0.2
"""If more of what has a p-value is unusual than this, it is not the core that is new but the labels that do not fit."""


@dataclass(frozen=True)
class Settings:
    """Cluster, map and score the latents of a core."""

    latent: str = "vae"
    """classifier, ae, vae, planar-vae or all: the newest finished run on this data; <latent>/<id> pins one."""
    marks: Path | None = None
    """CSV of marks from the explorer: rank what else looks like the marked particles."""
    data: DataSettings = field(default_factory=DataSettings)
    """Which particles."""
    clustering: ClusteringSettings = field(default_factory=ClusteringSettings)
    """How."""
    where: EngineSettings = field(default_factory=EngineSettings)
    """Who places and scores a core that is too large to be fitted whole."""
    common: RunSettings = field(default_factory=RunSettings)
    """Seed and folders."""


def main(settings: Settings) -> None:
    """Cluster, map and score the latents of a core."""
    refuse_contradiction(settings.where)
    _refuse_unknown(settings.latent)
    marks = read_marks(settings.marks) if settings.marks else None  # a wrong file is said before minutes of work
    particles = open_set(settings.data, settings.common)
    runs = find_latents(settings.latent, particles, settings.common)
    refuse_small_core(particles)
    clustered, consensus = run_clustering(
        particles, runs, settings, settings.clustering, settings.common, settings.where
    )
    if marks is not None:
        core = read_parquet(clustered[0].path / "clusters.parquet")["particle_id"]  # without what was dropped
        write_likeness(marks, particles, core, runs, settings, settings.common)
    print(f"ranked: {consensus.path / 'outliers.parquet'}")
    print(f"pictures: python figures/draw.py {flags_of(settings.data, settings.common)}".rstrip())


def find_latents(latent: str, particles: ParticleSet, common: RunSettings) -> list[Run]:
    """The runs that hold the latents asked for.

    Raises:
        UserError: an unknown latent, or one that has not been trained on this data.
    """
    _refuse_unknown(latent)
    specs = _every_latent(particles, common) if latent == "all" else [latent]
    return [find(spec, common.work, "z.npy", particles.identity) for spec in specs]


def _refuse_unknown(latent: str) -> None:
    kind = latent.partition("/")[0]
    if latent != "all" and kind not in LATENTS:
        raise UserError(f"--latent {latent}: no such latent; there are {', '.join(LATENTS)} and all")


def _every_latent(particles: ParticleSet, common: RunSettings) -> list[str]:
    """Without classes to tell apart no classifier was trained here, but one of other data may have encoded this."""
    has_classifier = particles.classifiable or classifier_beside([], common.work, particles.fingerprint)
    return [name for name in LATENTS if has_classifier or name != "classifier"]


def run_clustering(
    particles: ParticleSet, runs: Sequence[Run], settings: Any, how: ClusteringSettings, common: RunSettings,
    where: EngineSettings = HERE,
) -> tuple[list[Run], Run]:  # fmt: skip
    """Cluster every latent, then rank over all of them.

    Args:
        particles: the set, for identity and number of classes.
        runs: runs with latents.
        settings: kept as config.json.
        how: methods.
        common: seed and work folder.
        where: who places and scores a core that is too large to be fitted whole.

    Returns:
        One `clusters-<latent>` run each, and the `consensus` run.
    """
    kept = _kept(particles, runs, how, common)
    done = []
    with progress() as bars:
        bar = bars.add_task("clustering", total=len(runs))
        for latent in runs:
            bars.update(bar, description=f"clustering, {latent.kind}")
            rows = bars.add_task("placing and scoring", total=kept.n_steps)
            with started(f"clusters-{latent.kind}", settings, common, particles.identity, [latent]) as run:
                run.record(device="cpu")
                z, tick = read_latents(latent.path), partial(bars.advance, rows)
                cluster_latent(
                    run, z, kept, len(particles.classes), how, common.seed, where, common.work / "parts", tick
                )
            bars.remove_task(rows)
            done.append(run)
            bars.advance(bar)
    with started("consensus", settings, common, particles.identity, done) as run:
        run.record(device="cpu")
        write_consensus(run, done, particles, kept, how.outliers, common.seed)
        write_agreement(run, done, runs, common.seed)
    _show([*done, run], classified=kept.predicted is not None)
    return done, run


def _kept(particles: ParticleSet, runs: Sequence[Run], how: ClusteringSettings, common: RunSettings) -> Kept:
    rows, drop = particles.table, how.drop_class
    if particles.classes:
        refuse_unknown_classes(drop, particles.classes)
    predicted = _predicted(particles, runs, common, needed=bool(drop))
    refuse_unknown_classes(drop, particles.classes or _names(predicted))
    core = rows.loc[rows["role"] == "core", "particle_id"]
    known = rows.loc[rows["label"].notna() & (rows["split"] == "test"), "particle_id"]
    if known.empty:  # the test split plays the core; the validation split has at most chosen an epoch
        known = rows.loc[rows["label"].notna() & (rows["split"] == "val"), "particle_id"]
    if drop and predicted is not None:
        n = len(core)
        core, known = (ids[~predicted.loc[ids].isin(list(drop)).to_numpy()] for ids in (core, known))
        print(f"{n - len(core)} of {n} core particles left out: the classifier calls them {', '.join(drop)}")
    # val and test labels stay out: a reference must not depend on what judges the model
    learned = rows[(rows["role"] == "labeled") & (rows["split"] == "train")]
    reference = learned.loc[stratified(learned["label"], how.fit_sample, common.seed), "particle_id"]
    fitted = _fitted(core, rows, predicted, how.fit_sample, common.seed)
    return Kept(core, known, reference, predicted, rows.set_index("particle_id")["label"], fitted)


def refuse_small_core(particles: ParticleSet) -> None:
    """Raise a UserError for a core that is too small for any map, which nobody wants to hear after a training."""
    rows = particles.table
    core = rows[rows["role"] == "core"]
    if len(core) >= FEWEST_POINTS:
        return
    way_out = "give a larger core"
    if particles.classes and core["split"].eq("test").all():
        way_out += ", or --no-use-labels to search all that is there and not the test split alone"
    raise UserError(f"{particles.name}: {len(core)} particle(s) to search, {FEWEST_POINTS} are needed; {way_out}")


def refuse_unknown_classes(drop: Sequence[str], classes: Sequence[str]) -> None:
    """Raise a UserError for a class to drop that no particle can be called."""
    unknown = [name for name in drop if name not in classes]
    if unknown:
        has = ", ".join(classes) or "no classes"
        raise UserError(f"--drop-class {unknown[0]}: the classifier knows no such class; this data has {has}")


def _names(predicted: pd.Series | None) -> list[str]:
    return [] if predicted is None else sorted(predicted.dropna().unique())


def _fitted(core: pd.Series, rows: pd.DataFrame, predicted: pd.Series | None, most: int, seed: int) -> pd.Series | None:
    """Ids of those to fit, with the mixture of bags and classes that the core has; None for all."""
    if len(core) <= most:
        return None
    print(f"{most} of {len(core)} core particles are fitted, the others placed among them (--fit-sample)")
    bags = rows.loc[core.index, "bag"].astype("string").fillna("")
    strata = bags if predicted is None else bags + " " + predicted.loc[core].fillna("").to_numpy()
    return core[stratified(strata, most, seed)]


def _predicted(particles: ParticleSet, runs: Sequence[Run], common: RunSettings, needed: bool) -> pd.Series | None:
    """By id, what the classifier among `runs` says, else the one they started from, else the newest."""
    classifier = classifier_beside(runs, common.work, particles.fingerprint)
    if classifier is None and needed:
        raise UserError(f"--drop-class needs a classifier: run `{TRAINED_BY['classifier']}` with the same --data")
    if classifier is None:
        return None
    return read_parquet(classifier.path / "index.parquet").set_index("particle_id")["predicted"]


def _show(runs: Sequence[Run], classified: bool) -> None:
    """The table in the terminal: groups found and how well outliers are ranked."""
    rows = []
    for run in runs[:-1]:
        m = run.results
        best = m["outliers"]["combined"]
        noise = f"{m['hdbscan']['noise']}"
        rows.append([run.kind.removeprefix("clusters-"), m["kmeans"]["ari"], m["dbscan"]["n"], m["hdbscan"]["n"], noise,
                     best["auroc"], best["recall_at_n"]])  # fmt: skip
    m = runs[-1].results
    rows.append(["consensus", None, None, None, None, m["auroc"], m["recall_at_n"]])
    if (m["share_unusual"] or 0) > SUSPICIOUS:
        print(f"{m['share_unusual']:.0%} of the core's particles with a p-value have p <= {UNUSUAL}: the labeled set "
              "does not look like this core's bulk; read p-values and discoveries with care")  # fmt: skip
    if m["scalars_left_out"]:
        print(f"scalars that core or labeled set has gaps in, and the other not, do not count: "
              f"{', '.join(m['scalars_left_out'])}")  # fmt: skip
    if (m["told_apart"] or 0) >= TOO_DIFFERENT:
        # labeled particles weigh as their classes do in the core, as the classifier names them
        named = ", or the classifier names the core's classes wrongly" if classified else ""
        print(f"the scalars tell this core from the labeled set (AUC {m['told_apart']:.2f}), more than novelties "
              f"can{named}: what it has more of does not count")  # fmt: skip
    header = ["latent", "KMeans ARI", "DBSCAN n", "HDBSCAN n", "noise", "AUROC", "recall at n"]
    show_table("What does not fit", header, rows)


if __name__ == "__main__":
    entry(Settings, main)
