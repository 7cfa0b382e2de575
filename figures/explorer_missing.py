"""What the explorer could show if it had been computed, and the command that does."""

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from provenance.run import LATENTS, TRAINED_BY

MAPS = {"UMAP": ("umap_x", "umap_y"), "t-SNE": ("tsne_x", "tsne_y")}
"""Maps of a latent -> columns of `maps.parquet`."""
_AGAIN = "python clustering/run.py --latent"


@dataclass(frozen=True)
class Missing:
    """A choice that the page offers but cannot fill, and the way to fill it."""

    name: str
    why: str
    command: str


def missing_of(points: pd.DataFrame, more: Iterable[Missing] = ()) -> list[dict[str, str]]:
    """Everything the page would offer that is not among its columns.

    Args:
        points: as `write_explorer` takes them, without empty columns.
        more: what only the runs can tell.

    Returns:
        Fields of `Missing`, plain values for the page.
    """
    columns = {str(column) for column in points}
    there = {column.partition(":")[0] for column in columns if ":" in column}
    found = [Missing(name, "no maps and clusters of it", _made_by(name)) for name in LATENTS if name not in there]
    for latent in sorted(there):
        absent = [method for method, (x, _) in MAPS.items() if f"{latent}:{x}" not in columns]
        found += [
            Missing(f"{latent}: {method}", "this map was not computed", f"{_AGAIN} {latent}") for method in absent
        ]
    wanted = {
        "score": Missing("consensus score", "no ranking", f"{_AGAIN} all"),
        "p_value": Missing("p-value", "this ranking has none", f"{_AGAIN} all"),
        "predicted": Missing("predicted class", "no classifier has seen these", TRAINED_BY["classifier"]),
        "Area (ABD)": Missing("scalars", "not measured in this set", "python -m particles.pack"),
    }
    found += [entry for column, entry in wanted.items() if column not in columns]
    return [vars(entry) for entry in (*found, *more)]


def _made_by(latent: str) -> str:
    return f"{TRAINED_BY[latent]} && {_AGAIN} {latent}"
