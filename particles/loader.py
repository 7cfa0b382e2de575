"""Batches of packed pixels for Lightning: seeded by epoch, augmented as whole batches."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import lightning as L
import numpy as np
import torch
from torch.nn.functional import affine_grid, grid_sample
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler, SequentialSampler

from particles.pixels import PixelStore

Augment = Literal["auto", "none", "dihedral", "affine", "wide-affine"]
Batch = dict[str, torch.Tensor]


class Jitter(NamedTuple):
    """The most that an image is rotated (degrees), shifted (share of its side), zoomed (share) and sheared (slope)."""

    rotation: float
    shift: float
    zoom: float
    shear: float


# Of digits: small enough that a 6 stays a 6. The wide one is as broad as the slants of handwriting themselves, so that
# a latent that undoes it forgets whose hand it was.
JITTER = {"affine": Jitter(10.0, 0.08, 0.10, 0.10), "wide-affine": Jitter(20.0, 0.10, 0.25, 0.50)}


class Part(NamedTuple):
    """What one of several processes takes of a batch: its rows, and their place among all of the batch."""

    rows: list[int]
    start: int
    whole: int


class PixelData(Dataset[Batch]):
    """Images and targets by position in a store; asked for a whole batch at a time."""

    def __init__(
        self,
        pixels: PixelStore,
        positions: np.ndarray,
        targets: np.ndarray | None = None,
        measures: np.ndarray | None = None,
    ) -> None:
        """Choose rows of a store.

        Args:
            pixels: the store.
            positions: (N,) rows of the store.
            targets: (N,) class numbers, -1 for no label; None for training without labels.
            measures: (N, M) what a network should be able to read off the image; None for nothing.
        """
        self.pixels, self.positions = pixels, positions
        self.targets = np.full(len(positions), -1) if targets is None else targets
        self.measures = np.empty((len(positions), 0), np.float32) if measures is None else measures

    def __len__(self) -> int:
        return len(self.positions)

    def __getitems__(self, wanted: list[int] | Part) -> Batch:
        """A batch: `x` (B, 1, S, S) float32 in [0, 1], `y` (B,) int64, `measures` (B, M) float32.

        A part of one has `mine` too, (N,) bool: which of the whole batch's rows these B are.
        """
        rows = wanted.rows if isinstance(wanted, Part) else wanted
        images = self.pixels[self.positions[rows]]
        batch = {
            "x": as_input(images),
            "y": torch.from_numpy(np.asarray(self.targets[rows], dtype=np.int64)),
            "measures": torch.from_numpy(self.measures[rows]),
        }
        if isinstance(wanted, Part):
            place = torch.arange(wanted.whole) - wanted.start
            batch["mine"] = (place >= 0) & (place < len(rows))
        return batch


def as_input(images: np.ndarray) -> torch.Tensor:
    """(B, S, S) uint8 -> (B, 1, S, S) float32 in [0, 1]."""
    return torch.from_numpy(images).unsqueeze(1).float().div_(255)


class EpochSampler(Sampler[int]):
    """A permutation that depends on seed and epoch alone, so that a resumed run sees what an unbroken one would."""

    def __init__(self, n: int, seed: int) -> None:
        self.n, self.seed, self.epoch = n, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.n)
        return iter(order.tolist())


class Parts(Sampler[Part]):
    """What one process takes of every batch, so that all of them together take the batches of one process.

    Parts differ by one row at most. Of a batch with fewer rows than processes some take none, but all take a part.
    """

    def __init__(self, batches: BatchSampler, rank: int, world: int) -> None:
        self.batches, self.rank, self.world = batches, rank, world
        self.sampler = batches.sampler  # where Lightning looks for one whose epoch it should set

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Part]:
        for rows in self.batches:
            start, stop = (len(rows) * r // self.world for r in (self.rank, self.rank + 1))
            yield Part(rows[start:stop], start, len(rows))


class ParticleData(L.LightningDataModule):
    """Train and validation batches; where several processes train, `batch_size` is that of all together.

    No worker processes: gathering a batch from the memory-mapped store costs less than handing it over.
    """

    def __init__(self, train: PixelData, val: PixelData, batch_size: int, seed: int, augment: Augment) -> None:
        super().__init__()
        self.train, self.val = train, val
        self.batch_size, self.seed, self.augment = batch_size, seed, augment

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled by seed and epoch; a last batch of one is dropped, because batch norm cannot take it."""
        sampler = EpochSampler(len(self.train), self.seed)
        drop = len(self.train) > self.batch_size and len(self.train) % self.batch_size == 1
        return self._loader(self.train, sampler, drop)

    def val_dataloader(self) -> DataLoader[Batch]:
        """In the order of the rows."""
        return self._loader(self.val, SequentialSampler(self.val), drop=False)

    def _loader(self, rows: PixelData, sampler: Sampler[int], drop: bool) -> DataLoader[Batch]:
        # a generator of its own: making an iterator must not draw from the state that a resumed run has to repeat
        own: dict[str, Any] = {"collate_fn": _as_is, "generator": torch.Generator()}
        if self.trainer is None or self.trainer.world_size == 1:
            return DataLoader(rows, self.batch_size, sampler=sampler, drop_last=drop, **own)
        batches: Any = BatchSampler(sampler, self.batch_size, drop)
        parts: Any = Parts(batches, self.trainer.global_rank, self.trainer.world_size)
        return DataLoader(rows, batch_sampler=parts, **own)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment training batches where they are used, on the device; `clean` keeps what was not yet augmented."""
        batch["clean"] = batch["x"]
        if self.trainer is not None and self.trainer.training:
            batch["x"] = augmented(batch["x"], self.augment, batch.get("mine"))
        return batch


def _as_is(batch: Any) -> Any:
    """`__getitems__` has collated already; the signature is the one that DataLoader asks for."""
    return batch


def resolve_augment(wanted: Augment, oriented: bool) -> Augment:
    """`auto`: particles in a flow cell have no up or down (dihedral), digits do (small affine)."""
    if wanted != "auto":
        return wanted
    return "affine" if oriented else "dihedral"


def drawn(draw: Callable[[int], torch.Tensor], n: int, mine: torch.Tensor | None) -> torch.Tensor:
    """Random numbers for the rows of a batch; for a part of one, what these rows would have got in the whole batch.

    Args:
        draw: n -> (n, ...), from torch's global random state.
        n: B, rows.
        mine: (N,) bool, which of the whole batch's rows these are; None for all.
    """
    return draw(n) if mine is None else draw(len(mine))[mine]


def augmented(x: torch.Tensor, how: Augment, mine: torch.Tensor | None = None) -> torch.Tensor:
    """Randomly transformed images, drawn from torch's global random state: (B, 1, S, S) -> (B, 1, S, S).

    Args:
        x: (B, 1, S, S).
        how: which transformations.
        mine: (N,) bool, where the images are a part of a batch of N.
    """
    if how == "dihedral":
        return dihedral(x, drawn(lambda n: torch.randint(8, (n,), device=x.device), len(x), mine))
    return affine(x, JITTER[how], mine) if how in JITTER else x


def dihedral(x: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    """Apply one of the square's eight symmetries to each image.

    Args:
        x: (B, 1, S, S).
        which: (B,) integers 0-7: bit 0 transposes, bit 1 flips rows, bit 2 flips columns.
    """
    for bit, change in enumerate((_transposed, _rows_flipped, _columns_flipped)):
        chosen = ((which >> bit) & 1).bool().view(-1, 1, 1, 1)
        x = torch.where(chosen, change(x), x)
    return x


TURNS = 4
_TURNED = torch.tensor([0, 3, 6, 5])  # by 0 to 3 quarters counterclockwise, as symmetries of the square


def turned(x: torch.Tensor, quarters: torch.Tensor) -> torch.Tensor:
    """Each image turned counterclockwise: (B, 1, S, S), (B,) integers 0-3 -> (B, 1, S, S)."""
    return dihedral(x, _TURNED.to(x.device)[quarters])


def _transposed(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(-1, -2)


def _rows_flipped(x: torch.Tensor) -> torch.Tensor:
    return x.flip(-2)


def _columns_flipped(x: torch.Tensor) -> torch.Tensor:
    return x.flip(-1)


def affine(x: torch.Tensor, most: Jitter, mine: torch.Tensor | None = None) -> torch.Tensor:
    """A random rotation, shear, zoom and shift of each image, bilinear, edges repeated: (B, 1, S, S)."""
    if len(x) == 0:  # a part of a batch may be; torch makes no grid of nothing
        return x
    angle, shear, zoom = (_uniform(x, top, mine) for top in (np.deg2rad(most.rotation), most.shear, most.zoom))
    shift = torch.stack([_uniform(x, 2 * most.shift, mine), _uniform(x, 2 * most.shift, mine)], dim=1)
    cos, sin, grow = angle.cos(), angle.sin(), 1 + zoom
    rows = [torch.stack([cos * grow, (shear - sin) * grow], 1), torch.stack([sin * grow, cos * grow], 1)]
    theta = torch.cat([torch.stack(rows, dim=1), shift.unsqueeze(2)], dim=2)  # (B, 2, 3)
    grid = affine_grid(theta, list(x.shape), align_corners=False)
    return grid_sample(x, grid, padding_mode="border", align_corners=False)


def _uniform(like: torch.Tensor, top: float, mine: torch.Tensor | None) -> torch.Tensor:
    return (drawn(lambda n: torch.rand(n, device=like.device), len(like), mine) * 2 - 1) * top


def in_batches(pixels: PixelStore, positions: np.ndarray, batch_size: int) -> Iterator[tuple[slice, torch.Tensor]]:
    """Walk over rows of a store in order: (slice into positions, (B, 1, S, S) float32)."""
    for start in range(0, len(positions), batch_size):
        part = slice(start, min(start + batch_size, len(positions)))
        yield part, as_input(pixels[positions[part]])


def class_numbers(labels: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """Labels as their place in `classes`; -1 for what is not in it: (N,) int64."""
    place = {name: i for i, name in enumerate(classes)}
    return np.array([place.get(label, -1) for label in labels], dtype=np.int64)
