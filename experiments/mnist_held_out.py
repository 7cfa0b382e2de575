"""Does the method re-find what it never saw? `python experiments/mnist_held_out.py --held-out 2 6`."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from autoencoders.chain import ChainSettings, train_models
from autoencoders.train import AutoencoderSettings
from clustering.run import ClusteringSettings, refuse_small_core, run_clustering
from encoders.fit import FitSettings
from figures.draw import draw_all
from particles.sets import DataSettings, open_set
from particles.squares import PackSettings
from provenance.errors import UserError
from provenance.files import write_json
from provenance.progress import show_table
from provenance.run import LATENTS, Run, RunSettings, started
from provenance.settings import entry, flags_of

_DIGITS = DataSettings(data="mnist", held_out=("2", "6"), pack=PackSettings(scalars=False))
_MODEL = AutoencoderSettings(
    latent_dim=16, likelihood="bernoulli", kl_warmup=1.0, denoise=True, fit=FitSettings(epochs=4, batch_size=128)
)
_CHAIN = ChainSettings(pretrain_epochs=8, model=_MODEL)


@dataclass(frozen=True)
class Settings:
    """Train without some digits, look for them in the test split."""

    latent: Literal["classifier", "ae", "vae", "planar-vae", "all"] = "all"
    """Which latents to judge; an autoencoder needs the classifier too."""
    data: DataSettings = _DIGITS
    """Which digits, and which are held out; --data digits needs no files."""
    chain: ChainSettings = _CHAIN
    """The models."""
    clustering: ClusteringSettings = field(default_factory=ClusteringSettings)
    """Groups, maps, scores."""
    common: RunSettings = field(default_factory=RunSettings)
    """Seed and folders."""


def main(settings: Settings) -> Path:
    """Train without the held-out digits, then judge how strange they look among the known ones of the test split."""
    begun = time.perf_counter()
    if not settings.data.held_out:
        raise UserError("--held-out names no digit: give one or more, for example --held-out 2 6")
    particles = open_set(settings.data, settings.common)
    refuse_small_core(particles)
    wanted = LATENTS if settings.latent == "all" else (settings.latent,)
    runs = train_models(wanted, particles, settings, settings.chain, settings.common)
    clustered, consensus = run_clustering(particles, runs, settings, settings.clustering, settings.common)
    flags = flags_of(settings.data, settings.common)
    draw_all(particles, runs, clustered, consensus, settings.common.work, flags=flags)
    result: dict[str, Any] = {
        "held_out": list(settings.data.held_out),
        "data": particles.name,
        "seconds": time.perf_counter() - begun,
        "latents": {run.kind.removeprefix("clusters-"): _judged(run) for run in clustered},
        "consensus": consensus.results,
    }
    _show(result)
    with started("held-out", settings, settings.common, particles.identity, [*clustered, consensus]) as run:
        write_json(run.path / "summary.json", result)
    print(run.path / "summary.json")
    return run.path / "summary.json"


def _judged(run: Run) -> dict[str, Any]:
    results = run.results
    auroc = {name: values["auroc"] for name, values in results["outliers"].items()}
    return {"auroc": auroc, "clusters": results["clusters"]}


def _show(result: dict[str, Any]) -> None:
    rows = []
    for latent, judged in result["latents"].items():
        auroc = {name: value for name, value in judged["auroc"].items() if value is not None}
        best = max(auroc, key=lambda name: auroc[name]) if auroc else None
        found = "  ".join(f"{n}: {c['precision']:.2f}/{c['recall']:.2f}" for n, c in judged["clusters"].items())
        rows.append([latent, judged["auroc"]["knn"], f"{best} {auroc[best]:.3f}" if best else None, found])
    title = f"Held out: {', '.join(result['held_out'])}"
    show_table(title, ["latent", "AUROC kNN", "best score", "best cluster, precision/recall"], rows)


if __name__ == "__main__":
    entry(Settings, main)
