"""All that a report speaks of, read once: the set, the runs of one search, their ranking and the classifier's word."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from particles.latents import read_latents
from particles.sets import ParticleSet
from particles.table import read_parquet
from provenance.errors import UserError
from provenance.files import read_json
from provenance.run import Run, classifier_beside


@dataclass(frozen=True)
class Results:
    """One search for outliers, finished."""

    particles: ParticleSet
    runs: tuple[Run, ...]
    """Training runs, in the order of their latents."""
    clustered: tuple[Run, ...]
    """`clusters-<latent>` runs."""
    consensus: Run

    @property
    def folders(self) -> tuple[Path, ...]:
        """Packed folders: that of `--data`, and that of `--core` where there is one."""
        data, core = self.particles.folder, self.particles.core_folder
        return (data,) if core is None else (data, core)

    @cached_property
    def ranked(self) -> pd.DataFrame:
        """The consensus, strangest first; always with what `absent` names, missing and false where unknown."""
        frame = read_parquet(self.consensus.path / "outliers.parquet").sort_values("rank", ignore_index=True)
        absent = {"p_value": np.nan, "known_as_strange": pd.NA, "discovery": False, "reasons": ""}
        return frame.assign(**{name: value for name, value in absent.items() if name not in frame})

    @cached_property
    def table(self) -> pd.DataFrame:
        """Rows of the set by id."""
        return self.particles.table.set_index("particle_id", drop=False)

    @cached_property
    def truth(self) -> pd.Series:
        """Whether each ranked particle is an outlier: (N,) nullable bool in the order of `ranked`."""
        return self.table["is_outlier"].reindex(self.ranked["particle_id"]).reset_index(drop=True)

    @cached_property
    def classifier(self) -> Run | None:
        """The classifier of this search; None where there is none."""
        return classifier_beside(self.runs, self.work, self.particles.fingerprint) if self.particles.classes else None

    @cached_property
    def predicted(self) -> pd.DataFrame:
        """`predicted`, `confidence`, `truth`, `split` by id; empty where there is no classifier."""
        columns = ["particle_id", "predicted", "confidence", "truth", "split"]
        if self.classifier is None:
            return pd.DataFrame(columns=columns).set_index("particle_id")
        index = read_parquet(self.classifier.path / "index.parquet")
        return index[[name for name in columns if name in index]].set_index("particle_id")

    @cached_property
    def tested(self) -> pd.DataFrame:
        """The classifier's word on its test split: `truth`, `predicted`, of known classes only."""
        if self.predicted.empty:
            return self.predicted
        index, classes = self.predicted, self.particles.classes
        known = index["truth"].isin(classes) & index["predicted"].isin(classes)
        return index[(index["split"] == "test").fillna(False) & known]

    @property
    def work(self) -> Path:
        """The work folder."""
        return self.consensus.path.parents[2]

    @property
    def all_runs(self) -> tuple[Run, ...]:
        """Every run of the search, in the order in which they stand on each other."""
        beside = [] if self.classifier is None or self.classifier in self.runs else [self.classifier]
        return (*beside, *self.runs, *self.clustered, self.consensus)

    @cached_property
    def curves(self) -> dict[str, pd.DataFrame]:
        """metrics.csv of each training run that has one, by kind."""
        return {run.kind: frame for run in self.runs if (frame := _curves(run)) is not None}

    @cached_property
    def dimensions(self) -> dict[str, tuple[int, float]]:
        """Latent -> its dimensions, and how many of them the core really fills."""
        found = {}
        for run in self.runs:
            latents = read_latents(run.path)
            core = latents.where(latents.index["role"] == "core")
            found[run.kind] = (core.z.shape[1], participation(core.z))
        return found

    @cached_property
    def set_infos(self) -> tuple[dict[str, Any], ...]:
        """set.json of each packed folder."""
        return tuple(dict(read_json(folder / "set.json")) for folder in self.folders)


def results_of(
    particles: ParticleSet, consensus: Run, runs: Sequence[Run] = (), clustered: Sequence[Run] = ()
) -> Results:
    """A search by its consensus; what is not given is found by the parents that each run has recorded.

    Raises:
        UserError: a run that the consensus stands on is gone.
    """
    root = consensus.path.parents[1]
    clustered = clustered or [Run(root / name) for name in consensus.info["parents"]]
    for run in clustered:
        _refuse_absent(run, consensus)
    runs = runs or [Run(root / run.info["parents"][0]) for run in clustered]
    for run in runs:
        _refuse_absent(run, consensus)
    return Results(particles, tuple(runs), tuple(clustered), consensus)


def participation(z: np.ndarray) -> float:
    """How many dimensions a cloud fills: (sum of variances)² / sum of their squares along the principal axes.

    D for a sphere, 1 for a line, 0 for a point.

    Args:
        z: (N, D).
    """
    if len(z) < 2:
        return 0.0
    variances = np.linalg.eigvalsh(np.atleast_2d(np.cov(np.asarray(z, dtype=np.float64), rowvar=False)))
    squares = float((variances**2).sum())
    return float(variances.sum() ** 2 / squares) if squares > 0 else 0.0


def latent_of(run: Run) -> str:
    """`vae` of a `clusters-vae` run."""
    return run.kind.removeprefix("clusters-")


def _refuse_absent(run: Run, consensus: Run) -> None:
    if not (run.path / "run.json").is_file():
        way_out = "python clustering/run.py --latent all"
        raise UserError(f"{consensus.path}: it stands on {run.name}, which is gone; run `{way_out}` again")


def _curves(run: Run) -> pd.DataFrame | None:
    path = run.path / "metrics.csv"
    if not path.exists():  # latents of another set's model come without curves
        return None
    try:
        frame = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as CSV ({error}); train again") from error
    return None if frame.empty else frame
