"""Training and inference beside the way others do it: the same crops, epochs, batch and machine, in alternation.

    python -m benchmarks.side_by_side --crops 3000 --epochs 3 --rounds 3

The classifier beside the loop that ICELEARNING publishes and beside plain Lightning over an ImageFolder; the VAE beside
pythae's own trainer. Each side runs in a process of its own; the order turns around from round to round. Training
counts with its validation and what is written at its end, not with imports and model building; packing is done once
and printed apart. The first and the third need `pip install albumentations opencv-python-headless` and `pip install
pythae`, which the project does not; without them their rows are missing. `benchmarks/peers.py` holds the others' loops.
"""

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import tyro
from PIL import Image

from autoencoders.encode import encode_autoencoder
from autoencoders.training import AutoencoderTraining
from benchmarks.demo import machine
from benchmarks.peers import Crops, Effort, clocked, icelearning, lightning_folder, pythae_vae
from encoders.arithmetic import Precision, best_device, resolve_precision
from encoders.classifier import ClassifierTraining
from encoders.fit import FitSettings, fit, loaders
from encoders.predict import Judge, Shards, classify
from particles.loader import as_input, class_numbers
from particles.sets import DataSettings, ParticleSet, open_set
from particles.sources.synthetic import CLASSES, Synthetic
from particles.squares import PackSettings
from provenance.run import PROJECT, Run, RunSettings, started

NEEDS = {"classifier, ours": (), "classifier, ICELEARNING's loop": ("albumentations", "cv2"),
         "classifier, Lightning + ImageFolder": (), "vae, ours": (), "vae, pythae": ("pythae",)}  # fmt: skip
"""The sides, and what each has to find installed."""
READS_FILES = ("classifier, ICELEARNING's loop", "classifier, Lightning + ImageFolder")


@dataclass(frozen=True)
class Settings:
    """Train and infer, ours and theirs in turn."""

    crops: int = 3000
    """Crops in the folder tree: rendered, seven classes."""
    epochs: int = 3
    """Passes over the training split of each side."""
    rounds: int = 3
    """How often every side runs."""
    batch: int = 64
    """Images a step, for all."""
    size: int = 128
    """Side in px of the classifiers' images, as published."""
    vae_size: int = 64
    """Side in px of the VAEs' images."""
    workers: tuple[int, ...] = (0, 2)
    """Reading processes that the sides that read files may have; the best in the first round is kept."""
    precision: Precision = "auto"
    """Of ours: auto is bf16 where the processor has it; theirs is float32."""
    work_dir: Path = PROJECT / "benchmarks" / "work" / "side_by_side"
    """Where crops, packed sets and checkpoints go."""
    one: str | None = None
    """Run this side once in this very process, with the first number of workers, and print what it took."""


Took = dict[str, Any]


def main(settings: Settings) -> None:
    """Run all in turn, print what each took, then the medians of the ratios."""
    if settings.one is not None:
        print(json.dumps(once(settings.one, settings)))
        return
    print(f"{machine()}; {settings.crops} crops, {settings.epochs} epochs, batch {settings.batch}, "
          f"ours in {resolve_precision(settings.precision)}\n")  # fmt: skip
    write_crops(settings)
    for size in (settings.size, settings.vae_size):
        seconds, again = (clocked(partial(packed, size, settings)) for _ in range(2))
        print(f"packing at {size} px: {seconds:.1f} s; opening it again: {again:.1f} s", flush=True)
    print("\n| round | side | workers | training s | images/s | inference images/s | GiB |\n|" + "---|" * 7)
    workers = {side: settings.workers if side in READS_FILES else (0,) for side in _possible()}
    rounds = [took for number in range(settings.rounds) for took in _round(number, workers, settings)]
    print_ratios(pd.DataFrame(rounds))


def _possible() -> list[str]:
    """The sides for which everything is installed."""
    return [side for side, modules in NEEDS.items() if all(map(importlib.util.find_spec, modules))]


def _round(number: int, workers: dict[str, tuple[int, ...]], settings: Settings) -> Iterator[Took]:
    """Every side once; in the first round with each number of workers, of which `workers` keeps the best."""
    for side in list(workers)[:: -1 if number % 2 else 1]:
        tried = []
        for count in workers[side]:
            tried.append({"round": number, "side": side, "workers": count, **_apart(side, count, settings)})
            print(_line(tried[-1]), flush=True)
        best = min(tried, key=lambda took: float(took["training"]))
        workers[side] = (best["workers"],)
        yield best


def _apart(side: str, workers: int, settings: Settings) -> Took:
    """What a side took, in a process of its own."""
    given = {
        "--one": side, "--workers": workers, "--crops": settings.crops, "--epochs": settings.epochs,
        "--batch": settings.batch, "--size": settings.size, "--vae-size": settings.vae_size,
        "--precision": settings.precision, "--work-dir": settings.work_dir,
    }  # fmt: skip
    command = [sys.executable, "-m", "benchmarks.side_by_side", *(str(word) for pair in given.items() for word in pair)]
    with (settings.work_dir / "last.log").open("w") as log:
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=log, text=True, cwd=PROJECT)
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def _line(took: Took) -> str:
    rates = f"{took['seen'] / took['training']:.1f} | {took['n'] / took['inference']:.0f} | {took['gib']:.2f}"
    return f"| {took['round'] + 1} | {took['side']} | {took['workers']} | {took['training']:.1f} | {rates} |"


