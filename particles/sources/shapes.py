"""The bodies of the synthetic set: one drawing function for each class and each planted kind.

Every function takes a random generator and the longer side of the crop in px, and returns a `Body`. Outlines
are signed distances, so that edges are smooth without supersampling, and rims and halos follow from the
distance.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from particles.sources.optics import Body, Floats, coverage, smooth_noise

Points = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, float], Body]


@dataclass(frozen=True)
class Stage:
    """The pixel grid laid over a shape, in the shape's own frame.

    Attributes:
        u: (H, W) coordinate along the shape's first axis, in shape units.
        v: (H, W) coordinate along its second axis.
        scale: Px per shape unit.
    """

    u: Floats
    v: Floats
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in px."""
        return (self.u.shape[0], self.u.shape[1])

    def noise(self, rng: np.random.Generator, cell: float) -> Floats:
        """Smooth noise over the crop, blotches of `cell` px."""
        return smooth_noise(rng, self.shape, max(cell, 1.6))


def stage(rng: np.random.Generator, size: float, outline: Points, room: float = 0.0) -> Stage:
    """Turns an outline at random and lays the tightest pixel grid of the asked size around it.

    Args:
        rng: Source of the orientation and the margin.
        size: Longer side of the crop in px.
        outline: (N, 2) points whose box is the shape's box, in shape units.
        room: Margin in px beyond the usual few, for what reaches over the outline.

    Returns:
        The grid, with the margin that a FlowCam leaves around a particle.
    """
    angle = rng.uniform(0, 2 * np.pi)
    cos, sin = np.cos(angle), np.sin(angle)
    u, v = outline.T
    placed = np.stack([u * cos - v * sin, u * sin + v * cos], axis=1)
    low, high = placed.min(axis=0), placed.max(axis=0)
    margin = min(3.5 + 2.5 * rng.random() + 0.02 * size + room, 0.3 * size)
    scale = float((size - 2 * margin) / max(*(high - low), 1e-6))
    width, height = (int(np.ceil(side * scale + 2 * margin)) for side in high - low)
    center = (low + high) / 2
    x = ((np.arange(width) - (width - 1) / 2) / scale + center[0])[None, :]
    y = ((np.arange(height) - (height - 1) / 2) / scale + center[1])[:, None]
    return Stage((x * cos + y * sin).astype(np.float32), (y * cos - x * sin).astype(np.float32), scale)


# ---- geometry ------------------------------------------------------------------------------------


def _ring(a: float, b: float, at: tuple[float, float] = (0.0, 0.0), n: int = 24) -> Points:
    """Points of an ellipse with half-axes a and b."""
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.stack([a * np.cos(t) + at[0], b * np.sin(t) + at[1]], axis=1)


def _ngon(rng: np.random.Generator, n: int, aspect: float, jitter: float = 0.3) -> Points:
    """An irregular convex polygon: n corners on an ellipse of length 1, counter-clockwise."""
    t = (np.arange(n) + rng.uniform(-jitter, jitter, n)) * (2 * np.pi / n)
    return np.stack([0.5 * np.cos(t), 0.5 / aspect * np.sin(t)], axis=1)


def _inside(grid: Stage, corners: Points) -> Floats:
    """Signed distance in px to a convex counter-clockwise polygon, positive inside."""
    edges = np.roll(corners, -1, axis=0) - corners
    lengths = np.linalg.norm(edges, axis=1)[:, None] / grid.scale
    normals = np.stack([-edges[:, 1], edges[:, 0]], axis=1) / lengths
    offsets = np.einsum("ij,ij->i", normals, corners)
    depth = np.full(grid.shape, np.inf, np.float32)
    for (a, b), c in zip(normals.astype(np.float32), offsets.astype(np.float32), strict=True):
        np.minimum(depth, a * grid.u + b * grid.v - c, out=depth)
    return depth


def _ellipse(grid: Stage, a: float, b: float, at: tuple[float, float] = (0.0, 0.0), turn: float = 0.0) -> Floats:
    """Signed distance in px (first order) to an ellipse, positive inside."""
    u, v = grid.u - np.float32(at[0]), grid.v - np.float32(at[1])
    if turn:
        cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        u, v = u * cos + v * sin, v * cos - u * sin
    q = np.sqrt((u / np.float32(a)) ** 2 + (v / np.float32(b)) ** 2) + np.float32(1e-4)
    return (1.0 - q) * np.float32(min(a, b) * grid.scale)


def _discs(grid: Stage, centers: Points, radii: npt.NDArray[np.float64]) -> Floats:
    """Signed distance in px to a union of discs, positive inside."""
    depth = np.full(grid.shape, -np.inf, np.float32)
    for r, (u, v) in zip(radii.astype(np.float32), centers.astype(np.float32), strict=True):
        np.maximum(depth, r - np.hypot(grid.u - u, grid.v - v), out=depth)
    return depth * np.float32(grid.scale)


def _wavy(
    grid: Stage, rng: np.random.Generator, waves: dict[int, float], phases: dict[int, float] | None = None
) -> Floats:
    """Signed distance in px to a closed curve of radius 0.5 with waves of the given amplitudes."""
    theta = np.arctan2(grid.v, grid.u)
    radius = np.full(grid.shape, 0.5, np.float32)
    for k, amplitude in waves.items():
        phase = (phases or {}).get(k, rng.uniform(0, 2 * np.pi))
        radius += np.float32(0.5 * amplitude) * np.cos(k * theta + np.float32(phase))
    return (radius - np.hypot(grid.u, grid.v)) * np.float32(grid.scale)


