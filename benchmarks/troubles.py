"""The troubles of training, made on purpose and caught; and what the epochs of pretraining do to a search.

`python benchmarks/troubles.py --seeds 0 1 2` prints two tables. Parts that are finished in the work folder are not done
again: the same command goes on after any kill. Other settings need another --work-dir, and are told so.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from autoencoders.chain import ChainSettings, train_models
from autoencoders.train import AutoencoderSettings, train_autoencoder
from benchmarks.demo import machine
from clustering.maps import MapSettings
from clustering.run import ClusteringSettings, run_clustering
from encoders.fit import FitSettings
from particles.pixels import PixelStore, write_shard
from particles.sets import DataSettings, ParticleSet, open_set
from provenance.errors import UserError
from provenance.files import read_json, write_json
from provenance.run import PROJECT, Run, RunSettings
from provenance.settings import plain


@dataclass(frozen=True)
class Settings:
    """Make each trouble, and search after several lengths of pretraining."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """One set and one of everything each."""
    lengths: tuple[int, ...] = (0, 1, 3, 10)
    """Epochs of the classifier that the VAE starts from, each tried; 0 is from scratch."""
    overfit_epochs: int = 150
    """Epochs on sixteen crops."""
    data: DataSettings = field(default_factory=lambda: DataSettings(n_per_class=200, n_core=1200, n_per_kind=6))
    """Half of the demo."""
    chain: ChainSettings = field(
        default_factory=lambda: ChainSettings(
            pretrain_epochs=4, model=AutoencoderSettings(kl_warmup=1.0, fit=FitSettings(epochs=4))
        )
    )
    """The models."""
    clustering: ClusteringSettings = field(default_factory=lambda: ClusteringSettings(maps=MapSettings(tsne=False)))
    """Groups, maps, scores."""
    work_dir: Path = PROJECT / "benchmarks" / "work" / "troubles"
    """Where the runs go."""


@dataclass(frozen=True)
class Bench:
    """One seed's set and folder."""

    settings: Settings
    particles: ParticleSet
    common: RunSettings

    def at(self, part: str) -> RunSettings:
        """A work folder of its own, so that the newest classifier is the right one."""
        return replace(self.common, work_dir=self.common.work / part)

    def vae(self, part: str, particles: ParticleSet, **changed: Any) -> Run:
        """Train a VAE in a part's folder."""
        how = replace(self.settings.chain.model, **changed)
        return train_autoencoder("vae", 0, particles, self.settings, how, self.at(part))


def main(settings: Settings) -> None:
    """Make, catch, tabulate."""
    _refuse_other_settings(settings)
    caught, searched = [], []
    for seed in settings.seeds:
        common = RunSettings(seed, settings.work_dir / f"seed{seed}")
        bench = Bench(settings, open_set(settings.data, common), common)
        caught += [_once(bench, name, make) | {"seed": seed} for name, make in MADE.items()]
        searched += [_search(bench, epochs) | {"seed": seed} for epochs in settings.lengths]
    print(f"\n{machine()}\n")
    start = ("KL at start", "its largest")  # mean and maximum over particles
    _table(caught, ("seed", "made", *start, "KL", "active", "sigma^2 / eigenvalue", "redrawn worse", "said"))
    _table(searched, ("pretrain epochs", "seed", *start, "kNN classifier", "kNN vae", "vae", "consensus", "said"))


def _refuse_other_settings(settings: Settings) -> None:
    """Its rows would stand beside those of other models.

    Raises:
        UserError: the work folder holds rows of other settings.
    """
    kept, how = settings.work_dir / "settings.json", plain(replace(settings, seeds=(), lengths=(), work_dir=Path()))
    if kept.exists() and read_json(kept) != how:
        raise UserError(f"{settings.work_dir}: holds rows of other settings; give another --work-dir")
    write_json(kept, how)


# --- troubles


def _sound(bench: Bench) -> Run:
    """A classifier, then a VAE, as they come."""
    return _chained(bench, "sound", ("vae",), bench.settings.chain.pretrain_epochs)[0]


def _exploding(bench: Bench) -> Run:
    """The sound classifier, its last batch norm made a thousand times louder."""
    (source,) = _finished(bench.at("sound").work / "runs" / "classifier")
    folder = bench.at("exploding").work / "runs" / "classifier" / source.path.name
    shutil.copytree(source.path, folder, dirs_exist_ok=True)
    checkpoint = torch.load(folder / "best.ckpt", weights_only=True, map_location="cpu")
    checkpoint["state_dict"]["net.trunk.net.layer4.1.bn2.weight"] *= 1000
    torch.save(checkpoint, folder / "best.ckpt")
    return bench.vae("exploding", bench.particles)


