"""One look for every picture of the house: fonts, colors, text that fits, and how a picture is saved."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import zip_longest
from math import ceil
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, ListedColormap, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from PIL import ImageFont

from provenance.files import replacing

DPI = 150
INK, FAINT, RULE, PAPER = "#1f1f1f", "#6a6a6a", "#cfcfcf", "#ffffff"
SMALL, NORMAL, LARGE, TITLE = 7.0, 8.5, 10.0, 12.0
"""Font sizes in points."""

NOISE = -1
NOISE_NAME = "noise (-1)"
GREY = "#b3b3b3"
"""Noise, and whatever has no value."""

TRUE_OUTLIER = "true outlier"
RESERVED = {TRUE_OUTLIER: "#009E73"}
"""Marks whose color never depends on the company they are in."""

# Okabe & Ito (2008) without black, their yellow darkened to hold on white; then hues of Paul Tol's "muted"
# set that differ most from them.
_HUES = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#D9C91E",
    "#332288", "#882255", "#999933", "#44AA99", "#AA4499",
)  # fmt: skip
_SHADES = (0.0, -0.38, 0.48)  # after the last hue they come again darker, then lighter

# Shipped with matplotlib, so that a picture has the same letters on every machine.
_SANS, _MONO = "DejaVu Sans", "DejaVu Sans Mono"

_RC: dict[str, Any] = {
    "figure.dpi": DPI, "savefig.dpi": DPI, "figure.facecolor": PAPER, "axes.facecolor": PAPER,
    "font.family": _SANS, "font.monospace": [_MONO], "font.size": NORMAL,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": FAINT, "axes.linewidth": 0.7,
    "xtick.color": FAINT, "ytick.color": FAINT, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "xtick.labelsize": SMALL + 0.5, "ytick.labelsize": SMALL + 0.5,
    "xtick.major.width": 0.7, "ytick.major.width": 0.7, "axes.labelsize": NORMAL,
    "axes.titlesize": LARGE, "axes.titlelocation": "left", "axes.titleweight": "bold",
    "axes.spines.top": False, "axes.spines.right": False, "lines.linewidth": 1.6,
    "axes.grid": False, "grid.color": "#e8e8e8", "grid.linewidth": 0.7, "axes.axisbelow": True,
    "legend.frameon": False, "legend.fontsize": NORMAL, "image.cmap": "gray",
    "text.parse_math": False,  # ids and class names may hold a $
    "axes.formatter.use_mathtext": False, "axes.unicode_minus": False,
}  # fmt: skip


# --- colors


def hue(index: int) -> str:
    """The color of place `index` >= 0: twelve hues, then the same darker, then lighter, then anew."""
    turn, place = divmod(index, len(_HUES))
    shade = _SHADES[turn % len(_SHADES)]
    red, green, blue = (c * (1 + shade) if shade < 0 else c + (1 - c) * shade for c in to_rgb(_HUES[place]))
    return to_hex((red, green, blue))


def palette(names: Iterable[str]) -> dict[str, str]:
    """A color for each name. It depends on the set of names only, not on their order or number of times.

    Pass all classes of a run, so that one class has one color in all its pictures.
    """
    found = sorted(set(names), key=natural)
    free = iter(range(len(found)))
    return {name: RESERVED[name] if name in RESERVED else hue(next(free)) for name in found}


def cluster_color(label: int) -> str:
    """A cluster's color by its number; grey for noise."""
    return GREY if label == NOISE else hue(int(label))


def cluster_name(label: int) -> str:
    """How a cluster is called in pictures."""
    return NOISE_NAME if label == NOISE else f"cluster {label}"


def score_colors() -> Colormap:
    """Perceptually uniform, light to dark, so that the strange stand out; magma without its pale end."""
    return ListedColormap(matplotlib.colormaps["magma_r"](np.linspace(0.1, 0.93, 256)), name="strangeness")


def amount_colors() -> Colormap:
    """The same from almost white: where zero means nothing there."""
    return ListedColormap(matplotlib.colormaps["magma_r"](np.linspace(0, 0.93, 256)), name="amount")


def natural(text: str) -> list[tuple[int, int, str]]:
    """Sort key by which '2' comes before '10'."""
    parts = filter(None, re.split(r"(\d+)", text))
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


# --- text that fits


def printable(text: str, mono: bool = False) -> str:
    """Text on one line, with a square for what the font has no glyph for."""
    glyphs = _glyphs(_MONO if mono else _SANS)
    return "".join(c if ord(c) in glyphs else "□" for c in " ".join(str(text).split()))


