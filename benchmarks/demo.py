"""The demo over several seeds: outliers found, time, memory, and what trivial scores would find.

`python benchmarks/demo.py --seeds 0 1 2` prints the rows of RESULTS.md.
"""

import os
import platform
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from clustering.metrics import outlier_metrics
from particles.sets import DataSettings, open_set
from provenance.files import read_json
from provenance.run import PROJECT, RunSettings


@dataclass(frozen=True)
class Settings:
    """Run the demo for several seeds."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """One demo each."""
    work_dir: Path = PROJECT / "benchmarks" / "work" / "demo"
    """Where the runs go."""
    options: tuple[str, ...] = ()
    """More words for the demo's command line, for trying things on other seeds than the reported ones."""


def main(settings: Settings) -> None:
    """Run, then print a Markdown table."""
    rows = [_one(seed, settings) for seed in settings.seeds]
    columns = list(rows[0])
    mean = {name: float(np.mean([row[name] for row in rows])) for name in columns}
    print(f"\n{machine()}\n\n| seed | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for seed, row in zip([*map(str, settings.seeds), "mean"], [*rows, mean], strict=True):
        print(f"| {seed} | {' | '.join(f'{row[name]:.3f}' for name in columns)} |")


def _one(seed: int, settings: Settings) -> dict[str, float]:
    command = [sys.executable, str(PROJECT / "experiments" / "find_outliers.py"), "--seed", str(seed),
               "--work-dir", str(settings.work_dir), *settings.options]  # fmt: skip
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    summary: dict[str, Any] = read_json(Path(done.stdout.strip().splitlines()[-1]))
    latents = {f"{name} AUROC": found["outliers"]["auroc"] for name, found in summary["latents"].items()}
    # no discovery, no share of false ones
    consensus = {f"consensus {name}": 0.0 if value is None else value for name, value in summary["consensus"].items()}
    # the largest of all children so far, workers included; in kB on Linux
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    return consensus | latents | trivial_scores(seed, settings) | {"minutes": summary["seconds"] / 60, "GiB": memory}


def trivial_scores(seed: int, settings: Settings) -> dict[str, float]:
    """AUROC of what anybody could sort by: size of the crop, mean grey of the crop."""
    particles = open_set(DataSettings(), RunSettings(seed, settings.work_dir))
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
