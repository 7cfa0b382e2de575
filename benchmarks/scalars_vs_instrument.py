"""How close the scalars measured from pixels come to the instrument's own, particle by particle.

    python -m benchmarks.scalars_vs_instrument --runs DIR

DIR holds FlowCam run folders: `<run>/<run>.lst`, its exported `<run>.csv`, collages `.tif`, masks `_bin.tif`.
Measured are the instrument's masks, so the table tests the definitions, not the segmentation.
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from particles.scalars import FERET_ANGLES, SCALARS, measure
from particles.sources.flowcam import FlowCam
from particles.sources.listing import NUMBERS, read_listing

CLOSE = 0.05  # a scalar counts as reproduced when its median relative error is below this
# The collages hold blue where readers expect red: only with these weights (Rec. 601, reversed) does the mean
# over a mask equal the instrument's Intensity.
GREY_WEIGHTS = (0.114, 0.587, 0.299)


@dataclass(frozen=True)
class Particle:
    """One particle as the instrument left it."""

    crop: np.ndarray  # (H, W) uint8
    mask: np.ndarray  # (H, W) bool
    raw: dict[str, float]  # the numbers of its row of the .lst
    exported: dict[str, float]  # the scalars of the exported table


def read_runs(root: Path) -> Iterator[Particle]:
    """Every particle of every run folder below `root`, in order."""
    for listing in sorted(root.glob("*/*.lst")):
        source = FlowCam(listing.parent)
        rows = pd.concat(source.rows(), ignore_index=True)
        raw = pd.concat(read_listing(listing), ignore_index=True)
        exported = pd.read_csv(listing.with_suffix(".csv"), encoding="utf-8-sig").set_index("Original Reference ID")
        scalars = exported.loc[raw["image_id"], [name for name in SCALARS if name in exported]]
        tables = (raw[list(NUMBERS)].to_dict("records"), scalars.to_dict("records"))
        for row, numbers, values in zip(rows.itertuples(), *tables, strict=True):
            yield Particle(instrument_grey(source.cut(row)), source.mask(row), numbers, values)


def instrument_grey(pixels: np.ndarray) -> np.ndarray:
    """The grey that the instrument measures: (H, W) or (H, W, 3) as stored -> (H, W) uint8."""
    return pixels if pixels.ndim == 2 else np.rint(pixels @ np.array(GREY_WEIGHTS)).astype(np.uint8)


def relative_error(name: str, ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """|ours - theirs| / |theirs|, (N,); angles as a part of 180 degrees; NaN where theirs is zero."""
    if SCALARS[name] == "deg":
        return np.abs((ours - theirs + 90) % 180 - 90) / 180
    return np.abs(ours - theirs) / np.where(theirs == 0, np.nan, np.abs(theirs))


def compare(particles: Sequence[Particle], use_fringe: bool) -> dict[str, tuple[float, float]]:
    """Median and 95th percentile of the relative error of every scalar that the runs export."""
    measured = [
        measure(p.crop, p.raw["cal_const"], p.mask, p.raw["fringe_size"] if use_fringe else 0.0) for p in particles
    ]
    errors = {}
    for name in SCALARS:
        if all(name in p.exported for p in particles):
            ours = np.array([m[name] for m in measured])
            theirs = np.array([p.exported[name] for p in particles])
            error = relative_error(name, ours, theirs)
            errors[name] = (float(np.nanmedian(error)), float(np.nanpercentile(error, 95)))
    return errors


def ferets_in_frame(particle: Particle) -> np.ndarray:
    """Feret diameters (36,) in px, rounded as the instrument does: in the camera's frame."""
    rows, columns = np.nonzero(particle.mask)
    x, y = columns + int(particle.raw["src_x"]), rows + int(particle.raw["src_y"])
    angles = np.deg2rad(FERET_ANGLES)
    along = np.rint(np.outer(x, np.cos(angles)) + np.outer(y, np.sin(angles)))
    return along.max(axis=0) - along.min(axis=0) + 1


def report(particles: Sequence[Particle]) -> str:
    """The table, then what it takes to read it."""
    with_fringe, without = compare(particles, use_fringe=True), compare(particles, use_fringe=False)
    lines = [
        f"{len(particles)} particles, the instrument's own masks; relative error against its exported table",
        "",
        f"{'':26}{'fringe as recorded':>20}{'fringe 0':>20}",
        f"{'scalar':26}{'median':>10}{'p95':>10}{'median':>10}{'p95':>10}",
    ]
    for name in SCALARS:
        cells = [*with_fringe.get(name, (math.nan, math.nan)), *without.get(name, (math.nan, math.nan))]
        lines.append(f"{name:26}" + "".join("         -" if math.isnan(v) else f"{v:10.2%}" for v in cells))
    close = sum(median < CLOSE for median, _ in with_fringe.values())
    lines += [
        "",
        f"{close} of {len(SCALARS)} within {CLOSE:.0%} in the median ({len(with_fringe)} exported).",
    ]
    return "\n".join(lines + _notes(particles))


def _notes(particles: Sequence[Particle]) -> list[str]:
    """Agreement of raw pixel measures, and the disagreements that have a known cause."""
    pixels = np.array([p.mask.sum() for p in particles])
    raw_area = np.array([p.raw["raw_area"] for p in particles])
    area = np.array([p.exported["Area (ABD)"] for p in particles])
    scale = np.array([p.raw["cal_const"] for p in particles])
    share = area / (raw_area * scale**2)
    same_feret = [abs(ferets_in_frame(p).mean() - p.raw["raw_feret_mean"]) < 1e-3 for p in particles]
    return [
        "Angles: part of 180 degrees. Rows where the instrument says 0 are left out. -: not in the export.",
        "",
        f"Raw area equals the mask's pixel count in {np.mean(pixels == raw_area):.2%} of the particles.",
        f"Area (ABD) is {np.median(share):.1%} of pixel count x scale² in the median, exactly a quarter in "
        f"{np.mean(np.abs(share - 0.25) < 1e-3):.1%}:",
        "  the instrument takes the fringe size off the diameter, but never more than half of the diameter.",
        f"Feret diameters rounded in the camera's frame equal the instrument's in {np.mean(same_feret):.2%};",
        "  a crop does not know its place in the frame, so `measure` leaves them unrounded.",
    ]


def speed(particles: Sequence[Particle]) -> str:
    """Crops a second on one core, mask included."""
    start = time.perf_counter()
    for particle in particles:
        measure(particle.crop)
    rate = len(particles) / (time.perf_counter() - start)
    side = np.median([max(p.crop.shape) for p in particles])
    return f"{rate:.0f} crops/s on one core, mask included (longer side {side:.0f} px in the median)."


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 1 if there is nothing to compare with."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    data = os.environ.get("NUNATAK_DATA")
    default = Path(data) / "flowcam_runs" if data else None
    parser.add_argument("--runs", type=Path, default=default, help="default: $NUNATAK_DATA/flowcam_runs")
    runs: Path | None = parser.parse_args(argv).runs
    particles = list(read_runs(runs)) if runs else []
    if not particles:
        print(f"no FlowCam runs in {runs}: give --runs DIR or set NUNATAK_DATA", file=sys.stderr)
        return 1
    print(report(particles))
    print(speed(particles))
    return 0


if __name__ == "__main__":
    sys.exit(main())
