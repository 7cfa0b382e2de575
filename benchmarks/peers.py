"""The same task done with other people's means, for `benchmarks/side_by_side.py`: each function trains and infers once.

None of them is a dependency of the project: albumentations, opencv-python-headless and pythae are imported where used.
Facts taken from ICELEARNING's published loop (github.com/nmaffe/icelearning): crops read one by one as grey and made
three channels, flips, 128 px by stretching, mean 94 and standard deviation 12 grey levels, AdamW at 1e-4, binary cross
entropy weighted by class, the rate divided by ten every 5 epochs, the best epoch's weights kept, twice the batch for
inference, embeddings and probabilities kept. Left out: ImageNet's weights and the branch of scalars. Its batch is 512.
"""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.models import resnet18

from autoencoders.decoder import Decoder
from encoders.arithmetic import best_device
from encoders.resnet import FEATURES

MEAN, SD = 94.0, 12.0  # grey levels
BATCH = 256  # of an inference, where the peer does not prescribe one


@dataclass(frozen=True)
class Crops:
    """What every side gets: files and class numbers (N,), and which of them train and validate."""

    root: Path
    paths: list[str]
    targets: np.ndarray
    train: np.ndarray
    val: np.ndarray
    classes: list[str]


@dataclass(frozen=True)
class Effort:
    """How long and with what: the same for all."""

    epochs: int
    batch: int
    size: int
    latent_dim: int
    workers: int
    scratch: Path


def clocked(work: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def icelearning(crops: Crops, effort: Effort) -> tuple[float, float]:
    """The loop that ICELEARNING publishes, its image branch alone: seconds of training, of inference on all crops."""
    net = resnet18(weights=None)
    net.fc = nn.Linear(net.fc.in_features, len(crops.classes))
    net = net.to(best_device())
    training, still = (_files(crops, effort.size, flip) for flip in (True, False))
    train = _loader(Subset(training, crops.train.tolist()), effort.batch, effort.workers, True)
    val = _loader(Subset(still, crops.val.tolist()), effort.batch, effort.workers, True)
    every = _loader(still, 2 * effort.batch, effort.workers, False)
    counts = np.bincount(crops.targets[crops.train], minlength=len(crops.classes))
    weights = torch.tensor(counts.max() / counts, dtype=torch.float32).to(best_device())
    seconds = clocked(lambda: _published_training(net, train, val, weights, effort))
    return seconds, clocked(lambda: _judged(net, every))


def _files(crops: Crops, size: int, flip: bool) -> Dataset[Any]:
    import albumentations
    import cv2

    flips = [albumentations.HorizontalFlip(p=0.25), albumentations.VerticalFlip(p=0.25)] if flip else []
    normalize = albumentations.Normalize((MEAN,) * 3, (SD,) * 3, max_pixel_value=1.0)
    change = albumentations.Compose([*flips, albumentations.Resize(size, size), normalize])

    class Files(Dataset[Any]):
        def __len__(self) -> int:
            return len(crops.paths)

        def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor, str]:
            grey = np.asarray(cv2.imread(crops.paths[row], cv2.IMREAD_GRAYSCALE))
            image = change(image=cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB))["image"]
            wanted = torch.zeros(len(crops.classes))
            wanted[int(crops.targets[row])] = 1
            return torch.from_numpy(image.transpose(2, 0, 1)), wanted, crops.paths[row]

    return Files()


def _loader(data: Dataset[Any], batch: int, workers: int, shuffle: bool) -> DataLoader[Any]:
    return DataLoader(data, batch, shuffle=shuffle, num_workers=workers, pin_memory=torch.cuda.is_available())


def _published_training(
    net: nn.Module, train: DataLoader[Any], val: DataLoader[Any], weights: torch.Tensor, effort: Effort
) -> None:
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=5, gamma=0.1)
    criterion = nn.BCEWithLogitsLoss(weight=weights)
    best, most = copy.deepcopy(net.state_dict()), -1.0
    for _ in range(effort.epochs):
        _pass(net.train(), train, criterion, optimizer)
        schedule.step()
        with torch.no_grad():
            right = _pass(net.eval(), val, criterion)
        if right > most:
            best, most = copy.deepcopy(net.state_dict()), right
    net.load_state_dict(best)
    torch.save({"model": net.state_dict(), "optimizer": optimizer.state_dict()}, effort.scratch / "published.pth")


