"""A trained classifier over a packed set of any length: shard by shard, a part a shard, then all parts in one file.

Memory holds one shard. A part is written whole or not at all and depends on its shard alone, so that a killed
classification goes on with the first part that is missing and ends with the same bytes as one that was not killed.
"""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import torch

from encoders.arithmetic import keep_memory
from encoders.classifier import ClassifierTraining
from encoders.encode import device_of
from encoders.two_branch import TwoBranchTraining
from particles.loader import as_input
from particles.pixels import PixelStore
from particles.scalars import SCALARS
from provenance.errors import UserError
from provenance.files import read_json, replacing, write_json
from provenance.progress import progress

BATCH = 256
"""Images at once. Every part is cut into batches from its start, so that a row always has the same company."""
RESULT = "predictions.parquet"

_CARRIED = {
    "particle_id": pa.string(), "sample": pa.string(), "core": pa.string(), "bag": pa.int64(), "top_cm": pa.float64(),
    "bottom_cm": pa.float64(), "repeat": pa.int64(), "volume_ml": pa.float64(),
}  # fmt: skip


class Judge:
    """A trained classifier in use: images and scalars -> embedding and probabilities. Nothing in it is fitted again."""

    def __init__(self, model: TwoBranchTraining | ClassifierTraining, bf16: bool = False) -> None:
        """Take a model as it is.

        Args:
            model: where it lies decides where it computes.
            bf16: multiply in bfloat16; faster on a processor that has it, and exact to two or three digits.
        """
        keep_memory()
        self.model, self.bf16, self.classes = model.eval(), bf16, list(model.classes)
        self.size = int(model.hparams["size"])
        torch.backends.cudnn.deterministic = True  # the same bytes from every run on the same device

    def __call__(self, images: np.ndarray, scalars: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Judge a batch.

        Args:
            images: (B, S, S) uint8.
            scalars: (B, 34) float32, NaN where missing.

        Returns:
            Embedding (B, D) and probabilities (B, C), float32.
        """
        device = device_of(self.model)
        x, values = as_input(images).to(device), torch.from_numpy(scalars).to(device)
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
            if isinstance(self.model, TwoBranchTraining):
                embedding, logits = self.model.net(x, values)
            else:
                embedding = self.model.net.trunk(x)
                logits = self.model.net.head(embedding)
        return embedding.float().cpu().numpy(), logits.float().softmax(dim=1).cpu().numpy()


def scalars_of(rows: pd.DataFrame) -> np.ndarray:
    """The 34 scalars of N rows, in their order: (N, 34) float32, NaN where missing."""
    return rows.reindex(columns=list(SCALARS)).to_numpy(dtype=np.float32, na_value=np.nan, copy=True)


class Shards:
    """A packed set, shard by shard, without ever holding its table."""

    def __init__(self, folder: Path) -> None:
        """Open a set.

        Raises:
            UserError: its table and its pixels do not fit together, or cannot be read.
        """
        count = int(read_json(folder / "set.json")["shards"])
        self._paths = [folder / "pixels" / f"{number:05d}.npy" for number in range(count)]
        self._starts = np.cumsum([0] + [len(PixelStore([path])) for path in self._paths])
        try:
            self._table = pq.ParquetFile(folder / "table.parquet")
        except (OSError, pa.ArrowInvalid) as error:
            raise UserError(f"{folder / 'table.parquet'}: {error}; delete the set's folder and run again") from error
        meta = self._table.metadata
        groups = [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]
        self._group_starts = np.cumsum([0, *groups])
        if meta.num_rows != self._starts[-1]:
            raise UserError(f"{folder}: its table and its pixels differ in length; delete the folder and run again")

    def __len__(self) -> int:
        return len(self._paths)

    def pixels(self, number: int) -> PixelStore:
        """The images of a shard, memory-mapped."""
        return PixelStore([self._paths[number]])

    def rows(self, number: int, columns: list[str]) -> pd.DataFrame:
        """Those of `columns` that the set has, of a shard's rows."""
        first, last = self._starts[number], self._starts[number + 1]
        # a row group is a shard in sets written now; in older ones a shard lies somewhere within a longer group
        groups = np.flatnonzero((self._group_starts[:-1] < last) & (self._group_starts[1:] > first)).tolist()
        there = [name for name in columns if name in self._table.schema_arrow.names]
        table = self._table.read_row_groups(groups, columns=there)
        offset = int(first - self._group_starts[groups[0]]) if groups else 0
        return table.slice(offset, int(last - first)).to_pandas().reset_index(drop=True)

    def judged(self, number: int, every: bool) -> np.ndarray:
        """(rows of the shard,) bool: which are to be classified, the core or every one."""
        core = (self.rows(number, ["role"])["role"] == "core").to_numpy(dtype=bool)
        return core | every


def classify(judge: Judge, shards: Shards, folder: Path, every: bool, as_csv: bool) -> None:
    """Classify a set into `predictions.parquet`, going on where an earlier call with the same arguments was killed.

    Args:
        judge: the classifier.
        shards: the set.
        folder: gets the result (and `predictions.csv`), and `metrics.json` with the count of each class.
        every: classify all rows, not those of the core alone.
        as_csv: write CSV too.

    Raises:
        UserError: there is nothing to classify, or the images have another size than those learned from.
    """
    for left in folder.glob(".predictions.*"):  # half a result of a killed call
        left.unlink()
    parts = [folder / "parts" / f"{number:05d}.parquet" for number in range(len(shards))]
    if not (folder / RESULT).exists():
        _write_parts(judge, shards, parts, every)
        _join(parts, folder, judge.classes)
    if as_csv and not (folder / "predictions.csv").exists():
        _write_csv(folder)
    shutil.rmtree(folder / "parts", ignore_errors=True)


def _write_parts(judge: Judge, shards: Shards, parts: list[Path], every: bool) -> None:
    counts = [int(shards.judged(number, every).sum()) for number in range(len(shards))]
    if not sum(counts):
        raise UserError("no row of this set belongs to a core: give --all-rows, or the core with --core")
    if judge.size != shards.pixels(0).size:
        raise UserError(f"the model was trained on {judge.size} px images, this data has {shards.pixels(0).size} px: "
                        f"give --size {judge.size}")  # fmt: skip
    done = sum(count for part, count in zip(parts, counts, strict=True) if part.exists())
    with progress() as bars:
        bar = bars.add_task("classifying", total=sum(counts), completed=done)
        for number, part in enumerate(parts):
            if not part.exists():
                table = _part(judge, shards, number, every, lambda n: bars.advance(bar, n))
                with replacing(part) as beside:
                    pq.write_table(table, beside)


def _part(judge: Judge, shards: Shards, number: int, every: bool, tick: Callable[[int], None]) -> pa.Table:
    """What the model makes of a shard's rows."""
    places = np.flatnonzero(shards.judged(number, every))
    rows = shards.rows(number, [*_CARRIED, *SCALARS]).iloc[places].reset_index(drop=True)
    scalars, pixels = scalars_of(rows), shards.pixels(number)
    found = [judge(pixels[places[:0]], scalars[:0])]  # so that a shard without a core has columns too
    for start in range(0, len(places), BATCH):
        step = slice(start, min(start + BATCH, len(places)))
        found.append(judge(pixels[places[step]], scalars[step]))
        tick(step.stop - step.start)
    z, p = (np.concatenate(values) for values in zip(*found, strict=True))
    return _as_table(rows, z, p, judge.classes)


def _as_table(rows: pd.DataFrame, z: np.ndarray, p: np.ndarray, classes: list[str]) -> pa.Table:
    carried = rows.reindex(columns=list(_CARRIED))
    columns = {name: pa.array(carried[name], kind, from_pandas=True) for name, kind in _CARRIED.items()}
    columns["predicted"] = pa.array([classes[i] for i in p.argmax(axis=1)], pa.string())
    columns["confidence"] = pa.array(p.max(axis=1))
    columns |= {f"prob_{name}": pa.array(p[:, i]) for i, name in enumerate(classes)}
    digits = len(str(z.shape[1] - 1))
    return pa.table(columns | {f"e{i:0{digits}d}": pa.array(z[:, i]) for i in range(z.shape[1])})


def _join(parts: list[Path], folder: Path, classes: list[str]) -> None:
    """All parts as one file, a part at a time; the file comes last, because its presence says that all is done."""
    counts: Counter[str] = Counter()
    schema = pq.read_schema(parts[0])
    with replacing(folder / RESULT) as beside:
        with pq.ParquetWriter(beside, schema) as writer:
            for part in parts:
                table = pq.read_table(part)
                counts.update(table["predicted"].to_pylist())
                writer.write_table(table)
        found = {"n": counts.total(), "predicted": {name: counts[name] for name in classes}}
        write_json(folder / "metrics.json", found)


def _write_csv(folder: Path) -> None:
    with (
        pq.ParquetFile(folder / RESULT) as file,
        replacing(folder / "predictions.csv") as beside,
        pa_csv.CSVWriter(beside, file.schema_arrow) as writer,
    ):
        for batch in file.iter_batches(batch_size=4096):
            writer.write_batch(batch)
