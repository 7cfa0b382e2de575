"""Where a FlowCam crop lies in its collage, and cutting it out; a collage is decoded once for its hundreds of crops."""

import re
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from particles.sources.folder import LARGEST_SIDE, as_grey
from particles.sources.source import BadCrop

_T = TypeVar("_T")
Box = tuple[int, int, int, int]
"""x, y of the upper left corner, width, height; px."""
_PLACE = re.compile(
    r"(?P<file>.+)\?box=(?P<box>\d{1,9}(?:,\d{1,9}){3})&src=(?P<src>-?\d{1,12},-?\d{1,12})"
    r"&cal=(?P<cal>\d{1,9})&fringe=(?P<fringe>\d+(?:\.\d*)?(?:e[+-]?\d+)?)",
    re.DOTALL,
)


class Place(NamedTuple):
    """What the key of a crop says, so that cutting it needs nothing else."""

    file: str  # the collage, below the root
    box: Box  # in the collage
    src: tuple[int, int]  # x, y of the box in the camera's frame, px
    cal: int  # number of the calibration image
    fringe_px: float

    def key(self) -> str:
        """Text from which `place_of` makes this place again."""
        box, src = (",".join(map(str, numbers)) for numbers in (self.box, self.src))
        return f"{self.file}?box={box}&src={src}&cal={self.cal}&fringe={self.fringe_px!r}"


def place_of(key: str) -> Place:
    """Read a key.

    Raises:
        BadCrop: it is none.
    """
    found = _PLACE.fullmatch(key)
    if found is None:
        raise BadCrop(f"'{key}' is no place in a collage")
    x, y, width, height = map(int, found["box"].split(","))
    src_x, src_y = map(int, found["src"].split(","))
    return Place(found["file"], (x, y, width, height), (src_x, src_y), int(found["cal"]), float(found["fringe"]))


def cut_box(root: Path, file: str, box: Box) -> np.ndarray:
    """The pixels of a box as they are stored.

    Args:
        root: no file outside of it is read.
        file: collage or mask collage, relative to `root`.
        box: in px.

    Returns:
        (H, W) or (H, W, 3).

    Raises:
        BadCrop: the file is missing, broken, too large, outside of `root`, or smaller than the box says.
    """
    return _boxed(_opened(root, file, _decoded), file, box)


def flat_box(root: Path, file: str, box: Box) -> tuple[np.ndarray, float]:
    """The same box of a calibration image in grey, (H, W) uint8, and the mean of that whole image.

    Raises:
        BadCrop: as `cut_box`.
    """
    whole, mean = _opened(root, file, _flat)
    return _boxed(whole, file, box), mean


def _opened(root: Path, file: str, decode: Callable[[Path, int], _T]) -> _T:
    path = root / file
    try:
        if not path.resolve().is_relative_to(root.resolve()):
            raise BadCrop(f"{file} lies outside of {root}")
        return decode(path, path.stat().st_mtime_ns)
    except FileNotFoundError as error:
        raise BadCrop(f"{file} is missing") from error
    except UnidentifiedImageError as error:
        raise BadCrop(f"{file} is not an image that can be read") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadCrop(f"{file} does not decode: {error}") from error


@lru_cache(maxsize=4)  # rows come in the order of the collages: this one, its masks, and those before
def _decoded(path: Path, changed_ns: int) -> np.ndarray:
    """(H, W) or (H, W, 3); `changed_ns` keeps a file that was written again from being taken for the old one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the sides are checked below
        with Image.open(path) as image:
            if max(image.size) > LARGEST_SIDE:
                raise BadCrop(f"{path.name} is {image.width} x {image.height} px, larger than {LARGEST_SIDE} px")
            plain = image.mode in ("1", "L", "RGB", "F") or image.mode.startswith("I")
            return np.asarray(image if plain else image.convert("RGB"))


@lru_cache(maxsize=2)
def _flat(path: Path, changed_ns: int) -> tuple[np.ndarray, float]:
    grey = as_grey(Image.fromarray(_decoded(path, changed_ns)))
    return grey, float(grey.mean())


def _boxed(pixels: np.ndarray, file: str, box: Box) -> np.ndarray:
    """A copy, so that a crop that is kept does not keep its collage."""
    x, y, width, height = box
    if min(box) < 0 or not width or not height or x + width > pixels.shape[1] or y + height > pixels.shape[0]:
        size = f"{pixels.shape[1]} x {pixels.shape[0]} px"
        raise BadCrop(f"{file} is {size}, but the box is {width} x {height} px at ({x}, {y})")
    return pixels[y : y + height, x : x + width].copy()
