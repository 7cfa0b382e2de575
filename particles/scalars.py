"""The 34 scalars that FlowCam's VisualSpreadsheet exports, measured from a grey crop.

They are what the field describes particles with, so a particle without the instrument's table (a published
crop, a synthetic one, a digit) can still be compared with one that has it. Lengths below are in pixels before
scaling; `P`, `A` and `F` are the perimeter, the pixel count of the mask and the pixel count with its holes
filled.

================================  =======  =========================================================  ======
Scalar                            Unit     Definition                                                 Source
================================  =======  =========================================================  ======
Area (ABD)                        µm²      pi d²/4, d = Diameter (ABD): the pixel count A             manual
Area (Filled)                     µm²      the same with holes filled: F                              manual
Aspect Ratio                      1        minor / major axis of the ellipse of inertia (Legendre)    manual
Biovolume (Cylinder)              µm³      pi/4 Width² Length (Hillebrand et al. 1999)                ours
Biovolume (P. Spheroid)           µm³      pi/6 Width² Length (Hillebrand et al. 1999)                ours
Circle Fit                        1        1 - rms distance of outline from circle / radius [1]_      ours
Circularity                       1        4 pi F / P², at most 1                                     data
Circularity (Hu)                  1        A² / (2 pi (mu20 + mu02)) (Zunic et al. 2010)              data
Compactness                       1        P² / (4 pi F), at least 1                                  manual
Convex Perimeter                  µm       length of the convex hull of the pixel centers             data
Convexity                         1        F / area of that hull, at most 1                           data
Diameter (ABD)                    µm       2 sqrt(A / pi)                                             manual
Diameter (ESD)                    µm       mean of 36 Feret diameters                                 manual
Edge Gradient                     grey/px  mean of (|Sobel x| + |Sobel y|) / 2 along the outline      manual
Elongation                        1        Geodesic Length / Geodesic Thickness                       manual
Feret Angle Max, Feret Angle Min  deg      direction of the largest, smallest Feret diameter          manual
Fiber Curl                        1        Geodesic Length / Length - 1, at least 0                   data
Fiber Straightness                1        Length / Geodesic Length                                   data
Geodesic Aspect Ratio             1        Geodesic Thickness / Geodesic Length                       data
Geodesic Length, Thickness        µm       sides of the rectangle of perimeter P and area F           data
Intensity                         grey     mean grey level within the mask                            manual
Length                            µm       largest of 36 Feret diameters                              manual
Particles Per Chain               1        8-connected pieces of the mask                             data
Perimeter                         µm       length of the outline from pixel center to pixel center    data
Roughness                         1        Perimeter / Convex Perimeter                               manual
Sigma Intensity                   grey     standard deviation of the grey level within the mask       manual
Sum Intensity                     grey     sum of the grey levels within the mask                     manual
Symmetry                          1        smallest ratio of opposite radii of the outline [2]_        ours
Transparency                      1        1 - Diameter (ABD) / Diameter (ESD)                        manual
Volume (ABD)                      µm³      pi/6 Diameter (ABD)³                                       manual
Volume (ESD)                      µm³      pi/6 Diameter (ESD)³                                       manual
Width                             µm       smallest of 36 Feret diameters                             manual
================================  =======  =========================================================  ======

Source *manual*: the vendor's user guide says so; *data*: the guide is silent or vague, and this definition
returns the instrument's own numbers from the instrument's own masks (`benchmarks/scalars_vs_instrument.py`);
*ours*: the vendor's formula is not public, and this is our reading of its description.

.. [1] The circle is centered on the outline's centroid and as long as the convex hull of the pixel centers.
.. [2] Radii from the outline's centroid to the outline, interpolated in 36 pairs of opposite directions.

The fringe. Diffraction widens a particle's image by a fixed amount, the *fringe size* of the run's settings
(4.5 px in the 10x runs we have; every `.lst` records it). The instrument takes it off Length, Width, the
diameters (ABD, ESD and the filled area's) and the Convex Perimeter, but never more than half of them:
`max(v - fringe, v / 2)`. Areas, volumes and ratios of such values follow; Perimeter, the geodesic measures
and the shape measures that count pixels do not. Small particles therefore report a quarter of the area their
pixels cover. Pass `fringe_px` to get the instrument's values; the default measures what the mask shows.

Feret diameters. The instrument rounds projected pixel coordinates to whole pixels, counted from the camera's
corner, so the same particle measures up to one pixel more or less elsewhere in the frame, and ties decide its
angle. A crop does not know its place; the diameters here are the unrounded ones, the mean over all places.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import ndimage

from particles.segment import EIGHT, background_level, fill_holes, particle_mask

__all__ = ["SCALARS", "background_level", "measure", "particle_mask"]

SCALARS: dict[str, str] = {
    "Area (ABD)": "µm²",
    "Area (Filled)": "µm²",
    "Aspect Ratio": "",
    "Biovolume (Cylinder)": "µm³",
    "Biovolume (P. Spheroid)": "µm³",
    "Circle Fit": "",
    "Circularity": "",
    "Circularity (Hu)": "",
    "Compactness": "",
    "Convex Perimeter": "µm",
    "Convexity": "",
    "Diameter (ABD)": "µm",
    "Diameter (ESD)": "µm",
    "Edge Gradient": "grey/px",
    "Elongation": "",
    "Feret Angle Max": "deg",
    "Feret Angle Min": "deg",
    "Fiber Curl": "",
    "Fiber Straightness": "",
    "Geodesic Aspect Ratio": "",
    "Geodesic Length": "µm",
    "Geodesic Thickness": "µm",
    "Intensity": "grey",
    "Length": "µm",
    "Particles Per Chain": "",
    "Perimeter": "µm",
    "Roughness": "",
    "Sigma Intensity": "grey",
    "Sum Intensity": "grey",
    "Symmetry": "",
    "Transparency": "",
    "Volume (ABD)": "µm³",
    "Volume (ESD)": "µm³",
    "Width": "µm",
}

_POWERS = {"µm": 1, "µm²": 2, "µm³": 3}  # how a value in pixels scales with µm per pixel

FERET_ANGLES = np.arange(-90, 90, 5)  # degrees, as in the instrument: 36 directions
_FERET_X = np.cos(np.deg2rad(FERET_ANGLES))
_FERET_Y = -np.sin(np.deg2rad(FERET_ANGLES))  # rows count downward, angles counterclockwise
_RAYS = np.deg2rad(np.arange(0, 360, 5))


@dataclass(frozen=True)
class _Outline:
    """The outer boundary, walked from pixel center to pixel center over edges and corners."""

    length: float  # px
    visits: np.ndarray  # (H, W) how often the walk passes a pixel: twice along a whisker one pixel wide


def measure(
    crop: np.ndarray, um_per_px: float = 1.0, mask: np.ndarray | None = None, fringe_px: float = 0.0
) -> dict[str, float]:
    """Measure the 34 scalars of one particle.

    Args:
        crop: (H, W) grey levels, `uint8`.
        um_per_px: Scale. NaN (unknown) makes lengths, areas and volumes NaN.
        mask: (H, W) bool, the instrument's own mask; `particle_mask(crop)` if not given.
        fringe_px: The run's fringe size in pixels, for values as the instrument reports them.

    Returns:
        All names of `SCALARS`, in that order. NaN where a value is undefined: everywhere if the mask is
        empty; for a single pixel or a straight line, every ratio whose denominator vanishes.

    Raises:
        ValueError: The crop is not two-dimensional, or the mask has another shape.
    """
    if crop.ndim != 2:
        raise ValueError(f"one grey crop expected, got shape {crop.shape}")
    mask = particle_mask(crop) if mask is None else np.asarray(mask, dtype=bool)
    if mask.shape != crop.shape:
        raise ValueError(f"the mask's shape {mask.shape} is not the crop's {crop.shape}")
    if not mask.any():
        return dict.fromkeys(SCALARS, math.nan)
    crop, mask = _trim(crop, mask)
    filled = fill_holes(mask)
    outline = _trace(filled)
    hull = _convex_hull(filled)
    values = (
        _sizes(mask, filled, outline, hull, fringe_px)
        | _pixel_shapes(mask, filled, outline, hull)
        | _outline_shapes(outline, hull)
        | _greys(crop, mask, outline)
    )
    return {name: float(values[name] * um_per_px ** _POWERS.get(unit, 0)) for name, unit in SCALARS.items()}


def _trim(crop: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut to the mask's box and one pixel around it, which is all that Sobel's filter looks at."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = (slice(max(rows[0] - 1, 0), rows[-1] + 2), slice(max(columns[0] - 1, 0), columns[-1] + 2))
    return crop[box], mask[box]


def _sizes(
    mask: np.ndarray, filled: np.ndarray, outline: _Outline, hull: np.ndarray, fringe_px: float
) -> dict[str, float]:
    """Lengths in px, areas in px² and volumes in px³, and the ratios of such values."""
    ferets = _ferets(hull)  # (36,)
    largest, smallest = int(ferets.argmax()), int(ferets.argmin())

    def sharp(px: float) -> float:
        return max(px - fringe_px, px / 2)

    length, width, esd = sharp(ferets[largest]), sharp(ferets[smallest]), sharp(ferets.mean())
    abd = sharp(_disc_diameter(_area(mask)))
    convex_perimeter = sharp(_hull_perimeter(hull))
    long_side, short_side = _rectangle_sides(outline.length, _area(filled))
    return {
        "Area (ABD)": math.pi / 4 * abd**2,
        "Area (Filled)": math.pi / 4 * sharp(_disc_diameter(_area(filled))) ** 2,
        "Biovolume (Cylinder)": math.pi / 4 * width**2 * length,
        "Biovolume (P. Spheroid)": math.pi / 6 * width**2 * length,
        "Convex Perimeter": convex_perimeter,
        "Diameter (ABD)": abd,
        "Diameter (ESD)": esd,
        "Elongation": _ratio(long_side, short_side),
        "Feret Angle Max": float(FERET_ANGLES[largest]),
        "Feret Angle Min": float(FERET_ANGLES[smallest]),
        # A compact particle is longer than its rectangle; that makes it straight, not negatively curled.
        "Fiber Curl": _at_least(0.0, _ratio(long_side, length) - 1),
        "Fiber Straightness": _ratio(length, long_side),
        "Geodesic Aspect Ratio": _ratio(short_side, long_side),
        "Geodesic Length": long_side,
        "Geodesic Thickness": short_side,
        "Length": length,
        "Perimeter": outline.length,
        "Roughness": _ratio(outline.length, convex_perimeter),
        "Transparency": 1 - _ratio(abd, esd),
        "Volume (ABD)": math.pi / 6 * abd**3,
        "Volume (ESD)": math.pi / 6 * esd**3,
        "Width": width,
    }


def _pixel_shapes(mask: np.ndarray, filled: np.ndarray, outline: _Outline, hull: np.ndarray) -> dict[str, float]:
    """Shape measures that count pixels, whatever the scale."""
    var_x, var_y, cov = _second_moments(mask)
    spread = math.hypot(var_x - var_y, 2 * cov)
    # Rounding can make the smaller eigenvalue of a straight line slightly negative.
    minor, major = max(var_x + var_y - spread, 0.0), var_x + var_y + spread
    area = _area(filled)
    compactness = max(outline.length**2 / (4 * math.pi * area), 1.0)
    return {
        "Aspect Ratio": math.sqrt(_ratio(minor, major)),
        "Circularity": 1 / compactness,
        "Circularity (Hu)": _ratio(_area(mask), 2 * math.pi * (var_x + var_y)),
        "Compactness": compactness,
        # The hull joins pixel centers and covers less than the pixels do: a convex particle would exceed 1.
        "Convexity": _at_most(1.0, _ratio(area, _hull_area(hull))),
        "Particles Per Chain": ndimage.label(mask, EIGHT)[1],
    }


def _outline_shapes(outline: _Outline, hull: np.ndarray) -> dict[str, float]:
    """How round and how symmetric the outline is about its own centroid."""
    rows, columns = np.nonzero(outline.visits)  # (N,) each
    visits = outline.visits[rows, columns]
    x, y = columns - np.average(columns, weights=visits), rows - np.average(rows, weights=visits)
    radius = np.hypot(x, y)
    # The circle as long as the convex hull: of those tried on the instrument's masks it comes nearest.
    fit = _hull_perimeter(hull) / (2 * math.pi)
    misfit = math.sqrt(np.average((radius - fit) ** 2, weights=visits))
    rays = np.interp(_RAYS, np.arctan2(y, x), radius, period=2 * math.pi)  # (72,)
    there, back = rays[: len(rays) // 2], rays[len(rays) // 2 :]
    longer = np.maximum(there, back)
    return {
        "Circle Fit": _at_least(0.0, 1 - _ratio(misfit, fit)),
        "Symmetry": float((np.minimum(there, back) / longer).min()) if longer.min() > 0 else math.nan,
    }


def _greys(crop: np.ndarray, mask: np.ndarray, outline: _Outline) -> dict[str, float]:
    """Brightness within the mask and steepness along its outline."""
    grey = crop[mask].astype(float)
    image = crop.astype(np.float32)
    steepness = np.abs(ndimage.sobel(image, axis=1, mode="nearest"))
    steepness += np.abs(ndimage.sobel(image, axis=0, mode="nearest"))
    # The instrument keeps the filtered image in eight bits.
    gradient = np.minimum(steepness / 2, 255.0)
    return {
        "Edge Gradient": float(np.average(gradient, weights=outline.visits)),
        "Intensity": float(grey.mean()),
        "Sigma Intensity": float(grey.std()),
        "Sum Intensity": float(grey.sum()),
    }


def _trace(filled: np.ndarray) -> _Outline:
    """Length and pixels of the outlines, without walking them.

    Every 2 x 2 square of pixels that an outline crosses contributes its own step: two pixels side by side a
    straight step, three a diagonal past the missing one, two across a diagonal there and back; a single one
    is merely turned around. A step counts half a visit at either end.

    Args:
        filled: (H, W) bool without holes.

    Returns:
        The sum over all pieces. A mask of lone pixels, where there is nothing to walk, visits each once.
    """
    padded = np.zeros((filled.shape[0] + 2, filled.shape[1] + 2), dtype=bool)
    padded[1:-1, 1:-1] = filled
    a, b, c, d = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]  # corners of each square
    count = a.astype(np.int8) + b + c + d
    across = (count == 2) & (a == d)
    beside = (count == 2) & ~across
    three = count == 3
    twice = np.zeros(padded.shape, dtype=np.int16)  # half visits
    pair = beside + 2 * across.astype(np.int16)
    # Of three pixels the step joins the two next to the missing one.
    falling, rising = three & ~(a & d), three & ~(b & c)
    twice[:-1, :-1] += a * (pair + rising)
    twice[:-1, 1:] += b * (pair + falling)
    twice[1:, :-1] += c * (pair + falling)
    twice[1:, 1:] += d * (pair + rising)
    diagonals = np.count_nonzero(three) + 2 * np.count_nonzero(across)
    length = np.count_nonzero(beside) + math.sqrt(2) * diagonals
    visits = twice[1:-1, 1:-1] / 2
    return _Outline(float(length), visits if length else filled.astype(float))


def _convex_hull(filled: np.ndarray) -> np.ndarray:
    """Convex hull of the pixel centers, by Andrew's monotone chain over each row's outermost pixels.

    Unlike Qhull it takes lone pixels and straight lines as they come.

    Args:
        filled: (H, W) bool, not empty.

    Returns:
        (V, 2) corners as (column, row), in order around the hull.
    """
    rows = np.flatnonzero(filled.any(axis=1))
    first = filled[rows].argmax(axis=1)
    last = filled.shape[1] - 1 - filled[rows, ::-1].argmax(axis=1)
    left = _chain(list(zip(first.tolist(), rows.tolist(), strict=True)), turn=1)
    right = _chain(list(zip(last.tolist(), rows.tolist(), strict=True)), turn=-1)
    corners = dict.fromkeys(left + right[::-1])  # an ordered set: a row of one pixel is in both chains
    return np.array(list(corners), dtype=float)


def _chain(points: list[tuple[int, int]], turn: int) -> list[tuple[int, int]]:
    """The part of a column-by-row sequence that bulges to one side (`turn` 1: left, -1: right)."""
    chain: list[tuple[int, int]] = []
    for x, y in points:
        while len(chain) > 1:
            (x0, y0), (x1, y1) = chain[-2], chain[-1]
            if turn * ((x1 - x0) * (y - y0) - (y1 - y0) * (x - x0)) < 0:
                break
            chain.pop()
        chain.append((x, y))
    return chain


def _ferets(hull: np.ndarray) -> np.ndarray:
    """Feret diameters in px along `FERET_ANGLES`: (V, 2) -> (36,).

    Distance of pixel centers plus one: a pixel is a disc of diameter 1, and n pixels in a row measure n.
    """
    along = np.outer(hull[:, 0], _FERET_X) + np.outer(hull[:, 1], _FERET_Y)  # (V, 36)
    # Rounded so that directions equal by symmetry tie, and the first of them wins on every machine.
    return np.round(along.max(axis=0) - along.min(axis=0), 9) + 1


def _hull_perimeter(hull: np.ndarray) -> float:
    """Length around the hull: (V, 2) -> px; a line counts there and back."""
    return sum(math.dist(p, q) for p, q in pairwise([*hull.tolist(), hull[0].tolist()]))


def _hull_area(hull: np.ndarray) -> float:
    """Area of the hull by the shoelace formula: (V, 2) -> px²."""
    x, y = hull[:, 0], hull[:, 1]
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def _second_moments(mask: np.ndarray) -> tuple[float, float, float]:
    """Variances of the pixel centers along x and y, and their covariance, in px²."""
    by_row, by_column = mask.sum(axis=1), mask.sum(axis=0)
    area = by_row.sum()
    y, x = np.arange(len(by_row), dtype=float), np.arange(len(by_column), dtype=float)
    y -= y @ by_row / area
    x -= x @ by_column / area
    return float(x**2 @ by_column / area), float(y**2 @ by_row / area), float(y @ (mask @ x) / area)


def _rectangle_sides(perimeter: float, area: float) -> tuple[float, float]:
    """Sides (long, short) of the rectangle with this perimeter and area.

    Rounder than a square, no such rectangle exists; then the square of that perimeter, as in the instrument.
    """
    mean = perimeter / 4
    half_difference = math.sqrt(max(mean**2 - area, 0.0))
    return mean + half_difference, mean - half_difference


def _area(mask: np.ndarray) -> int:
    """Pixels set."""
    return int(np.count_nonzero(mask))


def _disc_diameter(area: float) -> float:
    """Diameter of the disc with this area."""
    return 2 * math.sqrt(area / math.pi)


def _ratio(a: float, b: float) -> float:
    """Quotient of two values, NaN where undefined."""
    return a / b if b else math.nan


def _at_least(bound: float, value: float) -> float:
    """The larger of the two; unlike `max`, NaN stays NaN in either order."""
    return bound if value < bound else value


def _at_most(bound: float, value: float) -> float:
    """The smaller of the two; unlike `min`, NaN stays NaN in either order."""
    return bound if value > bound else value