def _wavy_outline(waves: dict[int, float], phases: dict[int, float]) -> Points:
    """Points of the curve that `_wavy` fills."""
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    radius = 0.5 + sum(0.5 * a * np.cos(k * t + phases[k]) for k, a in waves.items())
    return np.stack([radius * np.cos(t), radius * np.sin(t)], axis=1)


def _path(grid: Stage, points: Points, radius: float) -> Floats:
    """Signed distance in px to a polyline of the given half-width in px, positive inside."""
    nearest = np.full(grid.shape, np.inf, np.float32)
    for start, end in zip(points[:-1].astype(np.float32), points[1:].astype(np.float32), strict=True):
        du, dv = end - start
        pu, pv = grid.u - start[0], grid.v - start[1]
        t = np.clip((pu * du + pv * dv) / (du * du + dv * dv), 0.0, 1.0)
        np.minimum(nearest, (pu - t * du) ** 2 + (pv - t * dv) ** 2, out=nearest)
    return np.float32(radius) - np.sqrt(nearest) * np.float32(grid.scale)


def _dots(grid: Stage, rng: np.random.Generator, n: int, radius: tuple[float, float]) -> Floats:
    """Cover of n small round specks, each of a radius in px from the given range, scattered over the crop."""
    height, width = grid.shape
    cover = np.zeros(grid.shape, np.float32)
    for _ in range(n):
        r = rng.uniform(*radius)
        y, x = rng.uniform(0, height), rng.uniform(0, width)
        top, left = max(int(y - r - 1), 0), max(int(x - r - 1), 0)
        part = cover[top : int(y + r + 2), left : int(x + r + 2)]
        rows = np.arange(top, top + part.shape[0], dtype=np.float32)[:, None] - np.float32(y)
        columns = np.arange(left, left + part.shape[1], dtype=np.float32) - np.float32(x)
        spot = np.clip(np.float32(r + 0.5) - np.sqrt(rows**2 + columns**2), 0.0, 1.0)
        np.maximum(part, spot, out=part)
    return cover


def _framed(depth: Floats) -> Floats:
    """Keeps a shaken outline from reaching over the crop's edge: FlowCam cuts around the whole particle."""
    height, width = depth.shape
    rows, columns = (np.arange(n, dtype=np.float32) for n in (height, width))
    frame = np.minimum(np.minimum(rows, height - 1 - rows)[:, None], np.minimum(columns, width - 1 - columns))
    return np.minimum(depth, frame - 2.0)


# ---- light ---------------------------------------------------------------------------------------


def _rimmed(depth: Floats, width: float, edge: float, core: float) -> Floats:
    """Transmission that rises from `edge` at the outline to `core` over `width` px: light refracted away."""
    return np.float32(core) + np.float32(edge - core) * _near(np.maximum(depth, 0.0), width)


def _near(distance: Floats, width: float) -> Floats:
    """Bell of 1 at distance 0 that falls off over about `width`."""
    return np.exp(-((distance / np.float32(width)) ** 2))


def _body(depth: Floats, inner: Floats, blur: float = 0.0) -> Body:
    """A body that transmits `inner` within its outline and everything outside."""
    return Body(depth, 1.0 + coverage(depth) * (inner - 1.0), blur)


# ---- the labeled classes -------------------------------------------------------------------------


def dust(rng: np.random.Generator, size: float) -> Body:
    """Mineral dust: grains with dark rims, opaque specks, pale flakes, clumps of clay."""
    habit = rng.choice(4, p=[0.7, 0.18, 0.09, 0.03])
    if habit == 3:
        return _clump(rng, size)
    corners = _ngon(rng, int(rng.integers(5, 10)), float(np.exp(abs(rng.normal(0, 0.24)))), jitter=0.24)
    grid = stage(rng, size, corners)
    across = float(np.ptp(corners, axis=0).min()) * grid.scale
    # Bumps of 0.055 of the width; 0.03 is taken off so that few reach over the crop's edge.
    bumps = grid.noise(rng, across / rng.uniform(2, 6)) * np.float32(0.055) - np.float32(0.03)
    depth = _inside(grid, corners) + bumps * np.float32(across)
    depth += grid.noise(rng, 3.0) * np.float32(rng.uniform(0.1, 0.7))
    edge, core, mottle = (
        (rng.uniform(0.2, 0.42), rng.uniform(0.5, 0.9), 0.1),
        (rng.uniform(0.18, 0.35), rng.uniform(0.28, 0.5), 0.09),
        (rng.uniform(0.4, 0.6), rng.uniform(0.78, 0.97), 0.09),
    )[habit]
    depth = _framed(depth)
    rim = across * rng.uniform(0.1, 0.26) if habit == 0 else across * rng.uniform(0.05, 0.1) + 0.8
    inner = _rimmed(depth, rim, edge, core) + _mineral(grid, rng, across, mottle)
    return _body(depth, inner)


