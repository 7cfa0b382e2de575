"""Numbers and tables as a reader wants them."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from figures.report_intervals import Estimate

DASH = "\N{EN DASH}"
_NUMBER = re.compile(rf"-?[\d.,]+(e-?\d+)?( %)?( \([^()]*\))?|{DASH}|> 99 %")
_TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True)
class Table:
    """A table of the report: text only; its first column names the rows."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Which columns hold numbers alone, to be set flush right; the first never is."""
        columns = zip(*self.rows, strict=True) if self.rows else [()] * len(self.header)
        return tuple(place > 0 and all(map(_NUMBER.fullmatch, cells)) for place, cells in enumerate(columns))


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[Any]], note: str = "") -> Table:
    """A table of values: numbers to three digits, what is missing as a dash."""
    return Table(caption, tuple(header), tuple(tuple(text(value) for value in row) for row in rows), note)


def text(value: Any) -> str:
    """One value: whole numbers with separators, others to three digits, estimates with their interval."""
    if isinstance(value, str):
        return value
    if isinstance(value, Estimate):
        return f"{value.value:.3f} ({value.low:.3f}{DASH}{value.high:.3f})"
    if value is None or pd.isna(value):
        return DASH
    if isinstance(value, (bool, int)) or (float(value).is_integer() and abs(value) < 1e15):
        return f"{int(value):,}"
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:,.0f}"


def percent(share: float | None) -> str:
    """`12 %`, `0.52 %`; never rounded to 0 or to 100 where it is neither."""
    if share is None or math.isnan(share):
        return DASH
    if share in (0, 1):
        return f"{share * 100:.0f} %"
    value = f"{100 * share:.2g}" if share < 0.1 else f"{100 * share:.0f}"
    return "> 99 %" if value == "100" else f"{value} %"


def p_text(value: float) -> str:
    """A p-value to two digits."""
    return DASH if pd.isna(value) else f"{value:.2g}"


def duration(seconds: float | None) -> str:
    """`48 s`, `12 min`, `3.5 h`."""
    if seconds is None:
        return DASH
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def size(row: Any) -> str:
    """`21 x 18 µm`: width and height of a crop; in px where the scale is unknown.

    Args:
        row: of the particle table, by name of column.
    """
    sides = [row["width_px"], row["height_px"]]
    if any(pd.isna(side) for side in sides):
        return DASH
    if pd.isna(row["um_per_px"]):
        return f"{sides[0]} {_TIMES} {sides[1]} px"
    width, height = (f"{float(side) * float(row['um_per_px']):.3g}" for side in sides)
    return f"{width} {_TIMES} {height} µm"


def place(row: Any) -> str:
    """Where a particle is from: its sample and depth, or what is known of them."""
    known = {name: row[name] for name in ("sample", "core", "bag", "top_cm", "bottom_cm") if name in row}
    known = {name: value for name, value in known.items() if not pd.isna(value)}
    parts = [str(known["sample"])] if "sample" in known else [str(known[n]) for n in ("core", "bag") if n in known]
    if "top_cm" in known and "bottom_cm" in known:
        parts.append(f"{known['top_cm']:g}{DASH}{known['bottom_cm']:g} cm")
    return ", ".join(parts) or DASH
