"""Bright-field optics of the synthetic crops: from outline and transmission to an 8-bit grey crop."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Floats = npt.NDArray[np.floating[Any]]

# Hardly a pixel of the real crops falls below 15 % of its background: scattered light fills the dark.
BLACK = 0.13
# How far a particle's contrast may be stretched to reach its tone before it stops looking like what it is.
CONTRAST = (0.62, 1.6)


@dataclass(frozen=True)
class Body:
    """What a particle does to the light, before the lens sees it.

    Attributes:
        depth: (H, W) signed distance to the outline in px, positive inside.
        light: (H, W) transmission, 1 is the empty background.
        blur: Extra defocus in px that belongs to the particle rather than to the slide.
    """

    depth: Floats
    light: Floats
    blur: float = 0.0


@dataclass(frozen=True)
class View:
    """How one crop is taken.

    Attributes:
        level: Background level in grey values.
        tilt: Change of illumination across 100 px, relative, to the right and downward.
        noise: Standard deviation of the sensor noise in grey values.
        blur: Standard deviation of the point spread in px.
        fringe: Strength and sign of the defocus halo; positive is a bright rim outside the outline.
        tone: Mean relative darkness of the crop to be reached, or None to leave the contrast as drawn.
    """

    level: float
    tilt: tuple[float, float]
    noise: float
    blur: float
    fringe: float
    tone: float | None = None


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cell: float) -> Floats:
    """Draws a smooth random field of zero mean and about unit variance.

    Args:
        rng: Source of the draws.
        shape: Height and width in px.
        cell: Size of a blotch in px.

    Returns:
        (H, W) field: white noise on a coarse grid, interpolated by cubic B-splines.
    """
    height, width = shape
    coarse = rng.standard_normal((int(height / cell) + 4, int(width / cell) + 4), dtype=np.float32)
    # Across the short coarse rows first, then down, where whole rows are copied. No matrix product: a
    # threaded one crawls when several processes render, and its last bit depends on the number of threads.
    field = _interpolated(_interpolated(coarse.T, width, cell).T, height, cell)
    # 0.479 is the mean of the summed squared B-spline weights along one axis.
    return field / np.float32(0.479)


def _interpolated(coarse: Floats, n: int, cell: float) -> Floats:
    """Cubic B-spline through the first axis of a grid, at n pixels, `cell` of them to a step of the grid."""
    at = np.arange(n, dtype=np.float32) / np.float32(cell)
    base = at.astype(np.intp)
    t = at - base
    s = 1.0 - t
    weights = (s**3 / 6, 2 / 3 - t * t * (1 - t / 2), 2 / 3 - s * s * (1 - s / 2), t**3 / 6)
    rows = np.ascontiguousarray(coarse)
    total = weights[0][:, None] * rows[base]
    for k in (1, 2, 3):
        total += weights[k][:, None] * rows[base + k]
    return total


def coverage(depth: Floats) -> Floats:
    """Share of each pixel that lies inside an outline given by its signed distance in px."""
    return np.clip(depth + 0.5, 0.0, 1.0)


def expose(body: Body, view: View, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Takes the picture of one body.

    Args:
        body: Outline and transmission.
        view: Focus, illumination and noise.
        rng: Source of the noise.

    Returns:
        (H, W) uint8 crop.
    """
    blur = float(np.hypot(view.blur, body.blur))
    light = _blurred(body.light + _halo(body.depth, view.fringe, blur), blur)
    if view.tone is not None:
        light = _toned(light, view.tone)
    # A soft floor keeps the texture of the darkest particles, where a clip would flatten it.
    light = BLACK + np.logaddexp(0.0, (light - BLACK) * 12.0) / 12.0
    return _developed(light, view, rng)


def _halo(depth: Floats, fringe: float, blur: float) -> Floats:
    """Light that defocus moves across the outline: a bright and a dark rim, and a faint ring outside."""
    reach = np.float32(1.0 + 1.3 * blur)
    spread = 1.0 / (1.0 + np.exp(np.clip(-depth / reach, -30.0, 30.0)))
    ring = np.exp(-np.abs(depth + 4.0 * reach) / reach)
    return np.float32(fringe) * (spread - coverage(depth) - 0.12 * ring)


def _blurred(light: Floats, sigma: float) -> Floats:
    """Gaussian point spread; the border continues, as the empty background does."""
    if sigma < 0.3:
        return light
    return np.asarray(ndimage.gaussian_filter(light, sigma, mode="nearest", truncate=3.0))


def _toned(light: Floats, tone: float) -> Floats:
    """Stretches the contrast, within reason, so that the crop is on average `tone` darker than empty."""
    darkness = max(float(np.mean(1.0 - light)), 1e-3)
    contrast = float(np.clip(tone / darkness, *CONTRAST))
    return 1.0 + np.float32(contrast) * (light - 1.0)


def _developed(light: Floats, view: View, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Transmission -> grey values: illumination, its slope, slow unevenness and sensor noise."""
    height, width = light.shape
    x = (np.arange(width, dtype=np.float32) - width / 2) * np.float32(view.tilt[0] / 100)
    y = (np.arange(height, dtype=np.float32) - height / 2) * np.float32(view.tilt[1] / 100)
    grey = light * (view.level * (1.0 + x + y[:, None]))
    grey += np.float32(view.noise) * rng.standard_normal(light.shape, dtype=np.float32)
    grey += smooth_noise(rng, (height, width), 14.0) * np.float32(0.6)
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)
