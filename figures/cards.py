"""Contact sheets: crops side by side, each with its scale, its id and what is to be said of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.patheffects as effects
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, Rectangle
from PIL import Image

from figures import paper, style

SIDE = 216
"""Side of a crop on a sheet, px."""
MARGIN, GAP, _BELOW = 44, 26, 30  # px: around the sheet, between columns, below a row
_LINE, _ID_POINTS = 19, 7.0
_HANG, _OVER = 10, 18  # px: indent of lines that go on; how far text may reach into the gap between columns
_MOST_LINES = 8  # of text below a crop, all its lines together
_BAR_SHARE = 0.42  # a scale bar takes at most this share of the crop
_FEWEST_COLUMNS = 4  # narrower sheets would cut every title


@dataclass(frozen=True)
class Card:
    """One crop on a sheet."""

    image: np.ndarray
    """(S, S) uint8, packed."""
    title: str
    """The particle's id."""
    lines: tuple[str, ...] = ()
    """What stands below the id: size, class, reasons."""
    um_per_packed_px: float | None = None
    """µm per px of `image`; None where the scale is unknown."""
    crop_px_per_packed_px: float = 1.0
    """Px of the original crop per px of `image`: the unit of the scale bar where µm are unknown."""
    rank: int | None = None
    """Shown as a badge."""
    mark: str | None = None
    """Name of a colored frame; named in the sheet's legend."""


@dataclass(frozen=True)
class ScaleBar:
    """A round length and how long it is on the image."""

    length: float
    unit: str
    image_px: float

    @property
    def text(self) -> str:
        """`10 µm`."""
        return f"{self.length:g} {self.unit}"


def scale_bar(per_px: float, size: int, unit: str = "µm") -> ScaleBar:
    """The longest of 1, 2, 5 x 10^k that takes at most 42 % of the image.

    Args:
        per_px: units per image px, > 0.
        size: side of the image in px.
        unit: of the bar.
    """
    most = _BAR_SHARE * size * per_px
    decade = 10.0 ** np.floor(np.log10(most))
    length = next(step * decade for step in (5, 2, 1) if step * decade <= most * (1 + 1e-9))
    return ScaleBar(float(length), unit, float(length / per_px))


def bar_of(card: Card) -> ScaleBar:
    """A card's scale bar: µm, or px of the original crop where the scale is unknown."""
    size = card.image.shape[1]
    if card.um_per_packed_px is None:
        return scale_bar(card.crop_px_per_packed_px, size, "px")
    return scale_bar(card.um_per_packed_px, size)


# --- sheets


def draw_sections(
    sections: Mapping[str, Sequence[Card]],
    path: Path,
    title: str,
    subtitle: str | None = None,
    columns: int = 8,
) -> Path:
    """Draw a contact sheet in named parts: a heading, then its cards.

    Args:
        sections: parts by name, cards in reading order; an empty name has no heading.
        path: PNG to write.
        title: above the sheet.
        subtitle: a fainter line below the title.
        columns: cards in a row.

    Returns:
        `path`.
    """
    all_cards = [card for cards in sections.values() for card in cards]
    columns = max(1, min(columns, max((len(cards) for cards in sections.values()), default=1)))
    width = 2 * MARGIN + max(columns, _FEWEST_COLUMNS) * (SIDE + GAP) - GAP
    marks = style.palette(card.mark for card in all_cards if card.mark)
    top = MARGIN + style.heading_height(subtitle) + (34 if marks else 0)
    places, heads, bottom = _places(sections, columns, top)
    with paper.picture(path, width, bottom) as figure:
        canvas = style.page(figure)
        _paste(canvas, places, width, bottom)
        style.heading(canvas, MARGIN, MARGIN, width - 2 * MARGIN, title, subtitle)
        _legend(canvas, marks, all_cards, top - 52)
        for text, y in heads:
            canvas.text(MARGIN, y, text, fontsize=style.LARGE, fontweight="bold", va="top")
        for card, x, y in places:
            _draw_card(canvas, card, x, y, marks)
        if not all_cards:
            canvas.text(MARGIN, top, "nothing to show", fontsize=style.LARGE, color=style.FAINT, va="top")
    return path


def _places(
    sections: Mapping[str, Sequence[Card]], columns: int, top: int
) -> tuple[list[tuple[Card, int, int]], list[tuple[str, int]], int]:
    """Where each card and each heading stands, and the sheet's height: px from the top left corner."""
    places: list[tuple[Card, int, int]] = []
    heads: list[tuple[str, int]] = []
    y = top
    for name, cards in sections.items():
        if name and cards:
            heads.append((name, y))
            y += 44
        for start in range(0, len(cards), columns):
            row = cards[start : start + columns]
            places += [(card, MARGIN + place * (SIDE + GAP), y) for place, card in enumerate(row)]
            y += SIDE + 12 + _LINE * max(1 + len(_text_lines(card)) for card in row) + _BELOW
    return places, heads, (y - _BELOW if places else y + 60) + MARGIN