def _faint(bench: Bench) -> Run:
    """Crops of a hundredth of their contrast, and a KL that counts from the first step."""
    pixels = bench.particles.pixels
    path = bench.at("faint").work / "faint" / "00000.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    images = pixels[np.arange(len(pixels))].astype(float)
    write_shard(path, (160 + (images - 160) / 100).round().astype(np.uint8))
    faint = ParticleSet(**(vars(bench.particles) | {"pixels": PixelStore([path])}))
    return bench.vae("faint", faint, kl_warmup=0.0, from_scratch=True)


def _by_heart(bench: Bench) -> Run:
    """Sixteen labeled crops, many epochs, no augmentation."""
    labeled = bench.particles.table[bench.particles.table["role"] == "labeled"]
    train, val = (labeled[labeled["split"] == split] for split in ("train", "val"))
    rows = labeled.loc[[*train.index[:: max(1, len(train) // 16)][:16], *val.index]].reset_index(drop=True)
    few = ParticleSet(**(vars(bench.particles) | {"table": rows}))
    fit = replace(bench.settings.chain.model.fit, epochs=bench.settings.overfit_epochs, batch_size=8, augment="none")
    return bench.vae("by_heart", few, from_scratch=True, fit=fit)


MADE: dict[str, Callable[[Bench], Run]] = {
    "nothing": _sound,
    "last batch norm of the trunk x 1000": _exploding,
    "contrast / 100, --kl-warmup 0": _faint,
    "16 labeled crops, many epochs, --augment none": _by_heart,
}
"""How a trouble is made; the first is healthy, and its classifier is the second's."""


def _once(bench: Bench, name: str, make: Callable[[Bench], Run]) -> dict[str, Any]:
    """What a made trouble looks like, from its run where it was made before."""
    done = bench.at(f"{make.__name__.strip('_')}").work / "row.json"
    if not done.exists():
        write_json(done, {"made": name} | _watched(make(bench)))
    return dict(read_json(done))


def _watched(run: Run) -> dict[str, Any]:
    """The numbers that a run's watch has kept, and its lines."""
    seen = run.info["watched"]
    redrawn = [value for key, value in seen.items() if key.startswith("redrawn_worse")]
    ratio = seen["variance"] / seen["eigenvalue"] if seen.get("eigenvalue") else None
    return {
        "KL at start": seen.get("start_kl_mean"), "its largest": seen.get("start_kl_max"), "KL": seen.get("kl"),
        "active": seen.get("active_units"),
        "sigma^2 / eigenvalue": ratio, "redrawn worse": max(redrawn, default=None),
        "said": "<br>".join(dict.fromkeys(one["line"] for one in run.info["troubles"])),
    }  # fmt: skip


# --- epochs of pretraining


def _search(bench: Bench, epochs: int) -> dict[str, Any]:
    """AUROC of the planted outliers after so many epochs of the classifier; without one, the consensus is the VAE's."""
    part = f"pretrained-{epochs}"
    done = bench.at(part).work / "row.json"
    if not done.exists():
        runs = _chained(bench, part, ("classifier", "vae"), epochs)
        settings, common = bench.settings, bench.at(part)
        clustered, consensus = run_clustering(bench.particles, runs, settings, settings.clustering, common)
        found = {run.kind.removeprefix("clusters-"): run.results["outliers"] for run in clustered}
        row = {f"kNN {name}": scores["knn"]["auroc"] for name, scores in found.items()}
        row |= {"vae": found["vae"]["combined"]["auroc"], "consensus": consensus.results["auroc"]}
        write_json(done, {"pretrain epochs": epochs} | row | _watched(runs[-1]))
    return dict(read_json(done))


def _chained(bench: Bench, part: str, latents: tuple[str, ...], epochs: int) -> list[Run]:
    """The classifier for so many epochs and what starts from it; no classifier for 0 epochs."""
    if epochs == 0:
        return [bench.vae(part, bench.particles, from_scratch=True)]
    chain = replace(bench.settings.chain, pretrain_epochs=epochs, go_on=True)
    return train_models(latents, bench.particles, replace(bench.settings, chain=chain), chain, bench.at(part))


def _finished(folder: Path) -> list[Run]:
    runs = [Run(path.parent) for path in sorted(folder.glob("*/run.json"))]
    return [run for run in runs if run.info["status"] == "finished"][-1:]


# --- tables


def _table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(_cell(row.get(name)) for name in columns)} |")
    print(flush=True)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value) or "nothing"


if __name__ == "__main__":
    main(tyro.cli(Settings, config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)))
