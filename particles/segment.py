"""Where the particle is in its crop: the background's grey level, the particle's mask, its holes filled.

The instrument finds a particle by subtracting a flat-field image of the empty flow cell. A published crop
comes without that image, so the crop's own border stands in for it: a FlowCam crop is the particle's box with
a margin, and most of its border shows background. A transparent particle is found by its dark rim; what looks
like the background within stays a hole, here as in the instrument's own masks.
"""

import numpy as np
from scipy import ndimage

# ThresholdDark and ThresholdLight of the FlowCam runs we have: a pixel this many grey levels away from the
# background belongs to the particle, be it darker (the body) or brighter (a diffraction rim).
THRESHOLD = 20.0
# Sensor noise must not count as particle: this many standard deviations of the border's own grey levels.
NOISE_SIGMAS = 4.0
# Below this contrast (grey levels) a crop shows nothing: compression and rounding alone reach it.
FAINTEST = 3.0
# A piece smaller than this fraction of the largest is dirt beside the particle, not a link of its chain.
SPECK = 0.02

EIGHT = np.ones((3, 3), dtype=bool)  # neighbors that touch at a corner belong together


def background_level(crop: np.ndarray) -> float:
    """Grey level of the crop's background: the median of its outermost pixels.

    Args:
        crop: (H, W) grey levels.

    Returns:
        The level; right as long as the particle covers less than half of the border. NaN for an empty array.
    """
    border = _border(crop)
    return float(np.median(border)) if border.size else float("nan")


def particle_mask(crop: np.ndarray) -> np.ndarray:
    """Tell the particle from its background, whichever of the two is brighter.

    A pixel is particle when it differs from the background by more than `THRESHOLD` and more than the noise,
    or, in a faint crop, by more than half of the largest difference. Cracks one pixel wide are closed and
    specks dropped; holes stay, as in the instrument's own masks.

    Args:
        crop: (H, W) grey levels, `uint8`.

    Returns:
        (H, W) bool; nothing is set where the crop shows nothing.
    """
    if crop.size == 0:
        return np.zeros(crop.shape, dtype=bool)
    background = background_level(crop)
    contrast = np.abs(crop.astype(np.float32) - background)  # (H, W)
    peak = float(contrast.max())
    if peak < FAINTEST:
        return np.zeros(crop.shape, dtype=bool)
    # 1.4826 makes the median absolute deviation of a normal distribution its standard deviation.
    noise = 1.4826 * float(np.median(np.abs(_border(crop) - background)))
    found = contrast > min(max(THRESHOLD, NOISE_SIGMAS * noise), peak / 2)
    # A plain closing erodes what touches the crop's edge: hence the union.
    return _without_specks(found | ndimage.binary_closing(found, EIGHT))


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Fill what a path of edge-to-edge steps cannot reach from outside.

    Args:
        mask: (H, W) bool.

    Returns:
        (H, W) bool, holes filled. Labeling the outside once is many times faster than scipy's
        `binary_fill_holes`, which dilates step by step.
    """
    outside = np.ones((mask.shape[0] + 2, mask.shape[1] + 2), dtype=bool)
    outside[1:-1, 1:-1] = ~mask
    labels, _ = ndimage.label(outside)
    return (labels != labels[0, 0])[1:-1, 1:-1]


def _border(crop: np.ndarray) -> np.ndarray:
    """The outermost ring of pixels, each once, as float32."""
    ring = (crop[:1].ravel(), crop[1:][-1:].ravel(), crop[1:-1, :1].ravel(), crop[1:-1, 1:][:, -1:].ravel())
    return np.concatenate(ring).astype(np.float32)


def _without_specks(mask: np.ndarray) -> np.ndarray:
    """Keep the pieces at least `SPECK` as large as the largest."""
    labels, count = ndimage.label(mask, EIGHT)
    if count <= 1:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    keep = sizes >= SPECK * sizes.max()
    keep[0] = False
    return keep[labels]
