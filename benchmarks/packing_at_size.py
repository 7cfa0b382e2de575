"""Packing at 10 k, 100 k, 1 M crops beside reading the files anew in every epoch, as ICELEARNING's loop does.

    python -m benchmarks.packing_at_size --trees DIR --sizes 10000 100000 1000000

Trees are made by `benchmarks/icelearning_tree.py` where they are missing. The other way needs `pip install
albumentations opencv-python-headless`, which the project does not; without them its column stays empty.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from benchmarks.demo import machine
from benchmarks.icelearning_tree import make_tree

THEIR_SIDE, THEIR_MEAN, THEIR_SD = 128, 94, 12  # px and grey levels, as published


@dataclass(frozen=True)
class Settings:
    """Pack trees of several sizes."""

    trees: Path
    """Folder of the trees, outside the repository; 1 M crops take about 5 GB."""
    sizes: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    """Crops a tree."""
    epoch_of: int | None = None
    """One of the two ways in this very process: the number of crops of the tree to read once."""


def main(settings: Settings) -> None:
    """Pack, read, print a Markdown table."""
    if settings.epoch_of is not None:
        read_once(settings.trees / str(settings.epoch_of))
        return
    print(
        f"{machine()}\n\n| crops | packing s | crops/s per core | GiB | again s | files each epoch s |\n|{'---|' * 6}"
    )
    seconds = []
    for n in settings.sizes:
        tree = settings.trees / str(n)
        if not (tree / "done").exists():
            make_tree(tree, n, seed=0)
            (tree / "done").touch()
        out = settings.trees / f"packed-{n}"
        shutil.rmtree(out, ignore_errors=True)
        packing, memory = _timed("particles.pack", "--data", str(tree), "--out", str(out))
        again, _ = _timed("particles.pack", "--data", str(tree), "--out", str(out))
        epoch = None
        if importlib.util.find_spec("albumentations"):
            epoch, _ = _timed("benchmarks.packing_at_size", "--trees", str(settings.trees), "--epoch-of", str(n))
        seconds.append(packing)
        rate = n / packing / (os.cpu_count() or 1)
        other = "" if epoch is None else f"{epoch:.1f}"
        print(f"| {n} | {packing:.1f} | {rate:.0f} | {memory:.2f} | {again:.1f} | {other} |", flush=True)
        shutil.rmtree(out)
    if len(seconds) > 1:
        slope = np.polyfit(np.log(settings.sizes), np.log(seconds), 1)[0]
        print(f"\nlog-log slope of the packing time: {slope:.3f}")


def _timed(module: str, *arguments: str) -> tuple[float, float]:
    """Seconds, and GiB of the largest of a command's processes."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", module, *arguments]
    child = os.posix_spawn(sys.executable, command, os.environ)
    _, status, usage = os.wait4(child, 0)  # of this child and its own children, not of all so far
    if os.waitstatus_to_exitcode(status):
        raise subprocess.CalledProcessError(status, command)
    return time.perf_counter() - begun, usage.ru_maxrss / 2**20  # kB on Linux


def read_once(tree: Path) -> None:
    """An epoch of the published loop, without the network: every file decoded, resized, normalized, batched."""
    import albumentations  # no dependency of the project
    import cv2
    import torch
    from torch.utils.data import DataLoader, Dataset

    transform = albumentations.Compose(
        [albumentations.Resize(THEIR_SIDE, THEIR_SIDE), albumentations.Normalize(THEIR_MEAN / 255, THEIR_SD / 255)]
    )
    paths = [str(path) for path in tree.rglob("*.png")]

    class Crops(Dataset[torch.Tensor]):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, row: int) -> torch.Tensor:
            crop = cv2.imread(paths[row], cv2.IMREAD_GRAYSCALE)
            return torch.from_numpy(transform(image=crop)["image"])

    for _ in DataLoader(Crops(), batch_size=64, shuffle=True, num_workers=os.cpu_count() or 1):
        pass


if __name__ == "__main__":
    main(tyro.cli(Settings))
