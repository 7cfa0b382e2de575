"""Watches a training for the known troubles: says them outside the progress bar, and keeps them in run.json."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import lightning as L
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback

from autoencoders.losses import active_units
from autoencoders.models import Autoencoder
from autoencoders.troubles import (
    FULL_KL,
    collapsed,
    diverged,
    drowned,
    exploding_kl,
    fell_back,
    largest_eigenvalue,
    overfitted,
    redrawn_worse,
)
from encoders import ranks
from encoders.encode import BATCH, device_of, inference
from particles.loader import as_input, in_batches
from particles.pixels import PixelStore
from particles.sets import ParticleSet
from provenance.run import Run

MOST = 512
"""Crops of each role that are looked at before training: 1,024 in all."""
COMPARED = 256
"""Crops of each role and split that are compared after it: a share of pairs is then known to 0.03."""
EVERY = 10
"""Steps of an epoch from one gradient that is measured to the next."""
_ROLES = ("labeled", "core")


@dataclass(frozen=True)
class Sight:
    """What a model makes of N crops: the deterministic `latent` (N, D), `kl` and `reconstruction` (N,) in nats."""

    latent: torch.Tensor
    kl: torch.Tensor
    reconstruction: torch.Tensor


class Watch(Callback):
    """Looks before the first step, at each epoch's curves, and at the model that is kept.

    It draws from generators of its own and leaves modes, buffers and the global random state as they are, so that a
    watched training is the same to the last bit.

    `troubles` in run.json is a list of `{"when", "line"}`: what was wrong at the `start`, and what is wrong now, by the
    latest `epoch N` while it trains and at the `end` afterwards. `watched` are the numbers behind it, troubled or not.
    """

    def __init__(
        self, run: Run, particles: ParticleSet, train: np.ndarray, val: np.ndarray, warm: bool, seed: int,
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        """Choose the crops to look at.

        Args:
            run: keeps what is found.
            particles: the set.
            train: store positions that are trained on.
            val: those that judge.
            warm: whether the trunk starts from a classifier.
            seed: of the choice.
            say: takes one-line messages.
        """
        self.run, self.pixels, self.warm, self.say = run, particles.pixels, warm, say
        self.chosen = chosen(particles, train, val, seed)
        self.core_too = bool(len(self.chosen["train", "core"]))
        self.at_start: list[dict[str, str]] = []
        self.numbers: dict[str, float | None] = {}
        self.loss = 0.0

    @property
    def _trained_on(self) -> np.ndarray:
        return np.concatenate([self.chosen["train", role] for role in _ROLES])

    @cached_property
    def eigenvalue(self) -> float:
        """The largest of the pixels' covariance, over at most 512 crops that are trained on."""
        rows = np.random.default_rng(0).permutation(self._trained_on)[:MOST]
        return largest_eigenvalue(as_input(self.pixels[rows]))

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Before the first step, and before there is a progress bar to garble."""
        if not ranks.first():
            return
        if trainer.ckpt_path:  # resumed: what was wrong at the start has been told and kept
            self._recall()
            return
        net = pl_module.net
        assert isinstance(net, Autoencoder)
        self._keep("start", self._before(net))
        self._tell(net.kind)

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """How long the gradients are, before any is shortened."""
        step = trainer.global_step % max(1, int(trainer.num_training_batches))  # the first of each epoch is measured
        if ranks.first() and step % EVERY == 0:
            gradients = [part.grad for part in pl_module.parameters() if part.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients)
            pl_module.log("gradient_norm", norm, on_step=False, on_epoch=True, batch_size=1)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Read the curves; kept, not said, because the progress bar is there."""
        if not ranks.first():
            return
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.loss = logged["train_loss"]
        self._note(train_loss=self.loss)
        net = pl_module.net
        assert isinstance(net, Autoencoder)
        lines = [diverged(self.loss)]
        if net.kind != "ae" and logged["kl_weight"] > FULL_KL:
            lines.append(_collapsed(net, logged["val_kl"], int(logged["active_units"])))
        self._keep(f"epoch {trainer.current_epoch + 1}", lines)

    def judge(self, net: Autoencoder) -> None:
        """Look at the model that is kept, that of the best epoch; to be called when training is over."""
        if not all(bool(part.isfinite().all()) for part in net.parameters()):
            return  # of numbers that are none, there is nothing to say but what the last epoch has said
        if not self.numbers:  # another process has watched
            self._recall()
        sights = {group: look(net, self.pixels, rows[:COMPARED]) for group, rows in self.chosen.items() if len(rows)}
        lines = [diverged(self.loss), self._fell_back(), self._drowned(net)]
        if net.kind != "ae":
            kl, latent = (torch.cat([getattr(sight, name) for sight in sights.values()]) for name in ("kl", "latent"))
            self._note(kl=kl.mean(), active_units=active_units(latent))
            lines.append(_collapsed(net, float(kl.mean()), active_units(latent)))
        # Training's own curves do not compare: their crops are augmented, their batch norm is the batch's, and their
        # weights are those of the middle of the epoch. So crops of both splits go the same way here; and within a role,
        # because a split may have more of the labeled ones, which are harder to redraw than dust.
        for role in _ROLES:
            pair = [sights.get((split, role)) for split in ("train", "val")]
            if pair[0] and pair[1]:
                seen, unseen = pair[0].reconstruction, pair[1].reconstruction
                self._note(**{f"redrawn_worse_{role}": redrawn_worse(seen, unseen)})
                lines.append(overfitted(seen, unseen, role, self.core_too))
        self._keep("end", lines)
        self._tell(net.kind, "end")

    def _recall(self) -> None:
        """What run.json keeps."""
        kept = self.run.info
        self.at_start = [one for one in kept.get("troubles", []) if one["when"] == "start"]
        self.numbers = kept.get("watched", {})
        loss = self.numbers.get("train_loss", 0.0)
        self.loss = math.nan if loss is None else loss

    def _before(self, net: Autoencoder) -> list[str | None]:
        if net.kind == "ae":
            return []
        kl = look(net, self.pixels, self._trained_on, redraw=False).kl
        self._note(start_kl_mean=kl.mean(), start_kl_max=kl.max())
        return [exploding_kl(kl, net.mu_head.out_features, self.warm), self._drowned(net)]

    def _fell_back(self) -> str | None:
        curves = pd.read_csv(self.run.path / "metrics.csv")
        return fell_back(*(curves[name].tolist() for name in ("train_reconstruction", "kl_weight", "gradient_norm")))

    def _drowned(self, net: Autoencoder) -> str | None:
        if net.kind == "ae" or net.variance is None:
            return None
        self._note(variance=net.variance, eigenvalue=self.eigenvalue)
        return drowned(net.variance, self.eigenvalue)

    def _note(self, **values: float | torch.Tensor) -> None:
        """Numbers for run.json, which knows no NaN."""
        self.numbers |= {name: float(value) if math.isfinite(value) else None for name, value in values.items()}

    def _keep(self, when: str, lines: list[str | None]) -> None:
        found = [{"when": when, "line": line} for line in lines if line]
        if when == "start":
            self.at_start, found = found, []
        self.run.record(troubles=self.at_start + found, watched=self.numbers)

    def _tell(self, kind: str, when: str = "start") -> None:
        for one in self.run.info["troubles"]:
            if one["when"] == when:
                self.say(f"{kind}: {one['line']}")


