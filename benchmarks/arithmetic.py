"""Where a VAE's training step and its inference spend their time, how near the machine's best, and what bf16 changes.

    python -m benchmarks.arithmetic                        # all three tables
    python -m benchmarks.arithmetic --what equality --run runs/vae/<id>

`split`: the parts of a step, and the share of the machine's best matrix product that trunk and decoder reach.
`equality`: latents in float32 and in bf16, and whether the same particles are the strangest. `switches`: freed memory
kept, AdamW fused, weights' gradients on small maps, torch.compile. What is timed runs in processes of its own, in turn;
the values are medians.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
import tyro
from lightning.pytorch.callbacks import Callback
from torch.utils.flop_counter import FlopCounterMode

from autoencoders.encode import encode_autoencoder
from autoencoders.train import AutoencoderSettings, train_autoencoder
from autoencoders.training import AutoencoderTraining, load_autoencoder
from benchmarks.demo import machine
from clustering.metrics import outlier_metrics
from clustering.outliers import knn_distance
from encoders.arithmetic import Precision, best_device, keep_memory, resolve_precision
from encoders.classifier import load_classifier
from encoders.encode import BATCH, encode_classifier
from encoders.fit import FitSettings, fit, loaders
from encoders.pretrain import ClassifierSettings, pretrain
from encoders.small_maps import MOST_PIXELS
from particles.latents import Latents
from particles.loader import augmented
from particles.sets import DataSettings, ParticleSet, open_set
from particles.squares import PackSettings
from provenance.run import PROJECT, Run, RunSettings, started

What = Literal["split", "equality", "switches"]
Values = dict[str, float]
SIDES = (1024, 2048, 4096)
"""Of the square matrices whose fastest product is the machine's ceiling."""
STRANGEST = 100
SWITCHED = {"as it is": "", "memory given back": "--no-keep", "AdamW not fused": "--no-fused",
            "library's gradients": "--no-small-maps",
            "compiled": "--compiled"}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """Take a step apart, compare float32 with bf16, turn the switches."""

    what: tuple[What, ...] = ("split", "equality", "switches")
    """Which tables."""
    sizes: tuple[int, ...] = (28, 64, 128)
    """Sides of the images in px."""
    steps: int = 30
    """Timed steps of each measurement."""
    rounds: int = 3
    """How often each is measured, in turn with the others."""
    batch: int = 64
    """Images a step."""
    epochs: int = 3
    """Of the small models whose latents are compared."""
    run: Path | None = None
    """A classifier, ae, vae or planar-vae run to compare instead; its packed set must still be there."""
    work_dir: Path = PROJECT / "benchmarks" / "work" / "arithmetic"
    """Where packed sets and runs go."""
    one: Literal["split", "switches"] | None = None
    """Measure in this very process, the first size, and print JSON."""
    precision: Precision = "auto"
    """With --one: of the step."""
    keep: bool = True
    """With --one: keep freed memory."""
    fused: bool = True
    """With --one: AdamW's fused step."""
    small_maps: bool = True
    """With --one: gradients of weights on small maps as matrix products."""
    compiled: bool = False
    """With --one: compile the model."""


def main(settings: Settings) -> None:
    """Print the tables that are asked for."""
    if settings.one is not None:
        found = split(settings) if settings.one == "split" else switched(settings)
        print("\n" + json.dumps(found))  # below what the progress bar has left
        return
    print(f"{machine()}, {torch.get_num_threads()} threads\n")
    tables = {"split": print_split, "equality": print_equality, "switches": print_switches}
    for what in settings.what:
        tables[what](settings)


def _apart(settings: Settings, size: int, *words: str) -> Values | None:
    """What a process of its own measures; None, and a line, if it fails."""
    command = [sys.executable, "-m", "benchmarks.arithmetic", "--sizes", str(size), "--steps", str(settings.steps),
               "--batch", str(settings.batch), "--work-dir", str(settings.work_dir), *words]  # fmt: skip
    # the progress bar draws as it does in a terminal, or its cost would not be seen
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, env={**os.environ, "FORCE_COLOR": "1"})
    if done.returncode:
        print(f"({' '.join(words)} at {size} px failed: {done.stderr.strip().splitlines()[-1][:200]})\n", flush=True)
        return None
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def _medians(found: list[Values | None]) -> Values | None:
    there = [values for values in found if values is not None]
    return {name: median(values[name] for values in there) for name in there[0]} if there else None


