"""The explorer: every particle of a run on its maps, in one HTML file that needs no network and no server."""

import base64
import html
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex
from PIL import Image
from plotly.offline import get_plotlyjs

from figures import style
from figures.explorer_page import BODY, CONTENT_POLICY, SCRIPT, STYLE
from figures.maps import UNLABELED, entries_of
from provenance.files import replacing

SIDE = 48
"""Thumbnails larger than this are made this small, px."""
_COLUMNS, _ROWS = 32, 32  # thumbnails of a sheet: 1,536 px squares, which every browser decodes
_STRANGEST = 60  # in the list beside the map
_MAPS = {"UMAP": ("umap_x", "umap_y"), "t-SNE": ("tsne_x", "tsne_y")}
_CLASSES = ("class", "predicted", "truth")


def write_explorer(path: Path, points: pd.DataFrame, thumbnails: np.ndarray, title: str) -> Path:
    """Write the explorer as one HTML file.

    Columns of `points`, a row a particle:

        particle_id               text, unique
        class, predicted, truth   nullable text; each optional: a color to choose
        score                     nullable float, optional: the consensus score, a color to choose
        rank                      nullable integer, optional: 1 = strangest
        reasons                   nullable text, optional: parts separated by `;`
        size_um                   nullable float, optional
        <latent>:umap_x, <latent>:umap_y, <latent>:tsne_x, <latent>:tsne_y
                                  floats, NaN where a particle is not on the map: a latent and a map to choose
        <latent>:<name>           any other column of a latent: a color to choose; whole numbers are clusters
                                  (noise -1, missing where not clustered), floats are scores

    Every choice is offered in the order of the columns.

    Args:
        path: HTML to write.
        points: see above.
        thumbnails: (N, S, S) uint8, in the order of `points`; S above 48 px is made 48 px.
        title: of the page.

    Returns:
        `path`.

    Raises:
        ValueError: ids are not unique, or there are not as many thumbnails as points.
    """
    if len(points) != len(thumbnails):
        raise ValueError(f"{len(points)} points but {len(thumbnails)} thumbnails")
    if points["particle_id"].duplicated().any():
        raise ValueError("particle_id is not unique")
    small = _small(thumbnails)
    data = page_data(points, small.shape[1])
    with replacing(path) as beside:
        beside.write_text(_page(data, sprite_sheets(small), title), encoding="utf-8")
    return path


def page_data(points: pd.DataFrame, side: int) -> dict[str, Any]:
    """All that the page needs but the pixels, as plain JSON values."""
    colors: dict[str, Any] = {}
    if "score" in points and points["score"].notna().any():
        colors["consensus score"] = _scale(points["score"])
    for name in _CLASSES:
        if name in points and points[name].notna().any():
            colors[name] = _names(points[name], "classes")
    ramp = [[i / 16, to_hex(style.score_colors()(i / 16))] for i in range(17)]
    return {
        "ids": points["particle_id"].astype(str).tolist(),
        "rank": [None if value is None else int(value) for value in _numbers(points, "rank")],
        "score": _numbers(points, "score"),
        "size": _numbers(points, "size_um"),
        "reasons": [_reasons(text) for text in points.get("reasons", pd.Series([None] * len(points)))],
        "colors": colors,
        "latents": _latents(points),
        # shuffled, so that no class lies on top of another
        "order": np.random.default_rng(0).permutation(len(points)).tolist(),
        "sprite": {"side": side, "columns": _COLUMNS, "rows": _ROWS},
        "grey": style.GREY, "ramp": ramp, "shown": _STRANGEST,
    }  # fmt: skip


def _latents(points: pd.DataFrame) -> dict[str, Any]:
    """For each latent its maps and its own colors, both by name."""
    found: dict[str, Any] = {}
    for column in points.columns:
        latent, _, name = str(column).partition(":")
        if not name:
            continue
        entry = found.setdefault(latent, {"maps": {}, "colors": {}})
        axes = next((axes for axes in _MAPS.values() if name in axes), None)
        if axes is None:
            values = points[column]
            whole = pd.api.types.is_integer_dtype(values)
            entry["colors"][name] = _names(values, "clusters") if whole else _scale(values)
    for latent, entry in found.items():
        for method, (x, y) in _MAPS.items():
            if f"{latent}:{x}" in points and points[f"{latent}:{x}"].notna().any():
                entry["maps"][method] = {
                    "x": _numbers(points, f"{latent}:{x}"),
                    "y": _numbers(points, f"{latent}:{y}"),
                }
    return found


