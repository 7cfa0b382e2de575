"""What the explorer could show if it had been computed, and the command that does."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import pandas as pd

from provenance.run import LATENTS, TRAINED_BY

MAPS = {"UMAP": ("umap_x", "umap_y"), "t-SNE": ("tsne_x", "tsne_y")}
"""Maps of a latent -> columns of `maps.parquet`."""
_AGAIN = "python clustering/run.py --latent"
_THEN = " && "


@dataclass(frozen=True)
class Missing:
    """A choice that the page offers but cannot fill, and the way to fill it."""

    name: str
    why: str
    command: str
    """As it is for the built-in set; empty where none helps."""


@dataclass(frozen=True)
class Opened:
    """How the set was opened, for commands that open it again."""

    flags: str = ""
    """Of --data and all that belongs to it, as a shell takes them; without them a command runs on the built-in set."""
    n_classes: int | None = None
    """Labeled classes; None where nobody knows."""

    def again(self, command: str) -> str:
        """A command, or several one after another, each with the flags."""
        return _THEN.join(f"{part} {self.flags}".rstrip() for part in command.split(_THEN)) if command else ""


def missing_of(
    points: pd.DataFrame, more: Iterable[Missing] = (), opened: Opened | None = None
) -> list[dict[str, str]]:
    """Everything the page would offer that is not among its columns.

    Args:
        points: as `write_explorer` takes them, without empty columns.
        more: what only the runs can tell.
        opened: how the set was opened.

    Returns:
        Fields of `Missing`, plain values for the page.
    """
    opened = opened or Opened()
    columns = {str(column) for column in points}
    there = {column.partition(":")[0] for column in columns if ":" in column}
    found = [
        Missing(name, "no maps and clusters of it", f"{TRAINED_BY[name]}{_THEN}{_AGAIN} {name}")
        for name in LATENTS
        if name not in there
    ]
    for latent in sorted(there):
        absent = [method for method, (x, _) in MAPS.items() if f"{latent}:{x}" not in columns]
        found += [
            Missing(f"{latent}: {method}", "this map was not computed", f"{_AGAIN} {latent}") for method in absent
        ]
    wanted = {
        "score": Missing("consensus score", "no ranking", f"{_AGAIN} all"),
        "p_value": Missing("p-value", "no labeled particle was held back from the models", ""),
        "predicted": Missing("predicted class", "no classifier has seen these", TRAINED_BY["classifier"]),
        "Area (ABD)": Missing("scalars", "not measured: search the set again without --no-scalars", ""),
    }
    found += [entry for column, entry in wanted.items() if column not in columns]
    told = (_as_can_be(entry, opened.n_classes) for entry in (*found, *more))
    return [vars(replace(entry, command=opened.again(entry.command))) for entry in told]


_LEAST_CLASSES = {"classifier": 2, "predicted class": 2}
"""What nobody can make without so many labeled classes."""


def _as_can_be(entry: Missing, n_classes: int | None) -> Missing:
    """The same without a command where that would refuse, or run and make nothing of the kind."""
    least = _LEAST_CLASSES.get(entry.name, 0)
    if n_classes is None or n_classes >= least:
        return entry
    return Missing(entry.name, "needs labeled particles" if n_classes == 0 else "needs two labeled classes", "")
