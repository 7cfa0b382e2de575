"""Fit a LightningModule: seeds, precision, checkpoints, curves, progress, resume. One way for all models."""

import logging
import pickle
import struct
import time
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar

from encoders import ranks
from encoders.arithmetic import Precision, keep_memory, resolve_precision
from encoders.launch import STRATEGIES, check_devices, together, trainer_options
from particles.loader import Augment, ParticleData, PixelData, resolve_augment
from particles.sets import ParticleSet
from provenance.errors import UserError
from provenance.files import replacing
from provenance.run import TRAINED_BY, Run, RunSettings, resumed, started
from provenance.settings import from_plain, plain

_QUICK = 10.0
_MAY_CHANGE = {"data", "work_dir", "resume", "go_on", "devices", "num_nodes", "strategy"}
"""Settings of a run that may be others when it is resumed."""


@dataclass(frozen=True)
class FitSettings:
    """How a model is trained."""

    epochs: int = 8
    """Passes over the training rows."""
    batch_size: int = 64
    """Images a step, of all processes together."""
    lr: float = 1e-3
    """Peak learning rate of AdamW's one cycle."""
    clip_norm: float | None = None
    """Norm of the longest gradient that is taken as it is; a longer one is shortened to it (Pascanu et al. 2013,
    arXiv:1211.5063). For a training that falls back; none by default."""
    augment: Augment = "auto"
    """auto: the square's eight symmetries for particles, small affine jitter for digits. wide-affine: a jitter as
    broad as handwriting's own slants, for groups without labels."""
    precision: Precision = "auto"
    """auto: bf16 where the processor has instructions for it, float32 elsewhere; latents are always float32."""
    devices: int = 1
    """Processes on each node that train together, one for each GPU, or CPU processes where there is none."""
    num_nodes: int = 1
    """Nodes; more than one are started with torchrun or srun."""
    strategy: str = "auto"
    """How they share the work: ddp, each a part of every batch; auto is ddp where there are several."""
    resume: Path | None = None
    """Folder of a killed run to go on with, with the settings it was started with."""

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 2), ("devices", 1), ("num_nodes", 1)):
            if getattr(self, name) < least:
                raise UserError(f"--{name.replace('_', '-')} {getattr(self, name)}: give at least {least}")
        if not 0 < self.lr < float("inf"):
            raise UserError(f"--lr {self.lr}: give a number above 0")
        if self.clip_norm is not None and not 0 < self.clip_norm < float("inf"):
            raise UserError(f"--clip-norm {self.clip_norm}: give a number above 0")
        if self.strategy not in STRATEGIES:
            raise UserError(f"--strategy {self.strategy}: there are {', '.join(STRATEGIES)}")
        if self.batch_size < self.devices * self.num_nodes:
            raise UserError(f"--batch-size {self.batch_size} cannot be shared by {self.devices * self.num_nodes} "
                            "processes: give each at least one image")  # fmt: skip


def open_run(
    kind: str,
    settings: Any,
    how: FitSettings,
    common: RunSettings,
    particles: ParticleSet,
    parents: Sequence[Run] = (),
) -> AbstractContextManager[Run]:
    """A new run, or the one that `--resume` names.

    Raises:
        UserError: the run to resume is of another kind, saw other data, had other settings, or still runs; or there
            are not as many devices as asked.
    """
    check_devices(how.devices, how.num_nodes)
    if how.resume is None:
        return started(kind, settings, common, particles.identity, parents)
    run = Run(how.resume.resolve())
    if run.kind != kind or not _saw(run, particles):
        raise UserError(
            f"--resume {how.resume}: not a run of kind '{kind}' on this data; start a new run without --resume"
        )
    changed = changed_settings(with_defaults(run.config, settings), plain(settings))
    if changed:
        raise UserError(
            f"--resume {how.resume}: {changed[0]} is not what the run was started with; leave it away, or start a new "
            "run without --resume"
        )
    return resumed(run)