def print_ratios(rounds: pd.DataFrame) -> None:
    """How many times as fast ours is: the median over the rounds, and each of them."""
    print(f"\n| ours, times as fast as | training | inference | GiB, ours and theirs |\n|{'---|' * 4}")
    taken = rounds.set_index(["side", "round"])
    for side in dict.fromkeys(rounds["side"]):
        ours = f"{side.partition(',')[0]}, ours"
        if side == ours:
            continue
        cells = []
        for what in ("training", "inference"):
            ratios = [float(r) for r in taken.loc[side, what] / taken.loc[ours, what]]
            cells.append(f"**{median(ratios):.2f}** ({', '.join(f'{r:.2f}' for r in ratios)})")
        memory = ", ".join(f"{taken.loc[one, 'gib'].median():.2f}" for one in (ours, side))
        print(f"| {side} | {' | '.join(cells)} | {memory} |")


def write_crops(settings: Settings) -> Path:
    """A folder tree of rendered crops, a folder a class; made once."""
    root = settings.work_dir / f"crops-{settings.crops}"
    if not (root.parent / f"{root.name}.done").exists():
        source = Synthetic(0, -(-settings.crops // len(CLASSES)), 0, 0)
        for row in source.rows().sample(settings.crops, random_state=0).itertuples(index=False):
            path = root / str(row.truth) / f"{row.particle_id}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(source.read(row)).save(path)
        (root.parent / f"{root.name}.done").touch()
    return root


def packed(size: int, settings: Settings) -> ParticleSet:
    """The same crops, stretched to squares as the others do it; packed by the first call."""
    data = DataSettings(str(write_crops(settings)), pack=PackSettings(size=size, fit="squash"))
    return open_set(data, RunSettings(0, settings.work_dir), say=lambda _: None)


def once(side: str, settings: Settings) -> Took:
    """Run a side: seconds of training and of inference, images seen and judged, peak memory of this process."""
    is_vae = side.startswith("vae")
    particles = packed(settings.vae_size if is_vae else settings.size, settings)
    crops = _crops(particles, settings)
    scratch = settings.work_dir / "scratch"
    scratch.mkdir(exist_ok=True)
    effort = Effort(settings.epochs, settings.batch, particles.pixels.size, 32, settings.workers[0], scratch)
    if side.endswith("ours"):
        training, inference = _ours(side, particles, crops, settings)
    elif is_vae:
        everything = as_input(particles.pixels[np.arange(len(particles.pixels))])
        training, inference = pythae_vae(everything, crops.train, crops.val, effort)
    else:
        training, inference = (icelearning if "ICE" in side else lightning_folder)(crops, effort)
    shutil.rmtree(scratch)
    return {
        "training": training, "inference": inference, "seen": settings.epochs * len(crops.train),
        "n": len(crops.paths), "gib": peak_gib(),
    }  # fmt: skip


def _crops(particles: ParticleSet, settings: Settings) -> Crops:
    rows = particles.table.sort_values("position")
    root = write_crops(settings)
    train, val = ((rows["split"] == split).to_numpy(dtype=bool).nonzero()[0] for split in ("train", "val"))
    classes = sorted(rows["truth"].unique())
    paths = [str(root / image) for image in rows["image"]]
    return Crops(root, paths, class_numbers(rows["truth"].tolist(), classes), train, val, classes)


def _ours(side: str, particles: ParticleSet, crops: Crops, settings: Settings) -> tuple[float, float]:
    """As the commands do it: `fit`, then `classify` (with its Parquet) or `encode_autoencoder` (with its losses)."""
    is_vae = side.startswith("vae")
    how = FitSettings(epochs=settings.epochs, batch_size=settings.batch, precision=settings.precision)
    common = RunSettings(0, settings.work_dir)
    size = particles.pixels.size
    targets = None if is_vae else crops.targets
    data = loaders(particles, crops.train, crops.val, how, common.seed, targets)
    model: Any = (
        AutoencoderTraining("vae", 32, size, "gaussian", 0, how.lr, 3.0)
        if is_vae
        else ClassifierTraining(crops.classes, [1.0] * len(crops.classes), how.lr, size)
    )
    with started("side-by-side", settings, common, particles.identity) as run:
        training = clocked(lambda: fit(model, data, run, how, common.seed, monitor="val_loss"))
        inference = clocked(lambda: _infer(model, particles, run, settings.precision))
    for checkpoint in run.path.glob("*.ckpt"):
        checkpoint.unlink()
    return training, inference


def _infer(model: Any, particles: ParticleSet, run: Run, precision: Precision) -> None:
    if isinstance(model, AutoencoderTraining):
        encode_autoencoder(model.net, particles, 0, precision)
        return
    judge = Judge(model.to(best_device()), bf16=resolve_precision(precision) == "bf16-mixed")
    classify(judge, Shards(particles.folder), run.path, every=True, as_csv=False)


def peak_gib() -> float:
    """The most memory this process has held; of Linux, which counts anew where a process begins, unlike getrusage."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**20


if __name__ == "__main__":
    main(tyro.cli(Settings))
