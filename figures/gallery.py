"""Sheets of the strangest and of each cluster: `python figures/gallery.py --run runs/consensus/<id>`."""

import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from figures import style
from figures.cards import Card, draw_sections
from figures.cluster_sheets import draw_clusters
from figures.finished import (
    Redraw,
    View,
    opened,
    parents_of,
    particles_of,
    predicted_classes,
    redrawn,
    work_of,
)
from figures.particle_cards import cards_of, found_text
from particles.pixels import PixelStore
from particles.sets import ParticleSet
from particles.table import read_parquet
from provenance.settings import entry

SHOWN = 40
"""Particles on the sheet of the strangest."""


def main(settings: Redraw) -> None:
    """Draw sheets of a finished run again: of a `consensus` the strangest, of `clusters-<latent>` each cluster."""
    run = opened(settings.run, ["consensus", "clusters-"])
    with settings.formats:
        if run.kind == "consensus":
            ranked = read_parquet(run.path / "outliers.parquet")
            particles, clustered = particles_of(run), parents_of(run)
            latents = [latent for parent in clustered for latent in parents_of(parent)]
            predicted = predicted_classes(particles, latents, work_of(run))
            print(outlier_sheet(particles, ranked, settings.folder(run), len(clustered), predicted))
            return
        _, particles, view = redrawn(settings)
        for path in cluster_sheets(view, particles, settings.folder(run)):
            print(path)


def outlier_sheet(
    particles: ParticleSet, ranked: pd.DataFrame, folder: Path, latents: int = 0, predicted: pd.Series | None = None
) -> Path:
    """Draw the strangest particles of a consensus of so many latents into `folder`/outliers.png.

    Args:
        particles: the set.
        ranked: the consensus.
        folder: where the picture goes.
        latents: how many were ranked together.
        predicted: class by id; empty or None where there is no classifier.
    """
    if predicted is not None and len(predicted):
        ranked = ranked.assign(predicted=predicted.reindex(ranked["particle_id"]).array)
    judged = ranked.merge(particles.table[["particle_id", "is_outlier"]], on="particle_id")
    together = f"{latents} latents and all scores together" if latents > 1 else "one latent, its scores together"
    subtitle = f"{len(ranked):,} particles ranked; {together}"
    has_truth = judged["is_outlier"].fillna(False).any()
    if has_truth:
        n = int(judged["is_outlier"].sum())
        found = int(judged.nsmallest(n, "rank")["is_outlier"].sum())
        subtitle += f"; {found} of the {n} true outliers are among the first {n}"
    if "p_value" in ranked and ranked["p_value"].notna().any():
        subtitle += f"; {int(ranked['discovery'].sum())} pass the false-discovery line at 10 %"
        if "known_as_strange" in ranked and (ranked["known_as_strange"] == 0).any():
            subtitle += "; least p: no known particle is as strange"
    if latents > 1 and "found_in" in ranked and not has_truth:  # beside the truth the line has no room
        subtitle += "; top 1 %: of each latent's own ranking"
    title = f"The strangest particles: {particles.name}"
    path = folder / "outliers.png"
    return draw_outliers(ranked, particles.table, particles.pixels, path, title, subtitle, latents=latents)


def cluster_sheets(view: View, particles: ParticleSet, folder: Path) -> list[Path]:
    """Draw a sheet for each HDBSCAN cluster of a latent into `folder`/clusters-<latent>/."""
    where = folder / f"clusters-{view.latent}"
    table, pixels = particles.table, particles.pixels
    return draw_clusters(
        view.clusters, view.umap, table, pixels, where, "hdbscan", classes=view.classes, predicted=view.predicted,
        of=f"the UMAP map of {view.latent}, {particles.name}",
    )  # fmt: skip


def short_reasons(reasons: str | None, most: int = 3) -> tuple[str, ...]:
    """Reasons in few words: those that several latents give stand once, with the latents' names.

    Args:
        reasons: `words (latent, top 0.1 %); words (latent, top 2 %); ...`, or nothing.
        most: how many.
    """
    if reasons is None or pd.isna(reasons):
        return ()
    latents_of: dict[str, list[str]] = {}
    for part in filter(None, (part.strip() for part in str(reasons).split(";"))):
        found = re.fullmatch(r"(?P<words>.+?) \((?P<latent>[\w-]+), top [^()]*\)", part)
        words, latent = (found["words"], found["latent"]) if found else (part, "")
        latents_of.setdefault(words, []).extend([latent] if latent else [])
    named = {words: ", ".join(dict.fromkeys(latents)) for words, latents in latents_of.items()}
    return tuple(f"{words} ({names})" if names else words for words, names in list(named.items())[:most])


def draw_outliers(
    outliers: pd.DataFrame,
    table: pd.DataFrame,
    pixels: PixelStore,
    path: Path,
    title: str,
    subtitle: str | None = None,
    n: int = SHOWN,
    columns: int = 8,
    latents: int = 0,
) -> Path:
    """The n strangest particles by rank, with their reasons; those known to be true outliers are framed.

    Args:
        outliers: particle_id, rank (1 = strangest), and where there are any `reasons`, `found_in`, `p_value`,
            `known_as_strange`, `predicted`, `discovery`: a false-discovery line is drawn below the discoveries.
        table: as for `cards_of`; `is_outlier` (nullable) frames the true ones.
        pixels: the packed images.
        path: PNG to write.
        title: above the sheet.
        subtitle: a fainter line below the title.
        n: how many.
        columns: cards in a row.
        latents: how many `found_in` counts among.
    """
    top = outliers.sort_values("rank", kind="stable").head(n)
    ids = top["particle_id"].tolist()
    lines = {judged["particle_id"]: _said(judged, latents) for judged in top.to_dict("records")}
    marks: dict[str, str] = {}
    if "is_outlier" in table:
        true = table.loc[table["is_outlier"].fillna(False).astype(bool), "particle_id"]
        marks = dict.fromkeys(true, style.TRUE_OUTLIER)
    ranks = dict(zip(ids, top["rank"], strict=True))
    cards = cards_of(table, pixels, ids, lines, ranks, marks)
    return draw_sections(_by_discovery(cards, top), path, title, subtitle, columns)


def _said(judged: Mapping[Hashable, Any], latents: int) -> tuple[str, ...]:
    """What stands below a crop, most telling first."""
    p_value = judged.get("p_value")
    as_strange, named = judged.get("known_as_strange"), judged.get("predicted")
    least = not pd.isna(as_strange) and as_strange == 0  # it is the particle's own weight, and so that of its class
    of_class = " (least possible)" if pd.isna(named) else f" (least for {named})"
    p_text = "" if pd.isna(p_value) else f"p = {p_value:.2g}{of_class if least else ''}"
    return (*filter(None, (p_text, found_text(judged.get("found_in"), latents))), *short_reasons(judged.get("reasons")))


def _by_discovery(cards: Sequence[Card], top: pd.DataFrame) -> Mapping[str, Sequence[Card]]:
    """The cards above and below the false-discovery line; one part without a heading where there is no line."""
    found = top["discovery"].to_numpy(dtype=bool) if "discovery" in top else np.zeros(len(top), dtype=bool)
    # not the first of the ranking: a particle counts itself with the weight of the class that it is taken for
    above, below = (
        [card for card, is_new in zip(cards, found, strict=True) if is_new == keep] for keep in (True, False)
    )
    if not above:
        return {"": cards}
    parts = {"Discoveries: at most 10 % are expected to be known particles": above}
    if below:
        parts["Below the false-discovery line"] = below
    return parts


if __name__ == "__main__":
    entry(Redraw, main)
