import math
import os
import warnings
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from scipy.spatial import ConvexHull

from benchmarks.scalars_vs_instrument import compare, read_runs
from particles.scalars import SCALARS, background_level, measure, particle_mask
from particles.segment import fill_holes

BACKGROUND = 140
RUNS = Path(os.environ.get("NUNATAK_DATA", "")) / "flowcam_runs"


def grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    return x, y


def disc(radius: float, side: int = 121) -> np.ndarray:
    x, y = grid(side)
    return np.hypot(x, y) <= radius


def ellipse(a: float, b: float, degrees: float = 0.0, side: int = 121) -> np.ndarray:
    """Half-axes a >= b; the long one at this angle, counterclockwise from the x axis."""
    x, y = grid(side)
    t = math.radians(degrees)
    u, v = x * math.cos(t) - y * math.sin(t), x * math.sin(t) + y * math.cos(t)
    return (u / a) ** 2 + (v / b) ** 2 <= 1


def rectangle(height: int, width: int, margin: int = 8) -> np.ndarray:
    return np.pad(np.ones((height, width), dtype=bool), margin)


def crop_of(mask: np.ndarray, particle: int = 80, background: int = BACKGROUND) -> np.ndarray:
    return np.where(mask, particle, background).astype(np.uint8)


def scalars(mask: np.ndarray, um_per_px: float = 1.0, fringe_px: float = 0.0) -> dict[str, float]:
    return measure(crop_of(mask), um_per_px, mask, fringe_px)


def blob(seed: int, side: int = 90) -> np.ndarray:
    """An irregular particle with two lobes, a hole and no symmetry."""
    rng = np.random.default_rng(seed)
    x, y = grid(side)
    angle = np.arctan2(y, x)
    radius = side * 0.3 * (1 + sum(0.15 / k * np.cos(k * angle + rng.uniform(0, 6)) for k in range(1, 6)))
    return (np.hypot(x, y) < radius) & (np.hypot(x - 5, y + 4) > 4)


# ---- sizes and shapes whose value geometry gives


@pytest.mark.parametrize("radius", [12.0, 25.0, 48.0])
def test_disc(radius):
    s = scalars(disc(radius))
    assert s["Area (ABD)"] == pytest.approx(math.pi * radius**2, rel=0.03)
    for name in ("Diameter (ABD)", "Diameter (ESD)", "Length", "Width"):
        assert s[name] == pytest.approx(2 * radius, rel=0.03, abs=1), name
    assert s["Volume (ABD)"] == pytest.approx(4 / 3 * math.pi * radius**3, rel=0.04)
    assert s["Circularity (Hu)"] == pytest.approx(1, abs=0.01)
    assert s["Aspect Ratio"] == pytest.approx(1, abs=0.01)
    # Steps at 45 degrees lengthen a digital outline by up to 8 %.
    assert s["Perimeter"] == pytest.approx(2 * math.pi * (radius - 0.5), rel=0.08)
    assert s["Circularity"] > 0.88
    assert s["Circle Fit"] > 0.95
    assert s["Symmetry"] > 0.95
    assert s["Transparency"] == pytest.approx(0, abs=0.03)
    assert s["Particles Per Chain"] == 1


def test_rectangle():
    s = scalars(rectangle(10, 40))
    assert s["Area (ABD)"] == pytest.approx(400)
    assert s["Perimeter"] == pytest.approx(2 * (9 + 39))
    assert s["Convex Perimeter"] == pytest.approx(s["Perimeter"])
    assert s["Roughness"] == pytest.approx(1)
    assert s["Width"] == pytest.approx(10)
    assert s["Feret Angle Min"] == -90
    # The diagonal, at atan(9 / 39) = 13 degrees, lies between two of the 36 directions.
    assert s["Length"] == pytest.approx(math.hypot(9, 39) + 1, rel=0.002)
    assert abs(s["Feret Angle Max"]) == 15
    assert s["Aspect Ratio"] == pytest.approx(math.sqrt((10**2 - 1) / (40**2 - 1)))
    assert s["Convexity"] == 1
    assert s["Biovolume (Cylinder)"] == pytest.approx(math.pi / 4 * s["Width"] ** 2 * s["Length"])
    assert s["Biovolume (P. Spheroid)"] == pytest.approx(s["Biovolume (Cylinder)"] * 2 / 3)


