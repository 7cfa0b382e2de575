"""The demo over several seeds: outliers found, time, memory, and what trivial scores would find.

python benchmarks/demo.py --seeds 0 1 2            # a core and a training for each seed: rows of RESULTS.md
python benchmarks/demo.py --seeds 0 1 2 --same-core  # one core, several trainings: how stable is the list?
"""

import os
import platform
import resource
import subprocess
import sys
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from clustering.metrics import outlier_metrics
from particles.sets import DataSettings, open_set, packed_folder
from particles.table import read_parquet
from provenance.files import read_json
from provenance.run import PROJECT, RunSettings


@dataclass(frozen=True)
class Settings:
    """Run the demo for several seeds."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """One demo each."""
    same_core: bool = False
    """Search the core of the first seed with all of them, and compare their first 20 and 100."""
    work_dir: Path = PROJECT / "benchmarks" / "work" / "demo"
    """Where the runs go."""
    options: tuple[str, ...] = ()
    """More words for the demo's command line, for trying things on other seeds than the reported ones."""

    @property
    def data(self) -> str:
        """`synthetic`, which every seed draws anew, or the packed core of the first."""
        if not self.same_core:
            return "synthetic"
        return str(packed_folder("synthetic", DataSettings(), RunSettings(self.seeds[0], self.work_dir), print))


def main(settings: Settings) -> None:
    """Run, then print a Markdown table."""
    rows = [_one(seed, settings) for seed in settings.seeds]
    columns = list(rows[0])
    of_seeds = np.array([[row[name] for name in columns] for row in rows])
    spread = of_seeds.std(axis=0, ddof=1) if len(rows) > 1 else np.zeros(len(columns))
    mean, spread = (dict(zip(columns, values, strict=True)) for values in (of_seeds.mean(axis=0), spread))
    print(f"\n{machine()}\n\n| seed | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for seed, row in zip([*map(str, settings.seeds), "mean", "std"], [*rows, mean, spread], strict=True):
        print(f"| {seed} | {' | '.join(f'{row[name]:.3f}' for name in columns)} |")
    if settings.same_core:
        _compare(settings)


def _compare(settings: Settings) -> None:
    """How many of the first n any two seeds have in common."""
    runs = sorted((settings.work_dir / "runs" / "consensus").iterdir())[-len(settings.seeds) :]
    ranks = [read_parquet(run / "outliers.parquet").set_index("particle_id")["rank"] for run in runs]
    for n in (20, 100):
        first = [set(rank.index[rank <= n]) for rank in ranks]
        shared = [len(one & other) for one, other in combinations(first, 2)]
        print(f"of the first {n}, two seeds share {np.mean(shared):.1f} in the mean ({min(shared)} to {max(shared)})")


def _one(seed: int, settings: Settings) -> dict[str, float]:
    command = [sys.executable, str(PROJECT / "experiments" / "find_outliers.py"), "--seed", str(seed),
               "--work-dir", str(settings.work_dir), "--data", settings.data, *settings.options]  # fmt: skip
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    summary: dict[str, Any] = read_json(Path(done.stdout.strip().splitlines()[-1]))
    # the largest of all children so far, workers included; in kB on Linux
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    return numbers_of(summary) | trivial_scores(seed, settings) | {"minutes": summary["seconds"] / 60, "GiB": memory}


def numbers_of(summary: dict[str, Any]) -> dict[str, float]:
    """AUROC of each latent and all numbers of the consensus, what is missing as 0: no discovery, no false ones."""
    told = summary["consensus"].items()
    consensus = {f"consensus {name}": float(value or 0) for name, value in told if not isinstance(value, list)}
    return consensus | {f"{name} AUROC": found["outliers"]["auroc"] for name, found in summary["latents"].items()}


def trivial_scores(seed: int, settings: Settings) -> dict[str, float]:
    """AUROC of what anybody could sort by: size of the crop, mean grey of the crop."""
    particles = open_set(DataSettings(settings.data), RunSettings(seed, settings.work_dir))
    core = particles.table[particles.table["role"] == "core"]
    grey = particles.pixels[core["position"].to_numpy(dtype=np.int64)].mean(axis=(1, 2))
    size = (core["width_px"] * core["height_px"]).to_numpy(dtype=float)
    scores = {"crop size": size, "mean grey": grey}
    return {f"{name} AUROC": float(outlier_metrics(core["is_outlier"], s)["auroc"] or 0) for name, s in scores.items()}


def machine() -> str:
    """One line on the machine, for RESULTS.md."""
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.processor())  # fmt: skip
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{os.cpu_count()} cores of {cpu}, {platform.system()}, Python {platform.python_version()}, {gpu}"


if __name__ == "__main__":
    main(tyro.cli(Settings))