def elide(text: str, most: int) -> str:
    """Text of at most `most` characters: the middle goes, both ends stay, because ids differ at either."""
    if len(text) <= most:
        return text
    if most < 3:
        return "…"[:most]
    head = ceil((most - 1) / 2)
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def text_width(text: str, points: float, mono: bool = False, bold: bool = False) -> float:
    """Width in px of one line, 3 % more than Pillow measures: matplotlib's hinting sets letters wider."""
    return 1.03 * float(_font(_MONO if mono else _SANS, points, bold).getlength(text))


def fitted(text: str, width: float, points: float, mono: bool = False, bold: bool = False) -> str:
    """Text elided in the middle until it is at most `width` px wide."""
    line = printable(text, mono)
    most = len(line)
    while most > 1 and text_width(elide(line, most), points, mono, bold) > width:
        most -= 1
    return elide(line, most)


def fitted_apart(texts: Iterable[str], width: float, points: float) -> dict[str, str]:
    """Different texts fitted so that they stay different: what some have in common goes before what tells them apart.

    Returns:
        By text what is shown of it; alike only where `width` has no room for what differs.
    """
    return _apart(sorted(set(texts)), "", 0, width, points)


def _apart(texts: Sequence[str], lead: str, start: int, width: float, points: float) -> dict[str, str]:
    """`fitted_apart` of texts that are alike before `start`, of which `lead` stands for that part."""
    shown = {text: fitted(lead + text[start:], width, points) for text in texts}
    if len(set(shown.values())) == len(texts):
        return shown
    end = next(place for place, letters in enumerate(zip_longest(*texts)) if len(set(letters)) > 1)
    lead += "…" if end > start + 1 else texts[0][start:end]
    for letter in sorted({text[end : end + 1] for text in texts}):  # the first that differs is kept: leads do, too
        branch = [text for text in texts if text[end : end + 1] == letter]
        shown |= _apart(branch, lead + letter, end + len(letter), width, points)
    return shown


def wrapped(text: str, width: float, points: float, most: int) -> list[str]:
    """Text broken between words into at most `most` lines of `width` px; what is cut off ends in '…'."""
    lines: list[str] = []
    for word in (fitted(w, width, points) for w in printable(text).split()):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, points) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > most:
        lines = [*lines[: most - 1], _with_dots(lines[most - 1], width, points)]
    return lines


def _with_dots(line: str, width: float, points: float) -> str:
    while line and text_width(f"{line} …", points) > width:
        line = line[:-1]
    return f"{line.rstrip()} …"


@cache
def _font(family: str, points: float, bold: bool) -> ImageFont.FreeTypeFont:
    path = findfont(FontProperties(family=family, weight="bold" if bold else "normal"))
    return ImageFont.truetype(path, size=points * DPI / 72)


@cache
def _glyphs(family: str) -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties(family=family))).get_charmap())


# --- pictures


@contextmanager
def picture(path: Path, width: int, height: int) -> Iterator[Figure]:
    """A figure of `width` x `height` px in the house's style, saved to `path` (PNG) when the block succeeds.

    No pyplot: no global state, nothing left open, no display needed. No date or version goes into the file,
    so that the same picture is the same bytes.
    """
    with matplotlib.style.context(["default", _RC]):
        # the hundredth keeps width / DPI * DPI from falling below the whole number
        figure = Figure(figsize=((width + 0.01) / DPI, (height + 0.01) / DPI), dpi=DPI)
        FigureCanvasAgg(figure)
        yield figure
        with replacing(path) as beside:
            figure.savefig(beside, format="png", dpi=DPI, metadata={"Software": None})


def page(figure: Figure) -> Axes:
    """Invisible axes over the whole figure, in px from its top left corner."""
    width, height = figure.get_size_inches() * DPI
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    return axes


def axes_at(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes whose frame stands at (left, top) px from the figure's top left corner."""
    full_width, full_height = figure.get_size_inches() * DPI
    box = (left / full_width, 1 - (top + height) / full_height, width / full_width, height / full_height)
    return figure.add_axes(box)


def heading(canvas: Axes, left: float, top: float, width: float, title: str, subtitle: str | None = None) -> None:
    """Title, and a fainter line below it, from (left, top) px on a `page`; both cut to `width` px."""
    text = fitted(title, width, TITLE, bold=True)
    canvas.text(left, top, text, fontsize=TITLE, fontweight="bold", va="top")
    if subtitle:
        canvas.text(left, top + 32, fitted(subtitle, width, NORMAL), fontsize=NORMAL, color=FAINT, va="top")


def heading_height(subtitle: str | None) -> int:
    """Px that `heading` takes, with the space below it."""
    return 76 if subtitle else 48


def grey_levels(images: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
    """Images as grey levels: (n, S, S) uint8, or floats in [0, 1], -> (n, S, S) float in [0, 255]."""
    levels = np.asarray(images)
    return levels.astype(float) if levels.dtype == np.uint8 else np.clip(levels.astype(float), 0, 1) * 255