def _mineral(grid: Stage, rng: np.random.Generator, across: float, strength: float) -> Floats:
    """Relief of a grain `across` px wide: broad patches, a crease or two, fine pits."""
    patches = grid.noise(rng, max(across / rng.uniform(2.5, 5.0), 3.5))
    texture = patches * np.float32(strength) + grid.noise(rng, 2.8) * np.float32(0.4 * strength)
    creases = _near(grid.noise(rng, max(across / 2.5, 5.0)), min(9 / across, 0.5))
    texture += creases * np.float32(rng.normal(-0.08, 0.16))
    # Large grains are not blown-up small ones: they carry detail of their own scale.
    if across > 40:
        texture += grid.noise(rng, rng.uniform(4, 8)) * np.float32(0.7 * strength)
        texture -= _dots(grid, rng, int(across / 4), (0.7, 2.4)) * np.float32(0.25)
    return texture


def _clump(rng: np.random.Generator, size: float) -> Body:
    """An aggregate: a few overlapping lumps, rough, with a mottled grey to dark inside."""
    n = int(rng.integers(3, 7))
    centers = rng.normal(0, 0.11, (n, 2)) * np.array([1.0, rng.uniform(0.4, 1.0)])
    radii = rng.uniform(0.2, 0.36, n)
    grid = stage(rng, size, np.concatenate([centers - radii[:, None], centers + radii[:, None]]))
    depth = _discs(grid, centers, radii) + grid.noise(rng, max(size / 9, 3.0)) * np.float32(0.03 * size)
    depth += grid.noise(rng, 2.6) * np.float32(0.5) - np.float32(0.012 * size)
    depth = _framed(depth)
    base = rng.uniform(0.35, 0.7)
    inner = _rimmed(depth, 1.2 + 0.03 * size, base - 0.15, base)
    inner += grid.noise(rng, size / 8) * np.float32(0.13) + grid.noise(rng, 3.0) * np.float32(0.09)
    return _body(depth, inner)


def camp(rng: np.random.Generator, size: float) -> Body:
    """Felsic tephra: pale angular glass, edges scooped by burst bubbles; clear, frosted or full of tubes."""
    corners = _ngon(rng, int(rng.integers(3, 7)), float(np.exp(abs(rng.normal(0.1, 0.5)))), jitter=0.4)
    grid = stage(rng, size, corners)
    depth = _inside(grid, corners)
    for _ in range(rng.integers(0, 4)):
        depth = _scooped(depth, _scoop(grid, rng, corners, rng.uniform(0.25, 0.9)))
    depth += grid.noise(rng, size / 7) * np.float32(0.012 * size * rng.random())
    depth += grid.noise(rng, 4.0) * np.float32(rng.uniform(0.0, 0.7))
    inner = _rimmed(depth, rng.uniform(1.8, 3.8), rng.uniform(0.15, 0.45), rng.uniform(0.84, 1.0))
    texture = rng.choice(5, p=[0.38, 0.2, 0.16, 0.14, 0.12])
    if texture == 1:
        inner += grid.noise(rng, rng.uniform(2.2, 3.6)) * np.float32(rng.uniform(0.08, 0.18)) - 0.06
    elif texture == 2:
        inner += _tubes(grid, rng, rng.uniform(0.12, 0.3))
    elif texture == 3:
        inner += np.minimum(grid.noise(rng, size / 6), 0.3) * np.float32(rng.uniform(0.12, 0.3))
        inner += grid.noise(rng, 3.5) * np.float32(0.07)
    elif texture == 4:
        inner -= np.float32(rng.uniform(0.2, 0.5)) * coverage(grid.noise(rng, size / 5) * 4)
        inner += grid.noise(rng, 4.0) * np.float32(0.11)
    inner -= _dots(grid, rng, int(rng.integers(4, 70)), (0.6, 2.6)) * np.float32(rng.uniform(0.15, 0.45))
    inner -= _pits(grid, rng, int(rng.integers(0, 4)), size * 0.03) * np.float32(rng.uniform(0.2, 0.5))
    inner += grid.noise(rng, 6.0) * np.float32(0.02)
    return _trimmed(_body(depth, inner))


def _scoop(grid: Stage, rng: np.random.Generator, corners: Points, radius: float) -> Floats:
    """Signed distance in px to the outside of a burst bubble that bites into the polygon's edge."""
    i = int(rng.integers(len(corners)))
    middle = (corners[i] + corners[(i + 1) % len(corners)]) / 2
    outward = middle / max(float(np.hypot(*middle)), 1e-3)
    center = middle + outward * (radius - rng.uniform(0.04, 0.12))
    gap = np.hypot(grid.u - np.float32(center[0]), grid.v - np.float32(center[1])) - np.float32(radius)
    return gap * np.float32(grid.scale)


def _scooped(depth: Floats, scoop: Floats) -> Floats:
    """Takes a bite, unless little would be left."""
    bitten = np.minimum(depth, scoop)
    return bitten if np.count_nonzero(bitten > 0) > 0.65 * np.count_nonzero(depth > 0) else depth


def _trimmed(body: Body) -> Body:
    """Cuts the crop back to the largest piece that bites have left of the body, with a margin of 5 px."""
    pieces, n = ndimage.label(body.depth > 0)
    if not n:
        return body
    largest = pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()
    rows, columns = np.flatnonzero(largest.any(axis=1)), np.flatnonzero(largest.any(axis=0))
    cut = np.s_[max(rows[0] - 5, 0) : rows[-1] + 6, max(columns[0] - 5, 0) : columns[-1] + 6]
    return Body(body.depth[cut], body.light[cut], body.blur)


