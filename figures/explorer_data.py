"""What the explorer's page knows of its particles: one small JSON value, and columns of numbers as base64."""

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex

from figures import style
from figures.explorer_missing import MAPS, Missing, Opened, missing_of
from figures.map_colors import UNLABELED, entries_of
from figures.particle_cards import file_of
from particles.scalars import SCALARS

NAMES = {
    "predicted": "predicted class", "class": "class", "label": "label", "truth": "true class",
    "discovery": "discovery", "core": "core", "sample": "sample",
}  # fmt: skip
"""Text columns -> how the page calls them."""
NUMBERS = {
    "score": ("consensus score", "", "ranking"), "p_value": ("p-value", "", "ranking"), "rank": ("rank", "", "ranking"),
    "known_as_strange": ("known as strange", "", "ranking"),
    "found_in": ("latents with it in their top 1 %", "", "ranking"),
    "size_um": ("size", "µm", "place"), "top_cm": ("top in bag", "cm", "place"),
    "bottom_cm": ("bottom in bag", "cm", "place"), "bag": ("bag", "", "place"),
    "repeat": ("repeat", "", "place"), "volume_ml": ("volume imaged", "mL", "place"),
}  # fmt: skip
"""Numeric columns -> name, unit and group."""
_WHOLE = ("bag", "repeat")  # numbers that are names


@dataclass(frozen=True)
class Redrawn:
    """What an autoencoder made of some particles."""

    rows: np.ndarray
    """(n,) int: rows of the points."""
    images: np.ndarray
    """(n, S, S) uint8."""


@dataclass(frozen=True)
class Extras:
    """What the page shows beside the points, where there is any."""

    neighbors: dict[str, np.ndarray] = field(default_factory=dict)
    """Latent -> (N, k) int: rows of the nearest particles, nearest first; -1 where there are fewer."""
    redrawn: dict[str, Redrawn] = field(default_factory=dict)
    """Latent -> reconstructions, of few particles."""
    absent: np.ndarray | None = None
    """(N,) bool: particles without a crop."""
    fingerprint: str = ""
    """Of the set: marks are kept by it. Default: a hash of the ids."""
    total: int = 0
    """Particles of the core, where the page shows only some."""
    missing: tuple[Missing, ...] = ()
    """More than what is plain from the columns."""
    opened: Opened = field(default_factory=Opened)
    """How the set was opened: the commands that make what is missing open it so."""


class Payload:
    """The page's data: `meta`, plain JSON values, and `chunks`, columns of numbers as base64 by a short key."""

    def __init__(self) -> None:
        self.meta: dict[str, Any] = {}
        self.chunks: dict[str, str] = {}

    def add(self, values: np.ndarray | pd.Series, kind: str) -> dict[str, str]:
        """Keep an array as little-endian `f4`, `u2` or `u4`, and return where: nothing is quantized but to these."""
        key = f"c{len(self.chunks)}"
        data = np.ascontiguousarray(values, dtype=np.dtype(kind).newbyteorder("<"))
        self.chunks[key] = base64.b64encode(data.tobytes()).decode("ascii")
        return {"chunk": key, "type": kind}

    def rows(self, rows: np.ndarray, n: int) -> dict[str, str]:
        """Row numbers below n as the smallest unsigned type; -1 becomes its largest value."""
        kind = "u2" if n < 0xFFFF else "u4"
        return self.add(np.where(rows < 0, np.iinfo(kind).max, rows), kind)

    def numbers(self, values: pd.Series) -> dict[str, str]:
        """A column as float32, NaN where it is missing or infinite."""
        known = values.to_numpy(dtype=float, na_value=np.nan)
        with np.errstate(over="ignore"):
            single = known.astype(np.float32)
        return self.add(np.where(np.isfinite(single), single, np.nan), "f4")


def payload_of(points: pd.DataFrame, title: str, extras: Extras) -> Payload:
    """All that the page needs but the pixels. For the columns of `points` see `write_explorer`."""
    payload, n = Payload(), len(points)
    known = points.loc[:, points.notna().any()] if n else points
    ids = points["particle_id"].astype(str).tolist()
    colors = style.score_colors()
    payload.meta = {
        "title": title, "ids": ids, "total": max(extras.total, n),
        "fingerprint": extras.fingerprint or hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16],
        "grey": style.GREY, "ramp": [to_hex(colors(i / 16)) for i in range(17)],
        "names": _names(known, payload), "numbers": _numbers(known, payload), "latents": _latents(known, payload),
        "reasons": _reasons(points, payload), "files": _files(points, payload),
        "missing": missing_of(known, extras.missing, extras.opened),
        # shuffled, so that no class lies on top of another
        "order": payload.rows(np.random.default_rng(0).permutation(n), n),
        "neighbors": {
            name: {"k": rows.shape[1]} | payload.rows(rows, n) for name, rows in extras.neighbors.items()
        },
        "um_per_px": payload.numbers(points["um_per_shown_px"]) if "um_per_shown_px" in points else None,
        "absent": np.flatnonzero(extras.absent).tolist() if extras.absent is not None else [],
    }  # fmt: skip
    return payload


# --- columns


