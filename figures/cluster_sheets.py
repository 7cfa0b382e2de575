"""A contact sheet for each cluster: who is in its middle, and who else."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from figures import style
from figures.cards import draw_sections
from figures.map_colors import rows_by_value
from figures.particle_cards import cards_of
from particles.pixels import PixelStore

MOST_SHEETS = 60
"""Clusters that get a sheet, the largest first; noise has one in any case."""


@dataclass(frozen=True)
class Members:
    """The particles of one cluster, and which of them are shown."""

    number: int
    place: str
    """`1 of 12` by size."""
    classes: pd.Series
    """Class of every member, nullable, indexed by id."""
    central: Sequence[str]
    """Ids."""
    drawn: Sequence[str]
    """Ids."""


def draw_clusters(
    labels: pd.Series,
    xy: np.ndarray,
    table: pd.DataFrame,
    pixels: PixelStore,
    folder: Path,
    method: str,
    n: int = 40,
    classes: pd.Series | None = None,
    seed: int = 0,
    most: int = MOST_SHEETS,
    predicted: bool = False,
    of: str = "",
) -> list[Path]:
    """One sheet a cluster: its most central members, then some drawn at random.

    Sheets are numbered by size, the largest cluster first, noise last; what an earlier run left there is removed.

    Args:
        labels: (N,) cluster numbers, noise -1, indexed by particle_id.
        xy: (N, D) map or latent, in the order of `labels`; where the members' center is taken.
        table: as for `cards_of`.
        pixels: the packed images.
        folder: where `<method>-01-cluster-<number>.png`, ..., `<method>-<last>-noise.png` go.
        method: name of the clustering.
        n: cards a sheet.
        classes: class names indexed by particle_id, missing where unknown; default the table's labels.
        seed: of the random members.
        most: how many clusters.
        predicted: whether the classes are a classifier's word, which is said then.
        of: latent and set, for the subtitle.

    Returns:
        The sheets in their order.
    """
    if classes is None:
        classes = table.set_index("particle_id")["label"]
    clusters = _chosen(labels, np.asarray(xy), classes, n, seed, most)
    shown = [name for cluster in clusters for name in [*cluster.central, *cluster.drawn]]
    table = table[table["particle_id"].isin(shown)]  # one look into a table of millions, not one a sheet
    digits = max(2, len(str(len(clusters))))
    sheets = []
    for place, cluster in enumerate(clusters, start=1):
        name = "noise" if cluster.number == style.NOISE else f"cluster-{cluster.number}"
        path = folder / f"{method}-{place:0{digits}d}-{name}.png"
        sheets.append(_draw_cluster(cluster, table, pixels, path, f"{method.upper()}{of and f' of {of}'}", predicted))
    _remove_others(folder, method, sheets)
    return sheets


def by_size(sizes: Mapping[int, int]) -> list[int]:
    """Cluster numbers, the largest cluster first, of equal ones the lower number; noise last."""
    return sorted(sizes, key=lambda number: (number == style.NOISE, -sizes[number], number))


def _chosen(labels: pd.Series, xy: np.ndarray, classes: pd.Series, n: int, seed: int, most: int) -> list[Members]:
    rows_of = {int(number): rows for number, rows in rows_by_value(labels)[0].items()}
    order = by_size({number: len(rows) for number, rows in rows_of.items()})
    groups = [number for number in order if number != style.NOISE]
    chosen = []
    for number in [*groups[:most], *order[len(groups) :]]:
        ids = labels.index[rows_of[number]].to_numpy()
        central, drawn = members(xy[rows_of[number]], n, seed, with_center=number != style.NOISE)
        place = "in no cluster" if number == style.NOISE else f"{groups.index(number) + 1} of {len(groups)} by size"
        chosen.append(Members(number, place, classes.reindex(ids), ids[central], ids[drawn]))
    return chosen


def _draw_cluster(
    cluster: Members, table: pd.DataFrame, pixels: PixelStore, path: Path, found_by: str, predicted: bool
) -> Path:
    said = "predicted " if predicted else ""
    lines = {name: (f"{said}{value}",) for name, value in cluster.classes.items() if not pd.isna(value)}
    sections = {
        "Most central": cards_of(table, pixels, cluster.central, lines),
        "Drawn at random": cards_of(table, pixels, cluster.drawn, lines),
    }
    if len(cluster.drawn) == 0 or len(cluster.central) == 0:  # one part needs no headings
        sections = {"": [*sections["Most central"], *sections["Drawn at random"]]}
    shown = len(cluster.central) + len(cluster.drawn)
    subtitle = f"{found_by}: {cluster.place}; {shown} of {len(cluster.classes):,} shown"
    return draw_sections(sections, path, cluster_title(cluster.number, cluster.classes, said), subtitle)


def _remove_others(folder: Path, method: str, sheets: Sequence[Path]) -> None:
    """Sheets of clusters that are no more would stand between those of now."""
    kept = {path.stem for path in sheets}
    ours = re.compile(rf"{re.escape(method)}-(\d+-)?(cluster-\d+|noise)\.(png|pdf)")
    for path in folder.iterdir():
        if ours.fullmatch(path.name) and path.stem not in kept:
            path.unlink()


def members(xy: np.ndarray, n: int, seed: int, with_center: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Which members of a cluster to show: the n/2 nearest to its median, and n/2 drawn from the others.

    Args:
        xy: (M, D) positions of the members.
        n: how many in all.
        seed: of the draw.
        with_center: False draws all n at random: noise has no center.

    Returns:
        Row numbers of the central ones, and of the drawn ones; together at most n, none twice.
    """
    distance = np.linalg.norm(xy - np.median(xy, axis=0), axis=1)
    nearest = np.argsort(distance, kind="stable")
    n_central = 0 if not with_center else len(xy) if len(xy) <= n else (n + 1) // 2
    others = np.sort(nearest[n_central:])
    drawn = np.random.default_rng(seed).choice(others, size=min(n - n_central, len(others)), replace=False)
    return nearest[:n_central], drawn.astype(np.int64)


def cluster_title(number: int, classes: pd.Series, said: str = "") -> str:
    """`cluster 3: 412 particles, 78 % predicted dust`; where only some have a class, of how many that is the share.

    Args:
        number: of the cluster.
        classes: of its members, nullable.
        said: before a class's name, where it is not given but predicted.
    """
    count, known = len(classes), classes.dropna()
    title = f"{style.cluster_name(number)}: {count:,} {'particle' if count == 1 else 'particles'}"
    if known.empty:
        return title
    counts = known.astype(str).value_counts()
    leader = min(counts.index[counts == counts.max()], key=style.natural)
    share = f"{title}, {100 * counts.max() / len(known):.0f} % {said}{leader}"
    return share if len(known) == count else f"{share} (of {len(known):,} with a class)"
