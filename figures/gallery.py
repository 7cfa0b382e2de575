"""Contact sheets: crops side by side, each with its scale, its id and what is to be said of it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.patheffects as effects
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, Rectangle
from PIL import Image

from figures import style
from particles.pixels import PixelStore

SIDE = 216
"""Side of a crop on a sheet, px."""
_MARGIN, _GAP, _BELOW = 44, 26, 30  # px: around the sheet, between columns, below a row
_LINE, _ID_POINTS = 19, 7.0
_HANG, _OVER = 10, 18  # px: indent of lines that go on; how far text may reach into the gap between columns
_MOST_LINES = 7  # of text below a crop, all its lines together
_BAR_SHARE = 0.42  # a scale bar takes at most this share of the crop
_TIMES = "\N{MULTIPLICATION SIGN}"
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


def draw_sheet(cards: Sequence[Card], path: Path, title: str, subtitle: str | None = None, columns: int = 8) -> Path:
    """Draw a contact sheet.

    Args:
        cards: in reading order.
        path: PNG to write.
        title: above the sheet.
        subtitle: a fainter line below the title.
        columns: cards in a row.

    Returns:
        `path`.
    """
    return draw_sections({"": cards}, path, title, subtitle, columns)


def draw_sections(
    sections: Mapping[str, Sequence[Card]],
    path: Path,
    title: str,
    subtitle: str | None = None,
    columns: int = 8,
) -> Path:
    """Draw a contact sheet in named parts: a heading, then its cards; an empty name has no heading."""
    all_cards = [card for cards in sections.values() for card in cards]
    columns = max(1, min(columns, max((len(cards) for cards in sections.values()), default=1)))
    width = 2 * _MARGIN + max(columns, _FEWEST_COLUMNS) * (SIDE + _GAP) - _GAP
    marks = style.palette(card.mark for card in all_cards if card.mark)
    top = _MARGIN + style.heading_height(subtitle) + (34 if marks else 0)
    places, heads, bottom = _places(sections, columns, top)
    with style.picture(path, width, bottom) as figure:
        canvas = style.page(figure)
        _paste(canvas, places, width, bottom)
        style.heading(canvas, _MARGIN, _MARGIN, width - 2 * _MARGIN, title, subtitle)
        _legend(canvas, marks, all_cards, top - 52)
        for text, y in heads:
            canvas.text(_MARGIN, y, text, fontsize=style.LARGE, fontweight="bold", va="top")
        for card, x, y in places:
            _draw_card(canvas, card, x, y, marks)
        if not all_cards:
            canvas.text(_MARGIN, top, "nothing to show", fontsize=style.LARGE, color=style.FAINT, va="top")
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
            places += [(card, _MARGIN + place * (SIDE + _GAP), y) for place, card in enumerate(row)]
            y += SIDE + 12 + _LINE * max(1 + len(_text_lines(card)) for card in row) + _BELOW
    return places, heads, (y - _BELOW if places else y + 60) + _MARGIN


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
    x = float(_MARGIN)
    for name, color in marks.items():
        count = sum(card.mark == name for card in cards)
        text = f"{style.printable(name)} ({count} of {len(cards)} shown)"
        canvas.add_patch(Rectangle((x + 2, y + 2), 18, 18, fill=False, lw=2.6, ec=color))
        canvas.text(x + 32, y + 11, text, fontsize=style.NORMAL, va="center")
        x += 72 + style.text_width(text, style.NORMAL)


# --- from tables to cards


def cards_of(
    table: pd.DataFrame,
    pixels: PixelStore,
    ids: Sequence[str],
    lines: Mapping[str, Sequence[str]] | None = None,
    ranks: Mapping[str, int] | None = None,
    marks: Mapping[str, str] | None = None,
) -> list[Card]:
    """Cards of the particles in `ids`, in that order.

    Args:
        table: particle_id, position (row in `pixels`), width_px, height_px, scale, um_per_px.
        pixels: the packed images.
        ids: particles to show.
        lines: particle_id -> what to say below its size.
        ranks: particle_id -> badge.
        marks: particle_id -> name of its frame.
    """
    rows = table.set_index("particle_id").loc[list(ids)]  # joined by id, never by position
    images = pixels[rows["position"].to_numpy(dtype=np.int64)]
    cards = []
    for (name, row), image in zip(rows.iterrows(), images, strict=True):
        known = not pd.isna(row["um_per_px"])
        card = Card(
            image=image, title=str(name), lines=(_size(row), *(lines or {}).get(name, ())),
            um_per_packed_px=float(row["um_per_px"] / row["scale"]) if known else None,
            crop_px_per_packed_px=1 / float(row["scale"]),
            rank=None if ranks is None or name not in ranks else int(ranks[name]),
            mark=None if marks is None else marks.get(name),
        )  # fmt: skip
        cards.append(card)
    return cards


def _size(row: Any) -> str:
    """`12 x 8 µm`: width and height of the crop."""
    if pd.isna(row["um_per_px"]):
        return f"crop {row['width_px']} {_TIMES} {row['height_px']} px"
    width, height = (_three_digits(float(row[side] * row["um_per_px"])) for side in ("width_px", "height_px"))
    return f"crop {width} {_TIMES} {height} µm"


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


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
    n: int = 40,
    columns: int = 8,
) -> Path:
    """The n strangest particles by rank, with their reasons; those known to be true outliers are framed.

    Args:
        outliers: particle_id, rank (1 = strangest), and where there are any `reasons`, `p_value`, `discovery`: a
            false-discovery line is drawn below the discoveries.
        table: as for `cards_of`; `is_outlier` (nullable) frames the true ones.
        pixels: the packed images.
        path: PNG to write.
        title: above the sheet.
        subtitle: a fainter line below the title.
        n: how many.
        columns: cards in a row.
    """
    top = outliers.sort_values("rank", kind="stable").head(n)
    ids = top["particle_id"].tolist()
    reasons = top["reasons"] if "reasons" in top else [None] * len(top)
    p_values = top["p_value"] if "p_value" in top else [np.nan] * len(top)
    lines = {name: (*_p_text(p), *short_reasons(text)) for name, p, text in zip(ids, p_values, reasons, strict=True)}
    marks: dict[str, str] = {}
    if "is_outlier" in table:
        true = table.loc[table["is_outlier"].fillna(False).astype(bool), "particle_id"]
        marks = dict.fromkeys(true, style.TRUE_OUTLIER)
    ranks = dict(zip(ids, top["rank"], strict=True))
    cards = cards_of(table, pixels, ids, lines, ranks, marks)
    return draw_sections(_by_discovery(cards, top), path, title, subtitle, columns)


def _p_text(p_value: float) -> tuple[str, ...]:
    return () if pd.isna(p_value) else (f"p = {p_value:.2g}",)


def _by_discovery(cards: Sequence[Card], top: pd.DataFrame) -> dict[str, Sequence[Card]]:
    """The cards above and below the false-discovery line; one part without a heading where there is no line."""
    n = int(top["discovery"].sum()) if "discovery" in top else 0
    if n == 0:  # discoveries are the first of the ranking, because p-values grow with the rank
        return {"": cards}
    parts = {"Discoveries: at most 10 % are expected to be known particles": cards[:n]}
    return parts | ({"Below the false-discovery line": cards[n:]} if n < len(cards) else {})


# --- clusters


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
) -> list[Path]:
    """One sheet a cluster: its most central members, then some drawn at random; noise has the last sheet.

    Args:
        labels: (N,) cluster numbers, noise -1, indexed by particle_id.
        xy: (N, D) map or latent, in the order of `labels`; where the members' center is taken.
        table: as for `cards_of`.
        pixels: the packed images.
        folder: where `<method>-cluster-<number>.png` and `<method>-noise.png` go.
        method: name of the clustering.
        n: cards a sheet.
        classes: class names indexed by particle_id, missing where unknown; default the table's labels.
        seed: of the random members.

    Returns:
        The sheets, by cluster number.
    """
    if classes is None:
        classes = table.set_index("particle_id")["label"]
    numbers = sorted(int(number) for number in labels.dropna().unique())
    order = [number for number in numbers if number != style.NOISE]
    order += [style.NOISE] if style.NOISE in numbers else []
    return [_draw_cluster(k, labels, xy, table, pixels, folder, method, n, classes, seed) for k in order]


def _draw_cluster(
    number: int, labels: pd.Series, xy: np.ndarray, table: pd.DataFrame, pixels: PixelStore, folder: Path,
    method: str, n: int, classes: pd.Series, seed: int,
) -> Path:  # fmt: skip
    inside = (labels == number).fillna(False).to_numpy(dtype=bool)
    ids = labels.index[inside].to_numpy()
    central, drawn = members(np.asarray(xy)[inside], n, seed, with_center=number != style.NOISE)
    known = classes.reindex(ids)
    lines = {name: (str(value),) for name, value in known.items() if not pd.isna(value)}
    sections = {
        "Most central": cards_of(table, pixels, ids[central], lines),
        "Drawn at random": cards_of(table, pixels, ids[drawn], lines),
    }
    if len(drawn) == 0 or len(central) == 0:  # one part needs no headings
        sections = {"": [*sections["Most central"], *sections["Drawn at random"]]}
    name = "noise" if number == style.NOISE else f"cluster-{number:03d}"
    shown = f"{method}: {len(central) + len(drawn)} of {len(ids):,} shown"
    return draw_sections(sections, folder / f"{method}-{name}.png", cluster_title(number, known), shown)


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


def cluster_title(number: int, classes: pd.Series) -> str:
    """`cluster 3: 412 particles, 78 % dust`; where only some have a class, of how many that is the share."""
    count, known = len(classes), classes.dropna()
    title = f"{style.cluster_name(number)}: {count:,} {'particle' if count == 1 else 'particles'}"
    if known.empty:
        return title
    counts = known.astype(str).value_counts()
    leader = min(counts.index[counts == counts.max()], key=style.natural)
    share = f"{title}, {100 * counts.max() / len(known):.0f} % {leader}"
    return share if len(known) == count else f"{share} (of {len(known):,} with a class)"
