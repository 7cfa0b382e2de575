"""The explorer at size: how large it gets, how long it takes to make, and how soon a browser answers.

`python benchmarks/explorer_at_size.py --sizes 20000 102763` prints the rows of RESULTS.md. Chromium and
playwright are needed.
"""

import importlib
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro

from benchmarks.demo import machine
from figures.explorer import write_explorer
from figures.explorer_data import Extras
from figures.explorer_runs import nearest
from particles.scalars import SCALARS
from provenance.errors import UserError
from provenance.run import LATENTS, PROJECT

DIMENSIONS = {"classifier": 512, "ae": 32, "vae": 32, "planar-vae": 32}
SCORES = ("hdbscan", "knn", "cosine", "whitened", "mahalanobis", "isolation_forest")
BANK, SIDE, GROUPS = 1024, 64, 12
LATER = 5


@dataclass(frozen=True)
class Settings:
    """Make explorers of generated particles and open them in Chromium."""

    sizes: tuple[int, ...] = (20_000, 102_763)
    """Particles: the most that one file holds, and those of the Peruvian core."""
    work_dir: Path = PROJECT / "benchmarks" / "work" / "explorer"
    """Where the explorers go."""
    seed: int = 0
    """Of the particles."""


def main(settings: Settings) -> None:
    """Make, open, then print a Markdown table."""
    print(f"{machine()}\n")
    print("| particles | MB | build s | of it neighbors s | first page of the browser: ready s | its first hover s "
          "| later pages: ready s | first hover s | hover s | lasso to gallery s |")  # fmt: skip
    print(f"|{'---|' * 10}")
    for n in settings.sizes:
        path, times = _build(n, settings)
        folder = path.parent if path.name == "index.html" else path
        files = [folder] if folder.is_file() else [file for file in folder.rglob("*") if file.is_file()]
        megabytes = sum(file.stat().st_size for file in files) / 1e6
        row = [megabytes, *times, *_opened(path)]
        print(f"| {n:,} | {' | '.join(f'{value:.2f}' for value in row)} |", flush=True)


def _build(n: int, settings: Settings) -> tuple[Path, list[float]]:
    """The explorer, and seconds: all, neighbors."""
    rng = np.random.default_rng(settings.seed)
    group = rng.integers(0, GROUPS, n)
    points = _points(n, group, rng)
    vectors = {name: _around(group, width, 1.0, rng).astype(np.float32) for name, width in DIMENSIONS.items()}
    begun = time.perf_counter()
    neighbors = {name: nearest(z) for name, z in vectors.items()}
    searched = time.perf_counter()
    extras = Extras(neighbors=neighbors, fingerprint=f"size-{n}")
    path = write_explorer(settings.work_dir / f"{n}.html", points, GeneratedCrops(n, rng), f"{n:,} particles", extras)
    return path, [time.perf_counter() - begun, searched - begun]


def _around(group: np.ndarray, width: int, spread: float, rng: np.random.Generator) -> np.ndarray:
    """Points around the center of their group: (N,) -> (N, width)."""
    centers = rng.normal(0, 4, (GROUPS, width))
    return np.asarray(centers[group] + rng.normal(0, spread, (len(group), width)))