def _tubes(grid: Stage, rng: np.random.Generator, strength: float) -> Floats:
    """Stretched bubbles along the long axis: parallel bright and dark lines of uneven width and spacing."""
    spacing = rng.uniform(2.2, 5.0)
    profile = rng.standard_normal(int(1.5 * grid.scale / spacing) + 8).astype(np.float32)
    wander = grid.noise(rng, max(grid.shape) / 3) * np.float32(rng.uniform(0.3, 1.4))
    at = (grid.v + np.float32(0.75)) * np.float32(grid.scale / spacing) + wander
    lines = np.interp(at, np.arange(len(profile)), profile).astype(np.float32)
    return np.float32(strength) * (lines * (0.7 + 0.4 * grid.noise(rng, 9.0)) - 0.4)


def _pits(grid: Stage, rng: np.random.Generator, n: int, radius: float) -> Floats:
    """Small bubbles in the glass: dark open rings somewhere in the crop."""
    cover = np.zeros(grid.shape, np.float32)
    for _ in range(n):
        at = (rng.uniform(-0.3, 0.3), rng.uniform(-0.2, 0.2))
        r = rng.uniform(0.4, 1.3) * radius / grid.scale
        ring = np.abs(_ellipse(grid, r, r * rng.uniform(0.6, 1.0), at, rng.uniform(0, 3)))
        np.maximum(cover, np.clip(1.6 - ring, 0.0, 1.0), out=cover)
    return cover


def grim(rng: np.random.Generator, size: float) -> Body:
    """Basaltic tephra: dark blocky glass with broken edges, bright windows, vesicles, thin bright seams."""
    corners = _ngon(rng, int(rng.integers(4, 9)), float(np.exp(abs(rng.normal(0, 0.35)))), jitter=0.45)
    grid = stage(rng, size, corners, room=0.02 * size)
    depth = _inside(grid, corners)
    for _ in range(rng.integers(0, 4)):
        depth = _scooped(depth, _scoop(grid, rng, corners, rng.uniform(0.12, 0.5)))
    depth += grid.noise(rng, size / 8) * np.float32(0.022 * size) + grid.noise(rng, 4.0) * np.float32(0.5)
    inner = np.float32(rng.uniform(0.14, 0.32)) + grid.noise(rng, size / 6) * np.float32(0.08)
    inner = _facets(grid, rng, inner)
    for _ in range(rng.integers(0, 5)):
        inner = _window(grid, rng, inner)
    seam = _near(grid.noise(rng, size / 4), 16 / size)
    inner += seam * np.float32(rng.uniform(0.0, 0.35)) + grid.noise(rng, 3.5) * np.float32(0.045)
    for _ in range(rng.integers(0, 4)):
        inner = _vesicle(grid, rng, inner)
    dark_edge = _near(np.maximum(depth, 0.0), rng.uniform(1.5, 4.5))
    return _trimmed(_body(depth, inner + dark_edge * (0.2 - inner)))


def _facets(grid: Stage, rng: np.random.Generator, inner: Floats) -> Floats:
    """Broken faces of the block: regions split by lines, each face with its own slope of grey."""
    for _ in range(rng.integers(2, 6)):
        turn, offset = rng.uniform(0, 6.28), rng.uniform(0.0, 0.3)
        ahead = grid.u * np.float32(np.cos(turn)) + grid.v * np.float32(np.sin(turn)) - np.float32(offset)
        ahead = ahead * np.float32(grid.scale) + grid.noise(rng, 12.0) * 1.5
        slope = np.exp(-np.maximum(ahead, 0.0) / np.float32(rng.uniform(5, 40)))
        inner = inner + coverage(ahead) * slope * np.float32(rng.uniform(-0.1, 0.32))
        if rng.random() < 0.4:
            inner = inner + _near(ahead, 1.3) * np.float32(rng.normal(0, 0.25))
    return np.clip(inner, 0.1, 1.0)


def _window(grid: Stage, rng: np.random.Generator, inner: Floats) -> Floats:
    """Thin glass between dark walls: a bright, speckled, angular patch."""
    pane = _ngon(rng, int(rng.integers(4, 7)), rng.uniform(1.0, 2.5)) * rng.uniform(0.2, 0.7)
    pane += rng.uniform(-0.22, 0.22, 2)
    depth = _inside(grid, pane) / np.float32(rng.uniform(2, 6))
    open_ = np.clip(depth + grid.noise(rng, 6.0) * np.float32(0.25), 0.0, 1.0)
    glass = rng.uniform(0.55, 0.98) + grid.noise(rng, 9.0) * np.float32(0.07)
    glass -= _dots(grid, rng, int(rng.integers(5, 50)), (0.7, 2.4)) * np.float32(0.35)
    return inner + open_ * (glass - inner)