def _names(values: pd.Series, kind: Any) -> dict[str, Any]:
    """Names, their colors, and for each row the number of its name."""
    entries = entries_of(values, kind)
    codes = np.full(len(values), len(entries), dtype=np.int64)
    for code, entry in enumerate(entries):
        codes[entry.rows] = code
    names = [(entry.name, entry.color) for entry in entries]
    if (codes == len(entries)).any():
        names.append((UNLABELED if kind == "classes" else "not clustered", style.GREY))
    return {"names": [n for n, _ in names], "colors": [c for _, c in names], "codes": codes.tolist()}


def _scale(values: pd.Series) -> dict[str, Any]:
    """Values of a color scale up to the 99.8th percentile, so that one far outlier does not flatten it."""
    known = values.dropna().to_numpy(dtype=float)
    low, high = (float(known.min()), float(np.quantile(known, 0.998))) if len(known) else (0.0, 1.0)
    shown = [None if pd.isna(v) else float(f"{v:.5g}") for v in values]
    return {"values": shown, "low": low, "high": high if high > low else low + 1}


def _numbers(points: pd.DataFrame, column: str) -> list[float | None]:
    """A column to five digits, which no screen can tell from more; missing and infinite values as None."""
    if column not in points:
        return [None] * len(points)
    values = points[column].to_numpy(dtype=float, na_value=np.nan)
    return [float(f"{value:.5g}") if np.isfinite(value) else None for value in values]


def _reasons(text: Any) -> list[str]:
    return [] if text is None or pd.isna(text) else [part.strip() for part in str(text).split(";") if part.strip()]


# --- thumbnails


def _small(thumbnails: np.ndarray) -> np.ndarray:
    """(N, S, S) uint8 -> (N, min(S, 48), min(S, 48)) uint8."""
    if thumbnails.shape[1] <= SIDE:
        return thumbnails
    resized = [Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BOX) for image in thumbnails]
    return np.array([np.asarray(image) for image in resized], dtype=np.uint8).reshape(-1, SIDE, SIDE)


def sprite_sheets(thumbnails: np.ndarray) -> list[bytes]:
    """Thumbnails in reading order on sheets of 32 x 32, the last shorter: (N, S, S) uint8 -> PNG files."""
    sheets = []
    for start in range(0, len(thumbnails), _COLUMNS * _ROWS):
        part = thumbnails[start : start + _COLUMNS * _ROWS]
        rows, side = -(-len(part) // _COLUMNS), part.shape[1]
        full = np.zeros((rows * _COLUMNS, side, side), dtype=np.uint8)
        full[: len(part)] = part
        sheet = full.reshape(rows, _COLUMNS, side, side).swapaxes(1, 2).reshape(rows * side, _COLUMNS * side)
        file = io.BytesIO()
        Image.fromarray(sheet).save(file, "PNG", compress_level=9)
        sheets.append(file.getvalue())
    return sheets


# --- the page


def script_json(value: Any) -> str:
    """JSON that can stand within a script element: no `<`, so that no text can close it or open another."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _page(data: dict[str, Any], sheets: list[bytes], title: str) -> str:
    encoded = [base64.b64encode(sheet).decode("ascii") for sheet in sheets]
    crops = "\n".join(
        f".sheet-{i} {{ background-image: url(data:image/png;base64,{text}); }}" for i, text in enumerate(encoded)
    )
    safe = html.escape(title)
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{CONTENT_POLICY}">',
        f"<title>{safe}</title>",
        f"<style>{STYLE}{crops}</style>\n</head>\n<body>{BODY.replace('__TITLE__', safe)}",
        f'<script type="application/json" id="data">{script_json(data)}</script>',
        f"<script>{get_plotlyjs()}</script>\n<script>{SCRIPT}</script>\n</body>\n</html>\n",
    ]
    return "\n".join(parts)
