"""Write a tree in the layout of ICELEARNING, of any size: small grey crops, labeled tables, tables of a core.

    python -m benchmarks.icelearning_tree --out DIR --n 10000 --seed 0

Values are drawn, not measured: the tree is for testing and timing readers. A third of the crops is labeled.
"""

import argparse
import io
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from particles.scalars import SCALARS

AUTHOR = "/home/author/Desktop/Phd/Flowcam/"
CLASSES = ("dust", "camp", "grim", "corylus", "qrob", "qsub", "cont")
SHARES = (0.18, 0.04, 0.04, 0.27, 0.21, 0.19, 0.07)  # of the record
SECTIONS = ((3046, "0_20"), (3046, "20_40"), (3136, "0_20"), (3303, "0_20"), (3303, "40_55"), (3306, "20_40"))
CANVAS = 96  # px
BATCH = 512
OTHERS = (
    "Biovolume (Sphere)", "Calibration Factor", "Calibration Image", "Camera", "Capture X", "Capture Y", "Date",
    "Elapsed Time", "Filter Score", "Image File", "Image Height", "Image Width", "Image X", "Image Y", "Source Image",
    "Sphere Complement", "Sphere Count", "Sphere Unknown", "Sphere Volume", "Time", "Timestamp",
)  # fmt: skip
RATIOS = {
    "Aspect Ratio",
    "Circle Fit",
    "Circularity",
    "Circularity (Hu)",
    "Convexity",
    "Fiber Straightness",
    "Symmetry",
}
RATIOS |= {"Geodesic Aspect Ratio", "Transparency"}


def make_tree(root: Path, n: int, seed: int) -> Path:
    """Write a tree of `n` crops; the same numbers give the same tree.

    Args:
        root: gets a folder `datasets`.
        n: crops, at least 30.
        seed: of everything that is drawn.

    Returns:
        The folder `datasets`.
    """
    datasets, rng = root / "datasets", np.random.default_rng(seed)
    labeled = np.round(np.array(SHARES) * (n / 3)).astype(int)
    merged = [_labeled(datasets, name, count, rng) for name, count in zip(CLASSES, labeled, strict=True)]
    pd.concat(merged).to_csv(datasets / "train.csv", index=False)
    counts = np.diff(np.linspace(0, n - labeled.sum(), len(SECTIONS) + 1).astype(int))
    sections: dict[int, list[pd.DataFrame]] = {}
    for (bag, depth), count in zip(SECTIONS, counts, strict=True):
        sections.setdefault(bag, []).append(_section(datasets, bag, depth, int(count), rng))
    for bag, tables in sections.items():
        pd.concat(tables).to_csv(datasets / "test" / "GRIP_raw" / f"GRIP_{bag}_raw.csv", index=False)
    return datasets


def _labeled(datasets: Path, name: str, count: int, rng: np.random.Generator) -> pd.DataFrame:
    run = "GRIP_3046_0_20_9" if name == "cont" else f"{name}_11nov_4_fc80_20x"
    table = _crops(datasets, f"{name}", run, count, rng)
    table = table.assign(**{other: int(other == name) for other in CLASSES})
    table.to_csv(datasets / f"{name}.csv", index=False)
    return table


def _section(datasets: Path, bag: int, depth: str, count: int, rng: np.random.Generator) -> pd.DataFrame:
    run = f"GRIP_{bag}_{depth}_1"
    table = _crops(datasets, f"test/GRIP_raw/{run}", run, count, rng)
    table.insert(0, "Sample", run)
    return table


def _crops(datasets: Path, folder: str, run: str, count: int, rng: np.random.Generator) -> pd.DataFrame:
    """Write the crops of one folder; their table."""
    (datasets / folder).mkdir(parents=True, exist_ok=True)
    names = [f"{run}_{number}.png" for number in range(1, count + 1)]
    shapes = []
    for name, crop in zip(names, _pictures(count, rng), strict=True):
        buffer = io.BytesIO()
        Image.fromarray(crop).save(buffer, "png", compress_level=1)
        (datasets / folder / name).write_bytes(buffer.getvalue())
        shapes.append(crop.shape)
    size = np.array(shapes, dtype=int).reshape(count, 2)
    return _table(size, [f"{AUTHOR}{folder}/{name}" for name in names], run, rng)


def _pictures(count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Dark ellipses on a grey ground, mostly 20 to 60 px."""
    y, x = np.mgrid[:CANVAS, :CANVAS] - CANVAS / 2  # (S, S) each
    for start in range(0, count, BATCH):
        n = min(BATCH, count - start)
        radii = np.exp(rng.normal(2.6, 0.35, (n, 2))).clip(4, CANVAS / 2 - 8)  # (n, 2)
        inside = (y / radii[:, 0, None, None]) ** 2 + (x / radii[:, 1, None, None]) ** 2 < 1  # (n, S, S)
        grey = rng.integers(128, 144, (n, CANVAS, CANVAS), np.uint8)
        grey -= inside * rng.integers(30, 90, (n, 1, 1), np.uint8)
        half = np.ceil(radii).astype(int) + 4
        for picture, (down, right) in zip(grey, half, strict=True):
            middle = CANVAS // 2
            yield picture[middle - down : middle + down, middle - right : middle + right]


def _table(size: np.ndarray, paths: list[str], run: str, rng: np.random.Generator) -> pd.DataFrame:
    """56 columns of FlowCam in the order of the alphabet, and the paths. size: (n, 2), height and width in px."""
    n = len(paths)
    um = 0.2752 * np.sqrt(size.prod(axis=1))
    columns: dict[str, object] = dict.fromkeys(OTHERS, 0)
    for name, unit in SCALARS.items():
        spread = np.exp(rng.normal(0, 0.2, n))
        power = {"µm": 1, "µm²": 2, "µm³": 3}.get(unit, 0)
        columns[name] = (um**power * spread if power else 100 * spread).round(4)
    columns |= {name: rng.uniform(0.05, 1, n).round(4) for name in RATIOS}
    columns |= {
        "Particle ID": np.arange(1, n + 1), "Calibration Factor": 0.2752, "Camera": 1, "Particles Per Chain": 1,
        "Image File": f"{run}_000001.tif", "Image Height": size[:, 0], "Image Width": size[:, 1],
        "Date": "2020-11-11", "Time": "10:20:30", "Timestamp": "2020-11-11T10:20:30.500",
    }  # fmt: skip
    table = pd.DataFrame({"Particle ID": columns.pop("Particle ID"), **dict(sorted(columns.items()))})
    return table.assign(imgpaths=paths)


def main() -> None:
    """Write a tree and say how fast."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    start, busy = time.perf_counter(), time.process_time()
    datasets = make_tree(given.out, given.n, given.seed)
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    print(f"{datasets}: {given.n} crops in {seconds:.1f} s ({given.n / busy:.0f} a second of processor time)")


if __name__ == "__main__":
    main()
