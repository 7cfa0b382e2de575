"""Who has which color on a map, and the legend that says so."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from figures import style

Kind = Literal["classes", "clusters"]

UNLABELED = "unlabeled"
LEGEND_LINE = 26
"""Px from one line of a legend to the next."""


@dataclass(frozen=True)
class Entry:
    """One color of a map: its name in the legend, and which rows it colors."""

    name: str
    color: str
    rows: np.ndarray
    """Row numbers, int64."""
    number: int | None = None
    """The cluster's number, written on the map; None for noise and for classes."""

    @property
    def text(self) -> str:
        """`dust: 1,234`."""
        return f"{style.elide(style.printable(self.name), 22)}: {len(self.rows):,}"


def entries_of(values: Sequence[Any] | np.ndarray | pd.Series, kind: Kind, classes: Sequence[str] = ()) -> list[Entry]:
    """The colors of a map in the order of the legend; grey ones (noise, unlabeled) are the last.

    Args:
        values: (N,) class names (nullable), or cluster numbers (noise -1, nullable).
        kind: `classes` or `clusters`.
        classes: all classes of the run, so that one class has one color in all its pictures.
    """
    rows_of, missing = rows_by_value(pd.Series(values))
    if kind == "clusters":
        numbers = {int(value): rows for value, rows in rows_of.items()}
        order = sorted(numbers, key=lambda k: (k == style.NOISE, k))
        return [_cluster(k, numbers[k]) for k in order]
    names: dict[str, np.ndarray] = {}
    for value, rows in rows_of.items():
        names[str(value)] = np.sort(np.concatenate([names[str(value)], rows])) if str(value) in names else rows
    colors = style.palette([*classes, *names])
    entries = [Entry(name, colors[name], names[name]) for name in sorted(names, key=style.natural)]
    return [*entries, Entry(UNLABELED, style.GREY, missing)] if len(missing) else entries


def rows_by_value(column: pd.Series) -> tuple[dict[Any, np.ndarray], np.ndarray]:
    """The rows of each value, and of those without one; one sort, however many values there are."""
    codes, values = pd.factorize(column)
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes + 1, minlength=len(values) + 1))
    missing, *parts = np.split(order, ends[:-1])
    return dict(zip(values.tolist(), parts, strict=True)), missing


def _cluster(number: int, rows: np.ndarray) -> Entry:
    shown = None if number == style.NOISE else number
    return Entry(style.cluster_name(number), style.cluster_color(number), rows, shown)


def draw_legend(
    canvas: Axes, entries: list[Entry], left: float, top: float, most: int, columns: int = 1, width: float = 0,
    heading: str = "",
) -> None:  # fmt: skip
    """Color, name and count; where there are too many the largest are listed and the rest are summed up.

    Args:
        canvas: a `style.page`.
        entries: in order.
        left: px.
        top: px.
        most: lines in all its columns.
        columns: side by side.
        width: px of all columns.
        heading: a line of its own above; what the names are.
    """
    if heading:
        canvas.text(left, top + LEGEND_LINE / 2, heading, fontsize=style.NORMAL, fontweight="bold", va="center")
        top += LEGEND_LINE
    shown = entries
    if len(entries) > most:
        largest = sorted(entries, key=lambda entry: (entry.color != style.GREY, -len(entry.rows)))[: most - 1]
        kept = {entry.name for entry in largest}
        shown = [entry for entry in entries if entry.name in kept]
    rows = -(-len(shown) // columns) if len(entries) <= most else most // columns
    for number, entry in enumerate(shown):
        x, y = left + number // rows * width / columns, top + LEGEND_LINE / 2 + number % rows * LEGEND_LINE
        canvas.scatter([x + 8], [y], s=42, color=entry.color, linewidths=0)
        canvas.text(x + 26, y, entry.text, fontsize=style.NORMAL, va="center")
    if len(entries) > most:
        x = left + len(shown) // rows * width / columns
        y = top + LEGEND_LINE / 2 + len(shown) % rows * LEGEND_LINE
        rest = sum(len(entry.rows) for entry in entries) - sum(len(entry.rows) for entry in shown)
        text = f"and {len(entries) - len(shown):,} more: {rest:,}"
        canvas.text(x + 26, y, text, fontsize=style.NORMAL, va="center", color=style.FAINT)