def _vesicle(grid: Stage, rng: np.random.Generator, inner: Floats) -> Floats:
    """A closed bubble: black around, with a small bright lens in the middle."""
    r = rng.uniform(0.05, 0.13)
    inside = _ellipse(grid, r, r, (rng.uniform(-0.28, 0.28), rng.uniform(-0.2, 0.2)))
    lens = np.clip(inside / np.float32(r * grid.scale) * 2.5 - 1.5, 0.0, 1.0)
    return np.where(inside > 0, 0.14 + lens * np.float32(rng.uniform(0.4, 1.1)), inner)


def corylus(rng: np.random.Generator, size: float) -> Body:
    """Hazel pollen: a rounded triangle, dark smooth wall, a pale vault at each of its three pores."""
    waves = {2: rng.uniform(0, 0.07), 3: rng.uniform(0.03, 0.085), 5: rng.uniform(0, 0.012)}
    phases = {2: rng.uniform(0, 6.28), 3: 0.0, 5: rng.uniform(0, 6.28)}
    grid = stage(rng, size, _wavy_outline(waves, phases))
    depth = _wavy(grid, rng, waves, phases)
    radius = grid.scale / 2
    inner = _rimmed(depth, radius * rng.uniform(0.1, 0.18), rng.uniform(0.24, 0.34), rng.uniform(0.42, 0.58))
    seen = np.full(grid.shape, -np.inf, np.float32)
    glow = np.zeros(grid.shape, np.float32)
    for k in range(3 if rng.random() < 0.75 else 2):
        turn = 2 * np.pi * k / 3 + rng.normal(0, 0.12)
        out = rng.uniform(0.26, 0.31)
        at = (out * np.cos(turn), out * np.sin(turn))
        vault = _ellipse(grid, rng.uniform(0.13, 0.18), rng.uniform(0.19, 0.25), at, turn)
        vault += grid.noise(rng, radius / 3) * np.float32(0.035 * radius)
        seen = np.maximum(seen, vault)
        glow += np.clip(vault / np.float32(0.1 * radius), 0.0, 1.0) * np.float32(rng.uniform(0.12, 0.48))
    fold = _near(seen - 0.02 * radius, 0.07 * radius) * np.float32(rng.uniform(0.15, 0.36))
    heart = _near(np.hypot(grid.u, grid.v), 0.11) * (seen < 0)
    inner += glow - fold + heart * np.float32(rng.uniform(0.1, 0.6))
    lit = grid.u * np.float32(rng.normal(0, 0.15)) + grid.v * np.float32(rng.normal(0, 0.15))
    inner += lit + grid.noise(rng, radius / 4) * np.float32(0.06) + grid.noise(rng, 3.5) * np.float32(0.03)
    # The wall lies over everything: seen edge on, it takes most of the light at the outline.
    wall = _near(np.maximum(depth, 0.0), radius * rng.uniform(0.06, 0.11))
    inner += wall * np.minimum(np.float32(0.26) - inner, 0.0)
    return _body(depth, inner)


def qrob(rng: np.random.Generator, size: float) -> Body:
    """Oak pollen: on average a little larger, more oval, coarser grained and paler than `qsub`."""
    oval, grain, shade = rng.normal(0.075, 0.035), rng.normal(3.5, 0.4), rng.normal(0.42, 0.045)
    return _oak(rng, size, oval, grain, shade)


def qsub(rng: np.random.Generator, size: float) -> Body:
    """Cork oak pollen: like `qrob`, a little smaller, rounder, finer grained and darker."""
    oval, grain, shade = rng.normal(0.035, 0.03), rng.normal(2.7, 0.4), rng.normal(0.355, 0.045)
    return _oak(rng, size, oval, grain, shade)


def _oak(rng: np.random.Generator, size: float, oval: float, grain: float, shade: float) -> Body:
    """Oak pollen: a granular dark body in a paler coat with a thin dark outline, and three furrows."""
    polar = rng.random() < 0.6
    waves = {2: abs(oval) + (0.0 if polar else 0.05), 3: rng.uniform(0, 0.035), 5: rng.uniform(0, 0.012)}
    phases = {2: 0.0, 3: rng.uniform(0, 6.28), 5: rng.uniform(0, 6.28)}
    grid = stage(rng, size, _wavy_outline(waves, phases))
    depth = _wavy(grid, rng, waves, phases)
    radius = grid.scale / 2
    coat = radius * rng.uniform(0.07, 0.15)
    lit = grid.u * np.float32(rng.normal(0, 0.12)) + grid.v * np.float32(rng.normal(0, 0.12))
    speckle = grid.noise(rng, max(grain, 1.8))
    inner = np.float32(shade) + (speckle + 0.25 * np.maximum(speckle, 0.0) ** 2) * np.float32(0.052)
    inner += grid.noise(rng, radius / 2.5) * np.float32(0.035) + lit
    inner += np.float32(rng.uniform(0.06, 0.18)) * _near(depth - coat, 0.55 * coat)
    inner -= np.float32(0.1) * _near(depth - 2.1 * coat, 0.5 * coat)
    inner -= np.float32(rng.uniform(0.05, 0.15)) * _near(depth, 1.7)
    furrow, mark = _furrows(grid, rng, polar)
    depth = depth - furrow * np.float32(0.05 * radius * rng.uniform(0, 1.6))
    return _body(depth, inner + mark * np.float32(rng.uniform(0.03, 0.25 if polar else 0.12)))


