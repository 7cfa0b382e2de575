"""Sheet of synthetic crops beside real ones, and of the planted kinds: does the core look like a core?

Run: `python benchmarks/synthetic_sheet.py [--real DIR] [--square 64]`; writes
`benchmarks/work/synthetic_sheet.png`. Real crops are a folder with one subfolder a class (default
`$NUNATAK_DATA/icelearning_crops`); without it, the sheet shows the synthetic ones alone.
"""

import argparse
import os
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image

from particles.sources.synthetic import CLASSES, KINDS, UM_PER_PX, Synthetic

matplotlib.use("Agg")
import matplotlib.pyplot as plt

Crop = npt.NDArray[np.uint8]
Strips = tuple[str, Crop, Crop | None]

WIDTH, GAP, GROUND = 1560, 8, 96
TITLES = {
    "dust": "dust",
    "camp": "camp: felsic tephra",
    "grim": "grim: basaltic tephra",
    "corylus": "corylus: hazel pollen",
    "qrob": "qrob: oak pollen",
    "qsub": "qsub: cork oak pollen",
    "cont": "cont: contamination, blur",
}
# What the real crops beside a row are, where that is not the row's class alone.
REAL_TITLES = {"dust": "dust, and two of the unlabeled cores"}
# Real crops that belong to a class but lie in a folder of their own.
MORE_REAL = {"dust": ("core",), "camp": ("camp_contact_sheet",)}


def real_crops(root: Path | None, name: str, most: int) -> list[Crop]:
    """Up to `most` real crops of a class, from its own folder first."""
    if root is None:
        return []
    paths = [p for folder in (name, *MORE_REAL.get(name, ())) for p in sorted((root / folder).glob("*.png"))]
    return [np.asarray(Image.open(path).convert("L")) for path in paths[:most]]


def synthetic_crops(source: Synthetic, name: str, most: int) -> list[Crop]:
    """The first `most` crops of a class or planted kind."""
    rows = source.rows()
    return [source.read(row) for row in rows[rows["truth"] == name].head(most).itertuples()]


def squared(crop: Crop, side: int) -> Crop:
    """The crop as a model sees it: resized with its aspect ratio kept, centered on its own background."""
    factor = side / max(crop.shape)
    width, height = (max(1, round(n * factor)) for n in (crop.shape[1], crop.shape[0]))
    small = np.asarray(Image.fromarray(crop).resize((width, height), Image.Resampling.BOX))
    border = np.concatenate([crop[0], crop[-1], crop[:, 0], crop[:, -1]])
    canvas = np.full((side, side), round(float(np.median(border))), np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    canvas[top : top + height, left : left + width] = small
    return canvas


def strip(crops: list[Crop], width: int, zoom: float) -> Crop:
    """Crops side by side on neutral grey, all at one magnification, as many as fit."""
    parts, used, height = [], 0, 1
    for crop in crops:
        image = Image.fromarray(crop).resize(
            (round(crop.shape[1] * zoom), round(crop.shape[0] * zoom)), Image.Resampling.BICUBIC
        )
        if used + image.width > width:
            continue
        parts.append((used, image))
        used, height = used + image.width + GAP, max(height, image.height)
    canvas = Image.new("L", (width, height), GROUND)
    for x, image in parts:
        canvas.paste(image, (x, (height - image.height) // 2))
    return np.asarray(canvas)


def strips(real: Path | None, seed: int, side: int | None, zoom: float) -> list[Strips]:
    """(title, synthetic strip, real strip or None) for each class and planted kind."""
    source = Synthetic(seed=seed, n_per_class=40, n_core=600, n_per_kind=24)
    rows = []
    for name in CLASSES + KINDS:
        crops, others = synthetic_crops(source, name, 24), real_crops(real, name, 4)
        if side is not None:
            crops, others = [squared(c, side) for c in crops], [squared(c, side) for c in others]
        width = round(0.57 * WIDTH) if real is not None and name in CLASSES else WIDTH
        other = strip(others, WIDTH - width - 4 * GAP, zoom) if others else None
        rows.append((TITLES.get(name, name.replace("_", " ")), strip(crops, width, zoom), other))
    return rows


def draw(rows: list[Strips], path: Path, note: str) -> None:
    """Lays the strips out under their titles and writes the sheet."""
    heights = [max(s.shape[0], 1 if r is None else r.shape[0]) + 34 for _, s, r in rows]
    total, wide = sum(heights) + 144, WIDTH + 40
    figure = plt.figure(figsize=(wide / 100, total / 100), dpi=100, facecolor=str(GROUND / 255))

    def write(text: str, x: float, y: float, size: float) -> None:
        figure.text(x / wide, 1 - y / total, text, color="white", fontsize=size)

    def place(image: Crop, x: int, top: int) -> None:
        figure.figimage(image, x, total - top - image.shape[0], cmap="gray", vmin=0, vmax=255, origin="upper")

    write("Synthetic and real FlowCam crops", 20, 34, 17)
    write(note, 20, 58, 10)
    top = 84
    for i, ((title, synthetic, real), height) in enumerate(zip(rows, heights, strict=True)):
        if i == len(CLASSES):
            write("Planted in the core, in no labeled class", 20, top + 22, 14)
            top += 44
        write(title, 20, top + 16, 10)
        place(synthetic, 20, top + 24)
        if real is not None:
            left = wide - 20 - real.shape[1]
            write("real: " + REAL_TITLES.get(title, title.split(":")[0]), left, top + 16, 10)
            place(real, left, top + 24)
        top += height
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, facecolor=figure.get_facecolor())
    plt.close(figure)


def main() -> None:
    """Reads the command line and writes the sheet."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    default = Path(os.environ.get("NUNATAK_DATA", "data")) / "icelearning_crops"
    parser.add_argument("--real", type=Path, default=default, help="folder of real crops")
    parser.add_argument("--square", type=int, help="show crops as models see them, this side in px")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    real = args.real if args.real.is_dir() else None
    size = f"resized to {args.square} x {args.square} px" if args.square else "all at one magnification"
    sides = "left synthetic, right real" if real else f"synthetic only (no real crops at {args.real})"
    name = f"synthetic_sheet_{args.square}.png" if args.square else "synthetic_sheet.png"
    path = Path(__file__).parent / "work" / name
    note = f"{sides}; seed {args.seed}; {size}; {UM_PER_PX} µm/px"
    draw(strips(real, args.seed, args.square, zoom=1.4), path, note)
    print(path)


if __name__ == "__main__":
    main()
