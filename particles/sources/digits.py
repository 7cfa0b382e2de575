"""Handwritten digits, to test the method on data with known truth: MNIST, and scikit-learn's offline set."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from particles.table import empty_rows
from provenance.errors import UserError


@dataclass(frozen=True)
class Mnist:
    """MNIST as torchvision keeps it: 60,000 train and 10,000 test images of 28 x 28."""

    root: Path
    name: str = "mnist"
    size: int = 28
    oriented: bool = True

    def rows(self) -> pd.DataFrame:
        """70,000 rows, train first; ids `mnist_train_00000`, `mnist_test_00000`."""
        parts = []
        for split in ("train", "test"):
            _, labels = _mnist(self.root, split)
            keys = [f"{split}_{i:05d}" for i in range(len(labels))]
            parts.append(_digit_rows("mnist", keys, labels).assign(split=split))
        return pd.concat(parts, ignore_index=True)

    def read(self, row: Any) -> np.ndarray:
        """One digit: (28, 28) uint8, ink bright on 0."""
        split, _, index = row.image.partition("_")
        return _mnist(self.root, split)[0][int(index)]

    def describe(self) -> dict[str, Any]:
        """The set and where its files lie."""
        return {"kind": "mnist", "root": str(self.root)}


@lru_cache(maxsize=2)
def _mnist(root: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 28, 28) uint8 and labels (N,) of one split."""
    from torchvision.datasets import MNIST  # late: torch is slow to import and only this set needs it

    for base in (root / "mnist", root):
        if (base / "MNIST" / "raw").is_dir():
            try:
                data = MNIST(str(base), train=split == "train", download=False)
            except (RuntimeError, ValueError, OSError) as error:
                raise UserError(f"{base}: the MNIST files are not whole ({error}); copy them again") from error
            return data.data.numpy(), data.targets.numpy()
    raise UserError(
        f"no MNIST under {root}: the four files are expected in {root / 'mnist' / 'MNIST' / 'raw'} (name the "
        "folder above with --data-dir or $NUNATAK_DATA); `--data digits` needs no files"
    )


@dataclass(frozen=True)
class Digits:
    """scikit-learn's 1,797 handwritten digits of 8 x 8, which come with the library."""

    name: str = "digits"
    size: int = 32
    oriented: bool = True

    def rows(self) -> pd.DataFrame:
        """1,797 rows, ids `digit_0000`."""
        _, labels = _digits()
        return _digit_rows("digit", [f"{i:04d}" for i in range(len(labels))], labels)

    def read(self, row: Any) -> np.ndarray:
        """One digit: (8, 8) uint8, ink bright on 0."""
        return _digits()[0][int(row.image)]

    def describe(self) -> dict[str, Any]:
        """The set; it never changes."""
        return {"kind": "digits"}


@lru_cache(maxsize=1)
def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    data = load_digits()
    return np.rint(data.images * (255 / 16)).astype(np.uint8), data.target


def _digit_rows(prefix: str, keys: list[str], labels: np.ndarray) -> pd.DataFrame:
    rows = empty_rows(len(keys))
    rows["particle_id"] = [f"{prefix}_{key}" for key in keys]
    rows["image"] = keys
    rows["label"] = rows["truth"] = pd.Series([str(label) for label in labels], dtype="string")
    rows["role"] = "labeled"
    return rows
