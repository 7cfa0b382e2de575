"""Drawing the maps of 100 k, 1 M, 3 M particles: seconds and memory of the panel by class, by cluster, by score.

    python -m benchmarks.map_at_size --out DIR --sizes 100000 1000000 3000000

Each size runs in a process of its own, so that the peak is its own.
"""

import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from benchmarks.demo import machine
from figures.maps import draw_map_panel

GROUPS = 40
"""Clusters of the made-up map, the largest a thousand times the smallest."""
CLASSES = ("camp", "cont", "corylus", "dust", "grim", "qrob", "qsub")


@dataclass(frozen=True)
class Settings:
    """Draw made-up maps of several sizes."""

    out: Path
    """Folder of the pictures, outside the repository."""
    sizes: tuple[int, ...] = (100_000, 1_000_000, 3_000_000)
    """Particles a map."""
    one: int | None = None
    """Draw this size in this very process and print wall seconds, CPU seconds, GiB."""


def main(settings: Settings) -> None:
    """Draw, print a Markdown table."""
    if settings.one is not None:
        print(*draw(settings.one, settings.out))
        return
    print(f"{machine()}\n\n| particles | s | CPU s | GiB |\n|{'---|' * 4}")
    for n in settings.sizes:
        command = [sys.executable, "-m", "benchmarks.map_at_size", "--out", str(settings.out), "--one", str(n)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ})
        seconds, cpu, gib = map(float, done.stdout.split())
        print(f"| {n:,} | {seconds:.1f} | {cpu:.1f} | {gib:.2f} |", flush=True)


def draw(n: int, out: Path) -> tuple[float, float, float]:
    """Draw UMAP and t-SNE of n particles, each by class, cluster, score: wall and CPU seconds, peak memory in GiB."""
    umap, tsne, cluster, classes, score = made_up(n)
    begun, begun_cpu = time.perf_counter(), time.process_time()
    draw_map_panel(umap, tsne, classes, cluster, score, out / f"map-{n}.png", f"{n:,} particles", all_classes=CLASSES)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - begun_cpu
    return seconds, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def made_up(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Clumps of very unequal sizes over a wide cloud of noise: two maps (n, 2), clusters, classes, scores (n,)."""
    rng = np.random.default_rng(0)
    share = np.geomspace(1, 1e-3, GROUPS)
    group = rng.choice(GROUPS, size=n, p=share / share.sum())
    middles = rng.uniform(-10, 10, (2, GROUPS, 2))
    width = rng.uniform(0.2, 1.2, (GROUPS, 1))
    noise = rng.random(n) < 0.2
    spread = np.where(noise[:, None], 6.0, width[group])
    umap, tsne = (middles[view][group] + spread * rng.standard_normal((n, 2)) for view in (0, 1))
    classes = np.array(CLASSES, dtype=object)[np.where(rng.random(n) < 0.9, 3, group % len(CLASSES))]
    return umap, tsne, np.where(noise, -1, group), classes, rng.gumbel(size=n) + 2 * noise


if __name__ == "__main__":
    main(tyro.cli(Settings))
