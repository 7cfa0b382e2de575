"""A search -> a folder that FiftyOne imports as FiftyOneDataset: samples.json, metadata.json, data/*.png."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from figures.export_atlas import png
from figures.export_rows import export_rows, named_clusters
from figures.report_results import Results
from provenance.errors import UserError
from provenance.files import replacing, write_json

CLASSES = {"label": "label", "truth": "truth", "predicted": "predicted"}
"""Columns that become classifications; `predicted` carries its confidence."""
_RESERVED = {"id", "filepath", "tags", "metadata", "media_type", "created_at", "last_modified_at"}
BATCH = 2048


def write_fiftyone(results: Results, latent: str, folder: Path, most: int) -> Path:
    """Write the folder; `samples.json` last, so that its presence says that the folder is whole.

    Args:
        results: a finished search.
        latent: whose map becomes `umap_x`, `umap_y`.
        folder: made, or replaced where it is an earlier export.
        most: samples; of a larger core the strangest and a sample.

    Returns:
        `folder`.

    Raises:
        UserError: the folder holds something else.
    """
    rows = named_clusters(export_rows(results, latent, most))
    _clear(folder)
    positions = results.table["position"].reindex(rows["particle_id"]).to_numpy(dtype=np.int64)
    files = [file_name(rank, name) for rank, name in zip(rows["rank"], rows["particle_id"], strict=True)]
    (folder / "data").mkdir(parents=True)
    for start in range(0, len(rows), BATCH):
        crops = results.particles.pixels[positions[start : start + BATCH]]
        for name, crop in zip(files[start : start + BATCH], crops, strict=True):
            (folder / "data" / name).write_bytes(png(crop))
    info = {"data": results.particles.name, "run": results.consensus.name, "map": latent}
    write_json(folder / "metadata.json", {"media_type": "image", "info": info})
    samples = [sample(row, name) for row, name in zip(rows.to_dict("records"), files, strict=True)]
    with replacing(folder / "samples.json") as beside:
        beside.write_text(json.dumps({"samples": samples}, allow_nan=False), encoding="utf-8")
    return folder


def sample(row: dict[Any, Any], file: str) -> dict[str, Any]:
    """One sample as plain values; what is missing has no field."""
    known = {str(name): _plain(value) for name, value in row.items() if not pd.isna(value) and value != ""}
    fields: dict[str, Any] = {
        field_name(name): value for name, value in known.items() if name not in CLASSES and name != "confidence"
    }
    for column, name in CLASSES.items():
        if column in known:
            fields[name] = {"_cls": "Classification", "label": str(known[column])}
    if "predicted" in fields and "confidence" in known:
        fields["predicted"]["confidence"] = known["confidence"]
    tags = ["discovery"] if known.get("discovery") else []
    return {"filepath": f"data/{file}", "tags": tags, **fields}


def field_name(column: str) -> str:
    """A name that FiftyOne takes: letters, digits and `_`, none of its own; `Area (ABD)` -> `area_abd`."""
    name = re.sub(r"[^0-9a-z]+", "_", column.lower()).strip("_")
    return f"particle_{name}" if name in _RESERVED or not name[:1].isalpha() else name


def file_name(rank: int, identity: str) -> str:
    """Rank first, so that a folder sorts by it and no two ids meet; of the id only what is safe in any file system."""
    return f"{rank:07d}-{re.sub(r'[^0-9A-Za-z_-]+', '_', identity)[:80]}.png"


def _plain(value: Any) -> Any:
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    return float(value) if isinstance(value, (float, np.floating)) else str(value)


def _clear(folder: Path) -> None:
    """Remove an earlier export; refuse a folder that holds anything else."""
    ours = {"data", "metadata.json", "samples.json"}
    if folder.exists():
        others = sorted(path.name for path in folder.iterdir() if path.name not in ours)
        if others:
            raise UserError(f"{folder}: holds '{others[0]}', which is not of an export; give another folder with --out")
        shutil.rmtree(folder)
