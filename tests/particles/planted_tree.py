"""Small ICELEARNING trees and what their reader makes of them, for its tests."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import settings
from PIL import Image

from particles.sources.icelearning import IceLearning
from particles.table import validated

AREA, WIDTH, SCALE = "Area (ABD)", "Width", "Calibration Factor"
AUTHOR = "/home/author/Desktop/Flowcam/train"
SOME = settings(max_examples=30, deadline=None)


def png(path: Path, grey: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((9, 8), grey, np.uint8)).save(path)
    return path


def table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]], separator: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [separator.join(str(field) for field in row) for row in [columns, *rows]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def listed(root: Path) -> pd.DataFrame:
    """All rows, as packing would have them, missing values as None."""
    frames = [validated(frame, "ice") for frame in IceLearning(root).rows()]
    rows = pd.concat(frames, ignore_index=True).astype(object)
    return rows.where(rows.notna(), None)


def verdicts(root: Path) -> dict[str, Any]:
    """Image (or id, where there is none) -> why it is refused, None where it is not."""
    rows = listed(root)
    return dict(zip(rows["image"], rows["reject"], strict=True))


def dust(root: Path, names: Sequence[str], values: Sequence[object] | None = None) -> Path:
    """A class folder `dust` with one crop for each name, and its table."""
    for name in names:
        png(root / "dust" / name)
    areas = values if values is not None else [1.5] * len(names)
    rows = [[area, f"{AUTHOR}/dust/{name}"] for area, name in zip(areas, names, strict=True)]
    return table(root / "dust.csv", [AREA, "imgpaths"], rows)