def _furrows(grid: Stage, rng: np.random.Generator, polar: bool) -> tuple[Floats, Floats]:
    """Where the three furrows notch the outline, and where they let light through."""
    if not polar:
        gap = np.float32(rng.uniform(-0.2, 0.2))
        bow = grid.v - gap * (1.0 - 3.0 * grid.u**2)
        line = _near(bow, 2.2 / grid.scale) * coverage((0.4 - np.abs(grid.u)) * 20)
        return np.zeros_like(line), line - 1.2 * _near(bow - 0.045, 2.2 / grid.scale)
    theta = np.arctan2(grid.v, grid.u) + np.float32(rng.uniform(0, 6.28))
    notch = np.exp((np.cos(3 * theta) - 1.0) * np.float32(rng.uniform(4, 12)))
    return notch, notch * np.clip(np.hypot(grid.u, grid.v) * 4 - 1.1, 0.0, 1.0)


def cont(rng: np.random.Generator, size: float) -> Body:
    """Contamination and blur: debris far out of focus, smears, washed-out rings."""
    habit = rng.choice(4, p=[0.5, 0.2, 0.16, 0.14])
    blur = size * rng.uniform(0.02, 0.05) + 0.8
    if habit == 0:
        return _debris(rng, size, blur)
    outline = _ring(0.5, 0.5 / (rng.uniform(1.0, 1.6) if habit != 2 else rng.uniform(1.8, 3.5)))
    grid = stage(rng, size, outline, room=blur)
    depth = _inside(grid, outline) + grid.noise(rng, size / 5) * np.float32(0.04 * size)
    if habit == 3:
        inner = _rimmed(depth, size * rng.uniform(0.06, 0.12), rng.uniform(0.4, 0.6), rng.uniform(0.85, 1.08))
    else:
        inner = np.float32(rng.uniform(0.3, 0.75)) + grid.noise(rng, size / 6) * np.float32(0.12)
        inner += grid.u * np.float32(rng.normal(0, 0.4))
    return _body(depth, inner, blur)


def _debris(rng: np.random.Generator, size: float, blur: float) -> Body:
    """A ragged dark flock, torn along one side, too deep in the cell to be sharp."""
    corners = _ngon(rng, int(rng.integers(3, 6)), rng.uniform(1.0, 2.0), jitter=0.4)
    grid = stage(rng, size, corners, room=blur)
    depth = _inside(grid, corners)
    depth += grid.noise(rng, size / 7) * np.float32(0.035 * size)
    depth = _framed(depth + grid.noise(rng, size / 16) * np.float32(0.02 * size))
    inner = np.float32(rng.uniform(0.32, 0.6)) + grid.noise(rng, size / 7) * np.float32(0.11)
    inner += grid.noise(rng, size / 25) * np.float32(0.09) + grid.u * np.float32(rng.normal(0, 0.3))
    return _body(depth, inner, 0.45 * blur)


# ---- the planted kinds ---------------------------------------------------------------------------


def diatom(rng: np.random.Generator, size: float) -> Body:
    """Diatom valve: a lens or disc of clear silica with a dark wall and fine regular striae."""
    return _centric(rng, size) if rng.random() < 0.3 else _pennate(rng, size)


def _pennate(rng: np.random.Generator, size: float) -> Body:
    half, power = 0.5 / rng.uniform(2.4, 3.8), rng.uniform(0.55, 1.0)
    t = np.linspace(-0.5, 0.5, 25)
    width = half * np.maximum(1 - 4 * t**2, 0.0) ** power
    grid = stage(rng, size, np.concatenate([np.stack([t, width], 1), np.stack([t, -width], 1)]))
    taper = np.float32(half) * np.maximum(1.0 - 4.0 * grid.u**2, 0.0) ** np.float32(power)
    side = (taper - np.abs(grid.v)) * np.float32(0.92)
    depth = np.minimum(side, 0.5 - np.abs(grid.u)) * np.float32(grid.scale)
    wall = 1.0 + 0.022 * grid.scale
    inner = _rimmed(depth, wall, 0.22, 0.9)
    period = max(3.4, 0.055 * grid.scale)
    striae = np.cos(grid.u * np.float32(2 * np.pi * grid.scale / period))
    clear = coverage((np.abs(grid.v) - 0.2 * taper) * np.float32(grid.scale))
    inner += (striae - 0.6) * clear * np.float32(rng.uniform(0.2, 0.3))
    raphe = _near(grid.v, 0.9 / grid.scale) * (np.abs(np.abs(grid.u) - 0.24) < 0.18)
    return _body(depth, inner - np.float32(0.3) * raphe)


def _centric(rng: np.random.Generator, size: float) -> Body:
    grid = stage(rng, size, _ring(0.5, 0.5))
    depth = _ellipse(grid, 0.5, 0.5)
    radius = grid.scale / 2
    inner = _rimmed(depth, 1.0 + 0.04 * radius, 0.2, 0.88)
    spokes = max(int(2 * np.pi * radius * 0.75 / 3.8), 9)
    rays = np.cos(np.arctan2(grid.v, grid.u) * spokes)
    q = np.hypot(grid.u, grid.v) * 2
    inner += (rays - 0.5) * ((q > 0.38) & (q < 0.86)) * np.float32(0.2)
    inner -= _near(q - 0.34, 1.1 / radius) * np.float32(0.4)
    return _body(depth, inner + grid.noise(rng, 2.6) * (q < 0.3) * np.float32(0.1))


