"""Which of the CSV files below a root are tables of particles, in what order they count, and what each is of."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from particles.sources.icelearning_csv import PATHS, Block, Table, lacks_paths, open_table
from particles.sources.icelearning_images import Parts, Tree, canonical, is_inside, walk
from particles.table import rejected_rows
from provenance.errors import UserError

CLASSES = ("dust", "camp", "grim", "corylus", "qrob", "qsub", "cont")
MERGED = "train"
ONE, ZERO = ("1", "1.0", "True", "TRUE"), ("0", "0.0", "False", "FALSE")


@dataclass(frozen=True)
class Listed:
    """A table, its place in the order of reading (from 1 on), and what it is of."""

    table: Table
    number: int
    parts: Parts  # of its path below the root
    label: str | None  # of all its rows

    @property
    def role(self) -> str:
        """Labeled or core."""
        return "labeled" if self.label or self.table.classes else "core"

    @property
    def merges(self) -> bool:
        """Whether it repeats the rows of other tables."""
        return Path(self.parts[-1]).stem.lower() == MERGED and self.role == "labeled"


def is_icelearning(root: Path) -> bool:
    """Whether a table of ICELEARNING lies anywhere below a folder."""
    inside = root.resolve()
    found = (Path(entry.path) for _, _, tables in walk(inside) for entry in tables)
    return any(is_inside(inside, path) and path.is_file() and _is_table(path) for path in found)


def _is_table(path: Path) -> bool:
    try:
        return open_table(path, path.name) is not None
    except UserError:  # a table, or nobody could say what is wrong with it
        return True


def listed_tables(tree: Tree) -> list[Listed]:
    """Labeled ones first, so that a label counts more than what a merged table or the core says of the same image.

    Raises:
        UserError: there is none, or one that cannot be read.
    """
    found = []
    for parts in tree.tables:
        path = tree.root.joinpath(*parts)
        if is_inside(tree.root, path) and path.is_file() and (table := open_table(path, "/".join(parts))):
            label = None if table.classes else _label(tree, parts)
            found.append(Listed(table, 0, parts, label))
    if not found:
        raise UserError(f"{tree.root}: no CSV with the column '{PATHS}' and those of FlowCam; is it the data set?")
    found.sort(key=lambda listed: (listed.role == "core", listed.merges, listed.parts))
    return [replace(listed, number=number) for number, listed in enumerate(found, 1)]


def tables_without_paths(tree: Tree) -> list[str]:
    """Tables of FlowCam below the root that do not say which images their rows are of, by their names below it."""
    paths = ("/".join(parts) for parts in tree.tables)
    return [name for name in paths if is_inside(tree.root, tree.root / name) and lacks_paths(tree.root / name)]


def rejected_tables(names: Sequence[str]) -> pd.DataFrame:
    """A row for each of `tables_without_paths`, so that they are listed with what else cannot be used."""
    reason = f"a table without the column '{PATHS}': whose rows?"
    return rejected_rows([*names], [*names], [reason] * len(names), "core")


def _label(tree: Tree, parts: Parts) -> str | None:
    """The class of a table without class columns, by its name and where it lies; None for the core."""
    stem, above = Path(parts[-1]).stem, (tree.root.name, *parts[:-1])
    if "test" in (name.lower() for name in above) or stem.lower().startswith(("grip", "qcy")):
        return None
    for name in (stem, above[-1]):
        if canonical(name) in CLASSES:
            return canonical(name)
    return stem if tree.has_folder((*parts[:-1], stem)) else None


def labels_of(listed: Listed, block: Block, reject: np.ndarray) -> np.ndarray:
    """(n,) class names or None; rows that have no class or several get a reason in `reject`."""
    classes = listed.table.classes
    if not classes:
        return np.full(len(block.frame), listed.label, dtype=object)
    texts = block.frame[list(classes)].fillna("").to_numpy(dtype=object)
    hot = np.isin(texts, ONE)
    one = (hot.sum(axis=1) == 1) & (hot | np.isin(texts, ZERO)).all(axis=1)
    for row in np.flatnonzero(~one):
        values = ", ".join(f"{name} {text[:20]}" for name, text in zip(classes, texts[row], strict=True))
        where = f"{listed.table.name}:{block.lines[row]}"
        reject[row] = reject[row] or f"{where}: of its class columns exactly one must be 1, the others 0: {values}"
    names = [canonical(name) if canonical(name) in CLASSES else name for name in classes]
    return np.asarray(np.where(one, np.array(names, dtype=object)[hot.argmax(axis=1)], None))
