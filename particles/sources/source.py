"""What a source of particles promises; one file beside this one for each kind of source."""

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
"""Of image files that hold one crop each, in any case."""


class BadCrop(Exception):  # noqa: N818  (it is a verdict on a crop, not a failure of the program)
    """One crop cannot be used; the message is the reason that `rejected.csv` shows."""


class Source(Protocol):
    """Lists its particles cheaply and reads their pixels one at a time, so that packing can run in parallel."""

    @property
    def name(self) -> str:
        """Short text used in folder names."""
        ...

    @property
    def size(self) -> int:
        """Side S in px to pack to when the user asks for none."""
        ...

    @property
    def oriented(self) -> bool:
        """Whether up and down mean something (digits) or not (particles in a flow cell)."""
        ...

    def rows(self) -> pd.DataFrame | Iterator[pd.DataFrame]:
        """One row a particle, with the columns of `particles.table.ROW_COLUMNS`; the same at every call.

        Frame by frame where all rows at once would be too many. A frame may also bring scalars by their names (they
        are kept as the instrument's own), and `reject`: why a row will not be read.
        """
        ...

    def read(self, row: Any) -> np.ndarray:
        """The crop of one row (a named tuple of `rows()`): (H, W) uint8.

        Raises:
            BadCrop: the crop cannot be used.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Plain JSON values; equal descriptions mean equal data, so that nothing is packed twice."""
        ...


@runtime_checkable
class Masked(Protocol):
    """A source that knows which pixels are the particle, as the instrument saw it."""

    def mask(self, row: Any) -> np.ndarray:
        """(H, W) bool, in the shape of `read(row)`."""
        ...

    def fringe_px(self, row: Any) -> float:
        """What the instrument takes off lengths, in px (`particles.scalars`, "The fringe")."""
        ...


@runtime_checkable
class Advising(Protocol):
    """A source that can see, before it is packed, that a setting may be missing."""

    def advice(self) -> str | None:
        """One line that names the setting; None where all is well."""
        ...
