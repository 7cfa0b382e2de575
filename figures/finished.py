"""A finished run -> what its pictures are drawn from: the particles, the ranking, maps joined by id."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from figures import paper
from particles.sets import DataSettings, ParticleSet, open_set
from particles.table import read_parquet
from provenance.errors import UserError
from provenance.files import read_json, write_json
from provenance.run import Run, RunSettings, classifier_beside
from provenance.settings import from_plain

PREDICTED = "Class (predicted)"
"""What classes are called in pictures where they are a classifier's word and not given."""
_OWNER = "owner.json"
"""In a folder of pictures: the name and the fingerprint of the set that they are of."""
_SHOWN = 8  # digits of a fingerprint in the name of a folder


@dataclass(frozen=True)
class Redraw:
    """What every script takes that draws a finished run again."""

    run: Path
    """The run's folder: runs/<kind>/<id>."""
    out: Path | None = None
    """Folder of the pictures; default figures/<data> of the work folder that the run lies in."""
    pdf: bool = False
    """Write each picture as PDF too."""

    @property
    def formats(self) -> AbstractContextManager[None]:
        """What is written within this block: PNG, and PDF where it is asked for."""
        return paper.with_pdf(self.pdf)

    def folder(self, run: Run) -> Path:
        """Where the pictures go."""
        data = run.info["data"]
        return self.out or pictures_folder(work_of(run), str(data["name"]), str(data["fingerprint"]))


@dataclass(frozen=True)
class View:
    """One clustered latent, all of it in the order of `ids`."""

    latent: str
    ids: pd.Series
    umap: np.ndarray
    """(N, 2)."""
    tsne: np.ndarray | None
    """(N, 2), where it was computed."""
    clusters: pd.Series
    """Cluster numbers by id, noise -1."""
    score: pd.Series
    """Of the consensus where there is one, else of this latent alone; higher = stranger."""
    classes: pd.Series
    """Class names, nullable."""
    names: tuple[str, str, str]
    """What classes, clusters and score are, for headings."""

    @property
    def predicted(self) -> bool:
        """Whether the classes are the classifier's word."""
        return self.names[0] == PREDICTED


def opened(path: Path, kinds: Sequence[str], needs: str = "") -> Run:
    """The finished run in a folder.

    Args:
        path: the folder.
        kinds: kinds of run that will do; `clusters-` means all that begin so.
        needs: a file that it must hold.

    Raises:
        UserError: there is no such run, it is not finished, or it is of another kind.
    """
    run = Run(path.expanduser().resolve())
    if not (run.path / "run.json").is_file():
        raise UserError(f"--run {path}: no run.json there; give the folder of a run, for example runs/vae/<id>")
    if not any(run.kind == kind or (kind.endswith("-") and run.kind.startswith(kind)) for kind in kinds):
        wanted = " or ".join(f"{kind}<latent>" if kind.endswith("-") else kind for kind in kinds)
        raise UserError(f"--run {path}: a run of kind '{run.kind}' has no such picture; give one of {wanted}")
    if run.info["status"] != "finished":
        raise UserError(f"--run {path}: the run is {run.info['status']}, not finished; let it finish or run it again")
    if needs and not (run.path / needs).is_file():
        raise UserError(f"--run {path}: the run has no {needs}; run it again with this version")
    return run


def work_of(run: Run) -> Path:
    """The work folder that a run lies in: `<work>/runs/<kind>/<id>`."""
    return run.path.parents[2]


def pictures_folder(work: Path, name: str, fingerprint: str) -> Path:
    """The folder for all that is drawn and exported of a set; from now on no other set's.

    It is figures/<name>/, but other crops may be called the same: where they were there first, the start of the
    fingerprint follows the name. Who is held out, marked or hidden does not count: that is another search of the set.

    Args:
        work: the work folder.
        name: of the set.
        fingerprint: that its runs have.
    """
    parts = [part for part in fingerprint.split("/") if ":" not in part and part != "unlabeled"]
    named, owner = work / "figures" / name, "/".join(parts)
    apart = named.with_name("-".join([name, *(part[:_SHOWN] for part in parts)]))
    owners = {folder: _owner_of(folder) for folder in (named, apart)}
    free = apart if owners[named] else named
    folder = next((folder for folder, found in owners.items() if found == owner), free)
    if owners[folder] != owner:
        write_json(folder / _OWNER, {"name": name, "fingerprint": owner})
    return folder


def _owner_of(folder: Path) -> str | None:
    """The fingerprint of the set that has a folder of pictures; None where nobody has it."""
    return str(read_json(folder / _OWNER)["fingerprint"]) if (folder / _OWNER).exists() else None