def _names(points: pd.DataFrame, payload: Payload) -> list[dict[str, Any]]:
    """Every column of names, clusters of the latents included: its names, their colors, and each row's number."""
    found = [
        {"key": name, "name": NAMES[name], "latent": None} | _coded(_as_text(points[name]), "classes", payload)
        for name in NAMES
        if name in points
    ]
    for column in _latent_columns(points):
        latent, _, name = column.partition(":")
        if pd.api.types.is_integer_dtype(points[column]):
            entry = {"key": column, "name": f"{name} cluster", "latent": latent}
            found.append(entry | _coded(points[column], "clusters", payload))
    return found


def _as_text(values: pd.Series) -> pd.Series:
    """A yes-or-no column in words."""
    if pd.api.types.is_bool_dtype(values):
        return values.map({True: "yes", False: "no"}).astype("string")
    return values


def _coded(values: pd.Series, kind: Any, payload: Payload) -> dict[str, Any]:
    entries = entries_of(values, kind)
    codes = np.full(len(values), len(entries), dtype=np.int64)
    for code, entry in enumerate(entries):
        codes[entry.rows] = code
    named = [(entry.name, entry.color) for entry in entries]
    if (codes == len(entries)).any():
        named.append((UNLABELED if kind == "classes" else "not clustered", style.GREY))
    return {"names": [n for n, _ in named], "colors": [c for _, c in named], **payload.add(codes, "u2")}


def _numbers(points: pd.DataFrame, payload: Payload) -> list[dict[str, Any]]:
    """Every column of numbers: name, unit, group, and the ends of its color scale."""
    found = []
    for column in map(str, points.columns):
        if column in NUMBERS:
            name, unit, group = NUMBERS[column]
        elif column in SCALARS:
            name, unit, group = column, SCALARS[column], "scalars"
        elif ":" in column and not _on_map(column) and not pd.api.types.is_integer_dtype(points[column]):
            latent, _, score = column.partition(":")
            name, unit, group = f"{score} ({latent})", "", "scores"
        elif "." in column and pd.api.types.is_numeric_dtype(points[column]):
            view, _, score = column.partition(".")
            name, unit, group = f"{score} ({view})", "", "rarities"
        else:
            continue
        entry = {"key": column, "name": name, "unit": unit, "group": group, **_ends(points[column], column, group)}
        found.append(entry | payload.numbers(points[column]))
    return found


def _ends(values: pd.Series, column: str, group: str) -> dict[str, Any]:
    """Ends of the color scale: the 0.2nd and 99.8th percentiles, so that one far outlier does not flatten it.

    Where the upper end of sizes, scalars or p-values is more than fifty times the lower, the scale is logarithmic.
    Small p-values and ranks are the strange ones: their scale is reversed.
    """
    known = values.to_numpy(dtype=float, na_value=np.nan)
    known = known[np.isfinite(known)]
    low, high = np.quantile(known, (0.002, 0.998)) if len(known) else (0.0, 1.0)
    if group in ("ranking", "scores") and len(known):
        low = known.min()
    logarithmic = bool(low > 0 and high > 50 * low and (group == "scalars" or column in ("p_value", "size_um")))
    high = high if high > low else low + 1
    return {
        "low": float(low),
        "high": float(high),
        "log": logarithmic,
        "reversed": column in ("p_value", "known_as_strange", "rank"),
        "whole": column in _WHOLE,
    }


def _latent_columns(points: pd.DataFrame) -> Iterable[str]:
    return (str(column) for column in points if ":" in str(column) and not _on_map(str(column)))


def _on_map(column: str) -> bool:
    return any(column.partition(":")[2] in axes for axes in MAPS.values())


def _latents(points: pd.DataFrame, payload: Payload) -> dict[str, Any]:
    """For each latent its maps by name."""
    latents = dict.fromkeys(str(column).partition(":")[0] for column in points if ":" in str(column))
    return {
        latent: {
            method: {"x": payload.numbers(points[f"{latent}:{x}"]), "y": payload.numbers(points[f"{latent}:{y}"])}
            for method, (x, y) in MAPS.items()
            if f"{latent}:{x}" in points and f"{latent}:{y}" in points
        }
        for latent in latents
    }


def _files(points: pd.DataFrame, payload: Payload) -> dict[str, Any] | None:
    """Each file of the source once, and for each row which: a collage holds many particles. None where no one knows."""
    files = points["image"].map(file_of) if "image" in points else pd.Series(dtype="string")
    codes, names = pd.factorize(files)
    if len(names) == 0:
        return None
    return {"names": names.tolist(), **payload.rows(codes, len(names))}


def _reasons(points: pd.DataFrame, payload: Payload) -> dict[str, Any]:
    """Each distinct reason once, and for each row the numbers of its reasons: the same few come again and again."""
    texts = points["reasons"].fillna("") if "reasons" in points else pd.Series([""] * len(points))
    parts = [[part.strip() for part in str(text).split(";") if part.strip()] for text in texts]
    numbers = {text: number for number, text in enumerate(dict.fromkeys(part for row in parts for part in row))}
    width = max((len(row) for row in parts), default=0)
    codes = np.full((len(parts), width), -1, dtype=np.int64)
    for row, found in enumerate(parts):
        codes[row, : len(found)] = [numbers[part] for part in found]
    return {"texts": list(numbers), "width": width, **payload.rows(codes, len(numbers))}
