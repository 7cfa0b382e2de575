"""What else looks like the particles that a person has marked?"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.neighbors import NearestNeighbors

from clustering.consensus import ranks, rarity
from particles.latents import read_latents
from particles.sets import ParticleSet
from particles.table import write_parquet
from provenance.errors import UserError
from provenance.files import write_json
from provenance.progress import show_table
from provenance.run import Run, RunSettings, started


def likeness(z: np.ndarray, marked: np.ndarray) -> np.ndarray:
    """How close each particle is to the nearest marked one, as a share: 1 is closest.

    Args:
        z: (N, D).
        marked: (N,) bool, at least one of them true.

    Returns:
        (N,) in (0, 1); a marked particle is compared with the other marked ones, so that an odd one shows.
    """
    own = np.where(marked, np.cumsum(marked) - 1, -1)
    k = min(2, int(marked.sum()))
    distances, rows = NearestNeighbors(n_neighbors=k).fit(z[marked]).kneighbors(z)
    others = rows != own[:, None]
    nearest = np.where(others, distances, np.inf).min(axis=1)
    return rarity(-np.where(np.isfinite(nearest), nearest, 0.0))


def rank_by_likeness(views: Mapping[str, tuple[pd.Series, np.ndarray]], marked: set[str]) -> pd.DataFrame:
    """All unmarked and marked particles, those most like the marked first.

    Args:
        views: for each latent the ids (N,) and vectors (N, D) of the core.
        marked: ids.

    Returns:
        `particle_id`, `marked`, `<latent>` likeness, `likeness` (their mean), `rank`.
    """
    columns = {}
    for name, (ids, z) in views.items():
        found = likeness(z, ids.isin(marked).to_numpy())
        columns[name] = pd.Series(found, index=pd.Index(ids, name="particle_id"))
    table = pd.DataFrame(columns)
    mean = table.mean(axis=1).to_numpy()
    result = table.assign(likeness=mean, rank=ranks(mean)).reset_index()
    result.insert(1, "marked", result["particle_id"].isin(marked))
    return result


def write_likeness(
    marks: pd.DataFrame, particles: ParticleSet, core: pd.Series, runs: Sequence[Run], settings: Any,
    common: RunSettings,
) -> Run:  # fmt: skip
    """Rank the core by how much it looks like the marked particles: a `likeness` run with `likeness.parquet`.

    Args:
        marks: as `read_marks` gives them.
        particles: the set.
        core: (N,) ids of those to rank.
        runs: runs with latents.
        settings: kept as config.json.
        common: seed and work folder.

    Raises:
        UserError: none of the marked particles is in the core.
    """
    given = set(marks.loc[marks["star"] | marks["label"].notna(), "particle_id"])
    marked = given & set(core)
    if not marked:
        raise UserError("--marks: none of the marked particles is in this core; mark some in its explorer.html")
    if left_out := len(given) - len(marked):  # of another set, labeled, or of a class that was dropped
        print(f"--marks: {left_out} of {len(given)} marked particles are not in the core that is ranked: left out")
    views = {}
    for run in runs:
        latents = read_latents(run.path)
        latents = latents.where(latents.index["particle_id"].isin(core))
        views[run.kind] = (latents.index["particle_id"], latents.z)
    ranked = rank_by_likeness(views, marked)
    with started("likeness", settings, common, particles.identity, runs) as run:
        write_parquet(ranked, run.path / "likeness.parquet")
        write_json(run.path / "metrics.json", {"marked": len(marked)})
    others = ranked[~ranked["marked"]].nsmallest(10, "rank")
    rows = [[row.particle_id, float(row.likeness)] for row in others.itertuples()]
    show_table(f"Most like the {len(marked)} marked", ["particle", "likeness"], rows)
    print(run.path / "likeness.parquet")
    return run