def changed_settings(was: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Flags of settings that decide a training and are not what they were; which data, `ParticleSet.identity` tells.

    Args:
        was: config.json of a run, `with_defaults`.
        now: the same of the command that is to go on with it.
    """
    found = []
    for name in now.keys() & was.keys() - _MAY_CHANGE:
        if isinstance(now[name], dict) and isinstance(was[name], dict):
            found += changed_settings(was[name], now[name])
        elif now[name] != was[name]:
            found.append(f"--{name.replace('_', '-')} {now[name]}")
    return sorted(found)


def with_defaults(config: dict[str, Any], settings: Any) -> dict[str, Any]:
    """A config.json with the settings that the run's version had not yet, at their defaults.

    Args:
        config: of a run of the same script.
        settings: that script's settings now.

    Raises:
        UserError: it has settings that this version does not know.
    """
    return plain(from_plain(type(settings), config))


def _saw(run: Run, particles: ParticleSet) -> bool:
    """Whether a run learned from these particles: pixels, labels and splits, and scalars measured by the same."""
    data = run.info["data"]
    same_scalars = data.get("scalars", particles.scalars) == particles.scalars  # an older run does not tell
    return bool(data["fingerprint"] == particles.fingerprint and same_scalars)


def begun(
    kind: str, settings: Any, common: RunSettings, particles: ParticleSet, start: Run | None = None
) -> Run | None:
    """The newest run of a kind that had these settings and this seed, and saw this data; finished or not, or None.

    Args:
        kind: of the run.
        settings: the script's settings.
        common: seed and work folder.
        particles: the set.
        start: what the run must have started from, if it did not start from scratch.
    """
    wanted = plain(settings)
    starts: list[list[str]] = [[], [start.name]] if start else [[]]
    for path in sorted((common.work / "runs" / kind).glob("*/run.json"), reverse=True):
        run = Run(path.parent)
        same_data = _saw(run, particles) and run.info["parents"] in starts
        # a script that trains with several seeds need not have the seed among its settings
        same_script = run.config.keys() == wanted.keys() and run.info["seed"] == common.seed
        if same_data and same_script and _same_settings(run.config, settings):
            return run
    return None


def _same_settings(config: dict[str, Any], settings: Any) -> bool:
    try:
        return not changed_settings(with_defaults(config, settings), plain(settings))
    except UserError:  # another version's
        return False


def loaders(
    particles: ParticleSet, train: np.ndarray, val: np.ndarray, how: FitSettings, seed: int,
    targets: np.ndarray | None = None, measures: np.ndarray | None = None,
) -> ParticleData:  # fmt: skip
    """Training and validation batches over store positions.

    Args:
        particles: the set.
        train: positions to learn from.
        val: positions to judge by; where there are none, `train` judges itself, and that is said.
        how: batch size and augmentation.
        seed: of the order.
        targets: class number of every position in the store.
        measures: (positions, M) measures of every position in the store.

    Raises:
        UserError: too few to train on.
    """
    if len(train) < 2:
        raise UserError(f"{particles.name}: {len(train)} particle(s) to train on; give more, or "
                        "let an autoencoder learn from the labeled set too (--data-labeled)")  # fmt: skip
    if len(val) == 0:
        print("no particles fall into the validation split of so small a set: the training split judges itself")
        val = train
    first, second = (
        PixelData(
            particles.pixels,
            rows,
            None if targets is None else targets[rows],
            None if measures is None else measures[rows],
        )
        for rows in (train, val)
    )
    return ParticleData(first, second, how.batch_size, seed, resolve_augment(how.augment, particles.oriented))


def one_cycle(module: Any, quick: Sequence[torch.nn.Parameter] = ()) -> dict[str, Any]:
    """AdamW with one learning-rate cycle over the whole training (Smith & Topin 2018, arXiv:1708.07120).

    Args:
        module: the model, with its `lr` and `trainer`.
        quick: parameters that learn ten times as fast, undecayed. Adam moves each by about the learning rate a step,
            which is little for one that has far to go alone.
    """
    apart = {id(parameter) for parameter in quick}
    groups: list[dict[str, Any]] = [{"params": [p for p in module.parameters() if id(p) not in apart]}]
    rates = [module.lr]
    if quick:
        groups.append({"params": list(quick), "weight_decay": 0.0})
        rates.append(_QUICK * module.lr)
    clips = module.trainer.gradient_clip_val is not None  # which Lightning does not for a fused one in bf16
    optimizer = torch.optim.AdamW(groups, lr=module.lr, weight_decay=1e-4, fused=None if clips else True)
    total = max(2, int(module.trainer.estimated_stepping_batches))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=total)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Bars(RichProgressBar):
    """Lightning's progress bars, with epochs counted from one, as --epochs does."""

    def _get_train_description(self, current_epoch: int) -> str:
        return f"Epoch {current_epoch + 1}/{self.trainer.max_epochs}".ljust(len(self.validation_description))


class SeedEachStep(Callback):
    """Random state as a function of (seed, step): a resumed run draws what an unbroken one would have drawn."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Covers the first batch's augmentation, which happens before its step starts."""
        self._seed(trainer.global_step)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Seed for the next batch."""
        self._seed(trainer.global_step)

    def _seed(self, step: int) -> None:
        torch.manual_seed((self.seed * 1_000_003 + step) % 2**63)


class Curves(Callback):
    """`metrics.csv`: one row an epoch, kept whole across a resume."""

    def __init__(self, path: Path) -> None:
        self.path, self.begun = path, 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the epoch's clock."""
        self.begun = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the epoch's row; rows of an epoch that is run again after a kill are replaced."""
        if not ranks.first():
            return
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        row = {"epoch": trainer.current_epoch, **values, "seconds": time.perf_counter() - self.begun}
        old = pd.read_csv(self.path) if self.path.exists() else pd.DataFrame({"epoch": []})
        frame = pd.concat([old[old["epoch"] < trainer.current_epoch], pd.DataFrame([row])], ignore_index=True)
        with replacing(self.path) as beside:
            frame.astype({"epoch": int}).to_csv(beside, index=False)


class Checkpoint(ModelCheckpoint):
    """Knows the best epoch in a folder that was moved too: Lightning forgets it there, and any epoch would be best."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a checkpoint's state, its paths as they are now."""
        folder = Path(self.dirpath or "")
        paths = {name: _moved(path, folder) for name, path in state_dict.items() if name.endswith("_model_path")}
        best = {_moved(path, folder): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **paths, "best_k_models": best, "dirpath": self.dirpath})