def print_split(settings: Settings) -> None:
    """The parts of a step, their share of the ceiling, and the same for inference."""
    found: dict[tuple[int, str], Values] = {}
    for size in settings.sizes:
        packed(size, settings)
        taken: dict[str, list[Values | None]] = {"32": [], "bf16": []}
        for _ in range(settings.rounds):
            for precision, values in taken.items():
                values.append(_apart(settings, size, "--one", "split", "--precision", precision))
        found |= {(size, precision): m for precision, values in taken.items() if (m := _medians(values))}
    b = settings.batch
    _table(f"ms of a training step (batch {b})", _STEP, found)
    _table(f"work of a step (batch {b}, forward and backward)", _WORK, found)
    _table("ms of inference per 64 images (batches of 256; `encode` decodes twice)", _INFERENCE, found)


_STEP = ("loading", "trunk", "decoder", "heads and loss", "optimizer", "Lightning", "step in fit", "images/s")
_WORK = ("trunk GFLOP", "decoder GFLOP", "ceiling GFLOP/s", "trunk share", "decoder share", "step share")
_INFERENCE = ("trunk forward", "decoder forward", "encode", "encoded/s", "trunk forward share")


def _table(title: str, columns: tuple[str, ...], found: dict[tuple[int, str], Values]) -> None:
    print(f"{title}\n\n| px | precision | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 2)}")
    for (size, precision), values in found.items():
        print(f"| {size} | {precision} | {' | '.join(_cell(values[name], name) for name in columns)} |")
    print(flush=True)


def _cell(value: float, name: str) -> str:
    if name.endswith("share"):
        return f"{value:.0%}"
    return f"{value:.0f}" if name.endswith("/s") else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def packed(size: int, settings: Settings) -> ParticleSet:
    """A small synthetic core at this size, packed by the first call."""
    data = DataSettings(n_per_class=150, n_core=1000, pack=PackSettings(size=size))
    return open_set(data, RunSettings(0, settings.work_dir), say=lambda _: None)


def split(settings: Settings) -> Values:
    """The parts of a training step and of inference in ms, and the work in them."""
    size, precision = settings.sizes[0], settings.precision
    particles, how = packed(size, settings), FitSettings(batch_size=settings.batch, precision=precision)
    bf16 = resolve_precision(precision) == "bf16-mixed"
    keep_memory()
    torch.set_flush_denormal(True)
    ceiling = best_product(torch.bfloat16 if bf16 else torch.float32)
    model = AutoencoderTraining("vae", 32, size, "gaussian", 0, how.lr, 3.0).to(best_device())
    ms = _parts(model, particles, how, settings, bf16)
    work = _work(model, settings.batch, size)
    ms |= _forward(model, particles, bf16, settings)
    ms["step in fit"] = _fitted(model.cpu(), particles, how, settings)
    ms["Lightning"] = ms["step in fit"] - ms["loading"] - ms["bare step"]
    ms["images/s"] = 1000 * settings.batch / ms["step in fit"]
    shares = {"trunk share": work["trunk GFLOP"] / ms["trunk"], "decoder share": work["decoder GFLOP"] / ms["decoder"],
              "step share": (work["trunk GFLOP"] + work["decoder GFLOP"]) / ms["step in fit"],
              "trunk forward share": work["trunk forward GFLOP"] * 64 / settings.batch / ms["trunk forward"],
              }  # fmt: skip
    return ms | work | {name: 1000 * per_ms / ceiling for name, per_ms in shares.items()} | {"ceiling GFLOP/s": ceiling}


def best_product(dtype: torch.dtype) -> float:
    """The most GFLOP/s of a matrix product on this machine."""
    best = 0.0
    for side in SIDES:
        a, b = (torch.randn(side, side, device=best_device()).to(dtype) for _ in range(2))
        fastest = min(_ms(partial(torch.matmul, a, b)) for _ in range(6))
        best = max(best, 2e-6 * side**3 / fastest)
    return best


def _ms(work: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - begun)


def _autocast(bf16: bool) -> AbstractContextManager[Any]:
    return torch.autocast(best_device().type, torch.bfloat16, enabled=bf16)


def _backward(part: torch.nn.Module, x: torch.Tensor, bf16: bool = False) -> None:
    """Forward and backward with a gradient of ones."""
    with _autocast(bf16):
        y = part(x)
    y.backward(torch.ones_like(y))


def _endless(particles: ParticleSet, how: FitSettings) -> Iterator[torch.Tensor]:
    """Training batches as `fit` sees them, augmented, epoch after epoch."""
    train, val = (particles.training_positions(split, True) for split in ("train", "val"))
    data = loaders(particles, train, val, how, 0)
    while True:
        for batch in data.train_dataloader():
            if len(batch["x"]) == how.batch_size:
                yield augmented(batch["x"].to(best_device()), data.augment)