def _text_lines(card: Card) -> list[tuple[int, str]]:
    """All lines below a card's id, wrapped to its width, each with its indent in px: what goes on hangs."""
    lines = [
        (0 if number == 0 else _HANG, part)
        for line in card.lines
        for number, part in enumerate(style.wrapped(line, SIDE + _OVER - _HANG, style.SMALL, most=3))
    ]
    return lines if len(lines) <= _MOST_LINES else [*lines[: _MOST_LINES - 1], (0, "…")]


def _paste(canvas: Axes, places: list[tuple[Card, int, int]], width: int, height: int) -> None:
    """All crops as one image, px for px, so that no resampling but `enlarged` touches them."""
    sheet = np.full((height, width, 3), 255, dtype=np.uint8)  # RGB, because a color map rounds grey levels
    for card, x, y in places:
        sheet[y : y + SIDE, x : x + SIDE] = enlarged(card.image)[..., None]
    canvas.imshow(sheet, extent=(0, width, height, 0), interpolation="none", aspect="auto")


def enlarged(image: np.ndarray) -> np.ndarray:
    """A packed image at the size of a sheet: (S, S) uint8 -> (SIDE, SIDE) uint8, Lanczos."""
    return np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def _draw_card(canvas: Axes, card: Card, x: int, y: int, marks: Mapping[str, str]) -> None:
    if card.mark:
        frame = Rectangle((x - 3, y - 3), SIDE + 6, SIDE + 6, fill=False, lw=2.9, ec=marks[card.mark])
    else:
        frame = Rectangle((x, y), SIDE, SIDE, fill=False, lw=0.5, ec="#9a9a9a")
    canvas.add_patch(frame)
    _draw_bar(canvas, card, x, y)
    if card.rank is not None:
        _draw_badge(canvas, f"{card.rank}", x, y)
    below = y + SIDE + 14
    name = style.fitted(card.title, SIDE, _ID_POINTS, mono=True)
    canvas.text(x, below, name, fontsize=_ID_POINTS, family="monospace", va="top")
    for number, (indent, line) in enumerate(_text_lines(card), start=1):
        canvas.text(x + indent, below + number * _LINE, line, fontsize=style.SMALL, color="#4a4a4a", va="top")


def _draw_bar(canvas: Axes, card: Card, x: int, y: int) -> None:
    """Black on light crops and white on dark ones, with a thin halo of the other for what lies below."""
    bar, zoom = bar_of(card), SIDE / card.image.shape[1]
    corner = card.image[-card.image.shape[0] // 4 :, : card.image.shape[1] // 2]
    ink, halo = ("black", "white") if corner.mean() > 110 else ("white", "black")
    left, bottom, width = x + 10, y + SIDE - 12, bar.image_px * zoom
    canvas.add_patch(Rectangle((left - 1, bottom - 6), width + 2, 7, fc=halo, ec="none", alpha=0.75))
    canvas.add_patch(Rectangle((left, bottom - 5), width, 5, fc=ink, ec="none"))
    canvas.text(
        left, bottom - 10, bar.text, fontsize=style.SMALL, color=ink, va="bottom",
        path_effects=[effects.withStroke(linewidth=1.4, foreground=halo, alpha=0.75)],
    )  # fmt: skip


def _draw_badge(canvas: Axes, text: str, x: int, y: int) -> None:
    points = style.SMALL + 0.5
    width = max(style.text_width(text, points, bold=True) + 14, 26)
    corners = "round,pad=0,rounding_size=5"
    canvas.add_patch(FancyBboxPatch((x + 6, y + 6), width, 25, corners, fc=style.INK, lw=0, alpha=0.88))
    canvas.text(
        x + 6 + width / 2, y + 19, text, fontsize=points, fontweight="bold", color="white", ha="center",
        va="center_baseline",
    )  # fmt: skip


def _legend(canvas: Axes, marks: Mapping[str, str], cards: Sequence[Card], y: int) -> None:
    x = float(MARGIN)
    for name, color in marks.items():
        count = sum(card.mark == name for card in cards)
        text = f"{style.printable(name)} ({count} of {len(cards)} shown)"
        canvas.add_patch(Rectangle((x + 2, y + 2), 18, 18, fill=False, lw=2.6, ec=color))
        canvas.text(x + 32, y + 11, text, fontsize=style.NORMAL, va="center")
        x += 72 + style.text_width(text, style.NORMAL)