def fiber(rng: np.random.Generator, size: float) -> Body:
    """Textile or plant fiber: one long, even, curving thread."""
    n = 30
    steps = np.linspace(0, 1, n)
    sway = rng.normal(0, 1.1) * np.sin(2 * np.pi * steps * rng.uniform(0.6, 1.6) + rng.uniform(0, 6))
    heading = rng.choice([-1, 1]) * rng.uniform(1.4, 4.2) * steps + sway
    points = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], axis=1), axis=0)
    points /= np.ptp(points, axis=0).max()
    radius = float(np.clip(0.024 * size, 1.25, 4.0))
    grid = stage(rng, size, points, room=0.6 * radius)
    depth = _path(grid, points, radius)
    inner = _rimmed(depth, 0.55 * radius, 0.12, rng.uniform(0.3, 0.75) if radius > 1.8 else 0.2)
    return _body(depth, inner + grid.noise(rng, 5.0) * np.float32(0.05))


def bubble(rng: np.random.Generator, size: float) -> Body:
    """Air bubble in water: nearly black thick ring of total reflection around a bright lens."""
    grid = stage(rng, size, _ring(0.5, 0.5 / rng.uniform(1.0, 1.05)))
    depth = _ellipse(grid, 0.5, 0.5)
    q = np.hypot(grid.u, grid.v) * 2
    opening = np.float32(rng.uniform(0.42, 0.62))
    lens = np.clip((opening - q) * np.float32(9), 0.0, 1.0) * np.float32(rng.uniform(0.9, 1.1))
    inner = np.float32(0.1) + lens
    inner += _near(q - 0.82, 0.07) * np.float32(rng.uniform(0.05, 0.2))
    spark = _near(np.hypot(grid.u - rng.uniform(-0.12, 0.12), grid.v - rng.uniform(-0.12, 0.12)), 0.08)
    return _body(depth, inner + spark * np.float32(0.4))


def spherule(rng: np.random.Generator, size: float) -> Body:
    """Melt spherule: a perfect, opaque, smooth ball with one pin-prick of light."""
    grid = stage(rng, size, _ring(0.5, 0.5))
    depth = _ellipse(grid, 0.5, 0.5)
    q = np.hypot(grid.u, grid.v) * 2
    inner = 0.1 + np.float32(rng.uniform(0.03, 0.14)) * (1 - q**2)
    off = np.hypot(grid.u - rng.uniform(-0.08, 0.08), grid.v - rng.uniform(-0.08, 0.08))
    spark = _near(off, rng.uniform(0.063, 0.095))
    return _body(depth, inner + spark * np.float32(rng.uniform(0.7, 1.0)))


def needle(rng: np.random.Generator, size: float) -> Body:
    """Needle crystals: straight, parallel-sided, sharp at both ends; one, or two crossing."""
    turns = [0.0] if rng.random() < 0.5 else [0.0, rng.uniform(0.35, 1.3)]
    ends = np.array([[np.cos(t), np.sin(t)] for t in turns]) / 2
    grid = stage(rng, size, np.concatenate([ends, -ends]))
    half = float(np.clip(0.04 * size, 1.7, 6.0)) * rng.uniform(0.85, 1.2)
    depth = np.full(grid.shape, -np.inf, np.float32)
    light = np.ones(grid.shape, np.float32)
    for cos, sin in ends * 2:
        along = (0.5 - np.abs(grid.u * np.float32(cos) + grid.v * np.float32(sin))) * np.float32(grid.scale)
        across = np.abs(grid.v * np.float32(cos) - grid.u * np.float32(sin)) * np.float32(grid.scale)
        one = np.minimum(np.float32(half), along * np.float32(0.28)) - across
        depth = np.maximum(depth, one)
        light *= _body(one, _rimmed(one, 0.5 * half, 0.12, 0.95 if half > 2 else 0.5)).light
    return Body(depth, light)


def spore_pair(rng: np.random.Generator, size: float) -> Body:
    """Two-celled fungal spore: twin oval cells, thick dark walls, a septum between, a pale inside."""
    a, b = 0.265, rng.uniform(0.19, 0.25)
    tilt = rng.normal(0, 0.12)
    cells = [(-0.235, 0.0), (0.235 * np.cos(tilt), 0.235 * np.sin(tilt))]
    grid = stage(rng, size, np.concatenate([_ring(a, b, c) for c in cells]))
    left, right = (_ellipse(grid, a, b, c) for c in cells)
    wall = 1.2 + 0.03 * grid.scale
    inner = _rimmed(np.maximum(left, right), wall, 0.12, rng.uniform(0.6, 0.85))
    for u, v in cells:
        r = rng.uniform(0.05, 0.09)
        drop = coverage(_ellipse(grid, r, r, (u + rng.uniform(-0.05, 0.05), v + rng.uniform(-0.04, 0.04))))
        inner -= drop * np.float32(rng.uniform(0.15, 0.4))
    return _body(np.maximum(left, right), inner + grid.noise(rng, 4.0) * np.float32(0.03))


