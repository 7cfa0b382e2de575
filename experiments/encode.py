"""Embed a particle set with a trained model: `python experiments/encode.py --latent vae --data PATH`."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from autoencoders.encode import autoencoder_encoder
from autoencoders.models import KINDS
from encoders.arithmetic import Precision, best_device, resolve_precision
from encoders.encode import Encoder, classifier_encoder
from encoders.fit import read_checkpoint
from encoders.parts import PART_ROWS, encode_in_parts
from particles.sets import DataSettings, ParticleSet, open_set, refuse_other_squares
from provenance.engine import EngineSettings, refuse_contradiction
from provenance.errors import UserError
from provenance.run import LATENTS, Run, RunSettings, find, resumed, started
from provenance.settings import entry, replayed


@dataclass(frozen=True)
class Settings:
    """Embed a particle set with a model trained on this or another set."""

    latent: str = "vae"
    """classifier, ae, vae or planar-vae: the newest finished training run; <latent>/<id> pins one."""
    precision: Precision = "32"
    """32: float32; auto: bf16 where the processor has instructions for it, which is faster and agrees to two or three
    digits."""
    resume: Path | None = None
    """Folder of a killed run to go on with, with the settings it was started with; --engine may be another."""
    where: EngineSettings = field(default_factory=EngineSettings)
    """Who computes."""
    data: DataSettings = field(default_factory=DataSettings)
    """Which particles."""
    common: RunSettings = field(default_factory=RunSettings)
    """Seed and folders."""


def main(settings: Settings) -> Run:
    """Embed a particle set of any size with a trained model; `clustering/run.py --latent` then finds the latents."""
    if settings.resume:
        return _go_on(settings.resume.resolve(), settings.where)
    refuse_contradiction(settings.where)
    kind = settings.latent.partition("/")[0]
    if kind not in LATENTS:
        raise UserError(f"--latent {settings.latent}: no such latent; there are {', '.join(LATENTS)}")
    model = find(settings.latent, settings.common.work, "best.ckpt", data=None)
    particles = open_set(settings.data, settings.common)
    refuse_other_squares(model.name, model.info["data"].get("squares", {}), particles.squares)
    _refuse_size(model, particles)
    with started(kind, settings, settings.common, particles.identity, [model]) as run:
        # decided here, once: neither another machine nor another version is to decide otherwise in the middle
        run.record(device=str(best_device()), precision=resolve_precision(settings.precision), part_rows=PART_ROWS)
        return _encoded(run, model, particles, settings)


def _go_on(path: Path, where: EngineSettings) -> Run:
    """The settings and the model are those of the killed run, whatever is newest now; who computes may be another."""
    run = Run(path)
    if run.kind not in LATENTS or not (path / "run.json").is_file() or "part_rows" not in run.info:
        raise UserError(f"--resume {path}: not an encoding to go on with; start a new one without --resume")
    before = replayed(Settings, path)
    if where.engine == "local" and where.address == before.where.address:
        where = replace(where, address=None)  # came with the settings of the run, not from the user
    refuse_contradiction(where)
    particles = open_set(before.data, before.common)
    if particles.identity != run.info["data"]:
        raise UserError(f"--resume {path}: its data has changed since; start anew without --resume")
    with resumed(run):
        model = Run(path.parent.parent / run.info["parents"][0])
        return _encoded(run, model, particles, replace(before, where=where))


def _encoded(run: Run, model: Run, particles: ParticleSet, settings: Settings) -> Run:
    where = settings.where
    precision: Precision = "bf16" if run.info["precision"] == "bf16-mixed" else "32"
    if where.engine == "local" and best_device().type == "cuda":
        where = replace(where, workers=where.workers or 1)
    load = _loader(model, settings.common.seed)
    encode_in_parts(load, particles, run.path, run.info["part_rows"], precision, where, f"encoding, {model.kind}")
    print(run.path)
    return run


def _loader(model: Run, seed: int) -> Callable[[], Encoder]:
    """What opens the model, wherever that is to happen."""
    checkpoint = model.path / "best.ckpt"
    if model.kind == "classifier":
        return partial(classifier_encoder, checkpoint)
    return partial(autoencoder_encoder, checkpoint, next(kind for kind in KINDS if kind == model.kind), seed)


def _refuse_size(model: Run, particles: ParticleSet) -> None:
    size = read_checkpoint(model.path / "best.ckpt", model.kind)["hyper_parameters"]["size"]
    if size != particles.pixels.size:
        raise UserError(f"{model.name} was trained on {size} px images, this data has {particles.pixels.size} px: "
                        f"give --size {size}")  # fmt: skip


if __name__ == "__main__":
    entry(Settings, main)
