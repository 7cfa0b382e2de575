"""The picture of a core from top to bottom: a panel for each share, concentration and outliers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from figures import paper, style
from particles.profile import (
    COVERAGE,
    SAMPLE,
    UNCLASSIFIED,
    Counts,
    mean_interval,
    section_name,
    share,
    share_interval,
)
from provenance.files import replacing

MOST_SHARES = 4
"""Panels of shares; more would be too narrow on a page of 15 cm."""
OTHERS = "other classes"
_WIDTH, _MARGIN, _GAP, _HEAD, _FOOT = 892, 18, 24, 40, 150  # px; 892 px are 15.1 cm
_ROW, _TALLEST = 26, 2200  # px
_WIDEST, _LABEL = 230, style.SMALL + 0.5  # px of a sample's name among many panels; points of a bag's
_ROOMY = 300  # px of a panel: what more there is goes to the names
_MARKERS = "os^Dv<>ph"


def sample_names(counts: Counts) -> list[str]:
    """What to call each sample: (S,)."""
    rows = counts.samples.to_dict("records")
    return [str(r["sample"]) if pd.notna(r["sample"]) else f"{section_name(r)}, repeat {r['repeat']}" for r in rows]


@dataclass
class Layout:
    """Places down the page, in rows from the top."""

    y: np.ndarray
    """(S,) of the samples."""
    sections: list[np.ndarray] = field(default_factory=list)
    """Row numbers of samples whose markers a line joins."""
    bands: list[tuple[float, float]] = field(default_factory=list)
    """From and to, of every section."""
    ticks: dict[float, str] = field(default_factory=dict)
    headings: dict[float, str] = field(default_factory=dict)
    height: float = 0.0


def layout(counts: Counts) -> Layout:
    """Bags from top to bottom, true to scale within a bag; samples without a depth line by line, by name."""
    samples, made = counts.samples, Layout(np.zeros(len(counts.samples)))
    names = sample_names(counts)
    deep = samples["top_cm"].notna()
    for key, rows in samples[deep].groupby(["core", "bag"], dropna=False, sort=True):
        made.headings[made.height + 0.3] = " ".join(
            filter(None, ["" if pd.isna(key[0]) else str(key[0]), "" if pd.isna(key[1]) else f"bag {key[1]}"])
        )
        _place_bag(made, rows)
    rest = sorted(np.flatnonzero(~deep), key=lambda row: style.natural(names[row]))
    if rest and made.headings:
        made.headings[made.height + 0.3] = "no depth known"
        made.height += 1
    for row in rest:
        made.y[row] = made.height + 0.5
        made.ticks[made.height + 0.5] = names[row]
        made.height += 1
    return made


def _place_bag(made: Layout, rows: pd.DataFrame) -> None:
    """One bag below what is there already; its sections as high as they are thick."""
    top = rows["top_cm"].to_numpy(dtype=float)
    bottom = rows["bottom_cm"].to_numpy(dtype=float, na_value=np.nan)
    apart = np.diff(np.unique(top))
    thick = np.where(bottom > top, bottom - top, apart.min() if len(apart) else 1.0)
    sections = [np.flatnonzero((top == t) & (thick == h)) for t, h in sorted({*zip(top, thick, strict=True)})]
    # the section with most repeats for its thickness sets the scale; a slice among thick ones must not stretch the page
    wanted = max((0.8 * len(s) + 0.4) / thick[s[0]] for s in sections)
    scale = min(wanted, 60 / (np.max(top + thick) - top.min()))
    start = made.height + 1 - top.min() * scale
    for section in sections:
        begin, end = (start + depth * scale for depth in (top[section[0]], (top + thick)[section[0]]))
        place = (np.arange(len(section)) + 0.5) / len(section)
        made.y[rows.index[section]] = begin + (0.12 + 0.76 * place) * (end - begin)
        made.sections.append(rows.index[section].to_numpy())
        made.bands.append((begin, end))
    edges = np.unique(np.concatenate([top, bottom[bottom > top]]))
    made.ticks |= {start + edge * scale: f"{edge:g}" for edge in edges}
    made.height = start + float(np.max(top + thick)) * scale + 0.4


@dataclass(frozen=True)
class Panel:
    """One column of the picture: a value a sample, and its intervals."""

    title: str
    color: str
    value: np.ndarray
    """(S,); NaN where there is none."""
    limits: np.ndarray
    """(4, S): 95 % low, 68 % low, 68 % high, 95 % high."""
    ringed: np.ndarray
    """Row numbers of samples that deviate from the other repeats."""
    log: bool = False


def panels_of(counts: Counts, repeats: pd.DataFrame, groups: Mapping[str, str]) -> list[Panel]:
    """Shares of the most frequent groups, then concentration and outliers, where they are known.

    Where nothing is classified there is no share to show, but how many particles samples of unknown volume hold.

    Args:
        counts: by class.
        repeats: of `compare_repeats`.
        groups: class -> group that it shares a panel with.
    """
    amounts = _concentration(counts, repeats) + _outliers(counts)
    if counts.classes == [UNCLASSIFIED]:
        return amounts or _counted(counts)
    colors, groups = style.palette(counts.classes), {name: groups.get(name, name) for name in counts.classes}
    merged = counts.merged(groups)
    most = [merged.classes[k] for k in np.argsort(-merged.n.sum(axis=0), kind="stable")]
    if len(most) > MOST_SHARES:
        most = [*most[: MOST_SHARES - 1], OTHERS]
        groups = {name: group if group in most else OTHERS for name, group in groups.items()}
        merged = counts.merged(groups)
    panels = []
    for name in most:
        members = [member for member, group in groups.items() if group == name]
        color = style.FAINT if name == OTHERS else colors[members[0]]
        n, ringed = merged.n[:, merged.classes.index(name)], _offenders(counts, repeats, members)
        limits = _limits(partial(share_interval, n, counts.total))
        panels.append(Panel(f"{name}\n% of all", color, 100 * n / counts.total, 100 * limits, ringed))
    return panels + amounts


def _counted(counts: Counts) -> list[Panel]:
    limits = _limits(partial(mean_interval, counts.total))
    return [Panel("particles\ncounted", style.INK, counts.total.astype(float), limits, np.empty(0, int), log=True)]


def _concentration(counts: Counts, repeats: pd.DataFrame) -> list[Panel]:
    volume = np.where(counts.volume_ml > 0, counts.volume_ml, np.nan)
    if np.isnan(volume).all():
        return []
    limits = _limits(partial(mean_interval, counts.total)) / volume
    ringed = _offenders(counts, repeats, None)
    return [Panel("particles\nper mL", style.INK, counts.total / volume, limits, ringed, log=True)]


def _outliers(counts: Counts) -> list[Panel]:
    if not counts.judged.any():
        return []
    n, judged = counts.outliers.sum(axis=1), counts.judged.sum(axis=1)
    limits = _limits(partial(share_interval, n, judged))
    return [Panel("outliers\nper 1000", style.hue(5), 1000 * share(n, judged), 1000 * limits, np.empty(0, int))]


def _limits(interval: Callable[[float], tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    (near_low, near_high), (far_low, far_high) = (interval(coverage) for coverage in COVERAGE.values())
    return np.stack([far_low, near_low, near_high, far_high])


def _offenders(counts: Counts, repeats: pd.DataFrame, classes: Sequence[str] | None) -> np.ndarray:
    """Rows of the samples that deviate most, in one of the classes, or (None) in concentration."""
    bad = repeats[repeats["offender"]]
    bad = bad[bad["class"].isna()] if classes is None else bad[bad["class"].isin(list(classes))]
    rows = counts.samples.reset_index().merge(bad[list(SAMPLE)].drop_duplicates(), on=list(SAMPLE))
    return np.asarray(rows["index"].to_numpy(dtype=int))


def draw_profile(
    counts: Counts, repeats: pd.DataFrame, groups: Mapping[str, str], path: Path, title: str, note: str
) -> Path:
    """Draw the profile as PNG, and beside it as PDF; 15.1 cm wide, with letters for that width.

    Args:
        counts: by class.
        repeats: of `compare_repeats`; the samples that it calls offenders are ringed.
        groups: class -> group that it shares a panel with.
        path: PNG to write.
        title: above the panels.
        note: below them: where classes and outliers are from.

    Returns:
        `path`.
    """
    places, panels = layout(counts), panels_of(counts, repeats, groups)
    subtitle = f"{counts.total.sum():,} particles in {len(counts.samples):,} samples"
    most = max(_WIDEST, _WIDTH - 2 * _MARGIN - 18 - len(panels) * _ROOMY)
    left = _MARGIN + 18 + min(_widest(places), most)
    width = (_WIDTH - left - _MARGIN) // len(panels) - _GAP
    tall, head = int(min(_ROW * places.height, _TALLEST)), _MARGIN + style.heading_height(subtitle) + _HEAD
    with paper.picture(path, _WIDTH, head + tall + _FOOT) as figure:
        canvas = style.page(figure)
        style.heading(canvas, _MARGIN, _MARGIN, _WIDTH - 2 * _MARGIN, title, subtitle)
        for number, panel in enumerate(panels):
            axes = style.axes_at(figure, left + number * (width + _GAP), head, width, tall)
            _draw_panel(axes, panel, counts, places)
        _depths(canvas, places, left, head, tall)
        _legend(canvas, counts, any(len(panel.ringed) for panel in panels), head + tall + 52)
        _note(canvas, note, head + tall + 82)
        with replacing(path.with_suffix(".pdf")) as beside:
            figure.savefig(beside, format="pdf", metadata={"CreationDate": None, "Producer": None, "Creator": None})
    return path


def _widest(places: Layout) -> int:
    """Px that the names at the left want."""
    ticks = [style.text_width(text, style.SMALL) for text in (*places.ticks.values(), "cm in bag")]
    return int(max(ticks + [style.text_width(text, _LABEL, bold=True) for text in places.headings.values()]))


def _draw_panel(axes: Axes, panel: Panel, counts: Counts, places: Layout) -> None:
    for begin, end in places.bands:
        axes.axhspan(begin, end - 0.06, color="#f4f4f4", lw=0)
    for rows in places.sections:
        axes.plot(panel.value[rows], places.y[rows], color=panel.color, lw=0.7, alpha=0.55)
    low, near_low, near_high, high = panel.limits
    axes.hlines(places.y, low, high, color=panel.color, lw=0.7)
    axes.hlines(places.y, near_low, near_high, color=panel.color, lw=2.0)
    for marker, rows in _by_marker(counts).values():
        axes.plot(panel.value[rows], places.y[rows], marker, color=panel.color, ms=4.2, mec=style.PAPER, mew=0.5)
    ring: dict[str, Any] = {"ms": 10.5, "mfc": "none", "mec": style.INK, "mew": 1.1}
    axes.plot(panel.value[panel.ringed], places.y[panel.ringed], "o", clip_on=False, zorder=5, **ring)
    _scale(axes, panel)
    axes.set(ylim=(places.height, 0), yticks=[])
    axes.set_title(panel.title, fontsize=style.SMALL + 0.5, fontweight="normal", loc="left", color=panel.color, pad=6)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


def _scale(axes: Axes, panel: Panel) -> None:
    """A range that holds all intervals; shares begin at 0 unless they all lie far from it."""
    low, high = float(np.nanmin(panel.limits[0])), float(np.nanmax(panel.limits[3]))
    if panel.log:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.15, high * 1.15)
        if np.log10(high / low) > 1:
            axes.xaxis.set_major_locator(LogLocator(numticks=3))
        else:  # no power of ten may lie within
            axes.xaxis.set_major_locator(MaxNLocator(2, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(lambda value, _: _short(value))
        axes.xaxis.set_minor_formatter(NullFormatter())
        return
    begin = 0.0 if low < 0.5 * high else low - 0.08 * (high - low)
    axes.set_xlim(begin, high + 0.06 * (high - begin))
    axes.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))


def _short(value: float) -> str:
    """`20k` for 20,000: the panels are narrow."""
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def _by_marker(counts: Counts) -> dict[str, tuple[str, np.ndarray]]:
    """Name of a repeat -> its marker and rows; samples without a number are dots without a name."""
    found = counts.samples["repeat"]
    numbers = sorted(found.dropna().unique())
    made = {
        f"repeat {number}": (_MARKERS[place % len(_MARKERS)], np.flatnonzero((found == number).fillna(False)))
        for place, number in enumerate(numbers)
    }
    return made | ({"": ("o", np.flatnonzero(found.isna()))} if found.isna().any() else {})


def _depths(canvas: Axes, places: Layout, left: int, head: int, tall: int) -> None:
    """What stands at the left: bags, depths in cm, names."""
    row, free = tall / places.height, -np.inf
    names = style.fitted_apart(places.ticks.values(), left - _MARGIN - 10, style.SMALL)
    for place, text in sorted(places.headings.items()):
        shown = style.fitted(text, left - _MARGIN, _LABEL, bold=True)
        canvas.text(_MARGIN, head + place * row, shown, fontsize=_LABEL, fontweight="bold", va="center")
    for place, text in sorted(places.ticks.items()):
        if (place - free) * row < 13:  # letters would stand in each other
            continue
        free = place
        canvas.text(left - 10, head + place * row, names[text], fontsize=style.SMALL, ha="right", va="center")
    if places.bands:
        canvas.text(left - 10, head - 8, "cm in bag", fontsize=style.SMALL, ha="right", va="bottom", color=style.FAINT)


def _legend(canvas: Axes, counts: Counts, ringed: bool, top: int) -> None:
    handles = [
        Line2D([], [], ls="", marker=marker, color=style.FAINT, ms=4.2, label=name)
        for name, (marker, _) in _by_marker(counts).items()
        if name
    ]
    handles += [
        Line2D([], [], color=style.FAINT, lw=2.0, label="68 %"),
        Line2D([], [], color=style.FAINT, lw=0.7, label="95 % of counting error"),
    ]
    if ringed:
        ring: dict[str, Any] = {"ls": "", "marker": "o", "ms": 9, "mfc": "none", "mec": style.INK, "mew": 1.1}
        handles.append(Line2D([], [], label="deviates from its repeats", **ring))
    at = (_MARGIN, top)
    canvas.legend(
        handles=handles, ncols=len(handles), loc="center left", bbox_to_anchor=at, bbox_transform=canvas.transData,
        fontsize=style.SMALL, columnspacing=1.1, handletextpad=0.4, handlelength=1.4, borderpad=0, borderaxespad=0,
    )  # fmt: skip


def _note(canvas: Axes, note: str, top: int) -> None:
    for number, line in enumerate(style.wrapped(note, _WIDTH - 2 * _MARGIN, style.SMALL, 3)):
        canvas.text(_MARGIN, top + 17 * number, line, fontsize=style.SMALL, color=style.FAINT, va="top")