def soot(rng: np.random.Generator, size: float) -> Body:
    """Soot: a branching chain of many small black beads."""
    n = int(np.clip(size / 2.5, 10, 60))
    centers = np.zeros((n, 2))
    heading = rng.uniform(0, 6.28, n)
    for i in range(1, n):
        parent = i - 1 if rng.random() < 0.8 else int(rng.integers(i))
        heading[i] = heading[parent] + rng.normal(0, 0.65 if parent == i - 1 else 1.6)
        centers[i] = centers[parent] + 1.75 * np.array([np.cos(heading[i]), np.sin(heading[i])])
    radii = rng.uniform(0.8, 1.35, n)
    grid = stage(rng, size, np.concatenate([centers - radii[:, None], centers + radii[:, None]]))
    depth = _discs(grid, centers, radii)
    return _body(depth, _rimmed(depth, grid.scale, 0.12, 0.3))


def scale(rng: np.random.Generator, size: float) -> Body:
    """Insect wing scale: a paddle with parallel ribs, a narrow foot and a toothed far edge."""
    half = 0.5 / rng.uniform(1.7, 2.6)
    teeth = int(rng.integers(3, 5))
    upper = np.array([[-0.5, 0.0], [0.1, half], [0.5, 0.8 * half]])
    grid = stage(rng, size, np.concatenate([upper, upper * [1.0, -1.0]]))
    foot = np.clip((grid.u + 0.5) / np.float32(0.45), 0.0, 1.0) ** np.float32(0.7)
    side = np.float32(half) * (0.12 + 0.88 * foot) - np.abs(grid.v)
    far = 0.5 - np.float32(0.055) * (1 + np.cos(grid.v * np.float32(2 * np.pi * teeth / (2 * half)))) - grid.u
    depth = np.minimum(np.minimum(side, far), grid.u + 0.5) * np.float32(grid.scale)
    period = max(4.0, 2 * half * grid.scale / rng.uniform(6, 9))
    ribs = np.cos(grid.v * np.float32(2 * np.pi * grid.scale / period))
    inner = _rimmed(depth, 1.5, 0.2, rng.uniform(0.62, 0.8)) + ribs * np.float32(rng.uniform(0.2, 0.3))
    return _body(depth, inner + grid.noise(rng, 6.0) * np.float32(0.03))


def saccate(rng: np.random.Generator, size: float) -> Body:
    """Conifer pollen: a granular body carried by two netted air sacs."""
    sac, spread = rng.uniform(0.17, 0.21), rng.uniform(0.27, 0.31)
    drop = rng.uniform(0.03, 0.12)
    sacs = [(-spread, drop), (spread, drop)]
    a, b = rng.uniform(0.26, 0.3), rng.uniform(0.19, 0.23)
    grid = stage(rng, size, np.concatenate([_ring(sac, sac, at) for at in sacs] + [_ring(a, b)]))
    body = _ellipse(grid, a, b)
    bags = np.maximum(*(_ellipse(grid, sac, sac * 1.05, at) for at in sacs))
    net = np.abs(grid.noise(rng, max(0.07 * grid.scale, 2.2)))
    inner = _rimmed(bags, 1.2 + 0.015 * grid.scale, 0.2, 0.62)
    inner += (np.minimum(net, 1.0) - 0.5) * np.float32(0.4)
    middle = _rimmed(body, 1.3 + 0.02 * grid.scale, 0.2, 0.5) + grid.noise(rng, 3.0) * np.float32(0.05)
    inner += coverage(body) * (middle - inner)
    return _body(np.maximum(body, bags), inner)


def spiny(rng: np.random.Generator, size: float) -> Body:
    """Spiny grain (daisy pollen, cyst): a ball with a crown of even spines."""
    n = int(np.clip(size / 5, 9, 18))
    core = rng.uniform(0.3, 0.35)
    grid = stage(rng, size, _ring(0.5, 0.5))
    theta = np.arctan2(grid.v, grid.u)
    spike = np.maximum(1.0 - np.abs((theta * np.float32(n / (2 * np.pi))) % 1.0 - 0.5) * 2.9, 0.0)
    reach = np.float32(core) + np.float32(0.5 - core) * spike
    rho = np.hypot(grid.u, grid.v)
    depth = (reach - rho) * np.float32(grid.scale) * np.where(rho > core, np.float32(0.5), np.float32(1.0))
    ball = (np.float32(core) - rho) * np.float32(grid.scale)
    wall = _rimmed(ball, 1.2 + 0.03 * grid.scale, 0.15, rng.uniform(0.45, 0.7))
    inner = np.where(ball > 0, wall, np.float32(0.25))
    spots = np.minimum(np.abs(grid.noise(rng, max(0.06 * grid.scale, 2.4))), 1.0) - 0.5
    return _body(depth, inner + spots * (ball > 1) * np.float32(0.25))


CLASS_SHAPES: dict[str, Draw] = {
    "dust": dust,
    "camp": camp,
    "grim": grim,
    "corylus": corylus,
    "qrob": qrob,
    "qsub": qsub,
    "cont": cont,
}
KIND_SHAPES: dict[str, Draw] = {
    "diatom": diatom,
    "fiber": fiber,
    "bubble": bubble,
    "spherule": spherule,
    "needle": needle,
    "spore_pair": spore_pair,
    "soot": soot,
    "scale": scale,
    "saccate": saccate,
    "spiny": spiny,
}
