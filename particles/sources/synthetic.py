"""A core that needs no files: FlowCam-like crops rendered on demand, with strange particles planted in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from particles.sources.optics import View, expose
from particles.sources.shapes import CLASS_SHAPES, KIND_SHAPES
from particles.sources.source import BadCrop

CLASSES = tuple(CLASS_SHAPES)
KINDS = tuple(KIND_SHAPES)
UM_PER_PX = 0.2752
# Raise it with every change of the drawing: packed sets of another version must not be taken for this one.
VERSION = 4

# Longer side of the crop: median in px, sigma of its logarithm, least and most px.
SIZES = {
    "dust": (50.0, 0.45, 20.0, 210.0),
    "camp": (135.0, 0.40, 45.0, 300.0),
    "grim": (140.0, 0.42, 45.0, 340.0),
    "corylus": (108.0, 0.09, 80.0, 150.0),
    "qrob": (136.0, 0.10, 95.0, 185.0),
    "qsub": (126.0, 0.10, 90.0, 175.0),
    "cont": (105.0, 0.45, 35.0, 260.0),
}
# Share of the core that each class but dust takes; dust takes what is left.
SHARES = {"camp": 0.01, "grim": 0.01, "corylus": 0.006, "qrob": 0.004, "qsub": 0.004, "cont": 0.008}
# Mean relative darkness of a dust crop, and of a planted one: median and sigma of its logarithm.
TONE = (0.165, 0.34)
# Planted particles are not drawn from the smallest part of the core's sizes, where no eye tells a kind.
LEAST_QUANTILE = 0.15
BAGS = (3046, 3136, 3303, 3306)
SLICES = ((0, 20), (20, 40), (40, 55))
REPEATS = (1, 2)


@dataclass(frozen=True)
class Plan:
    """What each particle of a set is, in row order; all arrays are (N,).

    Attributes:
        truth: Class or planted kind.
        side: Longer side of the crop in px.
        tone: Mean relative darkness to be reached; NaN leaves the contrast as drawn.
        sample: Index of the sample (bag, slice, repeat) the particle was imaged with.
        labeled: Whether the particle is in the labeled set.
    """

    truth: npt.NDArray[np.str_]
    side: npt.NDArray[np.float64]
    tone: npt.NDArray[np.float64]
    sample: npt.NDArray[np.int64]
    labeled: npt.NDArray[np.bool_]


VOLUME_ML = 0.05
"""mL imaged for each sample; a hundred particles in it are 2,000 per mL, a clean core."""


@dataclass(frozen=True)
class Synthetic:
    """Rendered particles: a labeled set of seven classes and an unlabeled core with planted outliers.

    Equal settings give equal rows and equal pixels, crop by crop, in any order and in any process.
    """

    seed: int = 0
    """Chooses another core of the same kind."""
    n_per_class: int = 400
    """Labeled particles of each of the seven classes."""
    n_core: int = 2400
    """Unlabeled particles, the planted ones among them."""
    n_per_kind: int = 8
    """Planted outliers of each kind."""

    name: ClassVar[str] = "synthetic"
    size: ClassVar[int] = 64
    oriented: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if min(self.seed, self.n_per_class, self.n_core, self.n_per_kind) < 0:
            raise ValueError("synthetic: seed and counts must not be negative")
        if self.n_core and self.n_core < 2 * len(KINDS) * self.n_per_kind:
            raise ValueError(
                f"synthetic: a core of {self.n_core} is too small for {self.n_per_kind} of each of "
                f"{len(KINDS)} kinds; plant fewer, or make it at least {2 * len(KINDS) * self.n_per_kind}"
            )

    def rows(self) -> pd.DataFrame:
        """One row a particle, the labeled set first.

        Returns:
            The row columns of the particle table. `label` is missing in the core, `truth` names the class or
            the planted kind, `image` is the row's number.
        """
        plan = _plan(self)
        n = len(plan.truth)
        core = ~plan.labeled
        rows = pd.DataFrame({"particle_id": _ids(plan)}, dtype="string")
        rows["image"] = pd.array([f"{i:06d}" for i in range(n)], dtype="string")
        truth = pd.Series(plan.truth, dtype="string")
        rows["label"] = truth.mask(core)
        rows["truth"] = truth
        rows["role"] = pd.array(np.where(core, "core", "labeled"), dtype="string")
        rows["split"] = pd.array([pd.NA] * n, dtype="string")
        rows["sample"] = rows["particle_id"].str.rsplit("_", n=1).str[0].where(core)
        rows["volume_ml"] = pd.Series(VOLUME_ML, rows.index, dtype="Float64").where(core)
        rows["core"] = pd.Series("SYN", rows.index, dtype="string").where(core)
        for column, (kind, values) in _place(plan.sample).items():
            rows[column] = pd.Series(values, dtype=kind).where(core)
        rows["um_per_px"] = pd.array([UM_PER_PX] * n, dtype="Float64")
        return rows

    def read(self, row: Any) -> npt.NDArray[np.uint8]:
        """Renders one crop.

        Args:
            row: A row of `rows()`: anything with `image`, as attribute or key.

        Returns:
            (H, W) uint8 crop.

        Raises:
            BadCrop: The set holds no such image.
        """
        key = str(row["image"] if isinstance(row, Mapping) else row.image)
        plan = _plan(self)
        if not key.isdecimal() or int(key) >= len(plan.truth):
            raise BadCrop(f"the synthetic set has no image {key!r}")
        return _render(self.seed, plan, int(key))

    def describe(self) -> dict[str, object]:
        """What fixes the pixels: the settings and the version of the drawing."""
        return {
            "kind": "synthetic",
            "version": VERSION,
            "seed": self.seed,
            "n_per_class": self.n_per_class,
            "n_core": self.n_core,
            "n_per_kind": self.n_per_kind,
        }


@lru_cache(maxsize=4)
def _plan(source: Synthetic) -> Plan:
    """Decides what each particle is; kept per process, so that a source stays small when it is pickled."""
    rng = np.random.default_rng([source.seed, 0])
    labeled = np.repeat(np.array(CLASSES), source.n_per_class)
    core = _core_truth(rng, source)
    truth = np.concatenate([labeled, core])
    is_labeled = np.arange(len(truth)) < len(labeled)
    planted = np.isin(truth, KINDS)
    side = np.empty(len(truth))
    for name, (median, sigma, least, most) in SIZES.items():
        of_class = truth == name
        side[of_class] = np.clip(median * np.exp(sigma * rng.standard_normal(of_class.sum())), least, most)
    tone = np.where(truth == "dust", TONE[0] * np.exp(TONE[1] * rng.standard_normal(len(truth))), np.nan)
    if planted.any():
        ordinary = ~is_labeled & ~planted
        side[planted] = _matched(rng, side[ordinary], int(planted.sum()), LEAST_QUANTILE)
        tone[planted] = _matched(rng, tone[ordinary & (truth == "dust")], int(planted.sum()), 0.0)
    sample = rng.integers(len(BAGS) * len(SLICES) * len(REPEATS), size=len(truth))
    # In an instrument's list the particles of a sample follow each other.
    sample[~is_labeled] = np.sort(sample[~is_labeled])
    return Plan(truth, side, tone, sample, is_labeled)


def _core_truth(rng: np.random.Generator, source: Synthetic) -> npt.NDArray[np.str_]:
    """Classes and planted kinds of the core, shuffled."""
    counts = {name: round(share * source.n_core) for name, share in SHARES.items()}
    counts |= dict.fromkeys(KINDS, source.n_per_kind if source.n_core else 0)
    counts["dust"] = source.n_core - sum(counts.values())
    return rng.permutation(np.repeat(np.array(list(counts)), list(counts.values())))


def _matched(
    rng: np.random.Generator, values: npt.NDArray[np.float64], n: int, least: float
) -> npt.NDArray[np.float64]:
    """Draws n of the values' own distribution, evenly spread from its quantile `least` up, in random order.

    Independent draws would let a few dozen particles differ from the core by chance, and then size or
    darkness alone would find them.
    """
    at = least + (1 - least) * (np.arange(n) + rng.random(n)) / n
    return rng.permutation(np.quantile(values, at))


def _place(sample: npt.NDArray[np.int64]) -> dict[str, tuple[str, npt.NDArray[np.int64]]]:
    """Where each sample comes from: column -> (type, values), depths in cm from the top of the bag."""
    bag, rest = np.divmod(sample, len(SLICES) * len(REPEATS))
    cut, repeat = np.divmod(rest, len(REPEATS))
    slices = np.array(SLICES)[cut]
    return {
        "bag": ("Int64", np.array(BAGS)[bag]),
        "top_cm": ("Float64", slices[:, 0]),
        "bottom_cm": ("Float64", slices[:, 1]),
        "repeat": ("Int64", np.array(REPEATS)[repeat]),
    }


def _ids(plan: Plan) -> list[str]:
    """`SYN_<bag>_<top>_<bottom>_<repeat>_<particle>` in the core, `SYN_<class>_<particle>` elsewhere."""
    where = [values for _, values in _place(plan.sample).values()]
    groups = [
        f"SYN_{name}" if labeled else f"SYN_{bag}_{top}_{bottom}_{repeat}"
        for name, labeled, bag, top, bottom, repeat in zip(plan.truth, plan.labeled, *where, strict=True)
    ]
    numbers = pd.Series(groups).groupby(groups).cumcount() + 1
    return [f"{group}_{number}" for group, number in zip(groups, numbers, strict=True)]


def _render(seed: int, plan: Plan, index: int) -> npt.NDArray[np.uint8]:
    """Draws and exposes one particle; every draw depends on the seed and the index alone."""
    rng = np.random.default_rng([seed, 1, index])
    side = float(plan.side[index])
    draw = (CLASS_SHAPES | KIND_SHAPES)[str(plan.truth[index])]
    view = _view(rng, _slide(seed, int(plan.sample[index])), side, float(plan.tone[index]))
    return expose(draw(rng, side), view, rng)


@lru_cache(maxsize=256)
def _slide(seed: int, sample: int) -> View:
    """Illumination and focus that the particles of one sample share."""
    rng = np.random.default_rng([seed, 2, sample])
    return View(
        level=rng.uniform(128, 142),
        tilt=(float(rng.normal(0, 0.012)), float(rng.normal(0, 0.012))),
        noise=rng.uniform(0.9, 1.6),
        blur=rng.uniform(0.85, 1.05),
        fringe=rng.uniform(0.1, 0.22),
    )


def _view(rng: np.random.Generator, slide: View, side: float, tone: float) -> View:
    """The sample's view as one particle meets it: a little off the focal plane and off the lamp's center."""
    defocus = rng.normal(0, 1)
    # Blur that a 30 px crop could not bear belongs to particles that FlowCam does not trigger on.
    blur = min(slide.blur * np.exp(0.45 * abs(defocus)), 0.045 * side + 0.3)
    fringe = np.clip(slide.fringe * (1 + 1.3 * defocus), -0.2, 0.36)
    level = float(np.clip(slide.level + rng.normal(0, 1.2), 125, 145))
    return View(level, slide.tilt, slide.noise, float(blur), float(fringe), None if np.isnan(tone) else tone)