def _parts(
    model: AutoencoderTraining, particles: ParticleSet, how: FitSettings, settings: Settings, bf16: bool
) -> Values:
    """Medians of loading, trunk, decoder, the whole step without Lightning, and of the optimizer in it."""
    net, images = model.train().net, _endless(particles, how)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, weight_decay=1e-4, fused=True)
    taken: dict[str, list[float]] = {n: [] for n in ("loading", "trunk", "decoder", "bare step", "optimizer")}
    z = torch.randn(how.batch_size, 32, device=best_device(), requires_grad=True)
    for step in range(settings.steps + 3):
        begun = time.perf_counter()
        x = next(images)
        ms = {"loading": 1000 * (time.perf_counter() - begun)}
        ms["trunk"] = _ms(partial(_backward, net.trunk, x, bf16))
        ms["decoder"] = _ms(partial(_backward, net.decoder, z, bf16))
        optimizer.zero_grad()
        backward = _ms(partial(_backward_of_loss, net, x, bf16))
        ms["optimizer"] = _ms(lambda: (optimizer.step(), optimizer.zero_grad()))
        ms["bare step"] = backward + ms["optimizer"]
        for name, value in ms.items() if step >= 3 else ():  # the first ones set up
            taken[name].append(value)
    found = {name: median(values) for name, values in taken.items()}
    rest = found["bare step"] - found["trunk"] - found["decoder"] - found["optimizer"]
    return found | {"heads and loss": rest}


def _backward_of_loss(net: Any, x: torch.Tensor, bf16: bool) -> None:
    with _autocast(bf16):
        losses = net.losses(x)
    (losses.reconstruction + losses.kl).mean().backward()


def _work(model: AutoencoderTraining, batch: int, size: int) -> Values:
    """GFLOP of trunk and decoder, forward and backward, and of the trunk forward; a multiply-add counts two."""
    x, z = torch.rand(batch, 1, size, size, device=best_device()), torch.randn(batch, 32, device=best_device())
    todo: dict[str, Callable[[], Any]] = {
        "trunk": partial(_backward, model.net.trunk, x),
        "decoder": partial(_backward, model.net.decoder, z.requires_grad_()),
        "trunk forward": partial(model.net.trunk, x),
    }
    found = {}
    for name, work in todo.items():
        with FlopCounterMode(display=False) as counter:
            work()
        found[f"{name} GFLOP"] = counter.get_total_flops() / 1e9
    model.zero_grad()
    return found


def _forward(model: AutoencoderTraining, particles: ParticleSet, bf16: bool, settings: Settings) -> Values:
    """Inference per 64 images: trunk and decoder alone, and `encode_autoencoder` as the commands call it."""
    net, size = model.eval().net, particles.pixels.size
    x, z = torch.rand(BATCH, 1, size, size, device=best_device()), torch.randn(BATCH, 32, device=best_device())
    repeats = max(3, settings.steps // 4)
    found = {}
    with torch.inference_mode(), _autocast(bf16):
        for name, work in {"trunk": partial(net.trunk, x), "decoder": partial(net.decoder, z)}.items():
            found[f"{name} forward"] = median([_ms(work) for _ in range(repeats + 1)][1:]) * 64 / BATCH
    precision: Precision = "bf16" if bf16 else "32"
    encode = median([_ms(lambda: encode_autoencoder(net, particles, 0, precision)) for _ in range(3)][1:])
    n = len(particles.table)
    return found | {"encode": encode * 64 / n, "encoded/s": 1000 * n / encode}


class _Clock(Callback):
    """Times between the beginnings of successive steps of `fit`: all that a step costs, validation left out."""

    def __init__(self) -> None:
        self.begun: float | None = None
        self.ms: list[float] = []

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.begun = None

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        now = time.perf_counter()
        if self.begun is not None and trainer.global_step > 3:
            self.ms.append(1000 * (now - self.begun))
        self.begun = now


def _fitted(model: AutoencoderTraining, particles: ParticleSet, how: FitSettings, settings: Settings) -> float:
    """Median ms of a step within `fit`, in as many epochs as the asked steps need."""
    train, val = (particles.training_positions(s, True) for s in ("train", "val"))
    epochs = 1 + settings.steps * how.batch_size // len(train)
    how = FitSettings(epochs=epochs, batch_size=how.batch_size, precision=how.precision)
    clock, common = _Clock(), RunSettings(0, settings.work_dir)
    with started("arithmetic", settings, common, particles.identity) as run:
        fit(model, loaders(particles, train, val, how, 0), run, how, 0, monitor="val_loss", watching=[clock])
    for checkpoint in run.path.glob("*.ckpt"):
        checkpoint.unlink()
    return median(clock.ms)


def print_switches(settings: Settings) -> None:
    """The time of a step (without Lightning) with each switch turned."""
    print(f"ms of a step, batch {settings.batch}, without Lightning; compiling takes what stands in brackets\n")
    print(f"| px | {' | '.join(SWITCHED)} |\n|{'---|' * (len(SWITCHED) + 1)}")
    for size in settings.sizes:
        packed(size, settings)
        taken: dict[str, list[Values | None]] = {name: [] for name in SWITCHED}
        for number in range(settings.rounds):
            for name, word in SWITCHED.items():
                if number == 0 or taken[name][0] is not None:  # what failed once fails again
                    taken[name].append(_apart(settings, size, "--one", "switches", *([word] if word else [])))
        cells = []
        for name, values in taken.items():
            found = _medians(values)
            cells.append(
                "–" if found is None else f"{found['ms']:.1f}" + f" ({found['first s']:.0f} s)" * (name == "compiled")
            )
        print(f"| {size} | {' | '.join(cells)} |", flush=True)
    print()


def switched(settings: Settings) -> Values:
    """Median ms of a step, and seconds of the first one."""
    size, how = settings.sizes[0], FitSettings(batch_size=settings.batch)
    bf16 = resolve_precision(settings.precision) == "bf16-mixed"
    if settings.keep:
        keep_memory()
    if not settings.small_maps:
        MOST_PIXELS.clear()
    torch.set_flush_denormal(True)
    images = _endless(packed(size, settings), how)
    model = AutoencoderTraining("vae", 32, size, "gaussian", 0, how.lr, 3.0).to(best_device()).train()
    if settings.compiled:
        for part in (model.net.trunk, model.net.decoder):
            part.compile()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-4, fused=settings.fused)

    def step() -> None:
        _backward_of_loss(model.net, next(images), bf16)
        optimizer.step()
        optimizer.zero_grad()

    ms = [_ms(step) for _ in range(settings.steps + 3)]
    return {"ms": median(ms[3:]), "first s": ms[0] / 1000}