def test_a_thin_fiber_has_the_geodesic_length_of_its_walk():
    bent = np.zeros((60, 60), dtype=bool)
    bent[10:12, 5:50] = bent[10:50, 5:7] = True
    s = scalars(bent)
    assert s["Geodesic Length"] == pytest.approx(45 + 40, rel=0.06)
    assert s["Geodesic Thickness"] == pytest.approx(2, rel=0.3)
    assert s["Fiber Curl"] > 0.3
    assert s["Elongation"] > 20


@pytest.mark.parametrize("degrees", [-60, -35, 0, 20, 45, 75])
def test_ellipse_at_any_angle(degrees):
    s = scalars(ellipse(45, 18, degrees))
    assert s["Aspect Ratio"] == pytest.approx(18 / 45, rel=0.02)
    assert s["Length"] == pytest.approx(90, rel=0.02)
    assert s["Width"] == pytest.approx(36, rel=0.03)
    assert s["Area (ABD)"] == pytest.approx(math.pi * 45 * 18, rel=0.01)
    assert (s["Feret Angle Max"] - degrees + 90) % 180 - 90 == pytest.approx(0, abs=5)
    assert (s["Feret Angle Min"] - degrees) % 180 == pytest.approx(90, abs=5)


def test_perimeter_counts_steps_and_diagonals():
    plus = np.pad(np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=bool), 3)
    stairs = np.eye(5, dtype=bool)
    assert scalars(plus)["Perimeter"] == pytest.approx(4 * math.sqrt(2))
    assert scalars(stairs)["Perimeter"] == pytest.approx(8 * math.sqrt(2))
    assert scalars(rectangle(1, 7))["Perimeter"] == 12


def test_a_hole_counts_in_the_filled_area_alone():
    ring = disc(40) & ~disc(20)
    s, full = scalars(ring), scalars(disc(40))
    assert s["Area (Filled)"] == pytest.approx(full["Area (ABD)"])
    assert s["Area (ABD)"] == pytest.approx(full["Area (ABD)"] - disc(20).sum())
    for name in ("Perimeter", "Compactness", "Convexity", "Geodesic Length", "Length"):
        assert s[name] == full[name], name
    assert s["Transparency"] > full["Transparency"] + 0.1


def test_holes_open_at_a_corner_are_filled_as_scipy_does():
    rng = np.random.default_rng(3)
    for _ in range(30):
        mask = rng.random((25, 31)) < 0.6
        np.testing.assert_array_equal(fill_holes(mask), ndimage.binary_fill_holes(mask))


def test_hull_agrees_with_qhull():
    for seed in range(10):
        mask = blob(seed)
        hull = ConvexHull(np.argwhere(mask))
        s = scalars(mask)
        assert s["Convex Perimeter"] == pytest.approx(hull.area)
        assert s["Convexity"] == pytest.approx(min(1, fill_holes(mask).sum() / hull.volume))


def test_pieces_of_a_chain_are_counted_over_corners():
    mask = np.zeros((30, 30), dtype=bool)
    mask[2:8, 2:8] = mask[8:12, 8:12] = mask[20:25, 20:25] = True
    assert scalars(mask)["Particles Per Chain"] == 2


def test_symmetry_falls_with_a_tail():
    tailed = disc(20) | (np.abs(grid(121)[1]) < 3) & (grid(121)[0] > 0) & (grid(121)[0] < 50)
    assert scalars(tailed)["Symmetry"] < 0.6 < scalars(disc(20))["Symmetry"]


# ---- grey


def test_grey_statistics_are_those_of_the_mask():
    rng = np.random.default_rng(0)
    crop, mask = rng.integers(0, 256, (40, 50), dtype=np.uint8), blob(1, 50)[:40]
    s, inside = measure(crop, mask=mask), crop[mask].astype(float)
    assert s["Intensity"] == pytest.approx(inside.mean())
    assert s["Sigma Intensity"] == pytest.approx(inside.std())
    assert s["Sum Intensity"] == inside.sum()


def test_edge_gradient_of_a_straight_step():
    mask = rectangle(20, 20)
    # Along a straight edge Sobel sees 4 times the step, at the corners 3 times in x and in y.
    s = measure(crop_of(mask, 100, 120), mask=mask)
    assert s["Edge Gradient"] == pytest.approx((72 * 40 + 4 * 60) / 76)
    assert measure(crop_of(mask, 0, 255), mask=mask)["Edge Gradient"] == 255


# ---- invariances

INVARIANT = [n for n, unit in SCALARS.items() if unit != "deg"]


