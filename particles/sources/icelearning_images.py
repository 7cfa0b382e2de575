"""The image folders of ICELEARNING: which one a path of the author's means, which images have a row, and which none.

A folder is listed when the first row refers to it. Of each image 10 bytes are kept (a 64-bit hash of its name and the
number of the table that claimed it), so that three million fit anywhere. Links are not followed into folders.
"""

import os
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from itertools import islice, takewhile
from operator import attrgetter
from pathlib import Path

import numpy as np
import pandas as pd

from particles.sources.source import SUFFIXES

ALIASES = {"campanian": "camp", "grimsvotn": "grim", "grímsvötn": "grim", "contamination": "cont"}
ABSENT, OUTSIDE, ABSENT_AGAIN = -1, -2, -3
BATCH = 65536
Parts = tuple[str, ...]


def canonical(name: str) -> str:
    """A folder's or class's name as comparisons see it: lower case, and one name a class."""
    return ALIASES.get(name.lower(), name.lower())


def hashes_of(names: np.ndarray) -> np.ndarray:
    """(n,) object text -> (n,) uint64; two of three million names agree by chance once in four million times."""
    return pd.util.hash_array(names, categorize=False)


class Seen:
    """A set of hashes in one sorted array."""

    def __init__(self) -> None:
        self._known = np.empty(0, np.uint64)

    def add(self, hashes: np.ndarray) -> np.ndarray:
        """Put (n,) uint64 in; (n,) bool tells which were in before, or stand earlier among these."""
        again = found_in(self._known, hashes)[1] | pd.Series(hashes).duplicated().to_numpy()
        self._known = np.sort(np.concatenate([self._known, hashes[~again]]), kind="stable")
        return again