def particles_of(run: Run) -> ParticleSet:
    """The particles that a run saw, in the roles that they had.

    Raises:
        UserError: they are not there any more, or have changed since.
    """
    data, common = run.info["data"], RunSettings(work_dir=work_of(run), seed=run.info["seed"])
    settings = from_plain(DataSettings, run.config.get("data", {}))
    beside = work_of(run) / "packed" / Path(data["path"]).name  # a work folder may have been moved
    packed = next((path for path in (beside, Path(data["path"])) if (path / "set.json").is_file()), None)
    if packed is not None:
        settings = replace(settings, data=str(packed))
    particles = open_set(settings, common, say=lambda _: None)
    if particles.fingerprint != data["fingerprint"]:
        raise UserError(f"{run.path}: its particles ({data['path']}) have changed since; cluster and train again")
    return particles


def ranking_of(run: Run) -> tuple[pd.DataFrame, str]:
    """The newest consensus that a `clusters-<latent>` run went into, else the run's own ranking; and its name."""
    for path in sorted((work_of(run) / "runs" / "consensus").glob("*/outliers.parquet"), reverse=True):
        consensus = Run(path.parent)
        if consensus.info["status"] == "finished" and run.name in consensus.info["parents"]:
            return read_parquet(path), "Outlier score (consensus)"
    return read_parquet(run.path / "outliers.parquet"), "Outlier score (this latent)"


def parents_of(run: Run) -> list[Run]:
    """The runs that a run stands on.

    Raises:
        UserError: one of them is gone.
    """
    parents = [Run(work_of(run) / "runs" / name) for name in run.info["parents"]]
    gone = [parent for parent in parents if not (parent.path / "run.json").is_file()]
    if gone:
        raise UserError(f"{run.path}: it stands on {gone[0].name}, which is gone; cluster again")
    return parents


def predicted_classes(particles: ParticleSet, runs: Sequence[Run], work: Path) -> pd.Series:
    """What the classifier calls each particle, by id; empty where there is none."""
    if not particles.classes:
        return pd.Series(dtype="string")
    run = classifier_beside(runs, work, particles.fingerprint)
    if run is None:
        return pd.Series(dtype="string")
    return read_parquet(run.path / "index.parquet").set_index("particle_id")["predicted"]


def classes_of(ids: pd.Series, predicted: pd.Series, particles: ParticleSet) -> tuple[pd.Series, str]:
    """What to color particles by: the classifier's word, or without one what is known; indexed by id."""
    if len(predicted):
        return predicted.reindex(ids), PREDICTED
    return particles.table.set_index("particle_id")["truth"].reindex(ids), "Class"


def view_of(
    run: Run, particles: ParticleSet, ranked: pd.DataFrame, predicted: pd.Series, score: str = "Outlier score"
) -> View:
    """A `clusters-<latent>` run joined with the ranking and the classes.

    Args:
        run: the run.
        particles: the set.
        ranked: `particle_id` and `score`.
        predicted: class by id; empty where there is no classifier.
        score: what the score is called.

    Raises:
        UserError: a file is missing, or there is nobody on the map.
    """
    lacking = [name for name in ("maps.parquet", "clusters.parquet") if not (run.path / name).is_file()]
    if lacking:
        again = f"python clustering/run.py --latent {run.kind.removeprefix('clusters-')}"
        raise UserError(f"{run.path}: the run has no {lacking[0]}; make one with `{again}`")
    maps = read_parquet(run.path / "maps.parquet")
    if maps.empty:
        raise UserError(f"{run.path / 'maps.parquet'}: nobody is on the map; cluster again")
    ids = maps["particle_id"]
    classes, heading = classes_of(ids, predicted, particles)
    return View(
        latent=run.kind.removeprefix("clusters-"), ids=ids,
        umap=maps[["umap_x", "umap_y"]].to_numpy(dtype=float),
        tsne=maps[["tsne_x", "tsne_y"]].to_numpy(dtype=float) if "tsne_x" in maps else None,
        clusters=read_parquet(run.path / "clusters.parquet").set_index("particle_id")["hdbscan"].reindex(ids),
        score=ranked.set_index("particle_id")["score"].reindex(ids), classes=classes,
        names=(heading, "HDBSCAN cluster", score),
    )  # fmt: skip


def redrawn(settings: Redraw) -> tuple[Run, ParticleSet, View]:
    """A `clusters-<latent>` run, its particles, and its view.

    Raises:
        UserError: something of it is missing.
    """
    run = opened(settings.run, ["clusters-"])
    particles = particles_of(run)
    ranked, score = ranking_of(run)
    predicted = predicted_classes(particles, parents_of(run), work_of(run))
    return run, particles, view_of(run, particles, ranked, predicted, score)