@pytest.mark.parametrize("seed", range(4))
def test_quarter_turns_and_mirrors_change_no_value_but_the_angles(seed):
    mask = blob(seed)
    rng = np.random.default_rng(seed)
    crop = np.clip(crop_of(mask) + rng.integers(-9, 9, mask.shape), 0, 255).astype(np.uint8)
    upright = measure(crop, mask=mask)
    for turn in (np.rot90, np.fliplr, lambda a: np.rot90(a, 2)):
        turned = measure(turn(crop), mask=turn(mask))
        for name in INVARIANT:
            assert turned[name] == pytest.approx(upright[name], rel=1e-9), name
    quarter = measure(np.rot90(crop), mask=np.rot90(mask))["Feret Angle Max"]
    assert (quarter - upright["Feret Angle Max"]) % 180 == 90


@pytest.mark.parametrize("scale", [0.2752, 3.0])
def test_scale_enters_with_the_power_of_the_unit(scale):
    pixels, scaled = scalars(blob(2)), scalars(blob(2), um_per_px=scale)
    power = {"µm": 1, "µm²": 2, "µm³": 3}
    for name, unit in SCALARS.items():
        assert scaled[name] == pytest.approx(pixels[name] * scale ** power.get(unit, 0)), name


def test_unknown_scale_leaves_the_dimensionless_values():
    s = scalars(blob(2), um_per_px=math.nan)
    assert {n for n, v in s.items() if math.isnan(v)} == {n for n, u in SCALARS.items() if u.startswith("µm")}


def test_place_in_the_crop_does_not_matter():
    mask = blob(5)
    moved = np.pad(mask, ((3, 40), (17, 2)))
    assert scalars(moved) == pytest.approx(scalars(mask))


# ---- the instrument's identities


@pytest.mark.parametrize("fringe_px", [0.0, 4.5])
@pytest.mark.parametrize("seed", range(4))
def test_identities(seed, fringe_px):
    s = scalars(blob(seed), 0.5544, fringe_px)
    assert s["Diameter (ABD)"] == pytest.approx(2 * math.sqrt(s["Area (ABD)"] / math.pi))
    assert s["Volume (ABD)"] == pytest.approx(math.pi / 6 * s["Diameter (ABD)"] ** 3)
    assert s["Volume (ESD)"] == pytest.approx(math.pi / 6 * s["Diameter (ESD)"] ** 3)
    assert s["Roughness"] == pytest.approx(s["Perimeter"] / s["Convex Perimeter"])
    assert s["Elongation"] == pytest.approx(s["Geodesic Length"] / s["Geodesic Thickness"])
    assert s["Geodesic Aspect Ratio"] == pytest.approx(1 / s["Elongation"])
    assert 2 * (s["Geodesic Length"] + s["Geodesic Thickness"]) == pytest.approx(s["Perimeter"])
    assert s["Fiber Straightness"] == pytest.approx(s["Length"] / s["Geodesic Length"])
    assert s["Fiber Curl"] == pytest.approx(max(0, s["Geodesic Length"] / s["Length"] - 1))
    assert s["Transparency"] == pytest.approx(1 - s["Diameter (ABD)"] / s["Diameter (ESD)"])
    assert s["Circularity"] == pytest.approx(1 / s["Compactness"])


def test_fringe_is_taken_off_lengths_but_never_more_than_half():
    large, small = scalars(disc(30), fringe_px=4.5), scalars(disc(3), fringe_px=4.5)
    assert large["Diameter (ABD)"] == pytest.approx(scalars(disc(30))["Diameter (ABD)"] - 4.5)
    assert small["Diameter (ABD)"] == pytest.approx(scalars(disc(3))["Diameter (ABD)"] / 2)
    assert small["Area (ABD)"] == pytest.approx(np.count_nonzero(disc(3)) / 4)
    assert small["Perimeter"] == scalars(disc(3))["Perimeter"]


# ---- the mask


@pytest.mark.parametrize(("particle", "background"), [(70, 140), (255, 0), (20, 255), (190, 150), (128, 140)])
def test_mask_finds_the_particle_dark_or_bright(particle, background):
    truth = disc(30, side=81)
    noise = np.random.default_rng(1).normal(0, 1, truth.shape)
    crop = np.clip(crop_of(truth, particle, background) + noise, 0, 255).astype(np.uint8)
    found = particle_mask(crop)
    assert (found & truth).sum() / (found | truth).sum() > 0.98
    assert background_level(crop) == pytest.approx(background, abs=1)