def print_equality(settings: Settings) -> None:
    """Latents in float32 and in bf16: how alike, and whether they find the same particles strange."""
    print("| latent | particles | D | cosine, lowest | median | of the 100 strangest, in both "
          "| the others: score from the 100th | a score moves by (median) | AUROC, float32 and bf16 |")  # fmt: skip
    print("|" + "---|" * 9)
    for run, particles in _models(settings):
        z = {precision: _encoded(run, particles, precision) for precision in ("32", "bf16")}
        print(_equality(run.kind, z["32"], z["bf16"]), flush=True)
    print()


def _models(settings: Settings) -> Iterator[tuple[Run, ParticleSet]]:
    """The run that is given, or a small classifier and a small VAE on the synthetic core."""
    if settings.run is not None:
        run = Run(settings.run.resolve())
        yield run, open_set(DataSettings(run.info["data"]["path"]), RunSettings(0, settings.work_dir))
        return
    particles, common = packed(64, settings), RunSettings(0, settings.work_dir)
    how = FitSettings(epochs=settings.epochs)
    yield pretrain(particles, settings, ClassifierSettings(), how, common), particles
    vae = AutoencoderSettings(from_scratch=True, fit=how)
    yield train_autoencoder("vae", 0, particles, settings, vae, common, say=lambda _: None), particles


def _encoded(run: Run, particles: ParticleSet, precision: Literal["32", "bf16"]) -> Latents:
    checkpoint = run.path / "best.ckpt"
    if run.kind == "classifier":
        return encode_classifier(load_classifier(checkpoint), particles, precision)
    kind: Any = run.kind
    return encode_autoencoder(load_autoencoder(checkpoint, kind).net, particles, 0, precision)


def _equality(name: str, exact: Latents, rough: Latents) -> str:
    core = (exact.index["role"] == "core").to_numpy(dtype=bool)
    cosine = (exact.z * rough.z).sum(1) / np.linalg.norm(exact.z, axis=1) / np.linalg.norm(rough.z, axis=1)
    score, other = (knn_distance(latents.z[core], latents.z[core], 20) for latents in (exact, rough))
    most = min(STRANGEST, len(score))
    first, second = (set(np.argsort(-s)[:most].tolist()) for s in (score, other))
    last = np.sort(score)[-most]
    apart = np.abs(score[sorted(first ^ second)] / last - 1)
    farthest = f"within {apart.max():.2%}" if len(apart) else "–"
    auroc = [outlier_metrics(exact.index.loc[core, "is_outlier"], s)["auroc"] for s in (score, other)]
    judged = ", ".join("–" if value is None else f"{value:.4f}" for value in auroc)
    moved = float(np.median(np.abs(other / score - 1)))
    return (f"| {name} | {len(cosine)} | {exact.z.shape[1]} | {cosine.min():.5f} | {np.median(cosine):.6f} "
            f"| {len(first & second)} of {most} | {farthest} | {moved:.2%} | {judged} |")  # fmt: skip


if __name__ == "__main__":
    main(tyro.cli(Settings))