def found_in(known: np.ndarray, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places (n,) of hashes in a sorted array, and (n,) bool: whether it is there."""
    places = np.searchsorted(known, hashes).clip(max=max(len(known) - 1, 0))
    return places, known[places] == hashes if len(known) else np.zeros(len(hashes), bool)


def entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """What lies in a folder, without hidden files; nothing of a folder that is closed to us."""
    try:
        with os.scandir(folder) as found:
            yield from (entry for entry in found if not entry.name.startswith("."))
    except OSError:
        return


def walk(root: Path) -> Iterator[tuple[Parts, list[os.DirEntry[str]], list[os.DirEntry[str]]]]:
    """Every folder below a root, parents first and in the order of the names, links not followed.

    Yields:
        Its path below the root, the links to folders in it, the CSV files in it.
    """
    todo: deque[Parts] = deque([()])
    while todo:
        parts = todo.popleft()
        links, tables, below = [], [], []
        for entry in entries(root.joinpath(*parts)):
            if entry.name.lower().endswith(".csv"):
                tables.append(entry)
            elif entry.is_dir(follow_symlinks=False) and is_text(entry.name):
                below.append((*parts, entry.name))
            elif entry.is_symlink() and entry.is_dir() and is_text(entry.name):
                links.append(entry)
        todo.extend(sorted(below))
        by_name = attrgetter("name")
        yield parts, sorted(links, key=by_name), sorted(tables, key=by_name)


def is_inside(root: Path, path: str | Path) -> bool:
    """Whether a path leads to somewhere below a root that is resolved, links followed."""
    return Path(os.path.realpath(path)).is_relative_to(root)


def is_text(name: str) -> bool:
    """Whether the name of a file is UTF-8: others cannot be written into a table."""
    return name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name)


class Listing:
    """The images of one folder, and which table claimed each."""

    def __init__(self, root: Path, folder: Path) -> None:
        self._folder = folder
        outside: list[str] = []
        hashes = [np.empty(0, np.uint64)]
        for batch in _images(folder):
            names = [entry.name for entry in batch if is_text(entry.name)]
            hashes.append(hashes_of(np.array(names, dtype=object)))
            outside += [e.name for e in batch if e.is_symlink() and is_text(e.name) and not is_inside(root, e.path)]
        self._hashes = np.sort(np.concatenate(hashes))
        self._outside = hashes_of(np.array(outside, dtype=object))
        self._claimed = np.zeros(len(self._hashes), np.uint16)
        self._absent = Seen()

    def claim(self, names: np.ndarray, table: int) -> np.ndarray:
        """Claim images for a table.

        Args:
            names: (n,) object text, file names.
            table: its number, from 1 on.

        Returns:
            (n,) int64: the number of the table that had claimed it before, 0 for none, `OUTSIDE`, `ABSENT`, or
            `ABSENT_AGAIN` where it was asked for before.
        """
        hashes = hashes_of(names)
        places, there = found_in(self._hashes, hashes)
        before = np.empty(len(names), np.int64)
        before[~there] = np.where(self._absent.add(hashes[~there]), ABSENT_AGAIN, ABSENT)
        before[there] = self._claimed[places[there]]
        before[(before == 0) & pd.Series(hashes).duplicated().to_numpy()] = table
        self._claimed[places[before == 0]] = table
        before[np.isin(hashes, self._outside)] = OUTSIDE
        return before

    def unclaimed(self) -> Iterator[list[str]]:
        """Names of the images that no table has, batch by batch; of a name that is no text, what can be written."""
        for batch in _images(self._folder):
            names = np.array([entry.name for entry in batch if is_text(entry.name)], dtype=object)
            places, there = found_in(self._hashes, hashes_of(names))
            has_row = there.copy()
            has_row[there] = self._claimed[places[there]] > 0
            garbled = [os.fsencode(entry.name).decode(errors="replace") for entry in batch if not is_text(entry.name)]
            yield sorted(names[~has_row].tolist() + garbled)


def _images(folder: Path) -> Iterator[list[os.DirEntry[str]]]:
    images = (entry for entry in entries(folder) if os.path.splitext(entry.name)[1].lower() in SUFFIXES)
    while batch := list(islice(images, BATCH)):
        yield batch


class Tree:
    """The folders and CSV files below a root (a resolved path)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.listings: dict[Parts, Listing] = {}
        self.tables: list[Parts] = []
        self._folders: dict[str, list[Parts]] = defaultdict(list)
        self._own: set[Parts] = set()
        self._outside: set[Parts] = set()
        for parts, links, tables in walk(root):
            self._own.add(parts)
            self._folders[canonical((root.name, *parts)[-1])].append(parts)
            self.tables += [(*parts, entry.name) for entry in tables if is_text(entry.name)]
            for link in links:
                self._folders[canonical(link.name)].append((*parts, link.name))
                if not is_inside(root, link.path):
                    self._outside.add((*parts, link.name))

    def has_folder(self, parts: Parts) -> bool:
        """Whether there is such a folder below the root."""
        return parts in self._folders.get(canonical((self.root.name, *parts)[-1]), ())

    def folders(self) -> list[Parts]:
        """All below the root, links not followed, and those links that a table has led to."""
        return sorted(self._own | self.listings.keys())

    def listing(self, parts: Parts) -> Listing:
        """The images of a folder, read when first asked for."""
        if parts not in self.listings:
            self.listings[parts] = Listing(self.root, self.root.joinpath(*parts))
        return self.listings[parts]

    def folder_for(self, claimed: str, table: Parts) -> tuple[Parts, str | None]:
        """The folder that agrees with the end of the author's path for the most names.

        Among equals that nearest to the table is meant. Where no name agrees it is the folder that is named like the
        table and lies beside it, or else the table's own.

        Args:
            claimed: the author's path of the folder, with slashes.
            table: path of the CSV file below the root.

        Returns:
            Its path below the root, and why it must not be read (None where it may).
        """
        tail = tuple(part for part in claimed.split("/") if part not in ("", "."))
        if ".." in tail:
            return tail, "its path goes up by '..'"
        known = self._folders.get(canonical(tail[-1]), []) if tail else []
        if not known:
            beside = (*table[:-1], Path(table[-1]).stem)
            known = [beside if self.has_folder(beside) else table[:-1]]
        ranks = [self._rank(parts, tail, table) for parts in known]
        best = [parts for parts, rank in zip(known, ranks, strict=True) if rank == max(ranks)]
        if len(best) > 1:
            return best[0], f"its folder may be {'/'.join(best[0])} or {'/'.join(best[1])}"
        return best[0], "its folder is a link out of the data folder" if best[0] in self._outside else None

    def _rank(self, parts: Parts, tail: Parts, table: Parts) -> tuple[int, int, int]:
        """Names that agree at the end, those that agree to the letter, and at the start with the table's path."""
        own = (*self.root.parts[1:], *parts)[::-1]
        alike = _agreeing([canonical(name) for name in own], [canonical(name) for name in tail[::-1]])
        return alike, _agreeing(own, tail[::-1]), _agreeing(parts, table)


def _agreeing(some: Sequence[str], others: Sequence[str]) -> int:
    """How many names agree before the first that does not."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(some, others, strict=False)))