def test_inverting_the_grey_finds_the_same_particle():
    rng = np.random.default_rng(4)
    crop = np.clip(crop_of(blob(4)) + rng.normal(0, 4, (90, 90)), 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(particle_mask(crop), particle_mask(255 - crop))


def test_dark_body_and_bright_rim_both_belong_to_the_particle():
    rim = disc(30, 81)
    crop = np.where(disc(24, 81), 70, np.where(rim, 200, 140)).astype(np.uint8)
    np.testing.assert_array_equal(particle_mask(crop), rim)


def test_specks_are_dropped_and_links_of_a_chain_kept():
    x, y = grid(121)
    chain = (np.hypot(x + 20, y) < 15) | (np.hypot(x - 20, y) < 12)
    speckled = chain.copy()
    speckled[5, 5] = speckled[110:112, 60] = True
    np.testing.assert_array_equal(particle_mask(crop_of(speckled)), chain)


def test_background_survives_a_particle_at_the_border():
    crop = np.full((40, 60), 150, np.uint8)
    crop[:25, 10:50] = 60
    assert background_level(crop) == 150
    np.testing.assert_array_equal(particle_mask(crop), crop == 60)


# ---- nothing crashes

UNDEFINED_FOR_A_PIXEL = {
    "Aspect Ratio", "Circle Fit", "Circularity (Hu)", "Convexity", "Elongation", "Fiber Straightness",
    "Geodesic Aspect Ratio", "Roughness", "Symmetry",
}  # fmt: skip


def test_single_pixel():
    mask = np.zeros((7, 7), dtype=bool)
    mask[3, 3] = True
    s = scalars(mask)
    assert {n for n, v in s.items() if math.isnan(v)} == UNDEFINED_FOR_A_PIXEL
    assert s["Length"] == s["Width"] == s["Diameter (ESD)"] == 1
    assert s["Area (ABD)"] == pytest.approx(1)


@pytest.mark.parametrize("shape", [(1, 1), (30, 40), (1, 9), (9, 1), (0, 0), (0, 5)])
def test_a_crop_that_shows_nothing_has_only_undefined_values(shape):
    s = measure(np.full(shape, 133, np.uint8))
    assert list(s) == list(SCALARS)
    assert all(math.isnan(v) for v in s.values())


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 9), (9, 1), (30, 40)])
def test_a_mask_that_covers_everything(shape):
    s = measure(np.full(shape, 133, np.uint8), mask=np.ones(shape, dtype=bool))
    assert s["Area (ABD)"] == pytest.approx(shape[0] * shape[1])
    assert s["Intensity"] == 133
    assert s["Edge Gradient"] == 0


@settings(max_examples=150, deadline=None)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 255)))
def test_any_crop_gives_all_values_without_a_warning(crop):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for s in (measure(crop), measure(crop, 0.5, crop > 128), measure(crop, 0.5, crop > 128, 4.5)):
            assert list(s) == list(SCALARS)
            assert all(type(v) is float and not math.isinf(v) for v in s.values())


def test_large_crop():
    assert measure(crop_of(disc(900, 2000)))["Diameter (ABD)"] == pytest.approx(1800, rel=1e-3)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="the mask's shape"):
        measure(np.zeros((5, 5), np.uint8), mask=np.ones((5, 6), dtype=bool))
    with pytest.raises(ValueError, match="one grey crop"):
        measure(np.eye(5, dtype=np.uint8)[..., None] * np.full(3, 99, np.uint8))


# ---- the instrument

TOLERANCE = {  # median relative error; what is not named here must agree within 0.1 %
    "Circle Fit": 0.08, "Diameter (ESD)": 0.02, "Feret Angle Max": 0.1, "Feret Angle Min": 0.05,
    "Fiber Curl": 0.3, "Fiber Straightness": 0.05, "Length": 0.05, "Symmetry": 0.2, "Transparency": 0.02,
    "Volume (ESD)": 0.05, "Width": 0.06,
}  # fmt: skip


@pytest.mark.real
@pytest.mark.skipif(not RUNS.is_dir(), reason="no FlowCam runs under $NUNATAK_DATA")
def test_agrees_with_the_instrument_on_its_own_masks():
    errors = compare(list(islice(read_runs(RUNS), 0, None, 25)), use_fringe=True)
    assert len(errors) == 32
    for name, (median, _) in errors.items():
        assert median < TOLERANCE.get(name, 0.001), name


@pytest.mark.real
@pytest.mark.skipif(not RUNS.is_dir(), reason="no FlowCam runs under $NUNATAK_DATA")
def test_the_crop_alone_shows_roughly_what_the_instrument_found():
    overlap = []
    for particle in islice(read_runs(RUNS), 0, None, 25):
        found = particle_mask(particle.crop)
        overlap.append((found & particle.mask).sum() / (found | particle.mask).sum())
    assert np.median(overlap) > 0.7