def _pass(
    net: nn.Module, batches: DataLoader[Any], criterion: nn.Module, optimizer: torch.optim.Optimizer | None = None
) -> float:
    """Once over the crops, with steps where there is an optimizer; the share that is right."""
    total, right, n = 0.0, 0.0, 0
    for x, wanted, _ in batches:
        x, wanted = x.to(best_device()), wanted.to(best_device())
        logits = net(x)
        loss = criterion(logits, wanted)
        total += loss.item() * len(x)  # read in every step, as published
        right += (logits.argmax(1) == wanted.argmax(1)).sum().item()
        n += len(x)
        if optimizer is not None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return right / n


@torch.no_grad()
def _judged(net: Any, batches: DataLoader[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Embedding (N, 512) and probabilities (N, C) of every crop."""
    embeddings: list[np.ndarray] = []
    found: list[np.ndarray] = []
    hook = net.avgpool.register_forward_hook(lambda _, __, out: embeddings.append(out.flatten(1).cpu().numpy()))
    net.eval()
    for x, *_ in batches:
        found.append(net(x.to(best_device())).softmax(1).cpu().numpy())
    hook.remove()
    return np.concatenate(embeddings), np.concatenate(found)


def lightning_folder(crops: Crops, effort: Effort) -> tuple[float, float]:
    """Lightning over torchvision's ImageFolder, written as its documentation writes it: seconds of both."""
    change = transforms.Compose(
        [transforms.Grayscale(), transforms.Resize((effort.size, effort.size)), transforms.ToTensor()]
    )
    data = ImageFolder(str(crops.root), change)
    row_of = {path: row for row, (path, _) in enumerate(data.samples)}
    train, val = (
        _loader(Subset(data, [row_of[crops.paths[row]] for row in rows]), effort.batch, effort.workers, shuffle)
        for rows, shuffle in ((crops.train, True), (crops.val, False))
    )
    model = _Plain(len(crops.classes))
    trainer = L.Trainer(max_epochs=effort.epochs, logger=False, default_root_dir=effort.scratch, devices=1)
    seconds = clocked(lambda: trainer.fit(model, train, val))
    net = model.net.to(best_device())
    every = _loader(data, BATCH, effort.workers, False)
    return seconds, clocked(lambda: _judged(net, every))


class _Plain(L.LightningModule):
    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.net = resnet18(weights=None, num_classes=n_classes)
        self.net.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)

    def training_step(self, batch: Sequence[torch.Tensor], _: int) -> torch.Tensor:
        loss = cross_entropy(self.net(batch[0]), batch[1])
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Sequence[torch.Tensor], _: int) -> None:
        logits = self.net(batch[0])
        right = (logits.argmax(1) == batch[1]).float().mean()
        self.log_dict({"val_loss": cross_entropy(logits, batch[1]), "val_accuracy": right}, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def pythae_vae(images: torch.Tensor, train: np.ndarray, val: np.ndarray, effort: Effort) -> tuple[float, float]:
    """A VAE of pythae, trained by its own trainer: seconds of training, of embedding.

    Trunk and decoder have the layers of ours; the trunk is laid out in memory as torchvision builds it.

    Args:
        images: (N, 1, S, S) in [0, 1], in memory.
        train: rows that train.
        val: rows that validate.
        effort: how long.
    """
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    encoder, decoder = _pythae_parts(effort)
    config = VAEConfig(input_dim=tuple(images.shape[1:]), latent_dim=effort.latent_dim)
    model = VAE(config, encoder=encoder, decoder=decoder)
    how = BaseTrainerConfig(
        output_dir=str(effort.scratch / "pythae"), num_epochs=effort.epochs, learning_rate=1e-3,
        per_device_train_batch_size=effort.batch, per_device_eval_batch_size=effort.batch,
    )  # fmt: skip
    sets = [BaseDataset(images[rows], torch.zeros(len(rows))) for rows in (train, val)]
    trainer = BaseTrainer(model, *sets, how)
    seconds = clocked(trainer.train)
    trained = trainer.model.eval()

    @torch.no_grad()
    def embed() -> None:
        torch.cat([trained.embed(x.to(best_device())).cpu() for x in images.split(BATCH)])

    return seconds, clocked(embed)


def _pythae_parts(effort: Effort) -> tuple[Any, Any]:
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = resnet18(weights=None)
            self.trunk.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
            self.trunk.fc = nn.Identity()
            self.mu, self.logvar = (nn.Linear(FEATURES, effort.latent_dim) for _ in range(2))

        def forward(self, x: torch.Tensor) -> Any:
            features = self.trunk(x)
            return ModelOutput(embedding=self.mu(features), log_covariance=self.logvar(features))

    class Drawing(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.net = Decoder(effort.latent_dim, effort.size)

        def forward(self, z: torch.Tensor) -> Any:
            return ModelOutput(reconstruction=torch.sigmoid(self.net(z)))

    return Encoder(), Drawing()