def chosen(particles: ParticleSet, train: np.ndarray, val: np.ndarray, seed: int) -> dict[tuple[str, str], np.ndarray]:
    """At most `MOST` store positions of each split (`train`, `val`) and role, in random order."""
    rng = np.random.default_rng(seed)
    role_of = particles.table.set_index("position")["role"]
    groups = {}
    for split, rows in (("train", train), ("val", val)):
        roles = role_of.loc[rows].to_numpy()
        for role in _ROLES:
            groups[split, role] = rng.permutation(rows[roles == role])[:MOST]
    return groups


def look(net: Autoencoder, pixels: PixelStore, positions: np.ndarray, redraw: bool = True) -> Sight:
    """Encode crops as they are, by the running statistics, and redraw them from the deterministic latent.

    Args:
        net: the model; it is left as it was.
        pixels: the store.
        positions: (N,) rows of the store.
        redraw: whether to decode; without it `reconstruction` is empty.
    """
    noise = torch.randn(net.mu_head.out_features, generator=torch.Generator().manual_seed(0)).to(device_of(net))
    parts: tuple[list[torch.Tensor], ...] = ([], [], [])
    with inference(net), torch.inference_mode():
        for _, x in in_batches(pixels, positions, BATCH):
            x = x.to(device_of(net))
            q = net.posterior(x)
            parts[0].append(net.encode_posterior(q))
            parts[1].append(net.sample(q, noise)[1])
            if redraw:
                parts[2].append(net.reconstruction(x, net.decoder(parts[0][-1])))
    return Sight(*(torch.cat(part).cpu() if part else torch.empty(0) for part in parts))


def _collapsed(net: Autoencoder, kl: float, active: int) -> str | None:
    return collapsed(kl, active, net.mu_head.out_features, gaussian=net.likelihood == "gaussian")
