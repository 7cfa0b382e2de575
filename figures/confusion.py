"""Which class a classifier took for which."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from figures import paper, style

_MARGIN, _CELL, _AXIS, _BESIDE = 44, 84, 40, 14  # px


def confusion(truth: Sequence[str], predicted: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """Count pairs: (K, K) int64, row = truth, column = prediction, in the order of `classes`.

    Raises:
        ValueError: the two have different lengths, or hold a name that is no class.
    """
    place = {name: number for number, name in enumerate(classes)}
    unknown = sorted((set(truth) | set(predicted)) - set(place), key=str)
    if unknown:
        raise ValueError(f"not among the classes: {', '.join(map(str, unknown))}")
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    for true, guess in zip(truth, predicted, strict=True):
        counts[place[true], place[guess]] += 1
    return counts


def shares(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """What a confusion matrix says; NaN where there is nothing to divide by.

    Returns:
        Row shares (K, K), recall (K,), precision (K,), accuracy.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        rows = counts / counts.sum(axis=1, keepdims=True)
        precision = np.diag(counts) / counts.sum(axis=0)
        accuracy = float(np.diag(counts).sum() / counts.sum())
    return rows, np.diag(rows).copy(), precision, accuracy


def draw_confusion(
    truth: Sequence[str] | pd.Series,
    predicted: Sequence[str] | pd.Series,
    classes: Sequence[str],
    path: Path,
    title: str,
    subtitle: str | None = None,
) -> Path:
    """Draw counts, colored by their share of the row, with recall at the right and precision below.

    Args:
        truth: N class names.
        predicted: N class names.
        classes: their order.
        path: PNG to write.
        title: above the matrix.
        subtitle: a fainter line below the title; default how many images and what share is right.

    Returns:
        `path`.
    """
    counts = confusion(list(truth), list(predicted), classes)
    rows, recall, precision, accuracy = shares(counts)
    total = int(counts.sum())
    subtitle = subtitle or f"{total:,} {'particle' if total == 1 else 'particles'}, accuracy {_percent(accuracy)}"
    names = [style.elide(style.printable(name), 22) for name in classes]
    longest = int(max(style.text_width(name, style.NORMAL) for name in [*names, "precision"]))
    side = _CELL * len(classes)
    left = _MARGIN + _AXIS + longest + 14
    top = _MARGIN + style.heading_height(subtitle) + _AXIS + longest + 4
    width = max(left + side + _BESIDE + _CELL + _MARGIN, 620)
    with paper.picture(path, width, top + side + _BESIDE + _CELL + _MARGIN) as figure:
        canvas = style.page(figure)
        style.heading(canvas, _MARGIN, _MARGIN, width - 2 * _MARGIN, title, subtitle)
        _names(canvas, names, left, top)
        for i, j in np.ndindex(*counts.shape):
            text = f"{counts[i, j]:,}" if counts[i, j] else "·"
            draw_cell(canvas, left + j * _CELL, top + i * _CELL, _CELL, text, float(rows[i, j]))
        for i in range(len(classes)):
            _margin_cell(canvas, left + side + _BESIDE, top + i * _CELL, _percent(recall[i]))
            _margin_cell(canvas, left + i * _CELL, top + side + _BESIDE, _percent(precision[i]))
        _margin_cell(canvas, left + side + _BESIDE, top + side + _BESIDE, _percent(accuracy), bold=True)
    return path


def _names(canvas: Axes, names: list[str], left: int, top: int) -> None:
    side, middle = _CELL * len(names), _CELL * len(names) + _BESIDE + _CELL / 2
    for number, name in enumerate(names):
        place = (number + 0.5) * _CELL
        canvas.text(left - 12, top + place, name, fontsize=style.NORMAL, ha="right", va="center")
        _upright(canvas, left + place, top - 10, name, "bottom")
    canvas.text(left - 12, top + middle, "precision", fontsize=style.NORMAL, ha="right", va="center", style="italic")
    _upright(canvas, left + middle, top - 10, "recall", "bottom", style="italic")
    _upright(canvas, _MARGIN + 8, top + side / 2, "truth", "center", fontweight="bold")
    head = _MARGIN + style.heading_height("below") + 8
    canvas.text(left + side / 2, head, "predicted", fontsize=style.NORMAL, fontweight="bold", ha="center", va="center")


def _upright(canvas: Axes, x: float, y: float, text: str, va: str, **font: Any) -> None:
    canvas.text(x, y, text, fontsize=style.NORMAL, rotation=90, ha="center", va=va, **font)


def draw_cell(canvas: Axes, left: float, top: float, side: float, text: str, share: float) -> None:
    """A square with a text, white to blue by share; what has no share (NaN) stays white."""
    depth = 0.0 if np.isnan(share) else float(np.clip(share, 0, 1))
    blue = np.array(to_rgb("#0b4f86"))
    canvas.add_patch(Rectangle((left, top), side, side, fc=tuple(1 - depth * (1 - blue)), ec="#dddddd", lw=0.6))
    ink = "white" if depth > 0.5 else style.INK if text != "·" else style.GREY
    canvas.text(left + side / 2, top + side / 2, text, fontsize=style.NORMAL, color=ink, ha="center", va="center")


def _margin_cell(canvas: Axes, left: float, top: float, text: str, bold: bool = False) -> None:
    canvas.add_patch(Rectangle((left, top), _CELL, _CELL, fc="#f3f3f3", ec="white", lw=0.6))
    weight = "bold" if bold else "normal"
    middle = (left + _CELL / 2, top + _CELL / 2)
    canvas.text(*middle, text, fontsize=style.NORMAL, fontweight=weight, ha="center", va="center")


def _percent(share: float) -> str:
    """`98.7 %`; a dash where there is nothing to share; never rounded up to 100 %."""
    if np.isnan(share):
        return "\N{EN DASH}"
    return "100 %" if share == 1 else f"{min(100 * share, 99.9):.1f} %"