def _moved(path: str, folder: Path) -> str:
    return str(folder / Path(path).name) if path else path


def fit(
    model: L.LightningModule, data: ParticleData, run: Run, settings: FitSettings, seed: int, monitor: str,
    watching: Sequence[Callback] = (),
) -> None:  # fmt: skip
    """Train `model`, leaving `best.ckpt`, `last.ckpt` and `metrics.csv` in the run's folder.

    Args:
        model: what to train; it is left with the weights of the best epoch.
        data: training and validation batches.
        run: where results go.
        settings: how to train; if it resumes, `run` is the resumed run.
        seed: seed of every random choice.
        monitor: validation value that decides which epoch is best; lower is better.
        watching: what else looks on; it must not draw from the global random state. Where other processes train, it
            is theirs that looks.

    Raises:
        UserError: one of several processes was killed.
    """
    before = run.path / "last.ckpt"
    start = before if settings.resume and before.exists() else None
    together(_train, (model, data, run, settings, seed, monitor, watching, start), settings.devices, settings.num_nodes)
    model.load_state_dict(torch.load(run.path / "best.ckpt", weights_only=True, map_location="cpu")["state_dict"])
    model.eval()


def _train(
    model: L.LightningModule, data: ParticleData, run: Run, settings: FitSettings, seed: int, monitor: str,
    watching: Sequence[Callback], start: Path | None,
) -> None:  # fmt: skip
    """`fit` in one process, alone or with others, from the checkpoint `start`."""
    _quiet_lightning()
    keep_memory()
    # two of them, because save_last writes only when the best one is written too
    best, last = (
        Checkpoint(
            dirpath=run.path, filename=name, monitor=by, enable_version_counter=False, save_on_train_epoch_end=True
        )
        for name, by in (("best", monitor), ("last", None))
    )
    trainer = L.Trainer(
        max_epochs=settings.epochs, logger=False, deterministic=True, enable_model_summary=False,
        precision=resolve_precision(settings.precision), gradient_clip_val=settings.clip_norm,
        default_root_dir=run.path, num_sanity_val_steps=0,
        callbacks=[
            best, last, Curves(run.path / "metrics.csv"), SeedEachStep(seed), Bars(leave=False), *watching,
        ],
        **trainer_options(settings.devices, settings.num_nodes),
    )  # fmt: skip
    if ranks.first():
        run.record(device=str(trainer.strategy.root_device), precision=str(trainer.precision))
    torch.set_flush_denormal(True)  # numbers too small to matter cost a CPU a hundred times more than zero
    try:
        trainer.fit(model, data, ckpt_path=start, weights_only=True)
    except SystemExit as stop:  # Lightning's answer to Ctrl-C; ours is said in one place for all scripts
        raise KeyboardInterrupt from stop
    finally:
        torch.set_flush_denormal(False)


def _quiet_lightning() -> None:
    """Keep our own messages readable: Lightning's notes on hardware, its tips and its own deprecations are not ours."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning.*")


# What torch.load and a look inside raise on files that are not ours, found by feeding it thousands of broken ones.
_UNREADABLE = (
    OSError, RuntimeError, EOFError, LookupError, TypeError, ValueError, AttributeError, struct.error,
    pickle.UnpicklingError,
)  # fmt: skip


def read_checkpoint(path: Path, kind: str) -> dict[str, Any]:
    """Read a checkpoint without executing anything in it.

    Args:
        path: a .ckpt file.
        kind: the model it must hold (`classifier`, `ae`, `vae`, `planar-vae`).

    Raises:
        UserError: missing, cut, not a checkpoint of this project, or of another kind.
    """
    remedy = TRAINED_BY[kind]
    try:
        checkpoint = torch.load(path, weights_only=True, map_location="cpu")
        found = checkpoint["hyper_parameters"]["kind"]
    except _UNREADABLE as error:
        reason = str(error).split("\n")[0][:120]
        raise UserError(f"{path}: not a checkpoint of this project ({reason}); make one with `{remedy}`") from error
    if found != kind:
        raise UserError(f"{path}: holds a model of kind '{found}', not '{kind}'; make one with `{remedy}`")
    return dict(checkpoint)