def _points(n: int, group: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """All that a real explorer has: four latents, two maps each, three groupings, scores, scalars, names."""
    reasons = np.array([f"far from its nearest neighbors (classifier, top {i} %); improbable (vae, top {i} %)"
                        for i in range(100)])  # fmt: skip
    columns: dict[str, Any] = {
        "particle_id": [f"QCY_{i % 97}_{i % 13}_{i % 3}_fc80_20x_{i}" for i in range(n)],
        "rank": rng.permutation(n) + 1, "score": rng.gamma(2, 0.3, n), "p_value": rng.uniform(1e-4, 1, n),
        "reasons": reasons[rng.integers(0, 100, n)], "predicted": np.array(list("abcdefghijkl"))[group],
        "size_um": rng.lognormal(2, 0.6, n), "um_per_shown_px": rng.uniform(0.1, 0.6, n), "bag": group + 3046,
        "core": "QCY",
    }  # fmt: skip
    columns |= {name: rng.lognormal(1, 1, n) for name in SCALARS}
    for latent in LATENTS:
        for x, y in (("umap_x", "umap_y"), ("tsne_x", "tsne_y")):
            columns[f"{latent}:{x}"], columns[f"{latent}:{y}"] = _around(group, 2, 0.8, rng).T
        columns |= {f"{latent}:{name}": np.where(rng.random(n) < 0.1, -1, group) for name in ("kmeans", "hdbscan")}
        columns |= {f"{latent}.{score}": rng.random(n) for score in SCORES}
    return pd.DataFrame(columns).sort_values("rank", ignore_index=True)


class GeneratedCrops:
    """Grains with texture and noise like real ones, so that they compress like real ones; made when asked for."""

    def __init__(self, n: int, rng: np.random.Generator) -> None:
        self.n = n
        y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
        angle = np.arctan2(y, x)
        phases = rng.uniform(0, 2 * np.pi, (BANK, 4, 1, 1))
        outline = 0.6 + sum(0.05 * np.cos((k + 1) * angle + phases[:, k]) for k in range(4))
        depth = 60 / (1 + np.exp((np.hypot(x, y) - outline) * 18))
        texture = rng.normal(0, 8, (BANK, SIDE, SIDE)) * (depth > 30)
        texture = (texture + np.roll(texture, 1, 1) + np.roll(texture, 1, 2)) / 2
        self.bank = np.clip(135 - depth + texture + rng.normal(0, 2, depth.shape), 0, 255).astype(np.uint8)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """(n,) -> (n, 64, 64) uint8."""
        return np.stack([np.roll(self.bank[row % BANK], row // BANK % SIDE, axis=1) for row in rows])


# --- in the browser


def _opened(path: Path) -> list[float]:
    """Ready and first hover of a fresh browser, in seconds; then what `_page` says, median of its later pages."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise UserError("no chromium: apt-get install chromium")
    api: Any = importlib.import_module("playwright.sync_api")
    flags = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", *([] if os.geteuid() else ["--no-sandbox"])]
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        first, *later = [_page(browser, path) for _ in range(1 + LATER)]
        browser.close()
    return [*first[:2], *np.median(later, axis=0).tolist()]


def _page(browser: Any, path: Path) -> list[float]:
    """Seconds: ready, first hover, another hover, lasso to gallery."""
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    begun = time.perf_counter()
    page.goto(path.as_uri(), wait_until="commit", timeout=120_000)
    page.wait_for_selector("html[data-ready]", state="attached", timeout=120_000)
    ready = time.perf_counter() - begun
    _hover(page, 0)
    answered = time.perf_counter() - begun
    again = _timed(lambda: _hover(page, 150))
    lasso = _lasso(page)
    page.close()
    return [ready, answered, again, lasso]


def _timed(action: Callable[[], None]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def _middle(page: Any) -> tuple[float, float]:
    box = page.locator("#map").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def _hover(page: Any, start: int) -> None:
    """Move over the map until a dot shows its crop."""
    x, y = _middle(page)
    page.evaluate("document.getElementById('follow-crop').dataset.drawn = ''")
    for step in range(400):
        page.mouse.move(x + start + 7 * (step % 20) - 70, y + 9 * (step // 20) - 80)
        shown = "!follow.hidden && document.getElementById('follow-crop').dataset.drawn"
        if page.evaluate(f"(() => {{ const follow = document.getElementById('follow'); return {shown}; }})()"):
            return
    raise RuntimeError("no dot answered")


def _lasso(page: Any) -> float:
    """Seconds from letting go of the mouse to sixty crops in the gallery."""
    page.keyboard.press("o")
    x, y = _middle(page)
    page.mouse.move(x + 120, y)
    page.mouse.down()
    for i in range(1, 33):
        page.mouse.move(x + 120 * math.cos(i * math.pi / 16), y + 120 * math.sin(i * math.pi / 16))
    begun = time.perf_counter()
    page.mouse.up()
    page.wait_for_function(
        "[...document.querySelectorAll('#thumbs canvas')].filter(crop => crop.dataset.drawn).length >= 60",
        timeout=120_000,
    )
    return time.perf_counter() - begun


if __name__ == "__main__":
    main(tyro.cli(Settings))
