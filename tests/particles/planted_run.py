"""A FlowCam run of three planted particles, for the tests of its reader."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from particles.sources.listing import NUMBERS

RUN = "GRIP_3046_0_20_1"
COLUMNS = (*NUMBERS, "timestamp", "collage_file", "image_id")
BOXES = [(0, 0, 12, 10), (14, 0, 9, 10), (3, 15, 20, 8)]
SCALE, FRINGE = 0.5, 4.5


def guid(number: int) -> str:
    return f"{number:08X}-0000-4AAA-8BBB-CCCCCCCCCCCC"


def planted(number: int) -> dict[str, str]:
    """A row whose derived values follow from its raw ones; `number` counts from 1."""
    x, y, width, height = BOXES[number - 1]
    abd = max(2 * np.sqrt(40 * number / np.pi) - FRINGE, np.sqrt(40 * number / np.pi)) * SCALE
    values: dict[str, object] = dict.fromkeys(COLUMNS, "1.0000") | {
        "id": number, "image_x": x, "image_y": y, "image_w": width, "image_h": height,
        "src_x": 5 * number, "src_y": 2 * number, "cal_image": 1, "cal_const": SCALE, "fringe_size": FRINGE,
        "raw_area": 40 * number, "raw_filled_area": 48, "raw_perimeter": 32, "raw_convex_hull_area": 60,
        "raw_legendre_major": 10, "raw_legendre_minor": 4, "abd_area": f"{np.pi / 4 * abd**2:.4f}",
        "abd_diameter": f"{abd:.4f}", "esd_diameter": "8", "length": "5", "width": "2", "compactness": "1.6", "ppc": 2,
        "timestamp": "2024-04-08T11:11:01.303", "collage_file": f"{RUN}_000001.tif", "image_id": guid(number),
    }  # fmt: skip
    return {name: str(values[name]) for name in COLUMNS}


def listing_text(rows: list[Mapping[str, str]], columns: tuple[str, ...] = COLUMNS, version: str = "017") -> str:
    header = [version, f"num-fields|{len(columns)}", *(f"{name}|double" for name in columns)]
    return "\n".join([*header, *("|".join(row[name] for name in columns) for row in rows)]) + "\n"


def write_run(folder: Path, rows: list[dict[str, str]] | None = None, run: str = RUN) -> Path:
    """Collage, masks, calibration image, summary and listing of three particles."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (24, 30, 3)).astype(np.uint8)).save(folder / f"{RUN}_000001.tif")
    Image.fromarray(rng.integers(0, 2, (24, 30)).astype(np.uint8) * 255).save(folder / f"{RUN}_000001_bin.tif")
    Image.fromarray(rng.integers(100, 200, (40, 60)).astype(np.uint8)).save(folder / "cal_image_000001.tif")
    (folder / f"{run}_run_summary.txt").write_bytes(
        b"Run:\r\n\tFluid Volume Imaged: 0.0290 ml\r\n\tEfficiency: 22%\r\n"
    )
    listing = folder / f"{run}.lst"
    listing.write_text(listing_text(rows or [planted(n) for n in (1, 2, 3)]), encoding="utf-8")
    return listing


def first_data_line(rows: int = 0) -> int:
    return 3 + len(COLUMNS) + rows
