"""The explorer: every particle of a run on its maps, in one HTML file or a folder, without network or server."""

import base64
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from plotly.offline import get_plotlyjs

from figures.explorer_crops import Crops, Layout, layout_of, sheets_of
from figures.explorer_data import Extras, Payload, payload_of
from figures.explorer_page import (
    FOLDER_POLICY,
    ONE_FILE_POLICY,
    data_element,
    own_scripts,
    page,
    script,
    script_json,
)  # fmt: skip
from provenance.files import replacing

ONE_FILE = 20_000
"""More particles than this are written as a folder: no browser opens one file of so many quickly."""
_IN_A_FILE = 16  # columns of numbers in one file of a folder


def write_explorer(
    path: Path, points: pd.DataFrame, crops: Crops, title: str, extras: Extras | None = None, one_file: int = ONE_FILE
) -> Path:
    """Write the explorer: one HTML file, or for many particles a folder of that name with `index.html`.

    Columns of `points`, a row a particle; all but the first are optional, and what is missing or empty the page names
    with the command that makes it:

        particle_id               text, unique
        class, predicted, label, truth, core, sample
                                  nullable text: colors and filters to choose
        score, rank, reasons      nullable: the consensus; rank 1 = strangest; parts of `reasons` separated by `;`
        p_value, discovery        nullable float and bool: the conformal p-value, below the false-discovery line
        known_as_strange          nullable whole number: particles held back that are as strange
        size_um, top_cm, bag, repeat, volume_ml
                                  nullable floats: colors, filters, histograms
        image                     nullable text: the file in the source; what follows a `?` is left out
        um_per_shown_px           nullable float: µm a thumbnail pixel, for the scale bar
        any of the 34 scalars     nullable floats
        <view>.<score>            floats in [0, 1]: share of the core that is less strange
        <latent>:umap_x, <latent>:umap_y, <latent>:tsne_x, <latent>:tsne_y
                                  floats, NaN where a particle is not on the map: a latent and a map to choose
        <latent>:<name>           any other column of a latent: whole numbers are clusters (noise -1, missing where
                                  not clustered), floats are scores

    Numbers are kept as float32, rows and codes as whole numbers: nothing is quantized further. Up to 4,000 crops are
    kept without loss, more as JPEG.

    Args:
        path: HTML to write.
        points: see above.
        crops: (N, S, S) uint8, in the order of `points`; S above 64 px is made 64 px.
        title: of the page.
        extras: neighbors, reconstructions, and what else the page can show.
        one_file: more particles than this make a folder.

    Returns:
        `path`, or `index.html` in the folder; what an earlier call left in the other form is removed.

    Raises:
        ValueError: ids are not unique, or there are not as many crops as points.
    """
    if len(points) != len(crops):
        raise ValueError(f"{len(points)} points but {len(crops)} crops")
    if points["particle_id"].duplicated().any():
        raise ValueError("particle_id is not unique")
    payload, layout = payload_of(points, title, extras or Extras()), layout_of(crops)
    payload.meta["sprite"] = layout.described()
    _add_redrawn(payload, extras or Extras())
    folder = path.with_suffix("")
    if len(points) > one_file:
        _write_folder(folder, payload, layout, crops, title)
        path.unlink(missing_ok=True)
        return folder / "index.html"
    _write_one_file(path, payload, layout, crops, title)
    if (folder / "index.html").exists() and (folder / "sheets").is_dir():
        shutil.rmtree(folder)
    return path


def _add_redrawn(payload: Payload, extras: Extras) -> None:
    """Reconstructions, sheets of their own within the JSON: they are few."""
    payload.meta["redrawn"] = {}
    for latent, redrawn in extras.redrawn.items():
        layout = Layout(len(redrawn.rows), min(64, redrawn.images.shape[1]), lossless=True)
        sheets = [_base64(sheet) for sheet in sheets_of(redrawn.images, layout)]
        entry = {"rows": redrawn.rows.tolist(), "sprite": layout.described(), "sheets": sheets}
        payload.meta["redrawn"][latent] = entry


def _write_one_file(path: Path, payload: Payload, layout: Layout, crops: Crops, title: str) -> None:
    data = [data_element("data", script_json(payload.meta), "application/json")]
    data += [data_element(key, text) for key, text in payload.chunks.items()]
    data += [data_element(f"sheet-{i}", _base64(sheet)) for i, sheet in enumerate(sheets_of(crops, layout))]
    with replacing(path) as beside:
        beside.write_text(page(title, ONE_FILE_POLICY, data, own_scripts()), encoding="utf-8")


def _write_folder(folder: Path, payload: Payload, layout: Layout, crops: Crops, title: str) -> None:
    """`index.html`, `data/*.js` (script elements, because a page from disk may read no other files), `sheets/`."""
    with _replacing_folder(folder) as beside:
        for name in ("data", "sheets"):
            (beside / name).mkdir(parents=True)
        names = [_write_chunks(beside, "meta", {"data": payload.meta})]
        items = list(payload.chunks.items())
        for start in range(0, len(items), _IN_A_FILE):
            names.append(_write_chunks(beside, f"columns-{start:03d}", dict(items[start : start + _IN_A_FILE])))
        for number, sheet in enumerate(sheets_of(crops, layout)):
            (beside / "sheets" / f"{number:04d}.{layout.suffix}").write_bytes(sheet)
        (beside / "plotly.js").write_text(get_plotlyjs(), encoding="utf-8")
        (beside / "explorer.js").write_text(script(), encoding="utf-8")
        sources = [*names, "plotly.js", "explorer.js"]
        receiver = "<script>window.explorerChunks = {};</script>"
        elements = [receiver, *(f'<script src="{source}"></script>' for source in sources)]
        (beside / "index.html").write_text(page(title, FOLDER_POLICY, [], elements), encoding="utf-8")


def _write_chunks(folder: Path, name: str, chunks: Mapping[str, Any]) -> str:
    text = f"Object.assign(window.explorerChunks, {script_json(chunks)});\n"
    (folder / "data" / f"{name}.js").write_text(text, encoding="utf-8")
    return f"data/{name}.js"


@contextmanager
def _replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder beside `folder` to write to; put it in its place only if the block succeeds."""
    beside, old = (folder.with_name(f".{folder.name}.{os.getpid()}{end}") for end in ("", ".old"))
    try:
        beside.mkdir(parents=True)
        yield beside
        if folder.exists():
            os.replace(folder, old)
        os.replace(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
